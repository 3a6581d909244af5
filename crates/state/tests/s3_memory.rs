//! A large blob goes through the s3 engine in little memory. It is alone in its process, whose memory is measured.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use lethe_state::{blobs::Put, s3::S3};

#[path = "s3/moto.rs"]
mod moto;

const PIECES: usize = 1024;
const PIECE: usize = 64 << 10;
/// What an upload or download may take beside what there was before it.
const MEMORY_KIB_MAX: u64 = 16 << 10;

/// A line of the kernel's account of this process, in KiB.
fn memory(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

/// How much memory a call takes at most.
async fn grown<T>(call: impl Future<Output = T>) -> (T, u64) {
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS");
    let done = call.await;
    (done, memory("VmHWM").saturating_sub(before))
}

/// Pieces that differ, of bytes that are nowhere else in memory.
fn piece(n: usize) -> Bytes {
    (0..PIECE).map(|at| (at * 31 + n * 7) as u8).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_mib_go_through_sixteen() {
    let blobs = S3::open(&moto::shared().url("").parse().unwrap()).unwrap().engines().blobs;
    let put = |pieces: usize| {
        let body = stream::iter(0..pieces).map(|n| Ok(piece(n))).boxed();
        blobs.put("b", "large", body, Put::default())
    };
    // What is needed once, and what the allocator keeps.
    put(1).await.unwrap();
    let (info, taken) = grown(put(PIECES)).await;
    assert_eq!(info.unwrap().size, (PIECES * PIECE) as u64);
    println!("an upload of 64 MiB took {taken} KiB");
    assert!(taken <= MEMORY_KIB_MAX, "{taken} KiB");

    let download = async {
        let mut body = blobs.get("b", "large", None).await.unwrap().unwrap().body;
        let (mut n, mut at) = (0, 0);
        let mut expected = piece(0);
        while let Some(found) = body.next().await {
            for byte in found.unwrap() {
                assert_eq!(byte, expected[at], "byte {at} of piece {n}");
                at += 1;
                if at == PIECE {
                    (n, at) = (n + 1, 0);
                    expected = piece(n);
                }
            }
        }
        assert_eq!((n, at), (PIECES, 0));
    };
    let ((), taken) = grown(download).await;
    println!("a download of 64 MiB took {taken} KiB");
    assert!(taken <= MEMORY_KIB_MAX, "{taken} KiB");
    let uploads = moto::shared().say(&format!("GET /{}?uploads HTTP/1.1\r\n", moto::BUCKET));
    assert!(uploads.contains("ListMultipartUploadsResult") && !uploads.contains("<UploadId>"), "{uploads}");
}
