//! An answer on its way: the edge's state machine, driven.
//!
//! [`drive`] runs one answer of one request, on whatever route: the machine of `msao-session` says what is to be done, this
//! does it with the draft model ([`Orders`](crate::models::Orders)), the way to the target ([`Channel`]) and the policy's
//! `step`, and tells the machine what happened. A target in this process is reached as one behind a link is, so there is
//! one way of answering and not four.

mod ahead;
mod bill;
mod channel;
mod drive;
mod passes;
mod replay;
mod target;
mod text;

pub use self::ahead::{GoneOn, Opened};
pub use self::bill::Charges;
pub use self::channel::{Channel, Receiver, Sender, Unsent};
pub use self::drive::{Driven, Ended, Job, Steps, drive};
pub use self::replay::{Place, Replay};
pub use self::target::{
    Bringing, Connecting, Elsewhere, Finding, Found, NoWay, Target, Traffic, Way,
};
