//! Recording a set of decisions.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use msao_state::{CalibrationStore, Exported, MemoryStorage, RecordConfig, RecordRing, Storage};
use thiserror::Error;

use super::{Driver, play};
use crate::bundle::{Bundle, BundleError};
use crate::config::PolicyConfig;
use crate::plugin::Loader;
use crate::runtime::{Choice, OpenError, Options, Pick, Plugins, Refused, Site};

/// Why a set cannot be recorded.
#[derive(Debug, Error)]
pub enum RecordSetError {
    /// A plug-in cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A plug-in does not do.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The runtime cannot start.
    #[error(transparent)]
    Open(#[from] Box<OpenError>),
    /// The database of the set cannot be made.
    #[error(transparent)]
    Storage(#[from] msao_state::StorageError),
    /// The records cannot be kept or written.
    #[error(transparent)]
    Record(#[from] msao_state::RecordError),
    /// No room for the folder that is used meanwhile.
    #[error("no folder for the time of recording: {0}")]
    Folder(std::io::Error),
    /// Requests on which a call failed: a set is to show what plug-ins decide.
    #[error("{0} of the requests met a plug-in that failed")]
    Failed(u64),
}

/// Has a policy, and a post-processor where it wants one, decide about the first `count` requests of `traffic`, and writes
/// the decisions as JSON lines. The same plug-ins, traffic and count give the same bytes, if `loader` is deterministic.
/// Probe reports are kept for a share of `reports`.
///
/// # Errors
/// [`RecordSetError`].
pub fn record_set(
    loader: Arc<dyn Loader>,
    policy: &Path,
    postprocessor: Option<&Path>,
    (traffic, count): (Driver, usize),
    reports: f64,
    out: &mut dyn Write,
) -> Result<Exported, RecordSetError> {
    let folder = tempfile::tempdir().map_err(RecordSetError::Folder)?;
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let calibration = Arc::new(CalibrationStore::open(Arc::clone(&storage))?);
    let config = RecordConfig {
        keep: count as u64,
        mib: 1024,
        reports,
        ..RecordConfig::default()
    };
    let records = Arc::new(RecordRing::open_salted(storage, config, Vec::new())?);
    let opened = Plugins::open(Options {
        folder: folder.path().to_owned(),
        config: PolicyConfig {
            allow_unsigned: true,
            ..PolicyConfig::default()
        },
        loader,
        calibration: Arc::clone(&calibration),
        records: Some(Arc::clone(&records)),
        site: Site {
            models: "simulated".into(),
            node: "simulated".into(),
        },
    })
    .map_err(Box::new)?;
    let plugins = opened.plugins;
    let policy = plugins.push(&Bundle::read(policy)?)?;
    let postprocessor = match postprocessor {
        Some(path) => Pick::Take(plugins.push(&Bundle::read(path)?)?),
        None => Pick::Keep,
    };
    plugins.activate(Choice {
        policy: Pick::Take(policy),
        postprocessor,
    })?;
    let mut failed = 0;
    for scenario in traffic.take(count) {
        failed += u64::from(play(&plugins, &scenario).failed);
        // Each request sees what those before it taught, whatever the threads do.
        calibration.settle();
        records.settle()?;
    }
    if failed > 0 {
        return Err(RecordSetError::Failed(failed));
    }
    Ok(records.export(out, count)?)
}
