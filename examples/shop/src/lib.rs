//! Marginalia, a small shop for people who write things down, as a Lethe service: every worker is alike and
//! forgets everything when it dies; sessions, products, stock, orders and photos are in the state tier.
//!
//! `web` has the handlers, one file an area; `pages` has what they show; the rest is the shop itself.

pub mod account;
pub mod assets;
pub mod cart;
pub mod catalogue;
pub mod config;
mod date;
pub mod error;
mod fold;
pub mod money;
pub mod order;
mod pages;
pub mod password;
pub mod photo;
pub mod sessions;
pub mod shop;
pub mod tries;
pub mod web;
