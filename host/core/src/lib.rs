//! The vocabulary of MSAO: types, formulas and the coupled sampler, without I/O.
//!
//! Everything that two crates must agree on lives here, so that the crates that know a heavy
//! dependency (libtorch, a decoder, a database) never need to know each other.
//!
//! Read first: [`chat::Message`] (what a client asks), [`inputs::ModelInputs`] (what a processor
//! hands to an engine), [`meter::Meter`] (what an engine counts while it works) and [`sampling::Sampler`] (how the
//! next token is chosen, alike on both nodes).
#![forbid(unsafe_code)]

pub mod chat;
pub mod digest;
pub mod inputs;
pub mod meter;
pub mod offload;
pub mod probe;
pub mod sampling;
