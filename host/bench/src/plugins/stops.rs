//! A process that swaps, pushes and canaries real components, killed at random moments.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use msao_core::offload::manifest::Probe;
use msao_registry::proof::{Torture, stop_at_random, torture};
use msao_sandbox::{Sandbox, SandboxConfig};

use super::shipped::{POLICIES, Shelf};
use crate::report::Row;

const STOPS: u64 = 100;
/// A child's longest life.
const LONGEST: Duration = Duration::from_millis(600);

/// What a child is told: folder, seed.
#[derive(Clone, Debug)]
pub struct Child {
    /// Where registry, database and compiled components lie.
    pub folder: PathBuf,
    /// Of what it does.
    pub seed: u64,
}

/// Is the child, until it is killed.
///
/// # Errors
/// What went wrong.
pub fn child(child: &Child, shelf: &Shelf) -> Result<()> {
    let compiled = child.folder.join("compiled");
    std::fs::create_dir_all(&compiled)?;
    let sandbox = Sandbox::new(&SandboxConfig {
        cache: Some(compiled),
        ..SandboxConfig::default()
    })?;
    let mut policies = Vec::new();
    for name in POLICIES {
        let bundle = shelf.bundle(name)?;
        // One that asks for the probe cannot be active by itself.
        if bundle.manifest.probe == Probe::None {
            policies.push(bundle);
        }
    }
    policies.push(shelf.bundle("quickest-rust")?);
    torture(
        Torture {
            folder: child.folder.join("registry"),
            state: child.folder.join("state"),
            seed: child.seed,
            loader: Arc::new(sandbox),
            boot: shelf.bundle("cloud-only")?,
            policies,
            another: with_section,
        },
        &mut std::io::stdout(),
    )
    .map_err(|error| anyhow!("{error}"))
}

/// A component with a section of no meaning at its end: another one, which does the same.
fn with_section(wasm: &[u8], number: u64) -> Vec<u8> {
    const NAME: &[u8] = b"push";
    let number = number.to_le_bytes();
    // A custom section: its kind, its length, its name's length, its name, its content. All lengths are below 128.
    let length = 1 + NAME.len() + number.len();
    let head = [0, length as u8, NAME.len() as u8];
    [wasm, &head, NAME, &number].concat()
}

/// Kills a hundred children. `plugins` is passed on to them.
///
/// # Errors
/// A child cannot be started.
pub fn rows(plugins: Option<&Path>) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let program = std::env::current_exe()?;
    let mut spawn = |seed: u64| {
        let mut command = Command::new(&program);
        command.arg("plugins").arg("--child").arg(folder.path());
        command.arg("--seed").arg(seed.to_string());
        if let Some(plugins) = plugins {
            command.arg("--plugins").arg(plugins);
        }
        command
    };
    let (registry, state) = (folder.path().join("registry"), folder.path().join("state"));
    let found = stop_at_random(&mut spawn, &registry, &state, STOPS, 1, LONGEST)?;
    let mut row = Row::all(
        "kill -9 at random: the deployment is what was before or after",
        usize::try_from(STOPS)?,
        found.failures,
    );
    row.details.push(format!(
        "{} kills, {} of them before a word, {} times the database was deleted or damaged",
        found.stops, found.before_a_word, found.without_database
    ));
    row.details.push(format!(
        "each push is of another release; {} kills were in the middle of one, {} in a removal; all {} that are listed are read \
         whole",
        found.in_a_push, found.in_a_removal, found.releases
    ));
    Ok(vec![
        row,
        Row::at_least(
            "changes that were done",
            found.changes as f64,
            STOPS as f64,
            "",
        ),
        Row::at_least(
            "kills in the middle of a change",
            found.in_the_middle as f64,
            10.0,
            "",
        ),
    ])
}
