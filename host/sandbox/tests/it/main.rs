//! The sandbox, and the contract that it keeps.

mod common;
mod frozen;
mod hostile;
mod sandbox;
mod shipped;
