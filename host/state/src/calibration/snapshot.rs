//! What a plug-in is shown of its cells.

use std::sync::{Arc, LazyLock, OnceLock};

use msao_core::digest::Digest;
use msao_core::offload::Calibration;

/// Cells as they were at one moment. Shared, never copied, by all requests of that moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    calibration: Arc<Calibration>,
    digest: OnceLock<Digest>,
}

static EMPTY: LazyLock<Arc<Snapshot>> = LazyLock::new(Arc::default);

impl Snapshot {
    /// A snapshot of these cells.
    pub fn new(calibration: Calibration) -> Snapshot {
        Snapshot {
            calibration: Arc::new(calibration),
            digest: OnceLock::new(),
        }
    }

    /// Of no cells.
    pub fn empty() -> Arc<Snapshot> {
        Arc::clone(&EMPTY)
    }

    /// The cells.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// The cells, for who needs them longer than this.
    pub fn shared(&self) -> &Arc<Calibration> {
        &self.calibration
    }

    /// The snapshot's name; computed when first asked for.
    pub fn digest(&self) -> Digest {
        *self.digest.get_or_init(|| self.calibration.digest())
    }
}
