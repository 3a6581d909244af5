//! Who asks for a page, and what every page shows of them. Pages that only need to know who it is ask the pass that the
//! browser brings, and nobody else; what is in the session is looked up for pages that show it, and for all that changes
//! something, so that nothing is decided by what a pass says.

use axum::{
    extract::{FromRequestParts, Query},
    http::request::Parts,
};
use lethe::session::{Session, Who};
use serde::Deserialize;

use super::tally::Tally;
use crate::{
    cart::Cart,
    error::Error,
    pages::{Frame, Notice},
    shop::Shop,
};

/// Who asks for a page that shows nothing of their session.
pub struct Visitor {
    /// What the page around the content needs.
    pub frame: Frame,
}

impl Visitor {
    /// Who is signed in.
    pub fn user(&self) -> Option<&str> {
        self.frame.user.as_deref()
    }
}

impl FromRequestParts<Shop> for Visitor {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, shop: &Shop) -> Result<Self, Error> {
        let Who(user) = Who::from_request_parts(parts, shop).await?;
        let Ok(tally) = Tally::from_request_parts(parts, shop).await;
        Ok(Self { frame: frame(parts, shop, user, tally.said()) })
    }
}

/// Who asks for a page that shows what is in their session, or for something to be changed.
pub struct Shopper {
    /// Their session.
    pub session: Session,
    /// What the page around the content needs.
    pub frame: Frame,
    tally: Tally,
}

impl Shopper {
    /// Who is signed in.
    pub fn user(&self) -> Option<&str> {
        self.frame.user.as_deref()
    }

    /// Passes only the admin.
    pub fn require_admin(&self) -> Result<(), Error> {
        if self.frame.admin { Ok(()) } else { Err(Error::Forbidden) }
    }

    /// Part of the answer: how much is in the cart now, for the pages to come.
    pub fn tally(&self, cart: &Cart) -> Tally {
        self.tally.is_now(cart.count())
    }
}

impl FromRequestParts<Shop> for Shopper {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, shop: &Shop) -> Result<Self, Error> {
        let session = Session::from_request_parts(parts, shop).await?;
        let Ok(tally) = Tally::from_request_parts(parts, shop).await;
        let frame = frame(parts, shop, session.user(), Cart::of(&session)?.count());
        Ok(Self { session, frame, tally })
    }
}

/// What a redirect says on the page it leads to. It is in the address and not in the session: so a page that
/// has to be fetched twice, because a worker died, still says it.
#[derive(Deserialize)]
struct Said {
    notice: Option<String>,
}

fn frame(parts: &Parts, shop: &Shop, user: Option<String>, cart_count: u32) -> Frame {
    let said = Query::<Said>::try_from_uri(&parts.uri).ok().and_then(|Query(said)| said.notice);
    Frame {
        admin: shop.is_admin(user.as_deref()),
        user,
        cart_count,
        notice: said.as_deref().and_then(Notice::parse),
        query: String::new(),
        instance: shop.config.instance.clone(),
    }
}
