//! The stock room.

use maud::{Markup, html};

use super::{Frame, page, picture};
use crate::{catalogue::Product, photo::PHOTO_BYTES_MAX};

/// All products with how many are left, and how many orders there have been.
pub fn stock_room(frame: &Frame, rows: &[(Product, u32)], orders: i64) -> Markup {
    let content = html! {
        h1 { "Stock room" }
        p.soft {
            (orders) @if orders == 1 { " order" } @else { " orders" } " so far. Photos: JPEG, PNG or WebP, up to "
            (PHOTO_BYTES_MAX >> 20) " MiB."
        }
        ul.stockroom { @for (product, left) in rows { (row(product, *left)) } }
    };
    page(frame, "Stock room", content)
}

fn row(product: &Product, left: u32) -> Markup {
    let action = format!("/admin/products/{}", product.slug);
    let (photo, stock) = (format!("photo-{}", product.slug), format!("stock-{}", product.slug));
    html! {
        li.card {
            img src=(picture(product)) alt="" width="72" height="72" loading="lazy";
            div {
                h2 { a href={ "/products/" (product.slug) } { (product.name) } }
                @if product.photo.is_some() {
                    form method="post" action={ (action) "/photo/remove" } {
                        button.link { "Show the drawing again" span.hidden { " for " (product.name) } }
                    }
                } @else {
                    p.soft { "Shows its drawing" }
                }
            }
            div.tools {
                form method="post" action={ (action) "/photo" } enctype="multipart/form-data" {
                    label for=(photo) { "Photo" span.hidden { " of " (product.name) } }
                    input id=(photo) type="file" name="photo" accept="image/jpeg,image/png,image/webp" required;
                    button.button.quiet { "Upload" }
                }
                form method="post" action={ (action) "/stock" } {
                    label for=(stock) { "In stock" span.hidden { " of " (product.name) } }
                    input id=(stock) type="number" name="left" value=(left) min="0" max=(u32::MAX) inputmode="numeric" required;
                    button.button.quiet { "Set" }
                }
            }
        }
    }
}
