//! The contract of blobs.

use crate::engine::fixture;

lethe_state::contract_blobs!(fixture);
