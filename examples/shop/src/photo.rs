//! Photos of products: what the admin uploads, streamed into blobs without being held in memory, and known by
//! its first bytes rather than by what its sender says of it.

use axum::{extract::multipart::Field, http::StatusCode};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use lethe::{bucket::Bucket, problem::Problem};

use crate::{catalogue::Catalogue, error::Error};

/// Largest photo, in bytes.
pub const PHOTO_BYTES_MAX: u64 = 10 << 20;
/// As many first bytes as it takes to know a picture.
const HEAD_BYTES: usize = 12;

/// The media type of a picture, from its first bytes; `None` for what the shop does not show. SVG is not
/// among them: it may carry scripts.
fn sniff(head: &[u8]) -> Option<&'static str> {
    match head {
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

/// Stores an uploaded photo and shows it on the pages of its product. The same upload twice has the same
/// outcome. Fails with [`Error::NotAPicture`] and [`Error::TooLarge`]; the photo that was there then stays.
pub async fn upload(
    bucket: &Bucket,
    catalogue: &Catalogue,
    slug: &str,
    field: Field<'_>,
) -> Result<(), Error> {
    if catalogue.get(slug).await?.is_none() {
        return Err(Error::NotFound);
    }
    let etag = store(bucket, slug, field).await?;
    if catalogue.set_photo(slug, Some(&etag)).await? { Ok(()) } else { Err(Error::NotFound) }
}

/// Streams the field into the bucket and returns the photo's entity tag.
async fn store(bucket: &Bucket, slug: &str, mut field: Field<'_>) -> Result<String, Error> {
    let mut head = Vec::new();
    while head.len() < HEAD_BYTES {
        let Some(piece) = field.chunk().await.map_err(|_| broken_off())? else { break };
        head.extend_from_slice(&piece);
    }
    let content_type = sniff(&head).ok_or(Error::NotAPicture)?;
    let mut broken = false;
    let rest = field.inspect_err(|_| broken = true);
    let photo = stream::once(async { Ok(Bytes::from(head)) }).chain(rest);
    match bucket.put_stream(slug, content_type, photo, PHOTO_BYTES_MAX).await {
        Ok(info) => Ok(info.etag),
        Err(error) if Problem::from(&error).status() == StatusCode::PAYLOAD_TOO_LARGE => Err(Error::TooLarge),
        Err(_) if broken => Err(broken_off()),
        Err(error) => Err(error.into()),
    }
}

fn broken_off() -> Error {
    Error::Form("The upload broke off. Choose the file again and send it once more.".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_known_by_their_first_bytes() {
        for (head, kind) in [
            (&b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01"[..], Some("image/jpeg")),
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", Some("image/png")),
            (b"RIFF\x10\0\0\0WEBPVP8 ", Some("image/webp")),
            (b"RIFF\x10\0\0\0WAVEfmt ", None),
            (b"GIF89a\x01\0\x01\0\0\0", None),
            (b"<svg xmlns=\"http", None),
            (b"<!doctype html>", None),
            (b"\xff\xd8", None),
            (b"", None),
        ] {
            assert_eq!(sniff(head), kind, "{head:?}");
        }
    }
}
