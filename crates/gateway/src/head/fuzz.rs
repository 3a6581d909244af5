//! What holds for any bytes that claim to be a head.

use super::{Bounds, RequestHead, ResponseHead};
use crate::{
    admit::{Length, admit},
    balance::Dice,
    client::Client,
    forwarded::{Scheme, Trust},
    headers::{Framing, Passage, WorkerHead, to_client, to_worker},
    trace::Context,
};

const BOUNDS: Bounds = Bounds { head_bytes_max: 4096, target_bytes_max: 1024, headers_max: 50 };

/// A head ends at one place whatever follows. What is let in reaches the worker as exactly one request, which the same
/// parser reads back as the same, framed in one way.
pub(crate) fn check_request(data: &[u8]) {
    let mut head = RequestHead::default();
    if head.parse(data, BOUNDS) != Ok(true) {
        return;
    }
    let bytes = &data[..head.bytes];
    let mut again = RequestHead::default();
    assert_eq!(again.parse(bytes, BOUNDS), Ok(true), "what follows makes no difference");
    assert_ne!(again.parse(&bytes[..bytes.len() - 1], BOUNDS), Ok(true), "it is whole at its last byte");
    let Ok(admitted) = admit(bytes, &head) else { return };
    let (mut worker, dice) = (WorkerHead::default(), Dice::new());
    let client = Client::new([192, 0, 2, 7].into(), Scheme::Http, false);
    let (trust, context) = (Trust::new(&[]), Context::make(&dice));
    let passage = Passage { client: &client, trust: &trust, via: Some(b"1.1 edge") };
    to_worker(bytes, &head, &admitted, passage, &context, &dice, &mut worker);
    let loose = Bounds { head_bytes_max: 1 << 20, headers_max: 100, ..BOUNDS };
    assert_eq!(again.parse(&worker.bytes, loose), Ok(true), "{:?}", String::from_utf8_lossy(&worker.bytes));
    assert_eq!(again.bytes, worker.bytes.len(), "one request, and nothing behind it");
    if admitted.forwards_left == Some(1) {
        // Here is the last one that may have it, which another gateway would have to refuse.
        return;
    }
    let Ok(read) = admit(&worker.bytes, &again) else {
        panic!("{:?}", String::from_utf8_lossy(&worker.bytes))
    };
    let seen = |admitted: &crate::admit::Admitted<'_>| {
        let host = admitted.host.unwrap_or_default().to_vec();
        (admitted.method.to_vec(), admitted.target.to_vec(), host, admitted.length)
    };
    assert_eq!(seen(&read), seen(&admitted));
    assert!(!(worker.upgrades && read.length != Length::None), "an upgrade has no body");
}

/// A head ends at one place, and what is passed on of it are whole field lines.
pub(crate) fn check_response(data: &[u8]) {
    let mut head = ResponseHead::default();
    if head.parse(data, BOUNDS) != Ok(true) {
        return;
    }
    let bytes = &data[..head.bytes];
    let mut again = ResponseHead::default();
    assert_eq!(again.parse(bytes, BOUNDS), Ok(true), "what follows makes no difference");
    assert!((100..1000).contains(&head.status));
    let Some(framing) = Framing::of(bytes, &head) else { return };
    assert!(!(framing.chunked && framing.length.is_some()), "framed in one way");
    for (name, value) in to_client(bytes, &head, framing, std::iter::empty()) {
        assert!(!name.is_empty() && !name.iter().chain(value).any(|byte| b"\r\n\0".contains(byte)));
    }
}
