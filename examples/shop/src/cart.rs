//! The cart: what a visitor means to buy, kept as one field of the session. Quantities are set, never added
//! to, so that a request that comes twice changes nothing the second time.
//!
//! A cart has an id, and an order is kept under it: that is what makes checkout happen once. A cart goes
//! `empty → filled (an id is drawn) → ordered (a new, empty cart takes its place)`.

use std::{collections::BTreeMap, fmt};

use lethe::session::Session;
use serde::{Deserialize, Serialize};

use crate::{assets, catalogue::Product, date, error::Error, order::Order};

/// The session field that holds the cart.
pub const FIELD: &str = "cart";
/// Most different products in a cart; an order with as many fits one batch.
pub const LINES_MAX: usize = 40;
/// Most of one product in a cart.
pub const QUANTITY_MAX: u32 = 99;

/// Names a cart, and the order that is made of it: 32 hexadecimal digits. The first twelve count milliseconds
/// down from the end of time, so that newer ones sort first; 80 random bits follow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CartId(String);

impl CartId {
    const TIME_MAX: u64 = (1 << 48) - 1;

    /// A new id.
    pub fn draw() -> Result<Self, Error> {
        let mut random = [0; 10];
        getrandom::fill(&mut random).map_err(|error| Error::internal(&error))?;
        let time = Self::TIME_MAX.saturating_sub(date::now_ms());
        let tail: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self(format!("{time:012x}{tail}")))
    }

    /// Reads the text form; `None` when it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == 32 && text.bytes().all(hex)).then(|| Self(text.to_owned()))
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a customer calls the order: eight characters to read out loud.
    pub fn short(&self) -> String {
        let tail = self.0[24..].to_ascii_uppercase();
        format!("{}-{}", &tail[..4], &tail[4..])
    }
}

impl TryFrom<String> for CartId {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("a cart id has 32 hexadecimal digits")
    }
}

impl From<CartId> for String {
    fn from(id: CartId) -> Self {
        id.0
    }
}

impl fmt::Display for CartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a visitor means to buy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cart {
    /// Its id; `None` until something is put into it.
    pub id: Option<CartId>,
    /// How many of which product, by slug. Never 0.
    pub lines: BTreeMap<String, u32>,
}

/// Why a line could not be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Cart {
    /// The cart of a session.
    pub fn of(session: &Session) -> Result<Self, Error> {
        Ok(session.get(FIELD)?.unwrap_or_default())
    }

    /// How many things are in it.
    pub fn count(&self) -> u32 {
        self.lines.values().sum()
    }

    /// Sets how many of a product are in it; 0 takes it out, more than [`QUANTITY_MAX`] is cut. A cart that
    /// has no id yet gets `fresh`.
    pub fn set(&mut self, slug: &str, quantity: u32, fresh: &CartId) -> Result<(), Full> {
        if quantity == 0 {
            self.lines.remove(slug);
            return Ok(());
        }
        if !self.lines.contains_key(slug) && self.lines.len() >= LINES_MAX {
            return Err(Full);
        }
        self.lines.insert(slug.to_owned(), quantity.min(QUANTITY_MAX));
        self.id.get_or_insert_with(|| fresh.clone());
        Ok(())
    }

    /// Takes out what an order has taken, if the order was made of this cart. What was put in since stays, in
    /// a cart with the id `fresh`. Safe to repeat.
    pub fn settle(&mut self, order: &Order, fresh: &CartId) {
        if self.id.as_ref() != Some(&order.id) {
            return;
        }
        for line in &order.lines {
            if let Some(quantity) = self.lines.get_mut(&line.slug) {
                *quantity = quantity.saturating_sub(line.quantity);
            }
        }
        self.lines.retain(|_, quantity| *quantity > 0);
        self.id = (!self.lines.is_empty()).then(|| fresh.clone());
    }
}

/// Tells what a page has shown of a cart: products, quantities and prices. The checkout form carries it, so
/// that what is ordered is what was seen.
pub fn seen(lines: &[(Product, u32)]) -> String {
    let shown =
        lines.iter().map(|(product, quantity)| format!("{}*{quantity}@{}\n", product.slug, product.price.0));
    format!("{:016x}", assets::fnv1a(shown.collect::<String>().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{money::Cents, order::Line};

    fn id(digit: char) -> CartId {
        CartId::parse(&String::from(digit).repeat(32)).unwrap()
    }

    fn order(lines: &[(&str, u32)]) -> Order {
        let line = |(slug, quantity): &(&str, u32)| Line {
            slug: (*slug).into(),
            name: (*slug).into(),
            quantity: *quantity,
            price: Cents(100),
        };
        Order {
            id: id('a'),
            placed_at: 0,
            lines: lines.iter().map(line).collect(),
            deliver_to: String::new(),
        }
    }

    #[test]
    fn setting_a_quantity_twice_is_setting_it_once() {
        let mut cart = Cart::default();
        cart.set("ink", 3, &id('a')).unwrap();
        let once = cart.clone();
        cart.set("ink", 3, &id('b')).unwrap();
        assert_eq!(cart, once);
        assert_eq!((cart.count(), cart.id), (3, Some(id('a'))));
    }

    #[test]
    fn a_cart_has_bounds() {
        let mut cart = Cart::default();
        for number in 0..LINES_MAX {
            cart.set(&format!("thing-{number}"), 1, &id('a')).unwrap();
        }
        assert_eq!(cart.set("one-more", 1, &id('a')), Err(Full));
        cart.set("thing-0", 1000, &id('a')).unwrap();
        assert_eq!(cart.lines["thing-0"], QUANTITY_MAX);
        cart.set("thing-1", 0, &id('a')).unwrap();
        cart.set("one-more", 1, &id('a')).unwrap();
    }

    #[test]
    fn an_order_empties_its_own_cart_once_and_no_other() {
        let mut cart = Cart::default();
        cart.set("ink", 2, &id('a')).unwrap();
        cart.set("pen", 1, &id('a')).unwrap();
        let ordered = order(&[("ink", 2)]);
        cart.settle(&ordered, &id('b'));
        assert_eq!(cart.lines.keys().collect::<Vec<_>>(), ["pen"], "what came later stays");
        assert_eq!(cart.id, Some(id('b')));
        let after = cart.clone();
        cart.settle(&ordered, &id('c'));
        assert_eq!(cart, after, "the order was made of another cart");
        let mut plain = Cart { id: Some(id('a')), lines: [("ink".to_owned(), 2)].into() };
        plain.settle(&ordered, &id('b'));
        assert_eq!(plain, Cart::default());
    }

    #[test]
    fn ids_are_strict_and_newer_ones_sort_first() {
        assert!(CartId::parse("../../etc").is_none() && CartId::parse(&"A".repeat(32)).is_none());
        let (one, two) = (CartId::draw().unwrap(), CartId::draw().unwrap());
        assert_ne!(one, two);
        assert_eq!(CartId::parse(one.as_str()), Some(one.clone()));
        assert!(two.as_str()[..12] <= one.as_str()[..12]);
        assert_eq!(id('a').short(), "AAAA-AAAA");
    }
}
