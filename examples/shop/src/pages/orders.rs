//! A user's orders, and one of them.

use maud::{Markup, html};

use super::{Frame, drawing, page};
use crate::{date, order::Order};

/// Some orders, newest first.
pub fn list(frame: &Frame, orders: &[Order], more: bool) -> Markup {
    let content = html! {
        @if orders.is_empty() {
            div.empty {
                h1 { "No orders yet" }
                p.lead { "Every shelf begins with one thing." }
                p { a.button href="/" { "Look around" } }
            }
        } @else {
            h1 { "Your orders" }
            ul.orders {
                @for order in orders {
                    li.card {
                        h2 { a href={ "/orders/" (order.id) } { "Order " (order.id.short()) } }
                        p.sum.num { (order.total()) }
                        p.soft.text { (date::text(order.placed_at)) }
                        p.text { (summary(order)) }
                    }
                }
            }
            @if let (true, Some(last)) = (more, orders.last()) {
                p.more { a.button.quiet href={ "/orders?after=" (last.id) } { "Older orders" } }
            }
        }
        form.more method="post" action="/sign-out-everywhere" {
            button.link { "Sign out on all devices" }
        }
    };
    page(frame, "Your orders", content)
}

fn summary(order: &Order) -> String {
    let things = order.lines.iter().map(|line| match line.quantity {
        1 => line.name.clone(),
        quantity => format!("{quantity} × {}", line.name),
    });
    things.collect::<Vec<_>>().join(", ")
}

/// One order.
pub fn order(frame: &Frame, order: &Order) -> Markup {
    let content = html! {
        p.crumbs { a href="/orders" { "← Your orders" } }
        h1 { "Order " (order.id.short()) }
        p.soft { "Placed on " (date::text(order.placed_at)) }
        div.split {
            ul.lines {
                @for line in &order.lines {
                    li {
                        img src=(drawing(&line.slug)) alt="" width="88" height="88";
                        h2 { a href={ "/products/" (line.slug) } { (line.name) } }
                        span.sum.num { (line.price.times(line.quantity)) }
                        p.text.soft { (line.quantity) " × " (line.price) }
                    }
                }
            }
            section.card aria-label="Summary" {
                h2 { "Summary" }
                dl.totals {
                    dt { "Delivery" } dd { "Free" }
                    dt.all { "Total" } dd.all { (order.total()) }
                }
                h2 { "Deliver to" }
                address { (order.deliver_to) }
            }
        }
    };
    page(frame, &format!("Order {}", order.id.short()), content)
}
