//! The `lethe` binary; everything is in the library beside it.

fn main() -> std::process::ExitCode {
    lethe_cli::main()
}
