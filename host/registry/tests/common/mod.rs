//! A runtime on plain plug-ins, in a folder that goes away.
#![allow(dead_code)] // each test binary uses a part
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

pub mod plain;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use msao_registry::state::{CalibrationStore, MemoryStorage, RecordConfig, RecordRing, Storage};
use msao_registry::{Opened, Options, Plugins, PolicyConfig, Release, Site};

use plain::PlainLoader;

pub struct Bench {
    pub folder: tempfile::TempDir,
    pub storage: Arc<MemoryStorage>,
    pub calibration: Arc<CalibrationStore>,
    pub records: Arc<RecordRing>,
    pub config: PolicyConfig,
}

impl Bench {
    pub fn new(config: &str) -> Bench {
        let records = RecordConfig {
            reports: 1.0,
            queue: 65_536,
            ..RecordConfig::default()
        };
        Bench::recording(config, records)
    }

    pub fn recording(config: &str, records: RecordConfig) -> Bench {
        let config = format!("allow-unsigned = true\n{config}");
        let storage = Arc::new(MemoryStorage::default());
        let shared: Arc<dyn Storage> = Arc::clone(&storage) as Arc<dyn Storage>;
        Bench {
            folder: tempfile::tempdir().unwrap(),
            calibration: Arc::new(CalibrationStore::open(Arc::clone(&shared)).unwrap()),
            records: Arc::new(RecordRing::open(shared, records).unwrap()),
            storage,
            config: toml::from_str(&config).unwrap(),
        }
    }

    pub fn registry(&self) -> std::path::PathBuf {
        self.folder.path().join("registry")
    }

    pub fn open(&self) -> Opened {
        Plugins::open(self.options(&self.registry())).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn options(&self, folder: &Path) -> Options {
        Options {
            folder: folder.to_owned(),
            config: self.config.clone(),
            loader: Arc::new(PlainLoader),
            calibration: Arc::clone(&self.calibration),
            records: Some(Arc::clone(&self.records)),
            site: Site {
                models: "draft/target".into(),
                node: "edge".into(),
            },
        }
    }

    pub fn plugins(&self) -> Plugins {
        let opened = self.open();
        assert_eq!(opened.warnings, Vec::<String>::new());
        opened.plugins
    }
}

pub fn push(plugins: &Plugins, words: &str) -> Release {
    plugins.push(&plain::policy(words)).unwrap()
}

/// Waits until the keeper has done something.
pub fn until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}
