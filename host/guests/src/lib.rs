//! How a plug-in's folder becomes a component, whichever of four languages it is written in.
//!
//! It promises that the same sources and tools give the same component, that a component is written whole or not at all, and
//! that a missing tool is named together with the way to get it. It fetches nothing: `cargo xtask plugins` does, into the
//! user's cache folder, where [`Tools`] looks after PATH.
//!
//! | language | source | tool |
//! |---|---|---|
//! | Rust | `Cargo.toml` | cargo, with the target wasm32-wasip2 |
//! | C | `policy.c` | zig (its clang, linker and C library), bindings by wit-bindgen |
//! | JavaScript | `policy.js` | componentize-qjs, on Node.js |
//! | Python | `policy.py` | componentize-py |
//!
//! Read first: [`build`].

mod build;
mod c;
mod language;
mod tools;
mod wit;

pub use self::build::{BuildError, Source, build};
pub use self::language::Language;
pub use self::tools::{RUST_TARGET, Tools};
pub use self::wit::write as write_wit;
