//! The OpenAPI document of the state API, which the binary carries and serves. It is written by hand; the
//! tests here keep its paths, limits and codes to what the code does.

use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, header};

/// The OpenAPI 3.1 document.
pub const OPENAPI: &str = include_str!("openapi.json");

/// `GET /v1/openapi.json`
pub(super) async fn get() -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], OPENAPI).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::{
        blobs, cache, feed, idempotency, limits, locks, sessions,
        tables::{BATCH_WRITES_MAX, KEY_BYTES_MAX, SCAN_ROWS_MAX, VALUE_BYTES_MAX},
        wire::{BATCH_BODY_BYTES_MAX, RECORDS_BODY_BYTES_MAX, limits::TAKE_BODY_BYTES_MAX},
    };

    fn document() -> Value {
        serde_json::from_str(OPENAPI).unwrap()
    }

    #[test]
    fn it_has_every_route_and_no_other() {
        const METHODS: [&str; 7] = ["get", "put", "post", "delete", "patch", "head", "options"];
        let mut described = BTreeSet::new();
        for (path, item) in document()["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys().filter(|key| METHODS.contains(&key.as_str())) {
                described.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
        let routed: BTreeSet<_> = super::super::routes()
            .into_iter()
            .map(|route| format!("{} {}", route.method, route.path.replace("{*", "{")))
            .collect();
        assert_eq!(routed, described);
    }

    #[test]
    fn it_says_what_may_be_denied() {
        let document = document();
        for route in super::super::routes() {
            let (path, method) = (route.path.replace("{*", "{"), route.method.as_str().to_lowercase());
            let denied = document["paths"][&path][&method]["responses"].get("403");
            let is_free = route.rule == super::super::Rule::Free;
            assert_eq!(denied.is_none(), is_free, "{method} {path}");
        }
    }

    #[test]
    fn every_path_names_its_parameters() {
        let document = document();
        for (path, item) in document["paths"].as_object().unwrap() {
            let named: BTreeSet<_> = path.split(['{', '}']).skip(1).step_by(2).map(str::to_owned).collect();
            let given = item["parameters"].as_array().into_iter().flatten().map(|parameter| {
                let reference = parameter["$ref"].as_str().unwrap().trim_start_matches('#');
                document.pointer(reference).unwrap()["name"].as_str().unwrap().to_owned()
            });
            assert_eq!(given.collect::<BTreeSet<_>>(), named, "{path}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(document: &Value, value: &Value, count: &mut usize) {
            match value {
                Value::Object(members) => {
                    if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                        let pointer = reference.strip_prefix('#').unwrap();
                        assert!(document.pointer(pointer).is_some(), "{reference}");
                        *count += 1;
                    }
                    members.values().for_each(|value| walk(document, value, count));
                }
                Value::Array(values) => values.iter().for_each(|value| walk(document, value, count)),
                _ => {}
            }
        }
        let (document, mut count) = (document(), 0);
        walk(&document, &document, &mut count);
        assert!(count > 100, "{count}");
    }

    #[test]
    fn its_limits_are_those_of_the_code() {
        let document = document();
        let number =
            |pointer: &str| document.pointer(pointer).and_then(Value::as_u64).ok_or(pointer.to_owned());
        let schemas = "/components/schemas";
        let begin = format!("{schemas}/BeginIdempotent/properties");
        for (pointer, limit) in [
            ("/components/parameters/RowKey/schema/maxLength".to_owned(), KEY_BYTES_MAX as u64),
            ("/components/parameters/BlobKey/schema/maxLength".to_owned(), blobs::KEY_BYTES_MAX as u64),
            ("/components/parameters/User/schema/maxLength".to_owned(), sessions::NAME_BYTES_MAX as u64),
            ("/components/parameters/Lock/schema/maxLength".to_owned(), locks::NAME_BYTES_MAX as u64),
            (format!("{schemas}/AcquireLock/properties/holder/maxLength"), locks::NAME_BYTES_MAX as u64),
            (format!("{schemas}/IdempotencyKey/maxLength"), idempotency::KEY_BYTES_MAX as u64),
            (format!("{begin}/owner/maxLength"), idempotency::OWNER_BYTES_MAX as u64),
            (format!("{begin}/displaces/maxItems"), idempotency::DISPLACED_MAX as u64),
            (format!("{begin}/displaces/items/maxLength"), idempotency::OWNER_BYTES_MAX as u64),
            (format!("{begin}/lease_ms/maximum"), idempotency::TIME_MAX.as_millis() as u64),
            (format!("{begin}/kept_ms/maximum"), idempotency::TIME_MAX.as_millis() as u64),
            (
                format!("{schemas}/ExtendIdempotent/properties/lease_ms/maximum"),
                idempotency::TIME_MAX.as_millis() as u64,
            ),
            (
                format!("{schemas}/KeptAnswer/properties/fields/maxItems"),
                idempotency::ANSWER_FIELDS_MAX as u64,
            ),
            ("/components/parameters/CacheKey/schema/maxLength".to_owned(), cache::KEY_BYTES_MAX as u64),
            ("/components/parameters/CacheEntries/schema/maximum".to_owned(), u64::from(cache::ENTRIES_MAX)),
            (
                "/components/parameters/CacheEntries/schema/default".to_owned(),
                u64::from(cache::Room::default().entries),
            ),
            ("/components/parameters/CacheBytes/schema/maximum".to_owned(), cache::BYTES_MAX),
            ("/components/parameters/CacheBytes/schema/minimum".to_owned(), cache::Room::BYTES_MIN),
            ("/components/parameters/CacheBytes/schema/default".to_owned(), cache::Room::default().bytes),
            (format!("{schemas}/CacheLeaseMs/maximum"), cache::LEASE_MAX.as_millis() as u64),
            (
                format!("{schemas}/AbandonEntry/properties/pause_ms/maximum"),
                cache::LEASE_MAX.as_millis() as u64,
            ),
            (format!("{schemas}/ReadEntries/properties/keys/maxItems"), cache::READ_KEYS_MAX as u64),
            (format!("{schemas}/Entries/properties/entries/maxItems"), cache::READ_KEYS_MAX as u64),
            (format!("{schemas}/LeaseMs/maximum"), locks::LEASE_MAX.as_millis() as u64),
            (format!("{schemas}/Token/maximum"), locks::TOKEN_MAX),
            (format!("{schemas}/LeasePage/properties/leases/maxItems"), locks::LIST_MAX as u64),
            (format!("{schemas}/Batch/properties/writes/maxItems"), BATCH_WRITES_MAX as u64),
            (format!("{schemas}/RowPage/properties/rows/maxItems"), SCAN_ROWS_MAX as u64),
            (format!("{schemas}/BlobPage/properties/blobs/maxItems"), blobs::LIST_MAX as u64),
            (format!("{schemas}/SessionList/properties/sessions/maxItems"), sessions::LIST_MAX as u64),
            (format!("{schemas}/BlobInfo/properties/size/maximum"), blobs::BLOB_BYTES_MAX),
            ("/components/parameters/LimitKey/schema/maxLength".to_owned(), limits::KEY_BYTES_MAX as u64),
            (format!("{schemas}/Takes/properties/takes/maxItems"), limits::TAKES_MAX as u64),
            (format!("{schemas}/LimitPage/properties/keys/maxItems"), limits::LIST_MAX as u64),
            (format!("{schemas}/Take/properties/period_ms/maximum"), limits::PERIOD_MAX.as_millis() as u64),
            (
                format!("{schemas}/NamedTake/properties/period_ms/maximum"),
                limits::PERIOD_MAX.as_millis() as u64,
            ),
            (
                format!("{schemas}/NewSession/properties/idle_ms/default"),
                sessions::Lifetime::default().idle.as_millis() as u64,
            ),
            (
                format!("{schemas}/NewSession/properties/absolute_ms/default"),
                sessions::Lifetime::default().absolute.as_millis() as u64,
            ),
        ] {
            assert_eq!(number(&pointer), Ok(limit), "{pointer}");
        }
        for (text, limit) in [
            ("/paths/~1v1~1batch/post/requestBody/description", BATCH_BODY_BYTES_MAX),
            ("/paths/~1v1~1take/post/requestBody/description", TAKE_BODY_BYTES_MAX),
            ("/paths/~1v1~1limits~1{limit}~1{key}~1take/post/requestBody/description", TAKE_BODY_BYTES_MAX),
            ("/paths/~1v1~1portable~1{part}/post/requestBody/description", RECORDS_BODY_BYTES_MAX),
            ("/components/parameters/ContentType/description", blobs::CONTENT_TYPE_BYTES_MAX as u64),
            (
                "/paths/~1v1~1locks~1{lock}~1acquire/post/requestBody/description",
                super::super::locks::LOCK_BODY_BYTES_MAX,
            ),
            (
                "/paths/~1v1~1idempotency~1{scope}~1begin/post/requestBody/description",
                super::super::idempotency::KEY_BODY_BYTES_MAX,
            ),
            (
                "/paths/~1v1~1idempotency~1{scope}~1finish/post/requestBody/description",
                super::super::idempotency::ANSWER_BODY_BYTES_MAX,
            ),
            ("/paths/~1v1~1cache~1{cache}~1{key}/put/requestBody/description", cache::VALUE_BYTES_MAX as u64),
            (
                "/paths/~1v1~1cache~1{cache}~1{key}~1begin/post/requestBody/description",
                super::super::cache::CLAIM_BODY_BYTES_MAX,
            ),
            (
                "/paths/~1v1~1cache~1{cache}/post/requestBody/description",
                super::super::cache::READ_BODY_BYTES_MAX,
            ),
            ("/components/parameters/EntryStaleMs/description", cache::LIFE_MAX.as_secs() / (24 * 3600)),
            ("/components/schemas/KeptAnswer/description", idempotency::ANSWER_BYTES_MAX as u64),
            ("/components/responses/Feed/description", feed::NOTICES_MAX as u64),
            ("/components/responses/Feed/description", feed::BEAT.as_millis() as u64),
            ("/components/responses/Feed/description", feed::SILENCE_MAX.as_millis() as u64),
            ("/components/responses/Feed/description", super::super::feeds::FEEDS_MAX as u64),
            ("/components/parameters/Fence/description", blobs::FENCE_KEPT.as_secs() / (24 * 3600)),
            ("/paths/~1v1~1tables~1{table}~1{key}/put/requestBody/description", VALUE_BYTES_MAX as u64),
            (
                "/paths/~1v1~1sessions/post/requestBody/description",
                super::super::sessions::FIELDS_BODY_BYTES_MAX,
            ),
            (
                "/paths/~1v1~1tables~1{table}~1{key}~1increment/post/requestBody/description",
                super::super::tables::INCREMENT_BODY_BYTES_MAX,
            ),
        ] {
            let said = document.pointer(text).and_then(Value::as_str).unwrap().replace(',', "");
            assert!(said.contains(&limit.to_string()), "{text}: {said}, not {limit}");
        }
    }
}
