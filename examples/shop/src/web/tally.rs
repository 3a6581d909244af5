//! How many things are in the cart, as the browser remembers it, so that a page can show the number without looking the
//! session up. It is a hint: pages that know better put it right, and nothing is decided by it.

use std::convert::Infallible;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, header, request::Parts},
    response::{IntoResponseParts, ResponseParts},
};
use lethe::session::Lifetime;

use crate::{cart, shop::Shop};

/// As many as fit into a cart. What is more was not said by the shop.
const THINGS_MAX: u32 = cart::LINES_MAX as u32 * cart::QUANTITY_MAX;

/// What the browser says, and what is so. As a part of an answer it tells the browser, unless it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    said: u32,
    now: u32,
    is_plain_http: bool,
}

impl Tally {
    /// What the browser says; 0 when it says nothing that can be.
    pub fn said(self) -> u32 {
        self.said
    }

    /// From now on there are so many.
    pub fn is_now(self, count: u32) -> Self {
        Self { now: count, ..self }
    }

    fn read(headers: &HeaderMap, is_plain_http: bool) -> Self {
        let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
        let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let mut values = pairs.filter(|(name, _)| *name == self::name(is_plain_http)).map(|(_, value)| value);
        let said = values.next().and_then(|value| value.parse().ok()).filter(|count| *count <= THINGS_MAX);
        let said = said.unwrap_or_default();
        Self { said, now: said, is_plain_http }
    }

    fn line(self) -> String {
        let name = name(self.is_plain_http);
        let secure = if self.is_plain_http { "" } else { "; Secure" };
        // It need not outlive the session.
        let age = if self.now == 0 { 0 } else { Lifetime::default().absolute.as_secs() };
        format!("{name}={}; Path=/{secure}; HttpOnly; SameSite=Lax; Max-Age={age}", self.now)
    }
}

fn name(is_plain_http: bool) -> &'static str {
    if is_plain_http { "cart" } else { "__Host-cart" }
}

impl FromRequestParts<Shop> for Tally {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, shop: &Shop) -> Result<Self, Infallible> {
        Ok(Self::read(&parts.headers, shop.config.plain_http))
    }
}

impl IntoResponseParts for Tally {
    type Error = Infallible;

    fn into_response_parts(self, mut response: ResponseParts) -> Result<ResponseParts, Infallible> {
        if self.now != self.said
            && let Ok(line) = HeaderValue::try_from(self.line())
        {
            response.headers_mut().append(header::SET_COOKIE, line);
        }
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(cookies: &'static str) -> u32 {
        let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static(cookies))]);
        Tally::read(&headers, false).said()
    }

    #[test]
    fn only_what_the_shop_could_have_said_is_heard() {
        for (cookies, count) in [
            ("__Host-cart=3", 3),
            ("a=1; __Host-cart=3; __Host-cart=4", 3),
            ("cart=3", 0),
            ("__Host-cart=-1", 0),
            ("__Host-cart=many", 0),
            ("__Host-cart=3960", 3960),
            ("__Host-cart=3961", 0),
            ("__Host-cart=99999999999", 0),
            ("__Host-cart", 0),
        ] {
            assert_eq!(said(cookies), count, "{cookies}");
        }
    }

    #[test]
    fn lines_are_exact() {
        let tally = Tally::read(&HeaderMap::new(), false);
        assert_eq!(
            tally.is_now(2).line(),
            "__Host-cart=2; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=2592000"
        );
        assert_eq!(
            tally.is_now(0).line(),
            "__Host-cart=0; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"
        );
        let plain = Tally::read(&HeaderMap::new(), true);
        assert_eq!(plain.is_now(2).line(), "cart=2; Path=/; HttpOnly; SameSite=Lax; Max-Age=2592000");
    }
}
