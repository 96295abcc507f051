//! A medium made smaller for the way to another node: so far, which pixels a set of grid cells covers ([`regions`]).

mod region;

pub use self::region::{Region, regions, share};
