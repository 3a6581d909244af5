//! End-to-end tests: the real binary, real services, real signals. Each test prints its seed.

#![allow(missing_docs, clippy::print_stdout)]

mod any_program;
#[path = "../../../state/tests/azure/azurite.rs"]
mod azurite;
mod bad_input;
mod browser;
mod caller;
mod control;
mod crash;
mod custodian;
mod echo;
mod engines;
mod export;
#[path = "../../../state/tests/gcs/server.rs"]
mod gcs;
mod git_server;
mod grants;
mod h2c_worker;
mod idempotent;
mod inbound;
mod interruption;
mod journey;
mod killer;
mod lethe;
mod limits;
mod load;
mod mortal;
mod mortal_lab;
#[path = "../../../state/tests/s3/moto.rs"]
mod moto;
mod moving;
mod passes;
#[path = "../../../state/tests/postgres/server.rs"]
mod postgres;
mod record;
mod recorder;
#[path = "../../../state/tests/redis/server.rs"]
mod redis;
mod reload;
mod retry_bounds;
mod retry_table;
mod rollout;
mod route_keys;
mod scale;
mod secure;
mod seed;
mod shop;
mod shopping_by_browser;
mod simulate;
mod sources;
mod state;
mod teller;
mod unix_socket;
mod upgrade;
mod visitor;
mod warm;
mod zero;
