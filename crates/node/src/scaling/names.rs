//! The names of numbers. Those that are measured here are as an autoscaler's file would have them too.

/// Requests a second, of a service as a whole or of one worker.
pub const REQUESTS: &str = "requests";
/// Requests in workers and those that wait for one, of a service as a whole or of one worker.
pub const CONCURRENCY: &str = "concurrency";
/// A quantile of how long answers take to begin, in milliseconds.
pub const LATENCY: &str = "latency";
/// Numbers that nobody else can tell.
pub const RESERVED: [&str; 5] = [REQUESTS, CONCURRENCY, LATENCY, "cpu", "memory"];
/// What of the latency is measured when nothing says otherwise, as in an autoscaler's file.
pub const QUANTILE_DEFAULT: f64 = 0.99;
/// The longest name.
pub const NAME_BYTES_MAX: usize = 64;

/// Whether a number from elsewhere may be called so: it stands in paths, labels and an autoscaler's spec.
pub fn is_name(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain) && text != "." && text != ".."
}
