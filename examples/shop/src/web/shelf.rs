//! The shelf: first page, search, products and their photos.

use axum::{
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use maud::Markup;
use serde::Deserialize;

use super::{
    form::Asked,
    tally::Tally,
    visitor::{Shopper, Visitor},
};
use crate::{cart::Cart, error::Error, pages, shop::Shop};

/// `GET /`
pub async fn home(State(shop): State<Shop>, visitor: Visitor) -> Result<Markup, Error> {
    Ok(pages::shelf::home(&visitor.frame, &shop.catalogue.all().await?))
}

/// What is searched for.
#[derive(Default, Deserialize)]
pub struct Search {
    #[serde(default)]
    q: String,
}

/// `GET /search?q=`
pub async fn search(
    State(shop): State<Shop>,
    mut visitor: Visitor,
    Asked(search): Asked<Search>,
) -> Result<Markup, Error> {
    let query = search.q.trim();
    let found = shop.catalogue.search(query).await?;
    visitor.frame.query = query.to_owned();
    Ok(pages::shelf::search(&visitor.frame, &found))
}

/// `GET /products/{slug}`
pub async fn product(
    State(shop): State<Shop>,
    shopper: Shopper,
    Path(slug): Path<String>,
) -> Result<(Tally, Markup), Error> {
    let product = shop.catalogue.get(&slug).await?.ok_or(Error::NotFound)?;
    let left = shop.catalogue.stock(&slug).await?.map_or(0, |stock| stock.value.left);
    let cart = Cart::of(&shopper.session)?;
    let in_cart = cart.lines.get(&slug).copied();
    let page = pages::shelf::product(&shopper.frame, &product, left, in_cart);
    Ok((shopper.tally(&cart), page))
}

/// Which version of a photo a page shows.
#[derive(Default, Deserialize)]
pub struct Version {
    v: Option<String>,
}

/// `GET /photos/{slug}?v={etag}`. A browser may keep it for ever under the tag that is its own.
pub async fn photo(
    State(shop): State<Shop>,
    Path(slug): Path<String>,
    Asked(version): Asked<Version>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let mut response = shop.photos.response(&slug, &headers).await?;
    if response.status() == StatusCode::NOT_FOUND {
        return Err(Error::NotFound);
    }
    let own = response
        .headers()
        .get(header::ETAG)
        .and_then(|tag| tag.to_str().ok())
        .map(|tag| tag.trim_matches('"'));
    let kept = own.is_some() && version.v.as_deref() == own;
    let keep = if kept { "public, max-age=31536000, immutable" } else { "no-cache" };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(keep));
    Ok(response)
}
