//! A runtime on plain plug-ins, in a folder that goes away.
#![allow(dead_code)] // an example uses but a part
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

pub mod plain;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use msao_core::digest::Digest;
use msao_core::offload::record::GenerationId;
use msao_core::offload::{Plan, Scores};
use msao_registry::state::{CalibrationStore, MemoryStorage, RecordConfig, RecordRing, Storage};
use msao_registry::{Choice, Opened, Options, Pick, Plugins, PolicyConfig, Release, Site};

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

/// Two generations that are told apart: each has a post-processor of its own.
pub fn two_choices(plugins: &Plugins) -> [Choice; 2] {
    ["salt=1", "salt=2 route=edge"].map(|words| Choice {
        policy: Pick::Take(push(plugins, words)),
        postprocessor: Pick::Take(plugins.push(&plain::postprocessor(words)).unwrap()),
    })
}

/// A plan's memo begins with its policy's digest.
pub fn plan_belongs(id: &GenerationId, plan: &Plan) -> bool {
    (id.policy).is_some_and(|policy| plan.memo.get(..8) == Some(&policy.0[..8]))
}

/// Scores show the post-processor's.
pub fn scores_belong(id: &GenerationId, scores: &Scores) -> bool {
    let shown = |digest: Digest| f64::from(digest.0[0]) / 255.0;
    (id.postprocessor)
        .is_some_and(|it| scores.items.first().map(|it| it.unusual) == Some(shown(it)))
}

/// Waits until the keeper has done something.
pub fn until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}
