//! Orders. One is kept under its user and the id of the cart it was made of, and is written in one batch with
//! the stock it takes: so a checkout that comes twice, or on two workers at once, finds the order of the
//! first.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::try_join_all;
use lethe::{State, counter::Counter, table::Table};
use serde::{Deserialize, Serialize};

use crate::{
    cart::{Cart, CartId},
    catalogue::Catalogue,
    date,
    error::Error,
    money::Cents,
};

/// How often an order is tried again when other orders took of the same stock meanwhile. At each try one of
/// the rivals succeeded, so this is also how many rivals at once one order can stand.
pub const PLACE_TRIES_MAX: u32 = 64;
/// From this try on, an order steps back for a moment, so that rivals do not keep in step.
const PLACE_TRIES_EAGER: u32 = 4;
/// Longest step back.
const STEP_BACK_MAX: Duration = Duration::from_millis(16);
/// Orders on one page of a user's history.
pub const ORDERS_PAGE: usize = 20;
/// Longest delivery address, in characters.
pub const DELIVER_TO_CHARS_MAX: usize = 400;

/// An order. It is written once and never changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The id of the cart that it was made of.
    pub id: CartId,
    /// When, in milliseconds since the Unix epoch.
    pub placed_at: u64,
    /// What was bought.
    pub lines: Vec<Line>,
    /// Name and address.
    pub deliver_to: String,
}

/// So many of one product, at the name and price of that day.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The product.
    pub slug: String,
    /// Its name.
    pub name: String,
    /// How many.
    pub quantity: u32,
    /// The price of one.
    pub price: Cents,
}

impl Order {
    /// What all of it costs.
    pub fn total(&self) -> Cents {
        self.lines.iter().map(|line| line.price.times(line.quantity)).sum()
    }
}

/// What became of a checkout.
#[derive(Clone, Debug, PartialEq)]
pub enum Placed {
    /// The order is there: made now, or by an earlier try of the same checkout.
    Order(Order),
    /// There is not enough of these; nothing was ordered.
    SoldOut(Vec<Shortage>),
}

/// A product of which there is less than wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// The product's name.
    pub name: String,
    /// How many are left.
    pub left: u32,
}

/// The orders of the shop. Cheap to clone.
#[derive(Clone)]
pub struct Orders {
    state: State,
    table: Table<Order>,
    placed: Counter,
    catalogue: Catalogue,
}

impl Orders {
    /// The orders in this state, of what the catalogue offers.
    pub fn new(state: &State, catalogue: Catalogue) -> Self {
        let (table, placed) = (state.table("orders"), state.counter("counters", "orders"));
        Self { state: state.clone(), table, placed, catalogue }
    }

    /// An order of this user, or `None`. A stranger's order has another key and is never found.
    pub async fn get(&self, user: &str, id: &CartId) -> Result<Option<Order>, Error> {
        Ok(self.table.get(&key(user, id)).await?.map(|stored| stored.value))
    }

    /// Some orders of this user, newest first, beginning after the order `after`; and whether there are more.
    pub async fn page(&self, user: &str, after: Option<&CartId>) -> Result<(Vec<Order>, bool), Error> {
        let prefix = format!("{user}/");
        let mut scan = self.table.scan(&prefix).limit(ORDERS_PAGE);
        if let Some(after) = after {
            scan = scan.after(key(user, after));
        }
        let page = scan.page().await?;
        Ok((page.rows.into_iter().map(|row| row.value).collect(), page.next.is_some()))
    }

    /// How many orders the shop has had.
    pub async fn count(&self) -> Result<i64, Error> {
        Ok(self.placed.get().await?)
    }

    /// Orders what is in a cart that has an id. However often it is called for one cart, at once or one after
    /// the other, there is one order, and stock is taken once.
    ///
    /// A dropped or failed call may have ordered or not; calling again finds out and goes on.
    pub async fn place(
        &self,
        user: &str,
        id: &CartId,
        cart: &Cart,
        deliver_to: &str,
    ) -> Result<Placed, Error> {
        for tries in 0..PLACE_TRIES_MAX {
            if let Some(order) = self.get(user, id).await? {
                return Ok(Placed::Order(order));
            }
            if let Some(placed) = self.try_place(user, id, cart, deliver_to).await? {
                return Ok(placed);
            }
            if tries >= PLACE_TRIES_EAGER {
                tokio::time::sleep(step_back()?).await;
            }
        }
        Err(Error::Busy)
    }

    /// One try; `None` when another order was faster, of this cart or of the same stock.
    async fn try_place(
        &self,
        user: &str,
        id: &CartId,
        cart: &Cart,
        deliver_to: &str,
    ) -> Result<Option<Placed>, Error> {
        let wanted = try_join_all(cart.lines.iter().map(|(slug, quantity)| async move {
            let product = self.catalogue.get_now(slug).await?;
            let stock = self.catalogue.stock(slug).await?;
            Ok::<_, Error>((slug, *quantity, product, stock))
        }))
        .await?;
        let mut lines = Vec::with_capacity(wanted.len());
        let mut missing = Vec::new();
        let mut taken = BTreeMap::new();
        for (slug, quantity, product, stock) in wanted {
            let name = product.as_ref().map_or(slug, |product| &product.name).clone();
            match (product, stock) {
                (Some(product), Some(stock)) if stock.value.left >= quantity => {
                    lines.push(Line { slug: slug.clone(), name, quantity, price: product.price });
                    taken.insert(slug, (stock, quantity));
                }
                (_, stock) => {
                    missing.push(Shortage { name, left: stock.map_or(0, |stock| stock.value.left) })
                }
            }
        }
        if !missing.is_empty() {
            return Ok(Some(Placed::SoldOut(missing)));
        }
        let order =
            Order { id: id.clone(), placed_at: date::now_ms(), lines, deliver_to: deliver_to.to_owned() };
        let mut batch = self.state.batch().insert(&self.table, &key(user, id), &order)?;
        for (stock, quantity) in taken.values() {
            let mut less = stock.value;
            less.left -= quantity;
            batch = batch.put_if(self.catalogue.stock_table(), stock, &less)?;
        }
        match batch.add(&self.placed, 1).commit().await {
            Ok(_) => Ok(Some(Placed::Order(order))),
            Err(lethe::Error::Conflict { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn key(user: &str, id: &CartId) -> String {
    format!("{user}/{id}")
}

fn step_back() -> Result<Duration, Error> {
    let mut byte = [0];
    getrandom::fill(&mut byte).map_err(|error| Error::internal(&error))?;
    Ok(STEP_BACK_MAX * u32::from(byte[0]) / 255)
}
