//! The door: registering, signing in and out. A wrong name and a wrong password get the same answer after the
//! same work.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use lethe::address::ClientAddress;
use serde::Deserialize;

use super::{
    form::{Asked, Posted, local_path},
    tally::Tally,
    visitor::{Shopper, Visitor},
};
use crate::{
    account::{Registered, Username},
    cart::Cart,
    error::Error,
    pages::{self, Notice},
    password,
    shop::Shop,
};

/// Where to go afterwards.
#[derive(Default, Deserialize)]
pub struct Next {
    #[serde(default)]
    next: String,
}

/// Name and password, and where to go afterwards.
#[derive(Deserialize)]
pub struct Credentials {
    name: String,
    password: String,
    #[serde(default)]
    next: String,
}

/// `GET /sign-in`
pub async fn sign_in_form(visitor: Visitor, Asked(asked): Asked<Next>) -> Response {
    pages::door::sign_in(&visitor.frame, local_path(&asked.next), None).into_response()
}

/// `POST /sign-in` with `name`, `password`, `next`. Each try counts, whatever comes of it.
pub async fn sign_in(
    State(shop): State<Shop>,
    shopper: Shopper,
    address: ClientAddress,
    Posted(form): Posted<Credentials>,
) -> Result<Response, Error> {
    let next = local_path(&form.next);
    let name = Username::parse(&form.name);
    shop.tries.count(address, name.as_ref()).await?;
    let fits = form.password.len() <= password::PASSWORD_BYTES_MAX;
    if fits
        && shop.accounts.verify(name.as_ref(), form.password).await?
        && let Some(name) = name
    {
        return Ok((enter(&shopper, &name).await?, Redirect::to(next)).into_response());
    }
    let page = pages::door::sign_in(&shopper.frame, next, Some((&form.name, "Name or password is wrong.")));
    Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
}

/// `GET /register`
pub async fn register_form(visitor: Visitor, Asked(asked): Asked<Next>) -> Response {
    pages::door::register(&visitor.frame, local_path(&asked.next), None).into_response()
}

/// `POST /register` with `name`, `password`, `next`. It signs in, too.
pub async fn register(
    State(shop): State<Shop>,
    shopper: Shopper,
    Posted(form): Posted<Credentials>,
) -> Result<Response, Error> {
    let next = local_path(&form.next);
    let refuse = |status: StatusCode, why: &str| {
        (status, pages::door::register(&shopper.frame, next, Some((&form.name, why)))).into_response()
    };
    let Some(name) = Username::parse(&form.name) else {
        return Ok(refuse(StatusCode::UNPROCESSABLE_ENTITY, &sentence(Username::RULE)));
    };
    if !password::acceptable(&form.password) {
        return Ok(refuse(StatusCode::UNPROCESSABLE_ENTITY, &sentence(password::RULE)));
    }
    if form.password.to_lowercase() == name.as_str() {
        return Ok(refuse(StatusCode::UNPROCESSABLE_ENTITY, "The password must not be the name."));
    }
    // The admin's name is never given away, not even before the admin's account is set up.
    let registered = if name == shop.config.admin {
        Registered::Taken
    } else {
        shop.accounts.register(&name, form.password.clone()).await?
    };
    match registered {
        Registered::Taken => Ok(refuse(StatusCode::CONFLICT, "That name is taken. Choose another one.")),
        Registered::Done => {
            let to = Redirect::to(&Notice::Welcome.at(next));
            Ok((enter(&shopper, &name).await?, to).into_response())
        }
    }
}

/// Signs in whoever has proven to be this user; what was in the cart stays there, unless somebody else had put it in.
async fn enter(shopper: &Shopper, name: &Username) -> Result<Tally, Error> {
    shopper.session.sign_in(name.as_str()).await?;
    Ok(shopper.tally(&Cart::of(&shopper.session)?))
}

/// `POST /sign-out`
pub async fn sign_out(shopper: Shopper) -> Result<(Tally, Redirect), Error> {
    shopper.session.sign_out().await?;
    Ok((shopper.tally(&Cart::default()), Redirect::to(&Notice::SignedOut.at("/"))))
}

/// `POST /sign-out-everywhere`: ends the user's sessions on all devices, this one last: so if the worker dies half-way, the
/// request that comes again knows the user still, or there is nothing left to do.
pub async fn sign_out_everywhere(
    State(shop): State<Shop>,
    shopper: Shopper,
) -> Result<(Tally, Redirect), Error> {
    if let Some(user) = shopper.user() {
        shop.accounts.sign_out_everywhere(user).await?;
    }
    shopper.session.sign_out().await?;
    Ok((shopper.tally(&Cart::default()), Redirect::to(&Notice::SignedOutEverywhere.at("/"))))
}

fn sentence(rule: &str) -> String {
    let mut letters = rule.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).chain(['.']).collect()
}
