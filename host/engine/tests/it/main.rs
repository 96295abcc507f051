//! The engine on golden checkpoints and on the demo's models.

mod failures;
mod interleavings;
mod parity;
mod pruned;
mod published_configs;
mod quantized;
mod repeats;
mod service;
mod serving;
mod twin;
