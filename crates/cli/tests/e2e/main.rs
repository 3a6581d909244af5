//! End-to-end tests: the real binary, real services, real signals. Each test prints its seed.

#![allow(missing_docs, clippy::print_stdout)]

mod any_program;
mod bad_input;
mod browser;
mod control;
mod crash;
mod lethe;
mod reload;
mod seed;
mod shop;
mod shopping_by_browser;
mod unix_socket;
mod visitor;
