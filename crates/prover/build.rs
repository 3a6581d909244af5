//! Builds `clock/clock.rs`, which is loaded into workers and no part of this crate: a library of its own, whose bytes the crate has in it.

use std::{env, fs, path::PathBuf, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=clock/clock.rs");
    let variable = |name| env::var_os(name).unwrap_or_default();
    let built = PathBuf::from(variable("OUT_DIR")).join("clock.so");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["--edition", "2024", "--crate-name", "clock", "--crate-type", "cdylib"]);
    rustc.args(["-C", "panic=abort", "-C", "opt-level=2", "-C", "strip=symbols", "-C", "link-arg=-nostdlib"]);
    rustc.arg("--target").arg(variable("TARGET"));
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = std::ffi::OsString::from("linker=");
        option.push(linker);
        rustc.arg("-C").arg(option);
    }
    let _ = fs::remove_file(&built);
    let ended = rustc.arg("-o").arg(&built).arg("clock/clock.rs").status();
    // Where there are no such libraries, as with musl, rustc warns and succeeds.
    let is_built = ended.is_ok_and(|status| status.success()) && built.is_file();
    // Where no such library can be made, as for a C library that is linked statically alone, the prover says that it has none.
    if !is_built && fs::write(&built, b"").is_err() {
        println!("cargo::error=cannot write {}", built.display());
    }
}
