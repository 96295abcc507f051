//! Plug-ins in plain Rust, for tests of the runtime. Their "component" is a line of words that says how they behave:
//!
//! `name=patient` and any of `fail=plan`, `fail=step`, `fail=observe`, `fail=score`, `fail-tenant=3` (only for that
//! tenant), `route=edge`, `ask` (asks for the probe), `full` (has it run first), `picky` (fails unless it is asked as its
//! manifest says), `slow-ms=5` (plan), `overload`. What stands behind `salt=` makes another
//! digest of the same behaviour.
#![allow(dead_code)] // an example uses but a part
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::sync::{Arc, Barrier};
use std::time::Duration;

use msao_core::digest::Digest;
use msao_core::offload::manifest::{Manifest, Probe, World};
use msao_core::offload::{
    Action, Calibration, Decision, Operation, Outcome, Plan, PlanInput, Report, Route, Score,
    Scores, StepInput, Update, flag, kind,
};
use msao_registry::sandbox::{Export, Failure, FailureKind};
use msao_registry::{Bundle, Loaded, Loader, PolicyPlugin, PostProcessorPlugin};

/// Loads [`Plain`] plug-ins.
pub struct PlainLoader;

#[derive(Clone)]
pub struct Plain {
    words: Vec<String>,
    digest: Digest,
    manifest: Manifest,
}

impl Loader for PlainLoader {
    fn load(&self, wasm: &[u8], digest: &Digest, manifest: &Manifest) -> Result<Loaded, String> {
        let text = std::str::from_utf8(wasm).map_err(|error| error.to_string())?;
        if !text.starts_with("name=") {
            return Err("this is no plain plug-in".into());
        }
        let plain = Plain {
            words: text.split_whitespace().map(str::to_owned).collect(),
            digest: *digest,
            manifest: manifest.clone(),
        };
        Ok(match manifest.world {
            World::OffloadPolicy => Loaded::Policy(Arc::new(plain)),
            World::ProbePostprocessor => Loaded::PostProcessor(Arc::new(plain)),
        })
    }
}

/// Loads them too, and stops in the middle of one whose last word is `slow`.
pub struct SlowLoader {
    /// Who waits here knows that it has begun.
    pub begun: Barrier,
    /// And here lets it go on.
    pub go: Barrier,
}

impl SlowLoader {
    pub fn new() -> Arc<SlowLoader> {
        Arc::new(SlowLoader {
            begun: Barrier::new(2),
            go: Barrier::new(2),
        })
    }
}

impl Loader for SlowLoader {
    fn load(&self, wasm: &[u8], digest: &Digest, manifest: &Manifest) -> Result<Loaded, String> {
        if wasm.ends_with(b"slow") {
            self.begun.wait();
            self.go.wait();
        }
        PlainLoader.load(wasm, digest, manifest)
    }
}

pub fn manifest(name: &str, world: &str, more: &str) -> String {
    format!(
        "name = \"{name}\"\nversion = \"0.1.0\"\nworld = \"{world}\"\ndescription = \"\"\nstate-schema = 1\n{more}\n\
         [[parameter]]\nname = \"gamma\"\ntype = \"int\"\ndefault = 4\nmin = 1\nmax = 32\nmeaning = \"\"\ntune = true\n"
    )
}

pub fn policy(words: &str) -> Bundle {
    let says = |word: &str| words.split_whitespace().any(|it| it == word);
    let probe = match (says("ask"), says("full")) {
        (true, _) => "probe = \"ask\"",
        (_, true) => "probe = \"full\"",
        _ => "",
    };
    let component = format!("name=patient {words}").into_bytes();
    Bundle::new(
        component,
        manifest("patient", "offload-policy", probe),
        None,
    )
    .unwrap()
}

pub fn postprocessor(words: &str) -> Bundle {
    let component = format!("name=scorer {words}").into_bytes();
    let manifest = manifest("scorer", "probe-postprocessor", "");
    Bundle::new(component, manifest, None).unwrap()
}

impl Plain {
    fn says(&self, word: &str) -> bool {
        self.words.iter().any(|it| it == word)
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.words
            .iter()
            .find_map(|it| it.strip_prefix(name)?.strip_prefix('='))
    }

    fn failure(&self, export: Export, kind: FailureKind, message: &str) -> Failure {
        Failure {
            plugin: format!("{} {}", self.manifest.name, self.manifest.version).into(),
            export,
            kind,
            message: message.to_owned(),
            backtrace: Some("plain.rs".into()),
            memory_peak: 1 << 16,
            elapsed: Duration::from_micros(3),
        }
    }

    fn fails(&self, export: Export) -> Result<(), Failure> {
        if self.says("overload") {
            return Err(self.failure(export, FailureKind::Overloaded, "no instance is free"));
        }
        if self.value("fail") == Some(export.name()) {
            return Err(self.failure(export, FailureKind::Trap, "told to fail"));
        }
        Ok(())
    }

    fn memo(&self, params: &[f64]) -> Vec<u8> {
        let gamma = params.first().copied().unwrap_or(0.0);
        [&self.digest.0[..8], &gamma.to_le_bytes()].concat()
    }

    /// A memo that another generation wrote.
    fn own(&self, export: Export, memo: &[u8]) -> Result<(), Failure> {
        if memo.get(..8) == Some(&self.digest.0[..8]) {
            return Ok(());
        }
        Err(self.failure(
            export,
            FailureKind::Trap,
            "the memo is another generation's",
        ))
    }
}

impl PolicyPlugin for Plain {
    fn digest(&self) -> Digest {
        self.digest
    }

    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn warm(&self, _: u32) -> Result<(), String> {
        Ok(())
    }

    fn plan(&self, input: PlanInput) -> Result<Decision, Failure> {
        self.fails(Export::Plan)?;
        let tenant = self.value("fail-tenant").and_then(|it| it.parse().ok());
        if tenant == Some(input.request.tenant) {
            return Err(self.failure(
                Export::Plan,
                FailureKind::Trap,
                "told to fail for the tenant",
            ));
        }
        if let Some(ms) = self.value("slow-ms").and_then(|it| it.parse().ok()) {
            std::thread::sleep(Duration::from_millis(ms));
        }
        let probed = input.request.flags & flag::PROBED != 0;
        let scored = input.parts.iter().any(|part| part.necessity >= 0.0);
        let as_promised = match self.manifest.probe {
            Probe::None => !probed && !scored,
            Probe::Ask => probed == scored,
            Probe::Full => probed && scored,
        };
        if self.says("picky") && !as_promised {
            return Err(self.failure(Export::Plan, FailureKind::Trap, "asked otherwise"));
        }
        if self.says("ask") && !probed {
            return Ok(Decision::Probe);
        }
        let peer = input.nodes.iter().skip(1).position(|node| node.up);
        let mut plan = match peer {
            Some(row) if self.value("route") != Some("edge") => {
                Plan::plain(Route::Speculate, row as u32 + 1)
            }
            _ => Plan::plain(Route::Edge, 0),
        };
        plan.gamma_max = input.params.first().map_or(4, |gamma| *gamma as u32);
        plan.memo = self.memo(input.params);
        Ok(Decision::Run(plan))
    }

    fn step(&self, input: &StepInput, memo: &[u8]) -> Result<Action, Failure> {
        self.fails(Export::Step)?;
        self.own(Export::Step, memo)?;
        Ok(match input.kind {
            kind::LINK_DOWN => Action::Finish,
            _ if input.unsent >= 4 => Action::Send,
            _ if input.in_flight >= 8 => Action::Wait,
            _ => Action::Draft,
        })
    }

    fn observe(
        &self,
        outcome: &Outcome,
        _: &[f64],
        _: &Calibration,
    ) -> Result<Vec<Update>, Failure> {
        self.fails(Export::Observe)?;
        if !outcome.memo.is_empty() {
            self.own(Export::Observe, &outcome.memo)?;
        }
        Ok(vec![Update {
            operation: Operation::Add,
            key: 1,
            value: 1.0,
            weight: 1.0,
        }])
    }

    fn explain(&self, _: PlanInput, plan: &Plan) -> Result<Option<String>, Failure> {
        self.fails(Export::Explain)?;
        Ok(Some(format!("gamma is {}", plan.gamma_max)))
    }
}

impl PostProcessorPlugin for Plain {
    fn digest(&self) -> Digest {
        self.digest
    }

    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn warm(&self, _: u32) -> Result<(), String> {
        Ok(())
    }

    fn score(
        &self,
        report: &Report,
        _: u64,
        _: &[f64],
        _: &Calibration,
    ) -> Result<Scores, Failure> {
        self.fails(Export::Score)?;
        let score = Score {
            necessity: 0.5,
            mas: 0.25,
            unusual: f64::from(self.digest.0[0]) / 255.0,
            ..Score::default()
        };
        Ok(Scores {
            items: vec![score; report.items.len()],
            updates: vec![Update {
                operation: Operation::Add,
                key: 2,
                value: 1.0,
                weight: 1.0,
            }],
        })
    }
}
