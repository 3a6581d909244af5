//! The bytes that go over the wire, in both directions. Each depends on its place alone, so a body that was put
//! together from two workers, cut, shifted or mixed up with another is told from a right one by comparing it.

use std::sync::LazyLock;

/// The largest body there is, in bytes.
pub const LARGEST_BYTES: usize = 2 * 1024 * 1024;

static CONTENT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let words = 0..(LARGEST_BYTES as u64 / 8);
    words.flat_map(|place| scramble(place).to_le_bytes()).collect()
});

/// The first `length_bytes` of the content, at most [`LARGEST_BYTES`].
pub fn first(length_bytes: usize) -> &'static [u8] {
    &CONTENT[..length_bytes]
}

/// Whether `piece` is what stands at `offset` of a body of that content.
pub fn matches(offset: usize, piece: &[u8]) -> bool {
    CONTENT.get(offset..offset + piece.len()) == Some(piece)
}

/// Spreads neighbouring numbers over all of `u64` (the finalizer of SplitMix64).
pub fn scramble(number: u64) -> u64 {
    let mut word = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_matches_only_at_its_own_place() {
        let piece = &first(4096)[1000..2000];
        assert!(matches(1000, piece));
        assert!(!matches(1001, piece));
        assert!(!matches(LARGEST_BYTES - 10, piece));
    }
}
