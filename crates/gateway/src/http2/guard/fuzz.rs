//! What holds for any bytes that claim to be what a client sends over HTTP/2.

use std::task::Waker;

use super::*;
use crate::http2::frame::PREFACE;

/// What is left of some bytes when they were looked at: too much of something, a block that is not whole, trailers.
type Sight = (Option<&'static str>, bool, Trailers);

fn sight(data: &[u8], piece: usize) -> Sight {
    let (pulse, mut io) = (Pulse::new(), tokio::io::empty());
    let mut guard = Guard::new(&mut io, &pulse);
    data.chunks(piece).for_each(|piece| guard.saw(piece));
    (pulse.excess(), pulse.block_since().is_some(), pulse.trailers.take())
}

/// What frames cost by another reader, that has all bytes at once: idle ones, requests taken back, and whether a header
/// block is open at the end.
fn costs(data: &[u8]) -> (u32, u32, bool) {
    let (mut idle, mut resets, mut open) = (0, 0, false);
    let mut rest = data.get(PREFACE.len()..).unwrap_or_default();
    while let &[high, middle, low, kind, flags, _, _, _, _, ref after @ ..] = rest {
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        match kind {
            0x1 | 0x9 => open = flags & 0x4 == 0 || after.len() < length,
            0x0 | 0x5 | 0x7 => {}
            0x3 => resets += 1,
            0x4 => idle += SETTINGS_COST,
            _ => idle += 1,
        }
        rest = after.get(length..).unwrap_or_default();
    }
    (idle, resets, open)
}

/// Frames are the same however the bytes are cut, each is counted once, and what is read passes unchanged until it is too
/// much.
pub(crate) fn check(data: &[u8]) {
    let begin = Instant::now();
    let whole = sight(data, data.len().max(1));
    let (idle, resets, open) = costs(data);
    assert_eq!(whole.1, open, "an open block");
    let earned = |per_second: u32| per_second.saturating_mul(begin.elapsed().as_secs() as u32 + 1);
    let is_little = idle <= IDLE_FRAMES_BURST && resets <= RESETS_BURST;
    let is_much = idle > IDLE_FRAMES_BURST + earned(IDLE_FRAMES_PER_SECOND) + SETTINGS_COST
        || resets > RESETS_BURST + earned(RESETS_PER_SECOND);
    assert!(!(is_little && whole.0.is_some()), "{:?} after {idle} and {resets}", whole.0);
    assert!(!(is_much && whole.0.is_none()), "nothing said after {idle} and {resets}");
    // Byte by byte takes its time.
    let smallest = if data.len() < 300 { 1 } else { 7 };
    for piece in [smallest, 10] {
        let cut = sight(data, piece);
        assert_eq!((cut.1, &cut.2), (whole.1, &whole.2), "in pieces of {piece}");
        assert!(!is_little || cut.0.is_none(), "in pieces of {piece}");
    }
    passes(data, is_little);
}

fn passes(data: &[u8], to_the_end: bool) {
    let (pulse, mut io) = (Pulse::new(), data);
    let mut guard = Guard::new(&mut io, &pulse);
    let (mut cx, mut passed) = (Context::from_waker(Waker::noop()), Vec::new());
    loop {
        let mut space = [0; 50];
        let mut space = ReadBuf::new(&mut space);
        match Pin::new(&mut guard).poll_read(&mut cx, &mut space) {
            Poll::Ready(Ok(())) if !space.filled().is_empty() => passed.extend_from_slice(space.filled()),
            Poll::Ready(end) => break assert!(end.is_ok() && passed == data),
            Poll::Pending => break assert!(!to_the_end && data.starts_with(&passed)),
        }
    }
}
