//! The stock room: photos and stock, for the admin alone.

use axum::{
    extract::{Multipart, Path, State, multipart::MultipartRejection},
    response::Redirect,
};
use futures_util::future::try_join_all;
use maud::Markup;
use serde::Deserialize;

use super::{form::Posted, visitor::Shopper};
use crate::{
    error::Error,
    pages::{self, Notice},
    photo,
    shop::Shop,
};

/// `GET /admin`
pub async fn stock_room(State(shop): State<Shop>, shopper: Shopper) -> Result<Markup, Error> {
    shopper.require_admin()?;
    let products = shop.catalogue.all_now().await?;
    let rows = try_join_all(products.into_iter().map(|product| async {
        let left = shop.catalogue.stock(&product.slug).await?.map_or(0, |stock| stock.value.left);
        Ok::<_, Error>((product, left))
    }))
    .await?;
    Ok(pages::admin::stock_room(&shopper.frame, &rows, shop.orders.count().await?))
}

/// `POST /admin/products/{slug}/photo` with the file `photo`, as `multipart/form-data`.
pub async fn upload(
    State(shop): State<Shop>,
    shopper: Shopper,
    Path(slug): Path<String>,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Redirect, Error> {
    shopper.require_admin()?;
    let missing = || Error::Form("There was no photo in it. Choose a file and send it again.".into());
    let mut form = form.map_err(|_| missing())?;
    while let Some(field) = form.next_field().await.map_err(|_| missing())? {
        if field.name() == Some("photo") {
            photo::upload(&shop.photos, &shop.catalogue, &slug, field).await?;
            return Ok(Redirect::to(&Notice::Hung.at("/admin")));
        }
    }
    Err(missing())
}

/// `POST /admin/products/{slug}/photo/remove`: shows the drawing again.
pub async fn remove_photo(
    State(shop): State<Shop>,
    shopper: Shopper,
    Path(slug): Path<String>,
) -> Result<Redirect, Error> {
    shopper.require_admin()?;
    if !shop.catalogue.set_photo(&slug, None).await? {
        return Err(Error::NotFound);
    }
    shop.photos.delete(&slug).await?;
    Ok(Redirect::to(&Notice::TakenDown.at("/admin")))
}

/// How many there are.
#[derive(Deserialize)]
pub struct SetStock {
    left: u32,
}

/// `POST /admin/products/{slug}/stock` with `left`.
pub async fn set_stock(
    State(shop): State<Shop>,
    shopper: Shopper,
    Path(slug): Path<String>,
    Posted(form): Posted<SetStock>,
) -> Result<Redirect, Error> {
    shopper.require_admin()?;
    if !shop.catalogue.set_stock(&slug, form.left).await? {
        return Err(Error::NotFound);
    }
    Ok(Redirect::to(&Notice::Stocked.at("/admin")))
}
