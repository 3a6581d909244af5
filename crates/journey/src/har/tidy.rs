//! A recorded journey made fit to be kept with a service: what was the browser's own is taken out, and steps get names.

use std::collections::HashSet;

use http::{HeaderName, Method, header};

use super::{
    names,
    person::Person,
    recording::{Entry, field},
    secrets, split,
};
use crate::{
    address,
    capture::Source,
    journey::{Journey, Step},
    template::Template,
};

/// What `Accept` of browsers comes to, where they ask for a page.
const PAGE: &str = "text/html";

/// Tidies `journey`, whose steps are `entries`.
pub(super) fn tidy(entries: &[Entry], person: &Person, host: &str, journey: &mut Journey) {
    names::give(entries, person, host, &mut journey.steps);
    secrets::hide(entries, person, journey);
    for (step, entry) in journey.steps.iter_mut().zip(entries) {
        trim_headers(step, entry, host);
        for capture in &mut step.captures {
            let is_of_form =
                matches!(capture.source, Source::Input(_)) && !secrets::is_secret(&capture.variable);
            // A field that is filled in already; else what was recorded is of that run alone, and may be a secret.
            let is_kept = |value: &serde_json::Value| {
                is_of_form && value.as_str().is_some_and(|value| !super::sources::is_random(value))
            };
            capture.fallback = capture.fallback.take().filter(is_kept);
        }
    }
    forget_unused(&mut journey.steps);
    if is_loopback(host) {
        // A service that is tried on this machine is known by no name.
        journey.host = None;
    }
}

/// Takes out captures that were for header fields which are no more.
fn forget_unused(steps: &mut [Step]) {
    let used: HashSet<String> = steps.iter().flat_map(Step::uses).map(str::to_owned).collect();
    for step in steps {
        step.captures.retain(|capture| used.contains(&capture.variable));
    }
}

/// Takes out what browsers say of themselves, and shortens what they say at length.
fn trim_headers(step: &mut Step, entry: &Entry, host: &str) {
    let is_safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&step.method);
    let led_back = leads_back(entry, host);
    step.headers.retain_mut(|(name, value)| {
        if *name == header::ACCEPT {
            let text = value.as_literal().unwrap_or_default();
            if text == "*/*" {
                return false;
            }
            if text.starts_with(PAGE) {
                *value = Template::literal(PAGE);
            }
        }
        // Services that know no other sign of a forged request look at the origin.
        let is_own = is_of_browser(name)
            || (*name == header::ORIGIN && is_safe)
            || (*name == header::REFERER && !led_back);
        !is_own
    });
}

fn is_of_browser(name: &HeaderName) -> bool {
    const NAMES: [&str; 5] = ["user-agent", "sec-gpc", "sec-purpose", "save-data", "x-client-data"];
    NAMES.contains(&name.as_str()) || name.as_str().starts_with("sec-fetch-")
}

/// Whether the response led to the page that the request came from, as it does where services look at `Referer`.
fn leads_back(entry: &Entry, host: &str) -> bool {
    let path = |url: &str| split(url).map(|(_, path)| path.split('?').next().unwrap_or_default().to_owned());
    let from = field(&entry.request.headers, "referer").and_then(path);
    let target = split(&entry.request.url).map_or("/", |(_, path)| path);
    let to = field(&entry.response.headers, "location")
        .and_then(|location| address::resolve(target, location, host))
        .map(|path| path.split('?').next().unwrap_or_default().to_owned());
    entry.request.method != "GET" && from.is_some() && from == to
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback() || address.is_unspecified())
}
