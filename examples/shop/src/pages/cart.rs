//! Cart and checkout pages.

use maud::{Markup, html};

use super::{Frame, page, picture};
use crate::{
    cart::{self, CartId, QUANTITY_MAX},
    catalogue::Product,
    money::Cents,
    order::{DELIVER_TO_CHARS_MAX, Shortage},
};

/// The cart, and what of it there is not enough of.
pub fn cart(frame: &Frame, lines: &[(Product, u32)], missing: &[Shortage]) -> Markup {
    let content = html! {
        @if lines.is_empty() {
            div.empty {
                h1 { "Your cart is empty" }
                p.lead { "Blank pages have their charm, too." }
                p { a.button href="/" { "Look around" } }
            }
        } @else {
            h1 { "Your cart" }
            @if !missing.is_empty() { (sold_out(missing)) }
            div.split {
                ul.lines { @for (product, quantity) in lines { (line(product, *quantity)) } }
                section.card aria-label="Summary" {
                    (totals(lines))
                    a.button.wide href="/checkout" { "Go to checkout" }
                }
            }
        }
    };
    page(frame, "Your cart", content)
}

fn sold_out(missing: &[Shortage]) -> Markup {
    html! {
        div.notice.bad role="alert" {
            p { "Nothing was ordered yet: there is not enough of everything." }
            ul {
                @for shortage in missing {
                    li {
                        @if shortage.left == 0 { (shortage.name) " is sold out. Take it out to order the rest." }
                        @else { "Only " (shortage.left) " of " (shortage.name) " left. Lower its quantity to order." }
                    }
                }
            }
        }
    }
}

fn line(product: &Product, quantity: u32) -> Markup {
    let field = format!("quantity-{}", product.slug);
    html! {
        li {
            img src=(picture(product)) alt="" width="88" height="88";
            h2 { a href={ "/products/" (product.slug) } { (product.name) } }
            span.sum.num { (product.price.times(quantity)) }
            div.tools {
                form method="post" action="/cart" {
                    input type="hidden" name="product" value=(product.slug);
                    label.hidden for=(field) { "Quantity of " (product.name) }
                    input id=(field) type="number" name="quantity" value=(quantity) min="0" max=(QUANTITY_MAX) inputmode="numeric" required;
                    button.button.quiet.small { "Set" span.hidden { " the quantity of " (product.name) } }
                }
                form method="post" action="/cart" {
                    input type="hidden" name="product" value=(product.slug);
                    input type="hidden" name="quantity" value="0";
                    button.link { "Remove" span.hidden { " " (product.name) } }
                }
            }
        }
    }
}

fn totals(lines: &[(Product, u32)]) -> Markup {
    html! {
        h2 { "Summary" }
        dl.totals {
            dt { "Things" } dd { (lines.iter().map(|(_, quantity)| quantity).sum::<u32>()) }
            dt { "Delivery" } dd { "Free" }
            dt.all { "Total" } dd.all { (total(lines)) }
        }
    }
}

fn total(lines: &[(Product, u32)]) -> Cents {
    lines.iter().map(|(product, quantity)| product.price.times(*quantity)).sum()
}

/// The last page before an order. `why` says what was wrong with an address.
pub fn checkout(
    frame: &Frame,
    id: &CartId,
    lines: &[(Product, u32)],
    deliver_to: &str,
    why: Option<&str>,
) -> Markup {
    let content = html! {
        h1 { "Checkout" }
        div.split {
            section.card aria-label="Delivery" {
                form method="post" action="/checkout" {
                    input type="hidden" name="cart" value=(id);
                    input type="hidden" name="seen" value=(cart::seen(lines));
                    div.field {
                        label for="deliver_to" { "Deliver to" }
                        textarea #deliver_to name="deliver_to" rows="5" maxlength=(DELIVER_TO_CHARS_MAX) required
                            autocomplete="shipping street-address" aria-describedby="deliver_hint" aria-invalid=[why.map(|_| "true")]
                            { (deliver_to) }
                        @if let Some(why) = why { p.hint.notice.bad role="alert" { (why) } }
                        p.hint #deliver_hint { "Name, street, town, country: as it would stand on an envelope." }
                    }
                    button.button.wide { "Place order for " (total(lines)) }
                    p.hint { "Pressing twice is safe: one cart makes one order." }
                }
            }
            section.card aria-label="Summary" {
                (totals(lines))
                ul.lines {
                    @for (product, quantity) in lines {
                        li {
                            img src=(picture(product)) alt="" width="88" height="88";
                            h2 { (product.name) }
                            span.sum.num { (product.price.times(*quantity)) }
                            p.text.soft { (quantity) " × " (product.price) }
                        }
                    }
                }
                p { a href="/cart" { "Change the cart" } }
            }
        }
    };
    page(frame, "Checkout", content)
}
