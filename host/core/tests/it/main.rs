//! The coupled sampler.

mod sampling_golden;
mod sampling_reference;
mod sampling_rollback;
mod sampling_speed;
mod sampling_statistics;
