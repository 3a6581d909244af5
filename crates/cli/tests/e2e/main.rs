//! End-to-end tests: the real binary, real services, real signals. Each test prints its seed.

#![allow(missing_docs, clippy::print_stdout)]

mod any_program;
mod bad_input;
mod browser;
mod caller;
mod control;
mod crash;
mod grants;
mod idempotent;
mod inbound;
mod lethe;
mod mortal;
mod mortal_lab;
mod moving;
mod redis;
mod reload;
mod retry_bounds;
mod retry_table;
mod seed;
mod shop;
mod shopping_by_browser;
mod state;
mod teller;
mod unix_socket;
mod upgrade;
mod visitor;
