//! What is decoded, what is refused, and what is made smaller.

mod parity;
mod refusals;
mod robustness;
mod ship_bytes;
mod ship_clips;
mod ship_hostile;
mod ship_pictures;
mod support;
