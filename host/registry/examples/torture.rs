//! Changes what is active until it is killed: the child of `msao_registry::proof::stop_at_random`.
//!
//! `torture FOLDER STATE SEED` runs plug-ins in plain Rust; what becomes of a change at a stop does not depend on the kind.

#[path = "../tests/common/plain.rs"]
mod plain;

use std::path::PathBuf;
use std::sync::Arc;

use msao_registry::proof::{Torture, torture};
use msao_registry::{CanaryConfig, PolicyConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().ok_or(format!("{what} is missing"));
    let (folder, state, seed) = (next("FOLDER")?, next("STATE")?, next("SEED")?);
    // What a fresh node boots lies beside its folder.
    let boot = PathBuf::from(&folder).with_extension("boot");
    let bundle = plain::policy("salt=boot");
    std::fs::create_dir_all(boot.join("target"))?;
    std::fs::write(boot.join("policy.toml"), &bundle.manifest_text)?;
    std::fs::write(boot.join("target/patient.wasm"), &bundle.wasm)?;
    torture(
        Torture {
            folder: folder.into(),
            state: state.into(),
            seed: seed.parse()?,
            config: PolicyConfig {
                allow_unsigned: true,
                boot: Some(boot),
                canary: CanaryConfig {
                    steps: vec![0.5, 0.75, 1.0],
                    min_samples: 20,
                    ..CanaryConfig::default()
                },
                ..PolicyConfig::default()
            },
            loader: Arc::new(plain::PlainLoader),
            policies: (0..6)
                .map(|salt| plain::policy(&format!("salt={salt}")))
                .collect(),
        },
        &mut std::io::stdout(),
    )
}
