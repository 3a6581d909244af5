//! See `lethe_gateway::fuzzing`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| lethe_gateway::fuzzing::http2_frames(data));
