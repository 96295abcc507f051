//! Bounded decoding of images, sounds and clips into plain pixels and samples.
