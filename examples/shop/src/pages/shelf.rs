//! First page, search and product pages.

use maud::{Markup, html};

use super::{Frame, page, picture};
use crate::{assets, cart::QUANTITY_MAX, catalogue::Product};

/// From how few on a page says how many are left.
const FEW: u32 = 10;
/// Pictures of a grid that a browser fetches at once; it fetches the others when they come near.
const EAGER: usize = 4;

/// The first page.
pub fn home(frame: &Frame, products: &[Product]) -> Markup {
    let content = html! {
        section.hero aria-labelledby="welcome" {
            div {
                h1 #welcome { "Write it down before it drifts away." }
                p { "Paper, ink and a few good tools, for margins, letters and long evenings." }
            }
            img src=(assets::HERO.href()) alt="" width="720" height="480";
        }
        h2.hidden { "Everything in the shop" }
        (grid(products))
    };
    page(frame, "Paper, ink and good tools", content)
}

/// What a search has found; what was searched for is in the frame.
pub fn search(frame: &Frame, found: &[Product]) -> Markup {
    let content = html! {
        @if frame.query.is_empty() {
            h1 { "What are you looking for?" }
            p.soft { "Type a word into the field above: a thing, a colour, a material." }
        } @else if found.is_empty() {
            div.empty {
                h1 { "Nothing for “" (frame.query) "”" }
                p.lead { "Try another word, or fewer of them." }
                p { a.button href="/" { "See everything" } }
            }
        } @else {
            h1 { "“" (frame.query) "”" }
            p.soft { (found.len()) @if found.len() == 1 { " thing" } @else { " things" } " found" }
            h2.hidden { "Found" }
            (grid(found))
        }
    };
    page(frame, "Search", content)
}

fn grid(products: &[Product]) -> Markup {
    html! {
        ul.grid {
            @for (index, product) in products.iter().enumerate() {
                li.tile {
                    div.frame {
                        img src=(picture(product)) alt="" width="400" height="400" loading=[(index >= EAGER).then_some("lazy")];
                    }
                    h3 { a href={ "/products/" (product.slug) } { (product.name) } }
                    p.soft { (product.kind) }
                    p.price { (product.price) }
                }
            }
        }
    }
}

/// The page of a product, of which there are `left`, and of which the cart has `in_cart`.
pub fn product(frame: &Frame, product: &Product, left: u32, in_cart: Option<u32>) -> Markup {
    let most = left.min(QUANTITY_MAX);
    let content = html! {
        p.crumbs { a href="/" { "← All things" } }
        article.product {
            div.frame { img src=(picture(product)) alt={ (product.name) } width="400" height="400"; }
            div {
                h1 { (product.name) }
                p.soft { (product.kind) }
                p.price { (product.price) }
                p { (product.story) }
                @if left == 0 {
                    p.notice.bad { "Sold out for now." }
                } @else {
                    form.buy method="post" action="/cart" {
                        input type="hidden" name="product" value=(product.slug);
                        div.field {
                            label for="quantity" { "Quantity" }
                            input #quantity type="number" name="quantity" value=(in_cart.unwrap_or(1).min(most)) min="1" max=(most) inputmode="numeric" required;
                        }
                        button.button { @if in_cart.is_some() { "Update cart" } @else { "Put into cart" } }
                    }
                }
                @if let Some(quantity) = in_cart {
                    p.hint { (quantity) " in your " a href="/cart" { "cart" } "." }
                } @else if left > 0 && left <= FEW {
                    p.hint { "Only " (left) " left." }
                }
                ul.facts { @for fact in &product.facts { li { (fact) } } }
            }
        }
    };
    page(frame, &product.name, content)
}
