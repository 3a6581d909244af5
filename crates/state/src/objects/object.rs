//! What an object says of the blob that it is: in its metadata, as far as the engine wrote it, and in what the store knows.

use std::fmt;

use object_store::{Attribute, Attributes, ObjectMeta, UpdateVersion};

use crate::{Revision, blobs::BlobInfo, error::Error};

/// SHA-256 of the bytes, in hexadecimal digits. Names have no punctuation, which some stores or proxies refuse.
const SHA256: &str = "lethesha256";
/// When it was put, in milliseconds, by the writer's clock: stores tell whole seconds.
const PUT_AT: &str = "letheputat";
/// A number that no other put has.
const PUT_ID: &str = "letheputid";
/// What an object is that says nothing of its type.
const UNTYPED: &str = "application/octet-stream";
/// Length of a hash in hexadecimal digits.
const SHA256_DIGITS: usize = 64;

/// An object as it was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) info: BlobInfo,
    /// What the store calls this version.
    pub(super) version: UpdateVersion,
    put_id: Option<String>,
}

impl Found {
    /// The object that is the blob of this key.
    pub(super) fn new(key: &str, meta: &ObjectMeta, attributes: &Attributes) -> Self {
        let said = |name: &'static str| {
            attributes.get(&Attribute::Metadata(name.into())).map(|value| value.as_ref().to_owned())
        };
        let sha256 = said(SHA256)
            .filter(|text| text.len() == SHA256_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let content_type = attributes.get(&Attribute::ContentType).filter(|text| !text.is_empty());
        Self {
            info: BlobInfo {
                key: key.to_owned(),
                size: meta.size,
                etag: sha256.unwrap_or_else(|| unquoted(meta.e_tag.as_deref().unwrap_or_default())),
                content_type: content_type.map_or(UNTYPED, |text| text.as_ref()).to_owned(),
                modified_at: said(PUT_AT)
                    .and_then(|text| text.parse().ok())
                    .unwrap_or_else(|| meta.last_modified.timestamp_millis()),
            },
            version: UpdateVersion { e_tag: meta.e_tag.clone(), version: meta.version.clone() },
            put_id: said(PUT_ID),
        }
    }

    /// Whether this put wrote it.
    pub(super) fn is_of(&self, put: &PutId) -> bool {
        self.put_id.as_deref() == Some(put.0.as_str())
    }

    /// Whether it is what was found before, as far as can be told: the bytes are the same, and the put.
    pub(super) fn is_still(&self, before: &Self) -> bool {
        self.version.e_tag == before.version.e_tag && self.put_id == before.put_id
    }

    /// A number that grows with each change, as far as clocks do.
    pub(super) fn revision(&self) -> Revision {
        self.info.modified_at.max(1).cast_unsigned()
    }
}

/// The name of one put, by which it is known again when its answer was lost.
#[derive(Clone, Debug)]
pub(crate) struct PutId(String);

impl fmt::Display for PutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PutId {
    /// A new one, of 128 random bits.
    pub(crate) fn new() -> Result<Self, Error> {
        let half = || {
            getrandom::u64()
                .map_err(|error| Error::Unavailable(format!("the system gives no random numbers: {error}")))
        };
        Ok(Self(format!("{:016x}{:016x}", half()?, half()?)))
    }

    /// What an object says that is written in parts: its hash is not known when that is to be said.
    pub(super) fn of_parts(&self, content_type: &str) -> Attributes {
        Attributes::from_iter([
            (Attribute::ContentType, content_type.to_owned()),
            (Attribute::Metadata(PUT_ID.into()), self.0.clone()),
        ])
    }

    /// What an object says that is written in one request.
    pub(super) fn of_whole(&self, info: &BlobInfo) -> Attributes {
        let mut attributes = self.of_parts(&info.content_type);
        attributes.insert(Attribute::Metadata(SHA256.into()), info.etag.clone().into());
        attributes.insert(Attribute::Metadata(PUT_AT.into()), info.modified_at.to_string().into());
        attributes
    }
}

/// An entity tag without its quotes.
pub(super) fn unquoted(tag: &str) -> String {
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag).to_owned()
}
