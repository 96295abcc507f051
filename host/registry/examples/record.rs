//! Records a set of decisions from the seeded driver, in a deterministic sandbox.
//!
//! `record SEED COUNT OUT POLICY [POSTPROCESSOR]`

use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::Arc;

use msao_registry::driver::{Driver, record_set};
use msao_registry::sandbox::{Sandbox, SandboxConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().ok_or(format!("{what} is missing"));
    let (seed, count) = (next("SEED")?.parse()?, next("COUNT")?.parse()?);
    let (out, policy) = (PathBuf::from(next("OUT")?), PathBuf::from(next("POLICY")?));
    let postprocessor = arguments.next().map(PathBuf::from);
    let sandbox = Sandbox::new(&SandboxConfig {
        deterministic: true,
        ..SandboxConfig::default()
    })?;
    let mut out = BufWriter::new(std::fs::File::create(out)?);
    record_set(
        Arc::new(sandbox),
        &policy,
        postprocessor.as_deref(),
        (Driver::new(seed), count),
        0.05,
        &mut out,
    )?;
    Ok(())
}
