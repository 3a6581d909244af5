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
    visitor::Visitor,
};
use crate::{
    account::{Registered, Username},
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
    visitor: Visitor,
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
        visitor.session.sign_in(name.as_str()).await?;
        return Ok(Redirect::to(next).into_response());
    }
    let page = pages::door::sign_in(&visitor.frame, next, Some((&form.name, "Name or password is wrong.")));
    Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
}

/// `GET /register`
pub async fn register_form(visitor: Visitor, Asked(asked): Asked<Next>) -> Response {
    pages::door::register(&visitor.frame, local_path(&asked.next), None).into_response()
}

/// `POST /register` with `name`, `password`, `next`. It signs in, too.
pub async fn register(
    State(shop): State<Shop>,
    visitor: Visitor,
    Posted(form): Posted<Credentials>,
) -> Result<Response, Error> {
    let next = local_path(&form.next);
    let refuse = |status: StatusCode, why: &str| {
        (status, pages::door::register(&visitor.frame, next, Some((&form.name, why)))).into_response()
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
            visitor.session.sign_in(name.as_str()).await?;
            Ok(Redirect::to(&Notice::Welcome.at(next)).into_response())
        }
    }
}

/// `POST /sign-out`
pub async fn sign_out(visitor: Visitor) -> Result<Redirect, Error> {
    visitor.session.sign_out().await?;
    Ok(Redirect::to(&Notice::SignedOut.at("/")))
}

fn sentence(rule: &str) -> String {
    let mut letters = rule.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).chain(['.']).collect()
}
