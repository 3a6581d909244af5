//! The catalogue: what the shop sells, kept in a table. Pages show it as a cache has it, which is read once for all workers,
//! lies in the memory of each, and is thrown away when something changes; an order is made of the rows themselves.

pub mod range;

use std::{sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use lethe::{
    State,
    cache::Cache,
    table::{Stored, Table},
};
use serde::{Deserialize, Serialize};

use crate::{error::Error, fold::fold, money::Cents};

/// Most products of the shop that pages show.
pub const PRODUCTS_MAX: usize = 1000;
/// Longest search, in characters; the rest is not looked at.
pub const QUERY_CHARS_MAX: usize = 100;
/// How long pages show the catalogue as it was read. What changes it through the shop is shown at once; this is for rows
/// that somebody changes by hand.
const FRESH: Duration = Duration::from_secs(300);
/// How long they go on to while it is read anew, or cannot be.
const STALE: Duration = Duration::from_secs(3600);
/// The one key of the cache.
const ALL: &str = "all";

/// A thing for sale. Its row's key is its slug.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Product {
    /// Its name in addresses: letters a to z, digits and `-`.
    pub slug: String,
    /// Its name.
    pub name: String,
    /// What it is, in a few words.
    pub kind: String,
    /// What to know of it, in a few sentences.
    pub story: String,
    /// Measures, materials.
    pub facts: Vec<String>,
    /// The price of one.
    pub price: Cents,
    /// Where it stands in the catalogue, counted from 0.
    pub place: u32,
    /// The entity tag of its photo, when the admin has uploaded one; else its drawing is shown.
    #[serde(default)]
    pub photo: Option<String>,
}

/// How many of a product there are. Its own row, so that an order does not touch what pages read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    /// How many are left.
    pub left: u32,
}

/// The products and their stock. Cheap to clone.
#[derive(Clone)]
pub struct Catalogue {
    products: Table<Product>,
    stock: Table<Stock>,
    shown: Cache<Vec<Product>>,
}

impl Catalogue {
    /// The catalogue in this state: two tables, and a cache of what pages show of the first.
    pub fn new(state: &State) -> Self {
        Self {
            products: state.table("products"),
            stock: state.table("stock"),
            shown: state.cache("catalogue").fresh(FRESH).stale(STALE),
        }
    }

    /// Puts the range on the shelves, `stock` of each. What is there already stays as it is, so that
    /// any number of workers may do this at once, at any time.
    pub async fn seed(&self, stock: u32) -> Result<(), Error> {
        let present = self.products.scan("").limit(PRODUCTS_MAX).page().await?;
        let missing = range::products()
            .into_iter()
            .filter(|product| !present.rows.iter().any(|row| row.key == product.slug));
        // Stock comes first: a product that can be seen can be bought.
        let inserted = try_join_all(missing.map(|product| async move {
            self.stock.insert(&product.slug, &Stock { left: stock }).await?;
            self.products.insert(&product.slug, &product).await
        }))
        .await?;
        if inserted.contains(&true) {
            self.shown.remove(ALL).await?;
        }
        Ok(())
    }

    /// All products, in the order of the catalogue, as pages show them: as they are, or were a second ago.
    pub async fn all(&self) -> Result<Arc<Vec<Product>>, Error> {
        let products = self.products.clone();
        Ok(self.shown.get_or(ALL, move || read(products)).await?)
    }

    /// All products as they are.
    pub async fn all_now(&self) -> Result<Vec<Product>, Error> {
        Ok(read(self.products.clone()).await?)
    }

    /// One product as pages show it, or `None`.
    pub async fn get(&self, slug: &str) -> Result<Option<Product>, Error> {
        Ok(self.all().await?.iter().find(|product| product.slug == slug).cloned())
    }

    /// One product as it is, or `None`.
    pub async fn get_now(&self, slug: &str) -> Result<Option<Product>, Error> {
        if !is_slug(slug) {
            return Ok(None);
        }
        Ok(self.products.get(slug).await?.map(|row| row.value))
    }

    /// What this worker has done with the cache.
    pub fn counts(&self) -> lethe::cache::Counts {
        self.shown.counts()
    }

    /// The products that have every word of `query` in their texts, case and diacritics aside; those
    /// with a word in their name come first. An empty query finds nothing.
    pub async fn search(&self, query: &str) -> Result<Vec<Product>, Error> {
        let words = words(query);
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let all = self.all().await?;
        let mut found: Vec<(bool, &Product)> = all
            .iter()
            .filter_map(|product| matches(product, &words).map(|in_name| (!in_name, product)))
            .collect();
        found.sort_by_key(|(in_text_only, _)| *in_text_only);
        Ok(found.into_iter().map(|(_, product)| product.clone()).collect())
    }

    /// How many are left, with the revision that a change must name; `None` for no such product.
    pub async fn stock(&self, slug: &str) -> Result<Option<Stored<Stock>>, Error> {
        Ok(self.stock.get(slug).await?)
    }

    /// The table of stock rows, for a batch.
    pub fn stock_table(&self) -> &Table<Stock> {
        &self.stock
    }

    /// Sets how many there are. Returns false for no such product.
    pub async fn set_stock(&self, slug: &str, left: u32) -> Result<bool, Error> {
        if self.get_now(slug).await?.is_none() {
            return Ok(false);
        }
        self.stock.put(slug, &Stock { left }).await?;
        Ok(true)
    }

    /// Sets the photo of a product, or takes it away; pages show it when this returns, those of other workers within a second.
    /// Returns false for no such product. Safe to repeat, also when it fails half-way.
    pub async fn set_photo(&self, slug: &str, etag: Option<&str>) -> Result<bool, Error> {
        let photo = etag.map(str::to_owned);
        let product =
            self.products.update(slug, |product: &mut Product| product.photo.clone_from(&photo)).await?;
        // First the row, then the cache: what was read before the change is not kept after it.
        self.shown.remove(ALL).await?;
        Ok(product.is_some())
    }
}

/// Reads the catalogue from its table.
async fn read(products: Table<Product>) -> Result<Vec<Product>, lethe::Error> {
    let page = products.scan("").limit(PRODUCTS_MAX).page().await?;
    let mut products: Vec<Product> = page.rows.into_iter().map(|row| row.value).collect();
    products.sort_by(|one, two| (one.place, &one.slug).cmp(&(two.place, &two.slug)));
    Ok(products)
}

fn is_slug(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn words(query: &str) -> Vec<String> {
    let query: String = query.chars().take(QUERY_CHARS_MAX).collect();
    fold(&query)
        .split(|letter: char| !letter.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Whether a product has all the words: `Some(true)` when one of them is in its name.
fn matches(product: &Product, words: &[String]) -> Option<bool> {
    let name = fold(&product.name);
    let text = fold(&format!("{} {} {}", product.kind, product.story, product.facts.join(" ")));
    let has_all = words.iter().all(|word| name.contains(word) || text.contains(word));
    has_all.then(|| words.iter().any(|word| name.contains(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(query: &str) -> Vec<String> {
        let words = words(query);
        let mut found: Vec<(bool, String)> = range::products()
            .into_iter()
            .filter_map(|product| matches(&product, &words).map(|in_name| (!in_name, product.slug)))
            .collect();
        found.sort_by_key(|(in_text_only, _)| *in_text_only);
        found.into_iter().map(|(_, slug)| slug).collect()
    }

    #[test]
    fn a_search_ignores_case_and_diacritics() {
        for query in ["Crème", "creme", "CRÈME", "  crE\u{300}me  "] {
            assert_eq!(found(query).first().map(String::as_str), Some("creme-letter-paper"), "{query}");
        }
        assert_eq!(found("etude manuscript"), ["etude-manuscript-book"]);
    }

    #[test]
    fn every_word_must_be_there_and_names_come_first() {
        assert!(found("pencil tidewater").is_empty());
        let pencils = found("pencil");
        assert_eq!(pencils.first().map(String::as_str), Some("alder-pencils"));
        assert!(pencils.len() > 1, "other products speak of pencils too: {pencils:?}");
    }

    #[test]
    fn what_is_no_word_finds_nothing() {
        assert!(words("  <>\"'&  ").is_empty());
        assert_eq!(words(&"a ".repeat(500)).len(), QUERY_CHARS_MAX / 2);
    }

    #[test]
    fn slugs_are_plain() {
        assert!(is_slug("night-ink"));
        for text in ["", "Night", "a/b", "..", "a b", "é", &"a".repeat(65)] {
            assert!(!is_slug(text), "{text:?}");
        }
    }
}
