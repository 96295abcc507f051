//! The hostile corpus, a row a case.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use msao_core::offload::manifest::Manifest;
use msao_core::offload::{
    Calibration, Item, Node, Outcome, Part, Plan, PlanInput, Report, Request, Route, StepInput,
};
use msao_hostile::{Case, Expected, MANIFEST, corpus};
use msao_registry::state::{CalibrationStore, MemoryStorage};
use msao_registry::{
    Bundle, Choice, Options, Plugins, PolicyConfig, SignatureError, SignatureFile, SigningKeyFile,
    Site, Store, StoreError, Trust,
};
use msao_sandbox::{Failure, LoadError, Plugin, Sandbox, SandboxConfig, inspect};

use super::costs::policy;
use super::inputs::{Inputs, manifest, manifest_text};
use super::measure::{proc_bytes, reset_peak};
use crate::report::Row;

/// Most bytes that the host may need for a case beyond its file: an instance's memory, its tables, its compilation.
const HOST_MIB: f64 = 64.0;

/// Calls an export by name and forgets the answer. What it is given is what the corpus's answers are for.
///
/// # Errors
/// The call's failure.
pub fn call(plugin: &Plugin, export: &str) -> Result<(), Failure> {
    let calibration = Calibration::default();
    let input = PlanInput {
        request: &Request::default(),
        parts: &[Part::default()],
        nodes: &[Node {
            up: true,
            ..Node::default()
        }],
        params: &[],
        calibration: &calibration,
    };
    match plugin {
        Plugin::PostProcessor(it) => {
            let report = Report {
                items: vec![Item {
                    modality: 1,
                    tokens: 4,
                    frames: 1,
                    relevance: 1.0,
                }],
                ..Report::default()
            };
            it.score(&report, 1, &[], &Calibration::default()).map(drop)
        }
        Plugin::Policy(it) => match export {
            "plan" => it.plan(input).map(drop),
            "step" => it.step(&StepInput::default(), &[1, 2, 3]).map(drop),
            "observe" => it.observe(&Outcome::default(), &[], &calibration).map(drop),
            _ => it.explain(input, &Plan::plain(Route::Edge, 0)).map(drop),
        },
    }
}

/// What became of a case, and the kind of failure.
fn outcome(sandbox: &Sandbox, case: &Case) -> Result<(String, bool)> {
    let loaded = sandbox.load(&case.file, &Manifest::parse(&case.manifest)?);
    Ok(match (loaded, case.expected) {
        (Err(error), Expected::Refused(says)) => {
            let text = error.to_string();
            ("refused".to_owned(), text.contains(says))
        }
        (Err(error), _) => (format!("refused: {error}"), false),
        (Ok(_), Expected::Refused(_)) => ("loaded".to_owned(), false),
        (Ok(plugin), Expected::Fails { export, kind, says }) => match call(&plugin, export) {
            Ok(()) => ("answered".to_owned(), false),
            Err(failure) => {
                let text = failure.to_string();
                let right = failure.kind.name() == kind
                    && text.contains(says)
                    && text.contains("hostile 0.1.0")
                    && plugin.usage().instances == 0;
                (failure.kind.name().to_owned(), right)
            }
        },
    })
}

/// Every case of the corpus: the right error, its neighbour's answer as before, memory bounded.
///
/// # Errors
/// The corpus cannot be built.
pub fn rows(wasm: &[u8]) -> Result<Vec<Row>> {
    let sandbox = Sandbox::new(&SandboxConfig::default())?;
    let neighbour = policy(&sandbox, wasm)?;
    let inputs = Inputs::default();
    let before = neighbour.plan(inputs.plan())?;
    let mut rows = Vec::new();
    let mut most = (0.0, String::new());
    let mut disturbed = Vec::new();
    let cases = corpus()?;
    let count = cases.len();
    for case in cases {
        let (aim, _) = match case.expected {
            Expected::Refused(says) => ("refused", says),
            Expected::Fails { kind, says, .. } => (kind, says),
        };
        reset_peak()?;
        let held = proc_bytes("status", "VmRSS")?;
        let (figure, right) = outcome(&sandbox, &case)?;
        let peak = proc_bytes("status", "VmHWM")?.saturating_sub(held);
        let mib = peak as f64 / f64::from(1 << 20);
        if mib > most.0 {
            most = (mib, case.name.clone());
        }
        if neighbour.plan(inputs.plan()).ok().as_ref() != Some(&before) {
            disturbed.push(case.name.clone());
        }
        rows.push(Row {
            name: case.name,
            figure,
            value: None,
            aim: aim.to_owned(),
            met: right,
            details: Vec::new(),
        });
    }
    rows.push(precompiled(wasm)?);
    rows.push(flipped(&sandbox, wasm)?);
    rows.push(signatures(wasm)?);
    rows.push(Row::all("neighbours undisturbed", count, disturbed));
    rows.push(
        Row::at_most("most host memory for a case", most.0, HOST_MIB, " MiB")
            .with_details(vec![most.1]),
    );
    Ok(rows)
}

/// A file that wasmtime itself has compiled, with the very settings of this host.
fn precompiled(wasm: &[u8]) -> Result<Row> {
    let folder = tempfile::tempdir()?;
    let sandbox = Sandbox::new(&SandboxConfig {
        cache: Some(folder.path().to_owned()),
        ..SandboxConfig::default()
    })?;
    policy(&sandbox, wasm)?;
    let file = std::fs::read_dir(folder.path())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|it| it == "cwasm"))
        .context("nothing was kept")?;
    let bytes = std::fs::read(file)?;
    let refused = sandbox.load(&bytes, &Manifest::parse(MANIFEST)?);
    let right = matches!(refused, Err(LoadError::Precompiled)) && inspect(&bytes).is_err();
    Ok(Row {
        name: "precompiled code".to_owned(),
        figure: if refused.is_err() {
            "refused"
        } else {
            "loaded"
        }
        .to_owned(),
        value: None,
        aim: "refused".to_owned(),
        met: right,
        details: Vec::new(),
    })
}

/// A component with one bit flipped: it loads and answers, or fails with an error. Before it comes to that a store finds it
/// damaged, and a signature to be for another release.
fn flipped(sandbox: &Sandbox, wasm: &[u8]) -> Result<Row> {
    const FLIPS: usize = 64;
    let text = manifest_text("offload-policy");
    let manifest = manifest("offload-policy")?;
    let whole = Bundle::new(wasm.to_vec(), text.clone(), None)?;
    let release = whole.release();
    let key = SigningKeyFile::generate()?;
    let signature = key.sign(release, 1);
    let trust = Trust {
        keys: BTreeMap::from([("ops".to_owned(), key.public())]),
        ..Trust::default()
    };
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path())?;
    let kept = (folder.path().join("artifacts")).join(format!("{}.wasm", release.artifact));
    let (mut refused, mut slipped) = (0, Vec::new());
    for flip in 0..FLIPS {
        let at = flip * wasm.len() / FLIPS;
        let mut file = wasm.to_vec();
        if let Some(byte) = file.get_mut(at) {
            *byte ^= 1 << (flip % 8);
        }
        store.push(&whole)?;
        std::fs::write(&kept, &file)?;
        match store.get(&release) {
            Err(StoreError::Damaged { .. }) => {}
            Err(error) => slipped.push(format!("byte {at}: the store says: {error}")),
            Ok(_) => slipped.push(format!("byte {at}: the store takes it")),
        }
        let other = Bundle::new(file.clone(), text.clone(), None)?.release();
        match trust.check(&other, Some(&signature)) {
            Err(SignatureError::OtherRelease { .. }) => {}
            Err(error) => slipped.push(format!("byte {at}: of the signature is said: {error}")),
            Ok(_) => slipped.push(format!("byte {at}: the signature speaks for it")),
        }
        match sandbox.load(&file, &manifest) {
            Err(_) => refused += 1,
            Ok(plugin) => {
                for export in ["plan", "step", "observe", "explain"] {
                    let _ = call(&plugin, export);
                }
            }
        }
    }
    let mut row = Row::all("one bit flipped", FLIPS, slipped);
    row.details.push(format!(
        "the store and the signature refuse all; handed to the sandbox all the same, {refused} do not load, and the rest answer \
         or fail"
    ));
    Ok(row)
}

/// That a release with an older serial than one that was active is not made active, and that a rollback which names it is.
fn older_serial(wasm: &[u8]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let key = SigningKeyFile::generate()?;
    let opened = Plugins::open(Options {
        folder: folder.path().join("registry"),
        config: PolicyConfig {
            keys: BTreeMap::from([("ops".to_owned(), key.public())]),
            ..PolicyConfig::default()
        },
        loader: Arc::new(Sandbox::new(&SandboxConfig::default())?),
        calibration: Arc::new(CalibrationStore::open(Arc::new(MemoryStorage::default()))?),
        records: None,
        site: Site {
            models: "draft/target".into(),
            node: "edge".into(),
        },
    })?;
    let plugins = opened.plugins;
    let text = manifest_text("offload-policy");
    let release = |text: String, serial: u64| -> Result<_> {
        let unsigned = Bundle::new(wasm.to_vec(), text.clone(), None)?;
        let signature = key.sign(unsigned.release(), serial);
        Ok(plugins.push(&Bundle::new(wasm.to_vec(), text, Some(signature))?)?)
    };
    let older = release(text.clone(), 7)?;
    let newer = release(format!("{text}\n# newer\n"), 8)?;
    plugins.activate(Choice::policy(newer))?;
    ensure!(
        plugins.activate(Choice::policy(older)).is_err(),
        "it was made active"
    );
    plugins.rollback_to(Choice::policy(older))?;
    Ok(())
}

/// Signatures that do not speak for what is pushed.
fn signatures(wasm: &[u8]) -> Result<Row> {
    let key = SigningKeyFile::generate()?;
    let stranger = SigningKeyFile::generate()?;
    let text = manifest_text("offload-policy");
    let bundle = Bundle::new(wasm.to_vec(), text.clone(), None)?;
    let other = Bundle::new(wasm.to_vec(), format!("{text}\n# another\n"), None)?;
    let trust = Trust {
        keys: BTreeMap::from([("ops".to_owned(), key.public())]),
        ..Trust::default()
    };
    let good = key.sign(bundle.release(), 7);
    let mut wrong = Vec::new();
    if trust.check(&bundle.release(), Some(&good)) != Ok(Some(7)) {
        wrong.push("a good one is refused".to_owned());
    }
    let digit = if good.signature.starts_with('0') {
        "1"
    } else {
        "0"
    };
    let mut flipped = good.clone();
    flipped.signature.replace_range(0..1, digit);
    let cases = [
        ("none", None),
        ("of another release", Some(key.sign(other.release(), 7))),
        (
            "with another serial",
            Some(SignatureFile {
                serial: 8,
                ..good.clone()
            }),
        ),
        ("by a stranger", Some(stranger.sign(bundle.release(), 7))),
        (
            "by a stranger who names a known key",
            Some(SignatureFile {
                key: key.public(),
                ..stranger.sign(bundle.release(), 7)
            }),
        ),
        ("with a digit changed", Some(flipped)),
    ];
    let count = cases.len() + 2;
    if let Err(what) = older_serial(wasm) {
        wrong.push(format!("an older serial: {what:#}"));
    }
    for (name, signature) in cases {
        if trust.check(&bundle.release(), signature.as_ref()).is_ok() {
            wrong.push(format!("{name}: taken"));
        }
    }
    Ok(Row::all("bad and replayed signatures", count, wrong))
}
