//! Every kernel beside plain loops.

mod attention;
mod common;
mod instructions;
mod packing;
mod products;
mod rows;
