//! The operators' commands through the real program, on played nodes.

mod commands;
mod common;
mod rollout;
