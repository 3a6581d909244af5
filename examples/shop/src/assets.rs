//! The files that the binary carries: stylesheet and drawings. Their address holds a hash of their content,
//! so browsers may keep them for ever, and a new version has a new address.

use axum::{
    body::Body,
    extract::Path,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};

use crate::error::Error;

/// A file that the binary carries.
pub struct Asset {
    /// The last part of its address.
    name: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
    hash: u64,
}

impl Asset {
    const fn new(name: &'static str, content_type: &'static str, bytes: &'static [u8]) -> Self {
        Self { name, content_type, bytes, hash: fnv1a(bytes) }
    }

    /// Its address, with its hash.
    pub fn href(&self) -> String {
        format!("/assets/{:016x}/{}", self.hash, self.name)
    }
}

/// The stylesheet of all pages.
pub static STYLE: Asset =
    Asset::new("shop.css", "text/css; charset=utf-8", include_bytes!("../assets/shop.css"));
/// The sign of the shop in a browser's tab.
pub static ICON: Asset = Asset::new("favicon.svg", SVG, include_bytes!("../assets/favicon.svg"));
/// The desk on the first page.
pub static HERO: Asset = Asset::new("hero.svg", SVG, include_bytes!("../assets/hero.svg"));

const SVG: &str = "image/svg+xml";

macro_rules! drawings {
    ($($slug:literal)*) => {
        static DRAWINGS: &[(&str, Asset)] = &[$((
            $slug,
            Asset::new(concat!($slug, ".svg"), SVG, include_bytes!(concat!("../assets/pictures/", $slug, ".svg"))),
        )),*];
    };
}

drawings! {
    "alder-pencils" "brass-sharpener" "creme-letter-paper" "etude-manuscript-book" "field-trio" "heron-fountain-pen"
    "night-ink" "oak-tray" "perpetual-calendar" "reading-lamp" "tidewater-notebook" "wax-and-seal"
}

/// The drawing of a product, if it has one.
pub fn drawing(slug: &str) -> Option<&'static Asset> {
    DRAWINGS.iter().find(|(name, _)| *name == slug).map(|(_, asset)| asset)
}

/// `GET /assets/{hash}/{name}`. While one version of the shop takes over from another, a page of the one may
/// fetch its files from the other: they are served under any hash, but only under their own to be kept.
pub async fn serve(Path((hash, name)): Path<(String, String)>) -> Result<Response, Error> {
    let fixed = [&STYLE, &ICON, &HERO];
    let mut all = fixed.into_iter().chain(DRAWINGS.iter().map(|(_, asset)| asset));
    let asset = all.find(|asset| asset.name == name).ok_or(Error::NotFound)?;
    let keep = if u64::from_str_radix(&hash, 16) == Ok(asset.hash) {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static(keep)),
    ];
    Ok((headers, Body::from(asset.bytes)).into_response())
}

/// FNV-1a, 64 bits: it tells versions of a file apart, and guards against nobody.
pub const fn fnv1a(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0100_0000_01b3);
        index += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[tokio::test]
    async fn files_may_be_kept_only_under_their_own_hash() {
        for (path, keep) in [(STYLE.href(), "immutable"), ("/assets/0/shop.css".into(), "no-cache")] {
            let mut parts = path.split('/').skip(2).map(str::to_owned);
            let (hash, name) = (parts.next().unwrap(), parts.next().unwrap());
            let response = serve(Path((hash, name))).await.unwrap();
            assert!(response.headers()[header::CACHE_CONTROL].to_str().unwrap().contains(keep));
        }
        assert!(serve(Path(("0".into(), "../Cargo.toml".into()))).await.is_err());
    }
}
