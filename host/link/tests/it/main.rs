//! The shaper and the estimators.

mod delay;
mod estimators;
mod faults;
mod kernel;
mod loopback;
mod support;
mod throughput;
