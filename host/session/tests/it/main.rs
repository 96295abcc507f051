//! Frames, and whole sessions.

mod frames;
mod simulator;
