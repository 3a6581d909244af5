//! Writes, by the JSON API of Cloud Storage. By the XML API, which `object_store` would use, an upload in parts can have no condition
//! ("XML API multipart uploads", under limitations); here it has one from its beginning, which the store looks at when it ends.
//!
//! A large object is a resumable upload ("Perform resumable uploads" of Cloud Storage's documentation): its bytes are sent in their
//! order, in chunks whose sizes are multiples of 256 KiB, except for the last. What was sent and not answered is sent again; the
//! store ignores what it has.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, future::ready};
use http::{
    HeaderValue, Method, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE},
};
use object_store::{
    Attribute, Attributes, MultipartUpload, ObjectStoreExt, PutMode, PutOptions, PutPayload, PutResult,
    Result, UploadPart,
    client::{HttpClient, HttpRequest, HttpRequestBody, HttpResponse},
    gcp::GoogleCloudStorage,
    path::Path,
};
use serde_json::json;

use crate::objects::{failure::Failure, link::Link, object::PutId, shelf::Write};

/// "Resume Incomplete": the store has what came so far.
pub(super) const GOES_ON: StatusCode = StatusCode::PERMANENT_REDIRECT;
/// The status of an upload that was taken back.
const TAKEN_BACK: u16 = 499;
/// The statuses of an upload that the store has forgotten ("Resumable uploads" of Cloud Storage's documentation): it is to begin anew.
const FORGOTTEN: [u16; 2] = [404, 410];
/// What the sizes of chunks are multiples of.
const CHUNK_UNIT: usize = 256 << 10;
/// How often in a row a chunk is sent of which the store keeps nothing.
const CHUNK_TRIES_MAX: u32 = 5;
/// What an object is that says nothing of its type.
const UNTYPED: &str = "application/octet-stream";

/// A bucket as it is written. Clones are the same.
#[derive(Clone)]
pub(super) struct Writer(Arc<Bucket>);

struct Bucket {
    store: Arc<GoogleCloudStorage>,
    client: HttpClient,
    /// What the URLs of all requests begin with.
    endpoint: String,
    name: String,
}

impl Writer {
    /// The bucket of a store, by a link to it.
    pub(super) fn new(store: Arc<GoogleCloudStorage>, endpoint: &str, bucket: &str, link: Link) -> Self {
        let client = HttpClient::new(link);
        Self(Arc::new(Bucket { store, client, endpoint: endpoint.to_owned(), name: bucket.to_owned() }))
    }

    /// Where uploads of a kind begin.
    fn uploads(&self, kind: &str, mode: &PutMode) -> String {
        let Bucket { endpoint, name, .. } = &*self.0;
        let condition = match mode {
            PutMode::Overwrite => String::new(),
            PutMode::Create => "&ifGenerationMatch=0".into(),
            // Without a generation nothing is certain, and no object has this one.
            PutMode::Update(found) => {
                format!("&ifGenerationMatch={}", found.version.as_deref().unwrap_or("1"))
            }
        };
        format!("{endpoint}/upload/storage/v1/b/{name}/o?uploadType={kind}{condition}")
    }

    /// Sends a request.
    async fn ask(
        &self,
        method: Method,
        uri: &str,
        content_type: &str,
        range: Option<String>,
        body: impl Into<HttpRequestBody>,
    ) -> Result<HttpResponse> {
        let credential = self.0.store.credentials().get_credential().await?;
        let mut request = HttpRequest::new(body.into());
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse::<Uri>().map_err(failed)?;
        let fields = [
            (AUTHORIZATION, Some(format!("Bearer {}", credential.bearer))),
            (CONTENT_TYPE, Some(content_type.to_owned()).filter(|text| !text.is_empty())),
            (CONTENT_RANGE, range),
        ];
        for (name, value) in fields {
            let Some(value) = value else { continue };
            let mut value = HeaderValue::try_from(value).map_err(failed)?;
            value.set_sensitive(name == AUTHORIZATION);
            request.headers_mut().insert(name, value);
        }
        self.0.client.execute(request).await.map_err(failed)
    }
}

#[async_trait]
impl Write for Writer {
    /// One request has what is to be known of the object and its bytes, one behind the other ("multipart upload"; RFC 2387).
    async fn put(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<()> {
        let content_type = content_type(&options.attributes).to_owned();
        // Nobody can know it, so nobody's bytes have it in them.
        let boundary = PutId::new().map_err(failed)?;
        let head = format!(
            "--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{}\r\n\
             --{boundary}\r\nContent-Type: {content_type}\r\n\r\n",
            described(path, &options.attributes)
        );
        let tail = format!("\r\n--{boundary}--\r\n");
        let pieces = [Bytes::from(head)].into_iter().chain(payload).chain([Bytes::from(tail)]);
        let uri = self.uploads("multipart", &options.mode);
        let related = format!("multipart/related; boundary={boundary}");
        self.ask(Method::POST, &uri, &related, None, PutPayload::from_iter(pieces)).await.map(drop)
    }

    async fn begin(
        &self,
        path: &Path,
        attributes: Attributes,
        mode: PutMode,
    ) -> Result<Box<dyn MultipartUpload>> {
        let uri = self.uploads("resumable", &mode);
        let about = described(path, &attributes);
        let answer = self.ask(Method::POST, &uri, "application/json; charset=UTF-8", None, about).await?;
        let session = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let session = session.and_then(|location| location.parse::<Uri>().ok());
        let Some(session) = session.as_ref().and_then(Uri::path_and_query) else {
            return Err(strange("did not say where the upload goes on"));
        };
        Ok(Box::new(Upload {
            // Whatever host the answer names, who asks goes on with the one that was configured.
            session: format!("{}{session}", host(&self.0.endpoint)),
            content_type: content_type(&attributes).to_owned(),
            writer: self.clone(),
            sent: 0,
            last: None,
        }))
    }

    async fn remove(&self, path: &Path) -> Result<()> {
        self.0.store.delete(path).await
    }
}

/// A resumable upload.
struct Upload {
    writer: Writer,
    /// Where its chunks go.
    session: String,
    content_type: String,
    /// Bytes in the chunks that were sent.
    sent: u64,
    /// A chunk that can only be the last one: its size is no multiple of what it would have to be.
    last: Option<PutPayload>,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Whoever knows the session can go on with it.
        f.debug_struct("Upload").field("sent", &self.sent).finish_non_exhaustive()
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    /// Parts must be awaited in their order.
    fn put_part(&mut self, part: PutPayload) -> UploadPart {
        if self.last.is_some() {
            return ready(Err(strange("cannot be sent a part behind one of an odd size"))).boxed();
        }
        let size = part.content_length();
        if !size.is_multiple_of(CHUNK_UNIT) {
            self.last = Some(part);
            return ready(Ok(())).boxed();
        }
        let chunk = Chunk {
            writer: self.writer.clone(),
            session: self.session.clone(),
            content_type: self.content_type.clone(),
            start: self.sent,
            body: part,
            is_last: false,
        };
        self.sent += size as u64;
        chunk.send().map(|sent| sent.map(drop)).boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let chunk = Chunk {
            writer: self.writer.clone(),
            session: self.session.clone(),
            content_type: self.content_type.clone(),
            start: self.sent,
            body: self.last.clone().unwrap_or_default(),
            is_last: true,
        };
        chunk.send().await?;
        Ok(PutResult { e_tag: None, version: None, extensions: http::Extensions::default() })
    }

    async fn abort(&mut self) -> Result<()> {
        match self.writer.ask(Method::DELETE, &self.session, "", None, HttpRequestBody::empty()).await {
            Err(error) if is_forgotten(&error) || Failure::of(&error).status() == Some(TAKEN_BACK) => Ok(()),
            answer => answer.map(drop),
        }
    }
}

/// A part of an upload that is not in the store yet.
struct Chunk {
    writer: Writer,
    session: String,
    content_type: String,
    /// Where it begins in the object.
    start: u64,
    body: PutPayload,
    is_last: bool,
}

impl Chunk {
    /// Sends all of it. The store may keep less than it was sent, and says how much.
    async fn send(mut self) -> Result<()> {
        let mut tries = 0;
        loop {
            let end = self.start + self.body.content_length() as u64;
            let range = range(self.start, end, self.is_last);
            let answer = self
                .writer
                .ask(Method::PUT, &self.session, &self.content_type, Some(range), self.body.clone())
                .await
                .map_err(|error| if is_forgotten(&error) { failed(forgotten()) } else { error })?;
            if answer.status() != GOES_ON {
                return if self.is_last { Ok(()) } else { Err(strange("ended an upload before its end")) };
            }
            let kept = kept(&answer);
            if kept < self.start || kept > end {
                return Err(strange("has other bytes of an upload than it was sent"));
            }
            if kept == end && !self.is_last {
                return Ok(());
            }
            tries = if kept == self.start { tries + 1 } else { 0 };
            if tries == CHUNK_TRIES_MAX {
                return Err(strange("keeps nothing of what an upload sends"));
            }
            self.body = behind(self.body, kept - self.start);
            self.start = kept;
        }
    }
}

/// What a chunk is of its object. How large that is, the last one says.
fn range(start: u64, end: u64, is_last: bool) -> String {
    let total = if is_last { end.to_string() } else { "*".into() };
    if start == end { format!("bytes */{total}") } else { format!("bytes {start}-{}/{total}", end - 1) }
}

/// How much of an upload the store has: it names the last byte, if it has one.
fn kept(answer: &HttpResponse) -> u64 {
    let range = answer.headers().get(RANGE).and_then(|range| range.to_str().ok());
    let last = range.and_then(|range| range.rsplit_once('-')?.1.parse::<u64>().ok());
    last.map_or(0, |last| last + 1)
}

/// What is left of a payload behind so many bytes.
fn behind(payload: PutPayload, mut skipped: u64) -> PutPayload {
    let left = payload.into_iter().map(|mut piece| {
        let cut = usize::try_from(skipped).unwrap_or(usize::MAX).min(piece.len());
        skipped -= cut as u64;
        piece.split_off(cut)
    });
    left.filter(|piece| !piece.is_empty()).collect()
}

/// What is to be known of an object, as JSON.
fn described(path: &Path, attributes: &Attributes) -> String {
    let metadata = attributes.iter().filter_map(|(name, value)| match name {
        Attribute::Metadata(name) => Some((name.to_string(), json!(value.as_ref()))),
        _ => None,
    });
    let metadata: serde_json::Map<_, _> = metadata.collect();
    json!({ "name": path.as_ref(), "contentType": content_type(attributes), "metadata": metadata })
        .to_string()
}

fn content_type(attributes: &Attributes) -> &str {
    attributes.get(&Attribute::ContentType).map_or(UNTYPED, |text| text.as_ref())
}

/// The scheme and the host of an endpoint.
fn host(endpoint: &str) -> &str {
    let scheme = endpoint.find("://").map_or(0, |at| at + 3);
    let end = endpoint[scheme..].find('/').map_or(endpoint.len(), |at| scheme + at);
    &endpoint[..end]
}

/// Whether an upload that was asked for is not there any more.
fn is_forgotten(error: &object_store::Error) -> bool {
    Failure::of(error).status().is_some_and(|status| FORGOTTEN.contains(&status))
}

/// The store's own doing, which says nothing of the object.
fn forgotten() -> Failure {
    Failure::Away("the gcs server has given up an upload before its end; send it again".into())
}

fn strange(why: &str) -> object_store::Error {
    failed(Failure::Strange(format!("the gcs server {why}")))
}

fn failed(source: impl std::error::Error + Send + Sync + 'static) -> object_store::Error {
    object_store::Error::Generic { store: "GCS", source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_say_where_they_are() {
        assert_eq!(range(0, 5, false), "bytes 0-4/*");
        assert_eq!(range(5, 9, true), "bytes 5-8/9");
        assert_eq!(range(9, 9, true), "bytes */9");
    }

    #[test]
    fn what_was_kept_is_cut_off() {
        let payload = || PutPayload::from_iter(["abc", "de", "f"].map(Bytes::from));
        for (skipped, left) in [(0, "abcdef"), (1, "bcdef"), (3, "def"), (4, "ef"), (6, "")] {
            assert_eq!(Bytes::from(behind(payload(), skipped)), left);
        }
    }

    #[test]
    fn an_endpoint_has_a_host() {
        assert_eq!(host("https://storage.googleapis.com"), "https://storage.googleapis.com");
        assert_eq!(host("http://127.0.0.1:4443/gcs/x"), "http://127.0.0.1:4443");
    }
}
