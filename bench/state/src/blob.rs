//! A large blob streamed in from a file and out into another one.

use std::{path::Path, time::Instant};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use lethe_state::{blobs::Put, remote::Remote};
use serde_json::{Value, json};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncWriteExt as _},
};

use crate::Options;

/// Bytes read from the file at a time.
const PIECE: usize = 256 << 10;

pub async fn measured(options: &Options) -> Value {
    let blobs = Remote::connect(options.text("url")).expect("the URL of a state API").engines().blobs;
    let (from, to) = (Path::new(options.text("from")), Path::new(options.text("to")));
    let bytes = from.metadata().expect("a file").len();

    let begin = Instant::now();
    let file = File::open(from).await.expect("a file");
    let body = stream::try_unfold(file, async |mut file| {
        let mut piece = BytesMut::with_capacity(PIECE);
        Ok((file.read_buf(&mut piece).await? > 0).then(|| (Bytes::from(piece), file)))
    });
    let put = Put { bytes_max: bytes, ..Put::default() };
    let info = blobs.put("bench", "large", Box::pin(body), put).await.expect("the blob to be kept");
    assert_eq!(info.size, bytes);
    let put_s = begin.elapsed().as_secs_f64();

    let begin = Instant::now();
    let mut body = blobs.get("bench", "large", None).await.expect("an answer").expect("the blob").body;
    let mut file = File::create(to).await.expect("a file");
    while let Some(piece) = body.next().await {
        file.write_all(&piece.expect("a piece")).await.expect("room on the disk");
    }
    file.flush().await.expect("room on the disk");
    let get_s = begin.elapsed().as_secs_f64();
    assert_eq!(to.metadata().expect("a file").len(), bytes);
    json!({ "put_s": put_s, "get_s": get_s })
}
