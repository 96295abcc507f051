//! Changes what is active until it is killed: the child of `msao_registry::proof::stop_at_random`.
//!
//! `torture FOLDER STATE SEED` runs plug-ins in plain Rust; what becomes of a change at a stop does not depend on the kind.

#[path = "../tests/it/common/plain.rs"]
mod plain;

use std::sync::Arc;

use msao_registry::proof::{Torture, torture};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().ok_or(format!("{what} is missing"));
    let (folder, state, seed) = (next("FOLDER")?, next("STATE")?, next("SEED")?);
    torture(
        Torture {
            folder: folder.into(),
            state: state.into(),
            seed: seed.parse()?,
            loader: Arc::new(plain::PlainLoader),
            boot: plain::policy("salt=boot"),
            policies: (0..6)
                .map(|salt| plain::policy(&format!("salt={salt}")))
                .collect(),
            another: |words, number| [words, format!(" salt={number}").as_bytes()].concat(),
        },
        &mut std::io::stdout(),
    )
}
