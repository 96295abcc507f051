//! Multimodal inference on libtorch: checkpoints, forward passes, caches, counters.
