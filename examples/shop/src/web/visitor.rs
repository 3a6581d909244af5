//! The visitor of a page: their session, and what every page shows of it.

use axum::{
    extract::{FromRequestParts, Query},
    http::request::Parts,
};
use lethe::session::Session;
use serde::Deserialize;

use crate::{
    cart::Cart,
    error::Error,
    pages::{Frame, Notice},
    shop::Shop,
};

/// Who asks for a page.
pub struct Visitor {
    /// Their session.
    pub session: Session,
    /// What the page around the content needs.
    pub frame: Frame,
}

impl Visitor {
    /// Who is signed in.
    pub fn user(&self) -> Option<&str> {
        self.frame.user.as_deref()
    }

    /// Passes only the admin.
    pub fn require_admin(&self) -> Result<(), Error> {
        if self.frame.admin { Ok(()) } else { Err(Error::Forbidden) }
    }
}

/// What a redirect says on the page it leads to. It is in the address and not in the session: so a page that
/// has to be fetched twice, because a worker died, still says it.
#[derive(Deserialize)]
struct Said {
    notice: Option<String>,
}

impl FromRequestParts<Shop> for Visitor {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, shop: &Shop) -> Result<Self, Error> {
        let session = Session::from_request_parts(parts, shop).await?;
        let said = Query::<Said>::try_from_uri(&parts.uri).ok().and_then(|Query(said)| said.notice);
        let user = session.user();
        let frame = Frame {
            admin: shop.is_admin(user.as_deref()),
            user,
            cart_count: Cart::of(&session)?.count(),
            notice: said.as_deref().and_then(Notice::parse),
            query: String::new(),
            instance: shop.config.instance.clone(),
        };
        Ok(Self { session, frame })
    }
}
