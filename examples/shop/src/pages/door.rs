//! Pages to sign in and to register.

use maud::{Markup, html};

use super::{Frame, page};
use crate::password;

/// The page to sign in; `refused` has the name that was tried and why it was not let in.
pub fn sign_in(frame: &Frame, next: &str, refused: Option<(&str, &str)>) -> Markup {
    let content = html! {
        div.narrow {
            h1 { "Sign in" }
            form.card method="post" action="/sign-in" {
                (fields(next, refused, false))
                button.button.wide { "Sign in" }
            }
            p.more { "New here? " a href=(with_next("/register", next)) { "Make an account" } "." }
        }
    };
    page(frame, "Sign in", content)
}

/// The page to register; `refused` has the name that was tried and why it was not taken.
pub fn register(frame: &Frame, next: &str, refused: Option<(&str, &str)>) -> Markup {
    let content = html! {
        div.narrow {
            h1 { "Make an account" }
            form.card method="post" action="/register" {
                (fields(next, refused, true))
                button.button.wide { "Make account" }
            }
            p.more { "Been here before? " a href=(with_next("/sign-in", next)) { "Sign in" } "." }
        }
    };
    page(frame, "Make an account", content)
}

fn fields(next: &str, refused: Option<(&str, &str)>, new: bool) -> Markup {
    html! {
        @if let Some((_, why)) = refused { div.notice.bad #why role="alert" { p { (why) } } }
        input type="hidden" name="next" value=(next);
        div.field {
            label for="name" { "Name" }
            input #name name="name" value=(refused.map_or("", |(name, _)| name)) required maxlength="64"
                autocomplete="username" autocapitalize="none" spellcheck="false" aria-describedby=[new.then_some("name_hint")];
            @if new { p.hint #name_hint { "3 to 32 letters a to z, digits, - or _" } }
        }
        div.field {
            label for="password" { "Password" }
            input #password type="password" name="password" required minlength=[new.then_some(password::PASSWORD_CHARS_MIN)]
                autocomplete=(if new { "new-password" } else { "current-password" }) aria-describedby=[new.then_some("password_hint")];
            @if new { p.hint #password_hint { "At least " (password::PASSWORD_CHARS_MIN) " characters. A few words in a row do well." } }
        }
    }
}

/// Keeps where to go afterwards. `next` is a local path of plain characters; what would end it here is
/// encoded.
fn with_next(path: &str, next: &str) -> String {
    if next == "/" {
        return path.to_owned();
    }
    format!(
        "{path}?next={}",
        next.replace('%', "%25").replace('&', "%26").replace('#', "%23").replace('+', "%2B")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_survives_the_address() {
        assert_eq!(with_next("/register", "/"), "/register");
        assert_eq!(with_next("/register", "/search?q=a%20b&x=1"), "/register?next=/search?q=a%2520b%26x=1");
    }
}
