//! What a node learns and remembers: calibration, decision records. The only crate that knows sled.
