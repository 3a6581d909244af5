//! What a server of the tests keeps: the files of `s3s-fs`, with what those lack of S3. Objects are written and read whole, also by
//! many at once; a key is any text, and no folder of another; parts have a least size; deletes and reads have conditions.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use s3s::{S3, S3Request, S3Response, S3Result, dto::*, s3_error};
use s3s_fs::FileSystem;
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, RwLock};

/// Least size of each part but the last, as in S3.
const PART_BYTES_MIN: i64 = 5 << 20;

/// The objects of a server. Clones are the same; a server that is killed leaves them.
#[derive(Clone)]
pub struct Vault {
    files: Arc<FileSystem>,
    folder: PathBuf,
    /// Bucket and key of each object.
    names: Arc<RwLock<BTreeSet<(String, String)>>>,
    /// The sizes of the parts of each upload that is open.
    uploads: Arc<Mutex<HashMap<String, HashMap<i32, i64>>>>,
    /// To be done when something has been done the next time, before that is said.
    events: Arc<Mutex<HashMap<Done, Event>>>,
    /// Whether conditions of writes are ignored, as by servers that do not know them.
    is_heedless: Arc<AtomicBool>,
    /// Whether each page of a list is in the wrong order.
    is_unsorted: Arc<AtomicBool>,
}

type Event = Box<dyn FnOnce() + Send>;

/// What a test may wait for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Done {
    /// Somebody has asked what an object is.
    Looked,
    /// An object was put or deleted.
    Written,
    /// An upload was completed.
    Completed,
}

impl Vault {
    /// An empty one.
    pub fn new(folder: &Path) -> Self {
        Self {
            files: Arc::new(FileSystem::new(folder).unwrap()),
            folder: folder.to_owned(),
            names: Arc::default(),
            uploads: Arc::default(),
            events: Arc::default(),
            is_heedless: Arc::default(),
            is_unsorted: Arc::default(),
        }
    }

    /// Makes a bucket.
    pub fn make_bucket(&self, bucket: &str) {
        std::fs::create_dir(self.folder.join(bucket)).unwrap();
    }

    /// Ignores conditions of writes from now on.
    pub fn ignore_conditions(&self) {
        self.is_heedless.store(true, Ordering::SeqCst);
    }

    /// Lists in the wrong order from now on.
    pub fn list_backwards(&self) {
        self.is_unsorted.store(true, Ordering::SeqCst);
    }

    /// Does something when this has been done the next time, before it is said.
    pub async fn when(&self, done: Done, event: impl FnOnce() + Send + 'static) {
        self.events.lock().await.insert(done, Box::new(event));
    }

    async fn tell(&self, done: Done) {
        if let Some(event) = self.events.lock().await.remove(&done) {
            event();
        }
    }

    /// How many uploads are neither completed nor aborted, with how many parts.
    pub async fn uploads(&self) -> (usize, usize) {
        let uploads = self.uploads.lock().await;
        (uploads.len(), uploads.values().map(HashMap::len).sum())
    }

    /// What the objects are called.
    pub async fn names(&self) -> Vec<String> {
        self.names.read().await.iter().map(|(_, key)| key.clone()).collect()
    }

    /// Whether an object is the version that is meant.
    async fn is_version<T>(
        &self,
        req: &S3Request<T>,
        bucket: &str,
        key: &str,
        wanted: &ETagCondition,
    ) -> S3Result<bool> {
        let input = HeadObjectInput { bucket: bucket.into(), key: file(key), ..HeadObjectInput::default() };
        let found = self.files.head_object(with(req, input)).await?;
        Ok(match wanted {
            ETagCondition::Any => true,
            ETagCondition::ETag(wanted) => found.output.e_tag.is_some_and(|e_tag| e_tag.strong_cmp(wanted)),
        })
    }
}

/// The file of a key.
fn file(key: &str) -> String {
    Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The same request for something else.
fn with<T, U>(req: &S3Request<T>, input: U) -> S3Request<U> {
    S3Request {
        input,
        method: req.method.clone(),
        uri: req.uri.clone(),
        headers: req.headers.clone(),
        extensions: Default::default(),
        credentials: req.credentials.clone(),
        region: req.region.clone(),
        service: req.service.clone(),
        trailing_headers: None,
    }
}

/// A body that has come whole.
async fn gathered(body: Option<StreamingBlob>) -> S3Result<Option<StreamingBlob>> {
    let Some(body) = body else { return Ok(None) };
    let pieces: Vec<Bytes> =
        body.try_collect().await.map_err(|error| s3_error!(IncompleteBody, "{error}"))?;
    let pieces = pieces.into_iter().map(Ok::<_, std::io::Error>);
    Ok(Some(StreamingBlob::wrap(stream::iter(pieces))))
}

#[async_trait::async_trait]
impl S3 for Vault {
    async fn put_object(&self, mut req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        req.input.body = gathered(req.input.body.take()).await?;
        if self.is_heedless.load(Ordering::SeqCst) {
            (req.input.if_match, req.input.if_none_match) = (None, None);
        }
        let mut names = self.names.write().await;
        if !self.folder.join(&req.input.bucket).exists() {
            return Err(s3_error!(NoSuchBucket));
        }
        let name = (req.input.bucket.clone(), req.input.key.clone());
        req.input.key = file(&req.input.key);
        let done = self.files.put_object(req).await?;
        names.insert(name);
        self.tell(Done::Written).await;
        Ok(done)
    }

    async fn get_object(&self, mut req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let _names = self.names.read().await;
        if !self.folder.join(&req.input.bucket).exists() {
            return Err(s3_error!(NoSuchBucket));
        }
        if let Some(wanted) = &req.input.if_match
            && !self.is_version(&req, &req.input.bucket, &req.input.key, wanted).await?
        {
            return Err(s3_error!(PreconditionFailed));
        }
        req.input.key = file(&req.input.key);
        self.files.get_object(req).await
    }

    async fn head_object(
        &self,
        mut req: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let _names = self.names.read().await;
        req.input.key = file(&req.input.key);
        let found = self.files.head_object(req).await;
        self.tell(Done::Looked).await;
        found
    }

    async fn delete_object(
        &self,
        mut req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let mut names = self.names.write().await;
        if let Some(wanted) = req.input.if_match.as_ref().filter(|_| !self.is_heedless.load(Ordering::SeqCst))
            && !self.is_version(&req, &req.input.bucket, &req.input.key, wanted).await?
        {
            return Err(s3_error!(PreconditionFailed));
        }
        let name = (req.input.bucket.clone(), req.input.key.clone());
        req.input.key = file(&req.input.key);
        let done = self.files.delete_object(req).await?;
        names.remove(&name);
        self.tell(Done::Written).await;
        Ok(done)
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        let folder = self.folder.join(&input.bucket);
        if !folder.exists() {
            return Err(s3_error!(NoSuchBucket));
        }
        let prefix = input.prefix.clone().unwrap_or_default();
        let behind = input.continuation_token.clone().or(input.start_after.clone()).unwrap_or_default();
        let names = self.names.read().await;
        let mut found = names
            .range((input.bucket.clone(), behind.clone())..)
            .filter(|(bucket, key)| *bucket == input.bucket && *key > behind && key.starts_with(&prefix));
        let max = input.max_keys.map_or(1000, |max| max.clamp(0, 1000));
        let mut contents = Vec::new();
        for (_, key) in found.by_ref().take(usize::try_from(max).unwrap()) {
            let metadata =
                folder.join(file(key)).metadata().map_err(|error| s3_error!(InternalError, "{error}"))?;
            contents.push(Object {
                key: Some(key.clone()),
                size: i64::try_from(metadata.len()).ok(),
                last_modified: metadata.modified().ok().map(Timestamp::from),
                ..Object::default()
            });
        }
        let last = contents.last().and_then(|object| object.key.clone());
        let is_truncated = found.next().is_some();
        if self.is_unsorted.load(Ordering::SeqCst) {
            contents.reverse();
        }
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            key_count: i32::try_from(contents.len()).ok(),
            contents: Some(contents),
            is_truncated: Some(is_truncated),
            next_continuation_token: last.filter(|_| is_truncated),
            ..ListObjectsV2Output::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        mut req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        if !self.folder.join(&req.input.bucket).exists() {
            return Err(s3_error!(NoSuchBucket));
        }
        req.input.key = file(&req.input.key);
        let made = self.files.create_multipart_upload(req).await?;
        self.uploads.lock().await.insert(made.output.upload_id.clone().unwrap_or_default(), HashMap::new());
        Ok(made)
    }

    async fn upload_part(
        &self,
        mut req: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let (id, number) = (req.input.upload_id.clone(), req.input.part_number);
        let length = req.input.content_length.unwrap_or(0);
        if !self.uploads.lock().await.contains_key(&id) {
            return Err(s3_error!(NoSuchUpload));
        }
        req.input.key = file(&req.input.key);
        let sent = self.files.upload_part(req).await?;
        match self.uploads.lock().await.get_mut(&id) {
            Some(parts) => parts.insert(number, length),
            None => return Err(s3_error!(NoSuchUpload)),
        };
        Ok(sent)
    }

    async fn complete_multipart_upload(
        &self,
        mut req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let mut names = self.names.write().await;
        let mut uploads = self.uploads.lock().await;
        let id = req.input.upload_id.clone();
        let Some(parts) = uploads.get(&id) else { return Err(s3_error!(NoSuchUpload)) };
        let last = parts.keys().max().copied();
        if parts.iter().any(|(number, size)| Some(*number) != last && *size < PART_BYTES_MIN) {
            return Err(s3_error!(EntityTooSmall));
        }
        let name = (req.input.bucket.clone(), req.input.key.clone());
        req.input.key = file(&req.input.key);
        let done = self.files.complete_multipart_upload(req).await?;
        uploads.remove(&id);
        names.insert(name);
        self.tell(Done::Completed).await;
        Ok(done)
    }

    async fn abort_multipart_upload(
        &self,
        mut req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let id = req.input.upload_id.clone();
        if self.uploads.lock().await.remove(&id).is_none() {
            return Err(s3_error!(NoSuchUpload));
        }
        req.input.key = file(&req.input.key);
        self.files.abort_multipart_upload(req).await
    }
}
