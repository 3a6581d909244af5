//! The pages: what every one of them has around its content, notices after a redirect, and failures in the
//! same look. All text of visitors goes through `maud`, which escapes it.

pub mod admin;
pub mod cart;
pub mod door;
pub mod orders;
pub mod shelf;

use axum::{
    extract::{Request, State},
    http::header,
    middleware::Next,
    response::{IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::{assets, catalogue::Product, error::Failure, shop::Shop};

/// The name of the shop.
pub const SHOP: &str = "Marginalia";

/// What a page shows around its content.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// Who is signed in.
    pub user: Option<String>,
    /// Whether that is the admin.
    pub admin: bool,
    /// How many things are in the cart.
    pub cart_count: u32,
    /// What the last action did.
    pub notice: Option<Notice>,
    /// What is in the search field.
    pub query: String,
    /// The worker that answers.
    pub instance: String,
}

/// What an action did, said on the page that its redirect leads to. Only these words can be said: an address
/// from a stranger cannot put others into the shop's mouth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The cart was changed.
    Updated,
    /// The cart has no room for another product.
    Full,
    /// The checkout page was older than the cart.
    Stale,
    /// The order is placed.
    Ordered,
    /// An account was made.
    Welcome,
    /// The visitor has signed out.
    SignedOut,
    /// The visitor has signed out on all devices.
    SignedOutEverywhere,
    /// A photo was uploaded.
    Hung,
    /// A photo was removed.
    TakenDown,
    /// Stock was set.
    Stocked,
}

impl Notice {
    const ALL: [(Self, &'static str, &'static str); 10] = [
        (Self::Updated, "updated", "Your cart is up to date."),
        (
            Self::Full,
            "full",
            "Your cart has no room for another kind of thing. Order it, or take something out.",
        ),
        (
            Self::Stale,
            "stale",
            "Your cart or a price has changed since you opened that page, so nothing was ordered. This is your cart now.",
        ),
        (Self::Ordered, "ordered", "Thank you! Your order is placed."),
        (Self::Welcome, "welcome", "Welcome to Marginalia. Your account is ready."),
        (Self::SignedOut, "signed-out", "You have signed out."),
        (Self::SignedOutEverywhere, "signed-out-everywhere", "You have signed out on all your devices."),
        (Self::Hung, "hung", "The photo is on the shelf."),
        (Self::TakenDown, "taken-down", "The drawing is back."),
        (Self::Stocked, "stocked", "The stock is set."),
    ];

    /// Reads the word of an address.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, other, _)| *other == word).map(|(notice, ..)| *notice)
    }

    /// An address that shows this notice at `path`.
    pub fn at(self, path: &str) -> String {
        let word = self.entry().1;
        format!("{path}{}notice={word}", if path.contains('?') { '&' } else { '?' })
    }

    fn entry(self) -> &'static (Self, &'static str, &'static str) {
        let found = Self::ALL.iter().find(|(notice, ..)| *notice == self);
        found.unwrap_or(&Self::ALL[0]) // Every notice is in the list; a test sees to it.
    }
}

/// A whole page.
pub fn page(frame: &Frame, title: &str, content: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="theme-color" media="(prefers-color-scheme: light)" content="#fffdf8";
                meta name="theme-color" media="(prefers-color-scheme: dark)" content="#1d2124";
                title { (title) " · " (SHOP) }
                link rel="stylesheet" href=(assets::STYLE.href());
                link rel="icon" type="image/svg+xml" href=(assets::ICON.href());
            }
            body {
                a.skip href="#content" { "Skip to the content" }
                (head(frame))
                main #content .wrap tabindex="-1" {
                    @if let Some(notice) = frame.notice { (said(notice)) }
                    (content)
                }
                footer.foot {
                    div.wrap {
                        p { "Marginalia, for people who write things down. A demonstration: nothing is charged or sent." }
                        p { "Served by worker " code { (frame.instance) } }
                    }
                }
            }
        }
    }
}

fn head(frame: &Frame) -> Markup {
    html! {
        header.top {
            div.wrap {
                a.brand href="/" { (SEAL) (SHOP) }
                nav aria-label="Account and cart" {
                    ul {
                        @if frame.user.is_some() {
                            @if frame.admin { li { a href="/admin" { "Stock room" } } }
                            li { a href="/orders" { "Orders" } }
                            li { form method="post" action="/sign-out" { button { "Sign out" } } }
                        } @else {
                            li { a href="/sign-in" { "Sign in" } }
                        }
                        li {
                            a href="/cart" {
                                "Cart"
                                @if frame.cart_count > 0 {
                                    span.count { (frame.cart_count) span.hidden { " in it" } }
                                }
                            }
                        }
                    }
                }
                form.search role="search" action="/search" {
                    label.hidden for="q" { "Search the shop" }
                    input #q type="search" name="q" value=(frame.query) placeholder="Ink, paper, pencils…" maxlength="100" autocomplete="off";
                    button { "Search" }
                }
            }
        }
    }
}

fn said(notice: Notice) -> Markup {
    let bad = matches!(notice, Notice::Full | Notice::Stale);
    html! { div.notice.bad[bad] role="status" { p { (notice.entry().2) } } }
}

/// The address of a product's picture: its photo, or its drawing.
pub fn picture(product: &Product) -> String {
    match &product.photo {
        Some(etag) => format!("/photos/{}?v={etag}", product.slug),
        None => drawing(&product.slug),
    }
}

/// The address of a product's drawing; the shop's sign for one that has none.
pub fn drawing(slug: &str) -> String {
    assets::drawing(slug).unwrap_or(&assets::ICON).href()
}

/// Turns a response that carries a [`Failure`] into a page that says so. Other responses pass.
pub async fn dress(State(shop): State<Shop>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let Some(failure) = response.extensions_mut().remove::<Failure>() else { return response };
    let frame = Frame { instance: shop.config.instance.clone(), ..Frame::default() };
    let content = html! {
        div.error {
            p.code { (failure.status.as_u16()) }
            h1 { (failure.title) }
            p.lead { (failure.text) }
            p { a.button href="/" { "Back to the shop" } }
        }
    };
    let mut page = (failure.status, page(&frame, failure.title, content)).into_response();
    let kept = response.headers().iter().filter(|(name, _)| **name != header::CONTENT_LENGTH);
    for (name, value) in kept {
        page.headers_mut().append(name.clone(), value.clone());
    }
    page
}

const SEAL: PreEscaped<&str> = PreEscaped(
    "<svg viewBox=\"0 0 64 64\" aria-hidden=\"true\" focusable=\"false\">\
     <path d=\"M31 3c11-2 25 3 28 15 6 10 2 22-4 29-7 12-23 17-35 11C8 54 0 41 4 28 6 14 18 4 31 3z\" fill=\"#a83a32\"/>\
     <path d=\"M19 45V20l13 15 13-15v25\" fill=\"none\" stroke=\"#f8ddd4\" stroke-width=\"6\" stroke-linecap=\"round\" \
     stroke-linejoin=\"round\"/></svg>",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_known_by_its_word_and_nothing_else_is_said() {
        for (notice, word, _) in Notice::ALL {
            assert_eq!(Notice::parse(word), Some(notice));
            assert_eq!(notice.entry().1, word);
        }
        assert_eq!(Notice::parse("<b>"), None);
        assert_eq!(Notice::Updated.at("/cart"), "/cart?notice=updated");
        assert_eq!(Notice::Welcome.at("/search?q=ink"), "/search?q=ink&notice=welcome");
    }
}
