//! What `violations` says to who asks for something else. Since this is there, `cargo test --workspace` builds the program, which the
//! tests of `lethe prove` start.

#![allow(missing_docs, clippy::unwrap_used, reason = "all of this is a test")]

use std::process::Command;

#[test]
fn a_name_that_no_folder_has() {
    for words in [&["nothing"][..], &["nothing", "--fixed"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_violations")).args(words).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "Error: there is no nothing\n");
    }
}
