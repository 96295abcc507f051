//! A node: what it is told, and (as it grows) how it answers clients and works with other nodes.
//!
//! Read first: [`config::NodeConfig`], [`config::load`].
#![forbid(unsafe_code)]

pub mod config;
