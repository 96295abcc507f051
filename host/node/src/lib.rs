//! A node: what it is told, how it answers clients, and how it works with other nodes.
//!
//! One chat request goes from [`http`] through [`chat`] (limits, prompt, plug-ins) to [`answer`], which runs the edge's side
//! of a session with the draft model; [`cloud`] runs the other side, for this node's own requests and for other nodes'.
//! What drafts are worth is learned in [`adapt`].
//!
//! Read first: [`config::NodeConfig`], [`node::Node`], [`chat::answer`], [`answer::drive`].
#![forbid(unsafe_code)]

pub mod access;
pub mod adapt;
pub mod answer;
pub mod chat;
pub mod clock;
pub mod cloud;
pub mod config;
pub mod http;
pub mod metrics;
pub mod models;
pub mod node;
pub mod operator;
pub mod peers;
pub mod request;
pub mod serve;
