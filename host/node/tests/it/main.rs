//! Nodes, over sockets where it takes more than one, and what they are made of.

mod accounts;
mod ahead;
mod api;
mod common;
mod confident;
mod config;
mod detail;
mod fetch;
mod nodes;
mod nothing;
mod operator;
mod peers;
mod positions;
mod retention;
mod shipments;
mod ways;
