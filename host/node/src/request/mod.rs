//! A request on its way to a plan: its media fetched and decoded, its prompt laid out, what plug-ins see of it; and on its
//! way from there, to models that get less than all of its media.
//!
//! A plan's treatments become what can run (`treatment`), and that what each model reads of each medium ([`Retained`]):
//! a list of tokens, or a [`View`] of a medium that is laid out at another size or in part. What goes to the target is a
//! [`Cargo`]: made when a way to it is looked for, on a thread for that, and kept as long as the answer may need it; its
//! OPEN says how each medium was made. [`lay_out`] turns that and the bytes into what a model reads, on whichever node.

mod cargo;
mod detail;
pub mod fetch;
mod made;
mod prepare;
mod reading;
mod retain;
mod rows;
mod ship;
mod shown;
mod treatment;
mod view;

pub use self::cargo::{Cargo, Means, Sent};
pub use self::detail::{LOW_SIDE_PX, low, low_size};
pub use self::prepare::{Medium, Prompt, prepare};
pub use self::reading::Reading;
pub use self::retain::{Kept, Retained, Sight, kept};
pub use self::rows::{known, parts, report, this_node};
pub use self::shown::{Given, Laid, lay_out};
pub use self::treatment::{BEST_QUALITY, Reach, Reaches, treatment};
pub use self::view::{View, canvas};
