//! What proofs rest on, on samples.

mod adaptive;
mod demo_pair;
