//! What must hold for any bytes at all, one function for each parser of ours. `fuzz/` searches for bytes for which it does
//! not (`make fuzz`), and the tests here do so for a moment on every run, always with the same bytes.
//!
//! A new parser needs a `fuzz` function beside it, a line in [`TARGETS`] and a function below, a file in
//! `fuzz/fuzz_targets`, and some good and bad inputs in `fuzz/corpus`.

use crate::{chunked, forwarded, head, http2, proxy_protocol};

/// Panics if something does not hold.
pub type Check = fn(&[u8]);

/// All of them, by the name of their target.
pub const TARGETS: &[(&str, Check)] = &[
    ("chunked", self::chunked),
    ("forwarded", self::forwarded),
    ("http2_frames", self::http2_frames),
    ("http2_trailers", self::http2_trailers),
    ("proxy_protocol", self::proxy_protocol),
    ("request_head", self::request_head),
    ("response_head", self::response_head),
];

/// Chunked bodies.
pub fn chunked(data: &[u8]) {
    chunked::fuzz::check(data);
}

/// Heads of requests, and what workers get of them.
pub fn request_head(data: &[u8]) {
    head::fuzz::check_request(data);
}

/// Heads of responses, and what clients get of them.
pub fn response_head(data: &[u8]) {
    head::fuzz::check_response(data);
}

/// `Forwarded` and `X-Forwarded-*`.
pub fn forwarded(data: &[u8]) {
    forwarded::fuzz::check(data);
}

/// What a client sends over HTTP/2, as the guard of its connection sees it.
pub fn http2_frames(data: &[u8]) {
    http2::guard::fuzz::check(data);
}

/// Header blocks of trailers over HTTP/2.
pub fn http2_trailers(data: &[u8]) {
    http2::trailers::fuzz::check(data);
}

/// The PROXY protocol.
pub fn proxy_protocol(data: &[u8]) {
    proxy_protocol::fuzz::check(data);
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// Enough for what is near the corpus, in about a second without optimisation.
    const ROUNDS: usize = 20_000;
    const INPUT_BYTES_MAX: usize = 8 << 10;

    /// xorshift64*
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
        }

        /// Some part of something.
        fn part<'a>(&mut self, whole: &'a [u8]) -> &'a [u8] {
            let begin = self.below(whole.len() + 1);
            &whole[begin..][..self.below(whole.len() - begin + 1)]
        }

        /// Changes `input` in one of the ways in which bytes go wrong.
        fn change(&mut self, input: &mut Vec<u8>, other: &[u8]) {
            let at = self.below(input.len() + 1);
            match self.below(6) {
                0 => input.truncate(at),
                1 => input.insert(at, self.below(256) as u8),
                2 => drop(input.splice(at..at, self.part(other).iter().copied())),
                3 => {
                    let part = self.part(input).to_vec();
                    input.splice(at..at, part);
                }
                _ if at == input.len() => {}
                4 => input[at] ^= 1 << self.below(8),
                _ => drop(input.remove(at)),
            }
            input.truncate(INPUT_BYTES_MAX);
        }
    }

    fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        let inputs = files.iter().map(|path| (path.display().to_string(), fs::read(path).unwrap()));
        inputs.collect()
    }

    #[test]
    fn around_the_corpus() {
        for (name, check) in TARGETS {
            let corpus = corpus(name);
            assert!(corpus.len() >= 5, "{name}: a corpus of {} is too small", corpus.len());
            for (path, input) in &corpus {
                println!("{path}");
                check(input);
            }
            for seed in 1..=ROUNDS {
                let mut dice = Dice(seed as u64);
                let mut input = corpus[dice.below(corpus.len())].1.clone();
                for _ in 0..=dice.below(4) {
                    let other = &corpus[dice.below(corpus.len())].1;
                    dice.change(&mut input, other);
                }
                let result = std::panic::catch_unwind(|| check(&input));
                assert!(result.is_ok(), "{name}, seed {seed}: {}", input.escape_ascii());
            }
        }
    }
}
