//! From the cart to the order, and the orders of a user. See `order` for why an order happens once.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use lethe::session::Session;
use maud::Markup;
use serde::Deserialize;

use super::{
    form::{Asked, Posted},
    tally::Tally,
    visitor::{Shopper, Visitor},
};
use crate::{
    cart::{self, Cart, CartId},
    catalogue::Product,
    error::Error,
    order::{self, Order, Placed},
    pages::{self, Notice},
    shop::Shop,
};

/// `GET /cart`
pub async fn cart(State(shop): State<Shop>, mut shopper: Shopper) -> Result<(Tally, Markup), Error> {
    let cart = current(&shop, &mut shopper).await?;
    let lines = filled(&cart, &shop.catalogue.all().await?);
    Ok((shopper.tally(&cart), pages::cart::cart(&shopper.frame, &lines, &[])))
}

/// A product and how many of it.
#[derive(Deserialize)]
pub struct SetLine {
    product: String,
    quantity: u32,
}

/// `POST /cart` with `product`, `quantity`: sets how many are in the cart; 0 takes it out.
pub async fn set_line(
    State(shop): State<Shop>,
    mut shopper: Shopper,
    Posted(form): Posted<SetLine>,
) -> Result<(Tally, Redirect), Error> {
    current(&shop, &mut shopper).await?;
    if form.quantity > 0 && shop.catalogue.get(&form.product).await?.is_none() {
        return Err(Error::NotFound);
    }
    let fresh = CartId::draw()?;
    let mut full = Ok(());
    let set = |cart: &mut Cart| full = cart.set(&form.product, form.quantity, &fresh);
    let cart = shopper.session.update(cart::FIELD, set).await?;
    let notice = if full.is_ok() { Notice::Updated } else { Notice::Full };
    Ok((shopper.tally(&cart), Redirect::to(&notice.at("/cart"))))
}

/// `GET /checkout`
pub async fn form(State(shop): State<Shop>, mut shopper: Shopper) -> Result<Response, Error> {
    let cart = current(&shop, &mut shopper).await?;
    if shopper.user().is_none() {
        return Ok(Redirect::to("/sign-in?next=/checkout").into_response());
    }
    match &cart.id {
        Some(id) if !cart.lines.is_empty() => {
            let lines = filled(&cart, &shop.catalogue.all().await?);
            let page = pages::cart::checkout(&shopper.frame, id, &lines, "", None);
            Ok((shopper.tally(&cart), page).into_response())
        }
        _ => Ok(Redirect::to("/cart").into_response()),
    }
}

/// Which cart is ordered, and where it goes.
#[derive(Deserialize)]
pub struct Checkout {
    cart: String,
    seen: String,
    deliver_to: String,
}

/// `POST /checkout` with `cart`, `seen`, `deliver_to`: orders that cart, once, and leads to its order. The
/// form carries the cart's id and what the page has shown of it, so that a tab left open cannot order
/// anything else.
pub async fn place(
    State(shop): State<Shop>,
    shopper: Shopper,
    Posted(form): Posted<Checkout>,
) -> Result<Response, Error> {
    let Some(user) = shopper.user() else {
        return Ok(Redirect::to("/sign-in?next=/checkout").into_response());
    };
    let id = CartId::parse(&form.cart).ok_or_else(|| {
        Error::Form("The page was not whole. Open your cart and go to the checkout again.".into())
    })?;
    if let Some(order) = shop.orders.get(user, &id).await? {
        return finish(&shopper, &order).await;
    }
    let cart = Cart::of(&shopper.session)?;
    // What the page has shown is compared with what there is, not with what other pages show.
    let lines = filled(&cart, &shop.catalogue.all_now().await?);
    if cart.id.as_ref() != Some(&id) || lines.is_empty() || cart::seen(&lines) != form.seen {
        return Ok(Redirect::to(&Notice::Stale.at("/cart")).into_response());
    }
    let deliver_to = form.deliver_to.trim().replace("\r\n", "\n");
    if deliver_to.is_empty() || deliver_to.chars().count() > order::DELIVER_TO_CHARS_MAX {
        let why = "Write a name and an address, in up to 400 characters.";
        let page = pages::cart::checkout(&shopper.frame, &id, &lines, &deliver_to, Some(why));
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    match shop.orders.place(user, &id, &cart, &deliver_to).await? {
        Placed::Order(order) => finish(&shopper, &order).await,
        Placed::SoldOut(missing) => {
            let page = pages::cart::cart(&shopper.frame, &lines, &missing);
            Ok((StatusCode::CONFLICT, page).into_response())
        }
    }
}

/// Gives the session a new cart and leads to the order.
async fn finish(shopper: &Shopper, order: &Order) -> Result<Response, Error> {
    let cart = settle(&shopper.session, order).await?;
    let to = Redirect::to(&Notice::Ordered.at(&format!("/orders/{}", order.id)));
    Ok((shopper.tally(&cart), to).into_response())
}

/// The page of a user's orders to begin with.
#[derive(Default, Deserialize)]
pub struct After {
    after: Option<String>,
}

/// `GET /orders?after=`
pub async fn orders(
    State(shop): State<Shop>,
    visitor: Visitor,
    Asked(asked): Asked<After>,
) -> Result<Response, Error> {
    let Some(user) = visitor.user() else {
        return Ok(Redirect::to("/sign-in?next=/orders").into_response());
    };
    let after = asked.after.and_then(|text| CartId::parse(&text));
    let (orders, more) = shop.orders.page(user, after.as_ref()).await?;
    Ok(pages::orders::list(&visitor.frame, &orders, more).into_response())
}

/// `GET /orders/{id}`, for its owner; a stranger gets the same 404 as for no order at all.
pub async fn order(
    State(shop): State<Shop>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let Some(user) = visitor.user() else {
        let id = CartId::parse(&id).ok_or(Error::NotFound)?;
        return Ok(Redirect::to(&format!("/sign-in?next=/orders/{id}")).into_response());
    };
    let id = CartId::parse(&id).ok_or(Error::NotFound)?;
    let order = shop.orders.get(user, &id).await?.ok_or(Error::NotFound)?;
    Ok(pages::orders::order(&visitor.frame, &order).into_response())
}

/// The shopper's cart. A worker may have died between writing an order and emptying its cart: then the order
/// is there, and the cart is settled now.
async fn current(shop: &Shop, shopper: &mut Shopper) -> Result<Cart, Error> {
    let cart = Cart::of(&shopper.session)?;
    let (Some(user), Some(id)) = (shopper.user(), &cart.id) else { return Ok(cart) };
    let Some(order) = shop.orders.get(user, id).await? else { return Ok(cart) };
    let cart = settle(&shopper.session, &order).await?;
    shopper.frame.cart_count = cart.count();
    Ok(cart)
}

async fn settle(session: &Session, order: &Order) -> Result<Cart, Error> {
    let fresh = CartId::draw()?;
    Ok(session.update(cart::FIELD, |cart: &mut Cart| cart.settle(order, &fresh)).await?)
}

/// The lines of a cart with their products, in the order of the catalogue. What is not sold any more is left
/// out.
fn filled(cart: &Cart, products: &[Product]) -> Vec<(Product, u32)> {
    let line = |product: &Product| Some((product.clone(), *cart.lines.get(&product.slug)?));
    products.iter().filter_map(line).collect()
}
