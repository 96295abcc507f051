//! What is active, and how another generation takes over: activation, canary, shadow, rollback, restarts.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Condvar, Mutex};

use msao_core::digest::Digest;
use msao_core::offload::manifest::{Manifest, Value};
use msao_core::offload::{Decision, Outcome, Plan, Status};
use msao_registry::deployment::NotNow;
use msao_registry::driver::{Driver, play};
use msao_registry::proof::{Belongs, SwapFigures, SwapRun, observes, swaps};
use msao_registry::state::{Batch, CalibrationStore, MemoryStorage, Storage, StorageError, Visit};
use msao_registry::{
    Arrival, Bundle, Choice, GenerationStatus, Loaded, Loader, Options, Pick, Plugins, PublicKey,
    Receipt, Refused, ShadowStats, Side, SignatureError, SigningKeyFile,
};

use crate::common::{self, Bench, plain, push, until};

fn gamma(plugins: &Plugins) -> u32 {
    let scenario = Driver::new(1).next().unwrap();
    let mut ticket = plugins.admit(&Arrival::new("gamma", scenario.content));
    let decision = ticket.plan(&scenario.request, &scenario.parts, &scenario.nodes);
    ticket.finish(Outcome::default());
    match decision {
        Decision::Run(Plan { gamma_max, .. }) => gamma_max,
        Decision::Probe => panic!("no probe was promised"),
    }
}

fn tuned(value: i64) -> BTreeMap<String, Option<Value>> {
    BTreeMap::from([("gamma".to_owned(), Some(Value::Int(value)))])
}

#[test]
fn requests_under_way_finish_on_their_own_generation() {
    let bench = Bench::new("");
    let plugins = bench.plugins();
    let first = plugins
        .activate(Choice::policy(push(&plugins, "salt=1")))
        .unwrap();
    let scenario = Driver::new(1).next().unwrap();
    let mut old = plugins.admit(&Arrival::new("old", scenario.content));
    old.plan(&scenario.request, &scenario.parts, &scenario.nodes);
    plugins
        .activate(Choice::policy(push(&plugins, "salt=2")))
        .unwrap();
    let third = plugins
        .activate(Choice::policy(push(&plugins, "salt=3")))
        .unwrap();
    // Neither active nor warm any more, and still whole: its memo is its own.
    assert_eq!(old.number(), first.number);
    old.step(&msao_core::offload::StepInput::default());
    assert!(!old.failed());
    until("what nothing goes back to is gone", || {
        plugins.status().generations_in_memory == 3
    });
    assert_eq!(plugins.status().live_generations, 2);
    old.finish(Outcome::default());
    until("the active one and the warm one before it are left", || {
        plugins.status().generations_in_memory == 2
    });
    assert_eq!(plugins.status().live_generations, 1);
    assert_eq!(
        plugins
            .admit(&Arrival::new("new", scenario.content))
            .number(),
        third.number
    );
}

#[test]
fn a_restart_goes_on_where_it_was() {
    let bench = Bench::new("");
    let (before, salt) = {
        let plugins = bench.plugins();
        plugins
            .activate(Choice::policy(push(&plugins, "salt=1")))
            .unwrap();
        plugins
            .activate(Choice::policy(push(&plugins, "salt=2")))
            .unwrap();
        plugins
            .canary(Choice::policy(push(&plugins, "salt=3")))
            .unwrap();
        plugins
            .shadow(Choice::policy(push(&plugins, "salt=4")))
            .unwrap();
        (plugins.deployment(), plugins.deployment().salt)
    };
    let plugins = bench.plugins();
    assert_eq!(plugins.deployment(), before);
    assert_eq!(plugins.deployment().salt, salt);
    let status = plugins.status();
    assert_eq!(status.active.policy.as_deref(), Some("patient 0.1.0"));
    assert!(status.rollout.is_some() && status.shadow.is_some() && status.previous.is_some());
    assert_eq!(status.generations_in_memory, 4);
    // The candidate's share is new requests; the shadow and the warm one decide nothing.
    assert_eq!(status.live_generations, 2);
    plugins.promote().unwrap();
    plugins.rollback("back").unwrap();
    assert_eq!(plugins.deployment().active, before.active);
}

#[test]
fn two_processes_do_not_share_a_folder() {
    let bench = Bench::new("");
    let _plugins = bench.plugins();
    let second = Plugins::open(bench.options(&bench.registry()));
    let error = second.err().expect("opened twice").to_string();
    assert!(error.contains("in use by another process"), "{error}");
}

#[test]
fn off_is_the_fallback_until_it_is_rolled_back_restarts_included() {
    let bench = Bench::new("");
    let number = {
        let plugins = bench.plugins();
        let receipt = plugins
            .activate(Choice::policy(push(&plugins, "salt=1")))
            .unwrap();
        plugins.off().unwrap();
        assert!(plugins.off().is_err());
        receipt.number
    };
    let plugins = bench.plugins();
    assert_eq!(plugins.status().active.policy, None);
    assert_eq!(plugins.rollback("on again").unwrap().number, number);
    assert_eq!(
        plugins.status().active.policy.as_deref(),
        Some("patient 0.1.0")
    );
    plugins.rollback("and off").unwrap();
    assert!(matches!(
        plugins.rollback("nothing before"),
        Err(Refused::NotNow(NotNow::NothingBefore))
    ));
}

#[test]
fn off_ends_a_canary_and_a_shadow_beside_the_fallback() {
    let bench = Bench::new("");
    let plugins = bench.plugins();
    plugins
        .canary(Choice::policy(push(&plugins, "salt=1")))
        .unwrap();
    plugins
        .shadow(Choice::policy(push(&plugins, "salt=2")))
        .unwrap();
    plugins.off().unwrap();
    let status = plugins.status();
    assert!(status.rollout.is_none() && status.shadow.is_none());
    let scenario = Driver::new(1).next().unwrap();
    for number in 0..100 {
        let id = format!("request {number}");
        let ticket = plugins.admit(&Arrival::new(&id, scenario.content));
        assert_eq!((ticket.side(), &ticket.generation().policy), (None, &None));
    }
    assert!(matches!(
        plugins.off(),
        Err(Refused::NotNow(NotNow::SameAsActive))
    ));
}

#[test]
fn turning_off_needs_no_disk() {
    let bench = Bench::new("");
    let plugins = bench.plugins();
    plugins
        .activate(Choice::policy(push(&plugins, "salt=1")))
        .unwrap();
    let (journal, away) = (
        bench.registry().join("journal"),
        bench.folder.path().join("away"),
    );
    fs::rename(&journal, &away).unwrap();
    assert!(matches!(plugins.off(), Err(Refused::NotDurable(_))));
    assert_eq!(plugins.status().active.policy, None);
    until("it is told", || plugins.status().not_durable.is_some());
    fs::rename(&away, &journal).unwrap();
    until("it is written down", || {
        plugins.status().not_durable.is_none()
    });
    drop(plugins);
    assert_eq!(bench.plugins().status().active.policy, None);
}

/// A database that can be held up.
#[derive(Default)]
struct Gate {
    storage: MemoryStorage,
    closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn set(&self, closed: bool) {
        *self.closed.lock().unwrap() = closed;
        self.opened.notify_all();
    }
}

impl Storage for Gate {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.storage.get(key)
    }

    fn apply(&self, batch: Batch) -> Result<(), StorageError> {
        let closed = self.closed.lock().unwrap();
        drop(self.opened.wait_while(closed, |closed| *closed).unwrap());
        self.storage.apply(batch)
    }

    fn scan(&self, prefix: &[u8], visit: &mut Visit) -> Result<(), StorageError> {
        self.storage.scan(prefix, visit)
    }

    fn flush(&self) -> Result<(), StorageError> {
        self.storage.flush()
    }
}

/// Does `back` while an activation holds the lock, and returns what became of both.
fn during_an_activation(
    back: impl Fn(&Plugins) -> Result<Receipt, Refused> + Sync,
) -> (Plugins, Bench, Receipt, Result<Receipt, Refused>) {
    let gate = Arc::new(Gate::default());
    let shared: Arc<dyn Storage> = Arc::clone(&gate) as Arc<dyn Storage>;
    let bench = Bench {
        calibration: Arc::new(CalibrationStore::open(shared).unwrap()),
        ..Bench::new("")
    };
    let plugins = bench.plugins();
    let first = plugins
        .activate(Choice::policy(push(&plugins, "salt=1")))
        .unwrap();
    let second = push(&plugins, "salt=2");
    traffic(&plugins, 1, 1);
    bench.calibration.settle();
    let (activated, gone_back) = std::thread::scope(|scope| {
        // The calibration's thread waits for the database, and the activation for the calibration's thread.
        gate.set(true);
        scope.spawn(|| bench.calibration.checkpoint());
        std::thread::sleep(std::time::Duration::from_millis(100));
        let activating = scope.spawn(|| plugins.activate(Choice::policy(second)));
        std::thread::sleep(std::time::Duration::from_millis(200));
        let going_back = scope.spawn(|| back(&plugins));
        until("it has taken effect", || {
            let ticket = plugins.admit(&Arrival::new("a", Digest::of(b"a")));
            let number = ticket.number();
            drop(ticket);
            number != first.number
        });
        assert!(!activating.is_finished(), "the lock was not held");
        gate.set(false);
        (activating.join().unwrap(), going_back.join().unwrap())
    });
    (plugins, bench, activated.unwrap(), gone_back)
}

#[test]
fn a_rollback_that_an_activation_overtook_says_what_is_active() {
    let (plugins, _bench, activated, gone_back) =
        during_an_activation(|plugins| plugins.rollback("to see"));
    let active = plugins.deployment().active.number;
    assert_eq!(active, activated.number);
    assert!(
        matches!(gone_back, Err(Refused::Overtaken { active: told, .. }) if told == active),
        "{gone_back:?}"
    );
    assert_eq!(plugins.deployment().previous, None);
    // Again, and it goes.
    plugins.rollback("to see").unwrap();
    assert_eq!(plugins.deployment().active.policy, None);
}

#[test]
fn a_change_that_is_meant_for_one_generation_leaves_any_other_alone() {
    let bench = Bench::new("");
    let plugins = bench.plugins();
    let releases = ["salt=1", "salt=2", "salt=3"].map(|salt| push(&plugins, salt));
    let first = plugins.activate(Choice::policy(releases[0])).unwrap();
    let second = plugins
        .only_if(Some(first.number))
        .activate(Choice::policy(releases[1]))
        .unwrap();
    let before = plugins.deployment();
    let stale = plugins.only_if(Some(first.number));
    let third = Choice::policy(releases[2]);
    for refused in [
        stale.rollback("to see"),
        stale.off(),
        stale.activate(third),
        stale.canary(third),
        stale.shadow(third),
        stale.rollback_to(third, Some("to see".to_owned())),
        stale.tune("patient", tuned(3), false),
    ] {
        let error = refused.unwrap_err();
        assert!(
            matches!(error, Refused::Changed { wanted, is, .. } if (wanted, is) == (first.number, second.number)),
            "{error}"
        );
    }
    assert_eq!(plugins.deployment(), before);
    // With a canary under way a rollback is about that, and so is a promotion.
    let seen = plugins.only_if(Some(second.number));
    let canary = seen.canary(third).unwrap();
    for refused in [seen.rollback("to see"), seen.promote()] {
        let error = refused.unwrap_err();
        assert!(
            matches!(error, Refused::Changed { is, .. } if is == canary.number),
            "{error}"
        );
    }
    let begun = plugins.only_if(Some(canary.number));
    begun.rollback("to see").unwrap();
    assert_eq!(plugins.deployment().active, before.active);
    seen.off().unwrap();
    assert_eq!(plugins.deployment().active.policy, None);
    // It was left: the number is nobody's any more.
    assert!(matches!(seen.off(), Err(Refused::Changed { .. })));
}

#[test]
fn a_manifest_is_known_as_long_as_its_release_is_here() {
    let bench = Bench::new("");
    let plugins = bench.plugins();
    let releases = ["salt=1", "salt=2", "salt=3"].map(|salt| push(&plugins, salt));
    for release in releases {
        plugins.activate(Choice::policy(release)).unwrap();
    }
    for release in releases {
        let manifest = plugins.manifest(release.artifact);
        assert_eq!(manifest.unwrap().name, "patient");
    }
    assert_eq!(plugins.manifest(Digest::of(b"never pushed")), None);
}

#[test]
fn turning_off_waits_for_no_activation_and_wins() {
    let (plugins, _bench, activated, off) = during_an_activation(Plugins::off);
    off.unwrap();
    assert_eq!(plugins.deployment().active.policy, None);
    assert_eq!(plugins.rollback("on").unwrap().number, activated.number);
}

#[test]
fn a_damaged_component_gives_way_to_the_generation_before() {
    let bench = Bench::new("");
    let (good, bad) = {
        let plugins = bench.plugins();
        let (good, bad) = (push(&plugins, "salt=1"), push(&plugins, "salt=2"));
        plugins.activate(Choice::policy(good)).unwrap();
        plugins.activate(Choice::policy(bad)).unwrap();
        (good, bad)
    };
    let path = bench
        .registry()
        .join("artifacts")
        .join(format!("{}.wasm", bad.artifact));
    fs::write(&path, "name=patient salt=evil").unwrap();
    let opened = bench.open();
    assert!(
        opened.warnings[0].contains("is damaged"),
        "{:?}",
        opened.warnings
    );
    assert_eq!(opened.plugins.deployment().active.policy, Some(good));
    // And if that one is gone too, the fallback.
    drop(opened);
    fs::remove_dir_all(bench.registry().join("artifacts")).unwrap();
    let opened = bench.open();
    assert_eq!(opened.plugins.deployment().active.policy, None);
    assert_eq!(opened.warnings.len(), 1);
    drop(opened);
    assert_eq!(bench.open().warnings, Vec::<String>::new());
}

/// A sandbox that has come to allow too little.
struct NoRoom;

impl Loader for NoRoom {
    fn load(&self, _: &[u8], _: &Digest, _: &Manifest) -> Result<Loaded, String> {
        Err("limits.plan-ms: the manifest asks for 20, the operator allows 5".into())
    }
}

#[test]
fn what_can_be_mended_keeps_the_node_from_starting_and_costs_no_generation() {
    let key = SigningKeyFile::generate().unwrap();
    let mut bench = Bench::new("");
    bench.config.keys.insert("ops".into(), key.public());
    let (signed, unsigned) = (plain::policy("salt=1"), plain::policy("salt=2"));
    let signed = Bundle {
        signature: Some(key.sign(signed.release(), 1)),
        ..signed
    };
    for bundle in [&signed, &unsigned] {
        let before = {
            let plugins = bench.plugins();
            let release = plugins.push(bundle).unwrap();
            plugins.activate(Choice::policy(release)).unwrap();
            (plugins.deployment(), plugins.history(100).len())
        };
        let refused = |options: Options| match Plugins::open(options) {
            Ok(opened) => panic!("it started: {:?}", opened.warnings),
            Err(error) => error.to_string(),
        };
        let options = || bench.options(&bench.registry());
        let mut mistakes = Vec::new();
        if bundle.signature.is_some() {
            let mut without_key = options();
            without_key.config.keys.clear();
            mistakes.push((refused(without_key), "Put the key back into policy.keys"));
        } else {
            let mut strict = options();
            strict.config.allow_unsigned = false;
            mistakes.push((refused(strict), "Set policy.allow-unsigned again"));
        }
        let mut small = options();
        small.loader = Arc::new(NoRoom);
        mistakes.push((refused(small), "sandbox.plugins.patient"));
        // A file that cannot be read, though nothing says that it is another one.
        let manifest = format!("{}.toml", bundle.release().manifest);
        let path = bench.registry().join("manifests").join(manifest);
        let aside = path.with_extension("aside");
        fs::rename(&path, &aside).unwrap();
        fs::create_dir(&path).unwrap();
        mistakes.push((refused(options()), "Look at the disk"));
        fs::remove_dir(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
        for (told, named) in mistakes {
            let number = before.0.active.number;
            let begins = format!("generation {number} is active and cannot be run: ");
            assert!(told.starts_with(&begins) && told.contains(named), "{told}");
        }
        // Mended, it goes on as if nothing had been.
        let plugins = bench.plugins();
        assert_eq!((plugins.deployment(), plugins.history(100).len()), before);
    }
}

#[test]
fn a_damaged_newest_entry_of_the_journal_leads_to_the_one_before_it() {
    let bench = Bench::new("");
    let before = {
        let plugins = bench.plugins();
        plugins
            .activate(Choice::policy(push(&plugins, "salt=1")))
            .unwrap();
        let before = plugins.deployment();
        plugins
            .activate(Choice::policy(push(&plugins, "salt=2")))
            .unwrap();
        before
    };
    let newest = fs::read_dir(bench.registry().join("journal")).unwrap();
    let newest = newest.map(|it| it.unwrap().path()).max().unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, bytes).unwrap();
    let opened = bench.open();
    assert_eq!(opened.plugins.deployment(), before);
    assert!(
        opened.warnings[0].contains("its checksum is wrong"),
        "{:?}",
        opened.warnings
    );
}

#[test]
fn losing_the_database_changes_nothing_that_is_active() {
    let bench = Bench::new("");
    let before = {
        let plugins = bench.plugins();
        plugins
            .activate(Choice::policy(push(&plugins, "salt=1")))
            .unwrap();
        plugins
            .canary(Choice::policy(push(&plugins, "salt=2")))
            .unwrap();
        plugins.deployment()
    };
    // The same folder, and a database that has never seen it.
    let other = Bench {
        folder: bench.folder,
        ..Bench::new("")
    };
    assert_eq!(other.plugins().deployment(), before);
}

#[test]
fn a_fresh_node_boots_what_the_operator_names() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = plain::policy("salt=boot");
    fs::create_dir(folder.path().join("target")).unwrap();
    fs::write(folder.path().join("policy.toml"), &bundle.manifest_text).unwrap();
    let component = folder.path().join("target/patient.wasm");
    fs::write(&component, &bundle.wasm).unwrap();
    for boot in [folder.path(), component.as_path()] {
        let bench = Bench::new(&format!("boot = {:?}", boot.display().to_string()));
        let plugins = bench.plugins();
        assert_eq!(plugins.deployment().active.policy, Some(bundle.release()));
        plugins
            .activate(Choice::policy(push(&plugins, "salt=1")))
            .unwrap();
        drop(plugins);
        // What boots a fresh node says nothing to one that has a past.
        assert_ne!(
            bench.plugins().deployment().active.policy,
            Some(bundle.release())
        );
    }
}

#[test]
fn a_first_start_that_failed_is_made_up_for() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = plain::policy("salt=boot");
    fs::create_dir(folder.path().join("target")).unwrap();
    fs::write(folder.path().join("policy.toml"), &bundle.manifest_text).unwrap();
    fs::write(folder.path().join("target/patient.wasm"), &bundle.wasm).unwrap();
    let mut bench = Bench::new("boot = \"/nowhere\"");
    let error = Plugins::open(bench.options(&bench.registry()))
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.starts_with("policy.boot: ") && error.contains("is missing"),
        "{error}"
    );
    bench.config.boot = Some(folder.path().to_owned());
    let active = |bench: &Bench| bench.plugins().deployment().active.policy;
    assert_eq!(active(&bench), Some(bundle.release()));
    // A stop between beginning and booting leaves a node that only began.
    let mut bench = Bench::new("");
    assert_eq!(active(&bench), None);
    bench.config.boot = Some(folder.path().to_owned());
    assert_eq!(active(&bench), Some(bundle.release()));
    // One that was turned off has a past, and stays off.
    bench.plugins().off().unwrap();
    assert_eq!(active(&bench), None);
}

#[test]
fn signatures_are_asked_for_and_older_serials_need_a_rollback_that_names_them() {
    let key = SigningKeyFile::generate().unwrap();
    let mut bench = Bench::new("");
    bench.config.allow_unsigned = false;
    bench.config.keys.insert("ops".into(), key.public());
    let plugins = bench.plugins();
    let signed = |words: &str, serial: u64| {
        let mut bundle = plain::policy(words);
        bundle.signature = Some(key.sign(bundle.release(), serial));
        bundle
    };
    assert!(matches!(
        plugins.push(&plain::policy("salt=1")),
        Err(Refused::Signature(SignatureError::Unsigned))
    ));
    let one = plugins.push(&signed("salt=1", 1)).unwrap();
    let two = plugins.push(&signed("salt=2", 2)).unwrap();
    let posing = plugins.push(&signed("salt=3", 2)).unwrap();
    plugins.activate(Choice::policy(one)).unwrap();
    plugins.activate(Choice::policy(two)).unwrap();
    let older = plugins
        .activate(Choice::policy(one))
        .unwrap_err()
        .to_string();
    assert!(
        older.contains("has serial 1, but serial 2 was active"),
        "{older}"
    );
    let used = plugins
        .canary(Choice::policy(posing))
        .unwrap_err()
        .to_string();
    assert!(
        used.contains("which another release of it has used"),
        "{used}"
    );
    assert!(plugins.shadow(Choice::policy(one)).is_err());
    plugins.rollback_to(Choice::policy(one)).unwrap();
    assert_eq!(plugins.deployment().active.policy, Some(one));
    // The newest stays the newest.
    assert!(plugins.activate(Choice::policy(posing)).is_err());
    plugins.activate(Choice::policy(two)).unwrap();
    drop(plugins);

    // Withdrawing the key takes what it signed out of service at the next start.
    bench.config.revoked = vec![key.public()];
    let opened = bench.open();
    assert_eq!(opened.plugins.deployment().active.policy, None);
    assert!(
        opened.warnings.iter().any(|it| it.contains("withdraws")),
        "{:?}",
        opened.warnings
    );
}

#[test]
fn keys_are_read_from_the_configuration() {
    let key: PublicKey = SigningKeyFile::generate().unwrap().public();
    let bench = Bench::new(&format!("[keys]\nops = \"{key}\""));
    assert_eq!(bench.config.keys["ops"], key);
}

#[test]
fn parameters_are_revisions_and_pins_win() {
    let mut bench = Bench::new("");
    {
        let plugins = bench.plugins();
        let first = plugins
            .activate(Choice::policy(push(&plugins, "salt=1")))
            .unwrap();
        assert_eq!(gamma(&plugins), 4);
        let second = plugins.tune("patient", tuned(9), false).unwrap();
        assert_eq!(gamma(&plugins), 9);
        assert_eq!(second.generation.revision, first.generation.revision + 1);
        assert_eq!(second.generation.policy, first.generation.policy);
        let wrong = plugins
            .tune("patient", tuned(99), false)
            .unwrap_err()
            .to_string();
        assert!(
            wrong.contains("tuned.patient.gamma: 99 is out of range"),
            "{wrong}"
        );
        assert_eq!(gamma(&plugins), 9);
        // It rolls back as code does.
        plugins.rollback("worse").unwrap();
        assert_eq!(gamma(&plugins), 4);
        plugins.tune("patient", tuned(9), false).unwrap();
        // And goes on with the plug-in's next release.
        plugins
            .activate(Choice::policy(push(&plugins, "salt=2")))
            .unwrap();
        assert_eq!(gamma(&plugins), 9);
    }
    let own = BTreeMap::from([("gamma".to_owned(), Value::Int(2))]);
    bench.config.pins.insert("patient".into(), own);
    {
        let opened = bench.open();
        assert!(opened.warnings[0].contains("pins have changed"));
        assert_eq!(gamma(&opened.plugins), 2);
        // No way back leads behind the pin.
        let before = opened.plugins.deployment();
        opened.plugins.rollback("to see").unwrap();
        let after = opened.plugins.deployment();
        assert_eq!(Some(after.active), before.previous);
        assert_eq!(gamma(&opened.plugins), 2);
        opened.plugins.tune("patient", tuned(7), false).unwrap();
        assert_eq!(gamma(&opened.plugins), 2);
    }
    assert_eq!(bench.open().warnings, Vec::<String>::new());
    let own = BTreeMap::from([("gama".to_owned(), Value::Int(2))]);
    bench.config.pins.insert("patient".into(), own);
    let error = Plugins::open(bench.options(&bench.registry()))
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("policy.pins.patient.gama: there is no such parameter"),
        "{error}"
    );
}

/// Requests of many sessions; returns how many went to the candidate.
fn traffic(plugins: &Plugins, seed: u64, count: usize) -> usize {
    let mut candidates = 0;
    for scenario in Driver::new(seed).take(count) {
        let arrival = Arrival::new(&scenario.id, scenario.content);
        candidates += usize::from(plugins.admit(&arrival).side() == Some(Side::Candidate));
        play(plugins, &scenario);
    }
    candidates
}

const QUICK: &str = "[canary]\nsteps = [0.25, 0.5, 1.0]\nmin-samples = 40\n[breaker]\nfailures = 1000000\n\
                     [error-budget]\ninputs = 50000\n";

/// A canary of the same policy, at its first step. The random salt chooses its sessions.
fn no_worse(bench: &Bench) -> (Plugins, u64) {
    let plugins = bench.plugins();
    plugins
        .activate(Choice::policy(push(&plugins, "salt=1")))
        .unwrap();
    let candidate = plugins
        .canary(Choice::policy(push(&plugins, "salt=2")))
        .unwrap()
        .number;
    (plugins, candidate)
}

/// Plays requests until the rollout has come to that step, or none is left. False: it was turned away as worse.
///
/// In at most 5 of 100 trials that is chance (`FALSE_ALARMS` and `EARLY_FALSE_ALARMS`).
fn comes_to(plugins: &Plugins, step: usize) -> bool {
    let going = |plugins: &Plugins| {
        let rollout = plugins.deployment().rollout;
        rollout.is_some_and(|rollout| rollout.step < step)
    };
    for seed in 0..400 {
        traffic(plugins, seed, 20);
        // The keeper looks every 100 ms.
        std::thread::sleep(std::time::Duration::from_millis(20));
        if !going(plugins) {
            break;
        }
    }
    until("the canary goes on or ends", || !going(plugins));
    let last = format!("{:?}", plugins.history(1)[0].event);
    !last.contains("it is worse")
}

/// How often a canary that is no worse is tried where one has to go on: chance turns all of them away once in 60 million.
const TRIALS: usize = 6;

#[test]
fn a_canary_that_is_no_worse_takes_over_step_by_step() {
    let taken_over = (0..TRIALS).any(|_| {
        let bench = Bench::new(QUICK);
        let (plugins, candidate) = no_worse(&bench);
        let held = plugins.status().rollout.unwrap().verdict;
        assert!(held.starts_with("no request of the stable"), "{held}");
        if !comes_to(&plugins, usize::MAX) {
            return false;
        }
        assert_eq!(plugins.deployment().active.number, candidate);
        let events: Vec<String> = (plugins.history(4).iter())
            .map(|entry| format!("{:?}", entry.event))
            .collect();
        assert!(events[0].starts_with("Promoted"), "{events:?}");
        assert!(
            events[1].contains("step: 2") && events[2].contains("step: 1"),
            "{events:?}"
        );
        true
    });
    assert!(taken_over, "each was turned away as worse");
}

#[test]
fn after_a_restart_at_the_last_step_a_canary_goes_back_one() {
    let bench = (0..TRIALS).find_map(|_| {
        let bench = Bench::new(QUICK);
        let (plugins, _) = no_worse(&bench);
        let at_last = comes_to(&plugins, 2);
        drop(plugins);
        at_last.then_some(bench)
    });
    let bench = bench.expect("each was turned away as worse");
    let opened = bench.open();
    assert_eq!(opened.plugins.deployment().rollout.unwrap().step, 1);
    assert!(
        opened.warnings[0].contains("goes back a step"),
        "{:?}",
        opened.warnings
    );
    let verdict = opened.plugins.status().rollout.unwrap().verdict;
    assert!(verdict.starts_with("no request of the stable"), "{verdict}");
}

#[test]
fn a_canary_that_fails_is_rolled_back_and_the_reason_written_down() {
    let bench = Bench::new(QUICK);
    let plugins = bench.plugins();
    let stable = plugins
        .activate(Choice::policy(push(&plugins, "salt=1")))
        .unwrap();
    plugins
        .canary(Choice::policy(push(&plugins, "fail=plan")))
        .unwrap();
    for seed in 0..50 {
        traffic(&plugins, seed, 40);
        std::thread::sleep(std::time::Duration::from_millis(30));
        if plugins.deployment().rollout.is_none() {
            break;
        }
    }
    until("the canary is dropped", || {
        plugins.deployment().rollout.is_none()
    });
    assert_eq!(plugins.deployment().active.number, stable.number);
    let told = format!("{:?}", plugins.history(1)[0].event);
    assert!(told.contains("it is worse: errors: 100.00%"), "{told}");
}

#[test]
fn a_full_sandbox_is_not_charged_to_the_canary() {
    let bench = Bench::new(QUICK);
    let plugins = bench.plugins();
    plugins
        .activate(Choice::policy(push(&plugins, "salt=1")))
        .unwrap();
    plugins
        .canary(Choice::policy(push(&plugins, "overload")))
        .unwrap();
    // Each request is played to its end: one that is admitted and dropped would count as lost.
    let mut driver = Driver::new(1);
    while plugins.status().rollout.unwrap().candidate_figures.reported < 30 {
        play(&plugins, &driver.next().unwrap());
    }
    let rollout = plugins.status().rollout.unwrap();
    assert_eq!(rollout.candidate_figures.errors, 0.0);
    assert_eq!(rollout.candidate.exports["plan"].skipped, 0);
    assert!(rollout.candidate.exports["plan"].failures > 0);
}

#[test]
fn a_request_that_never_ran_is_not_charged_to_the_canary() {
    let figures = |words: &str| {
        let bench = Bench::new(QUICK);
        let plugins = bench.plugins();
        plugins
            .activate(Choice::policy(push(&plugins, "salt=1")))
            .unwrap();
        plugins
            .canary(Choice::policy(push(&plugins, words)))
            .unwrap();
        let mut candidates = 0;
        for scenario in Driver::new(1).take(200) {
            let mut ticket = plugins.admit(&Arrival::new(&scenario.id, scenario.content));
            candidates += u64::from(ticket.side() == Some(Side::Candidate));
            ticket.plan(&scenario.request, &scenario.parts, &scenario.nodes);
            ticket.withdraw();
        }
        let figures = plugins.status().rollout.unwrap().candidate_figures;
        (candidates, figures.started, figures.lost, figures.errors)
    };
    let (candidates, started, lost, errors) = figures("salt=2");
    assert!(candidates > 5);
    assert_eq!((started, lost, errors), (0, 0, 0.0));
    // What its own calls did is.
    let (_, started, lost, errors) = figures("fail=plan");
    assert!(started > 5);
    assert_eq!((lost, errors), (0, 1.0));
}

#[test]
fn requests_that_do_not_report_roll_a_canary_back() {
    let quick = QUICK.replace("min-samples = 40", "min-samples = 40\nreport-within-s = 1");
    let bench = Bench::new(&quick);
    let plugins = bench.plugins();
    plugins
        .activate(Choice::policy(push(&plugins, "salt=1")))
        .unwrap();
    plugins
        .canary(Choice::policy(push(&plugins, "salt=2")))
        .unwrap();
    // The candidate's requests hang: their tickets are held, and never finished.
    let mut hanging = Vec::new();
    for scenario in Driver::new(1).take(400) {
        let ticket = plugins.admit(&Arrival::new(&scenario.id, scenario.content));
        if ticket.side() == Some(Side::Candidate) {
            hanging.push(ticket);
        } else {
            ticket.finish(Outcome::default());
        }
    }
    until("the canary is dropped", || {
        plugins.deployment().rollout.is_none()
    });
    let told = format!("{:?}", plugins.history(1)[0].event);
    assert!(told.contains("it is worse: errors"), "{told}");
    assert!(hanging.len() > 20);
}

#[test]
fn a_canary_whose_clients_leave_without_a_token_is_rolled_back() {
    let bench = Bench::new(QUICK);
    let plugins = bench.plugins();
    let stable = plugins
        .activate(Choice::policy(push(&plugins, "salt=1")))
        .unwrap();
    plugins
        .canary(Choice::policy(push(&plugins, "salt=2")))
        .unwrap();
    let mut tickets = Vec::new();
    for scenario in Driver::new(1).take(400) {
        let mut ticket = plugins.admit(&Arrival::new(&scenario.id, scenario.content));
        ticket.plan(&scenario.request, &scenario.parts, &scenario.nodes);
        tickets.push(ticket);
    }
    let waited = std::time::Duration::from_secs(5);
    plugins.pass(waited);
    for ticket in tickets {
        let cancelled = ticket.side() == Some(Side::Candidate);
        let status = if cancelled {
            Status::Cancelled
        } else {
            Status::Answered
        };
        let none_if_cancelled = |time_ms| if cancelled { -1.0 } else { time_ms };
        ticket.finish(Outcome {
            status: status as u8,
            ttft_ms: none_if_cancelled(100.0),
            total_ms: none_if_cancelled(500.0),
            ..Outcome::default()
        });
    }
    until("the canary is dropped", || {
        plugins.deployment().rollout.is_none()
    });
    assert_eq!(plugins.deployment().active.number, stable.number);
    let told = format!("{:?}", plugins.history(1)[0].event);
    assert!(told.contains("it is worse: cancelled: 100.00%"), "{told}");
}

#[test]
fn sessions_stay_with_their_generation_restarts_included() {
    let bench = Bench::new("");
    let sides = |plugins: &Plugins| -> Vec<Option<Side>> {
        // A hundredth goes to the candidate: of so many it is one at least, but for two times in a billion.
        (0..2000)
            .map(|i| {
                let session = format!("session-{i}");
                let (id, content) = (format!("{i}"), Digest::of(b"x"));
                let arrival = Arrival {
                    session: Some(&session),
                    user: Some("the same for all"),
                    ..Arrival::new(&id, content)
                };
                plugins.admit(&arrival).side()
            })
            .collect()
    };
    let before = {
        let plugins = bench.plugins();
        plugins
            .activate(Choice::policy(push(&plugins, "salt=1")))
            .unwrap();
        plugins
            .canary(Choice::policy(push(&plugins, "salt=2")))
            .unwrap();
        sides(&plugins)
    };
    assert!(before.contains(&Some(Side::Candidate)) && before.contains(&Some(Side::Stable)));
    assert_eq!(sides(&bench.plugins()), before);
}

#[test]
fn a_shadow_is_compared_by_reason_and_has_no_effect() {
    let bench = Bench::new("");
    let plugins = bench.plugins();
    plugins
        .activate(Choice::policy(push(&plugins, "salt=1")))
        .unwrap();
    plugins
        .shadow(Choice::policy(push(&plugins, "route=edge")))
        .unwrap();
    let mut speculated = 0;
    for scenario in Driver::new(1).take(60) {
        let played = play(&plugins, &scenario);
        speculated += u64::from(played.plan.route == msao_core::offload::Route::Speculate);
        assert!(!played.failed);
    }
    until("the shadow has seen all", || {
        let (_, stats) = plugins.status().shadow.unwrap();
        stats.compared + stats.dropped == 60
    });
    let (_, stats) = plugins.status().shadow.unwrap();
    let agreement = stats.by_reason["0"];
    assert_eq!(agreement.alike + agreement.otherwise, stats.compared);
    assert_eq!(stats.failed, 0);
    assert!(stats.first_difference["route"] > 0 && stats.first_difference["route"] <= speculated);
    // Its learning is its own.
    bench.calibration.settle();
    let scratch = bench.calibration.counters().applied;
    assert!(scratch >= 60, "sixty requests taught the active generation");
    plugins.shadow_off().unwrap();
    assert!(plugins.status().shadow.is_none());
}

/// What a shadow made of twenty requests that ran on a generation of the given kind.
fn shadowed(active: &str, words: &str) -> (ShadowStats, GenerationStatus, usize) {
    let bench = Bench::new("[breaker]\nback-off-ms = 10000");
    let plugins = bench.plugins();
    let scorer = plugins.push(&plain::postprocessor("")).unwrap();
    let choice = |words: &str| Choice {
        policy: Pick::Take(push(&plugins, words)),
        postprocessor: Pick::Take(scorer),
    };
    plugins.activate(choice(active)).unwrap();
    plugins.shadow(choice(words)).unwrap();
    // The queue holds that many; the shadow's thread has not more than them to do.
    for scenario in Driver::new(1).filter(|it| it.report().is_some()).take(20) {
        assert!(!play(&plugins, &scenario).failed);
    }
    until("the shadow has seen all", || {
        plugins
            .status()
            .shadow
            .is_none_or(|(_, stats)| stats.compared + stats.dropped == 20)
    });
    let (status, stats) = plugins.status().shadow.unwrap();
    until("failing inputs are kept", || {
        plugins.failures().len() as u64 >= stats.failed
    });
    (stats, status, plugins.failures().len())
}

#[test]
fn a_shadow_is_asked_as_it_would_have_been() {
    for (active, words, alike) in [
        ("salt=a", "picky", true),
        // It asks first, and what it would have said to the probe is unknown.
        ("salt=a", "picky ask", false),
        ("salt=a", "picky full", false),
        ("full", "picky", true),
        ("full", "picky ask", true),
        ("full", "picky full", true),
    ] {
        let (stats, _, _) = shadowed(active, words);
        let told = format!("{active}, {words}: {stats:?}");
        assert_eq!((stats.compared, stats.failed), (20, 0), "{told}");
        let differences: Vec<_> = stats.first_difference.iter().collect();
        if alike {
            assert!(differences.is_empty(), "{told}");
        } else {
            assert_eq!(differences, [(&"probe".to_owned(), &20)], "{told}");
        }
    }
}

#[test]
fn a_shadow_that_fails_is_left_alone_and_its_inputs_are_kept() {
    let (stats, status, kept) = shadowed("salt=a", "fail=plan");
    assert_eq!((stats.failed, stats.dropped), (5, 15), "{stats:?}");
    let plan = &status.exports["plan"];
    assert_eq!((plan.breaker, plan.failures, plan.skipped), ("open", 5, 15));
    assert_eq!(status.error_budget.0, 5);
    assert_eq!(kept, 5);
}

#[test]
fn what_waits_for_the_shadow_is_dropped_when_the_node_becomes_busy() {
    let bench = Bench::new("");
    let plugins = bench.plugins();
    plugins
        .activate(Choice::policy(push(&plugins, "salt=1")))
        .unwrap();
    plugins
        .shadow(Choice::policy(push(&plugins, "salt=2 slow-ms=200")))
        .unwrap();
    traffic(&plugins, 1, 20);
    plugins.set_busy(true);
    let began = std::time::Instant::now();
    until("all are asked or dropped", || {
        let (_, stats) = plugins.status().shadow.unwrap();
        stats.compared + stats.dropped == 20
    });
    // Twenty plans of the shadow would have taken four seconds.
    assert!(began.elapsed() < std::time::Duration::from_secs(2));
}

#[test]
fn a_busy_node_asks_no_shadow() {
    let bench = Bench::new("");
    let plugins = bench.plugins();
    plugins
        .activate(Choice::policy(push(&plugins, "salt=1")))
        .unwrap();
    plugins
        .shadow(Choice::policy(push(&plugins, "salt=2")))
        .unwrap();
    plugins.set_busy(true);
    traffic(&plugins, 1, 20);
    let (_, stats) = plugins.status().shadow.unwrap();
    assert_eq!((stats.compared, stats.dropped), (0, 20));
}

#[test]
fn exchanging_under_load_loses_no_call_and_mixes_no_generation() {
    let bench = Bench::new("");
    let plugins = bench.plugins();
    let choices = common::two_choices(&plugins);
    plugins.activate(choices[1]).unwrap();
    let run = SwapRun {
        before: 0,
        swaps: 40,
        rollbacks: 10,
        threads: 8,
        calls: 20_000,
        steps: 4,
    };
    let belongs = Belongs {
        plan: &common::plan_belongs,
        scores: &common::scores_belong,
    };
    let figures = swaps(&plugins, &choices, &belongs, run).unwrap();
    assert_eq!((figures.failed, figures.mixed), (0, 0));
    assert!(figures.calls >= 20_000 && figures.swaps == 40);
    assert_eq!(figures.live_at_end, 1);
    let in_memory = figures.in_memory_at_end;
    assert!(in_memory <= 2, "{in_memory}");
    // After a rollback nothing is warm but the active one; what was left is taken apart a while later.
    until("what was left is taken apart", || {
        plugins.status().generations_in_memory == 1
    });
    assert!(SwapFigures::quantile(&figures.first_decision_ms, 1.0).is_finite());
    assert!(SwapFigures::quantile(&figures.rollback_ms, 1.0).is_finite());
}

#[test]
fn the_proof_counts_a_call_that_fails_at_the_end() {
    let bench = Bench::new(QUICK);
    let plugins = bench.plugins();
    let choices = ["fail=observe salt=1", "fail=observe salt=2"]
        .map(|words| Choice::policy(push(&plugins, words)));
    plugins.activate(choices[1]).unwrap();
    let run = SwapRun {
        before: 0,
        swaps: 1,
        rollbacks: 0,
        threads: 1,
        calls: 100,
        steps: 1,
    };
    let belongs = Belongs {
        plan: &common::plan_belongs,
        scores: &|_, _| true,
    };
    let figures = swaps(&plugins, &choices, &belongs, run).unwrap();
    assert!(
        figures.failed > 0 && figures.failed == figures.requests,
        "{figures:?}"
    );
}

#[test]
fn keeping_both_halves_is_no_change() {
    let bench = Bench::new("");
    let plugins = bench.plugins();
    plugins
        .activate(Choice::policy(push(&plugins, "salt=1")))
        .unwrap();
    assert!(matches!(
        plugins.activate(Choice::default()),
        Err(Refused::NotNow(NotNow::SameAsActive))
    ));
    let scorer = plugins.push(&plain::postprocessor("")).unwrap();
    let wrong = plugins
        .activate(Choice::policy(scorer))
        .unwrap_err()
        .to_string();
    assert!(wrong.contains("a policy is wanted here"), "{wrong}");
    plugins
        .activate(Choice {
            policy: Pick::Keep,
            postprocessor: Pick::Take(scorer),
        })
        .unwrap();
    assert_eq!(
        plugins.status().active.postprocessor.as_deref(),
        Some("scorer 0.1.0")
    );
}

#[test]
fn sixty_four_threads_teach_at_once_and_nothing_is_lost() {
    let bench = Bench::new("");
    let plugins = bench.plugins();
    plugins
        .activate(Choice::policy(push(&plugins, "salt=1")))
        .unwrap();
    let figures = observes(&plugins, &bench.calibration, 64, 50);
    assert_eq!(
        (figures.failed, figures.updates),
        (0, 64 * 50),
        "one update a request"
    );
    assert_eq!(figures.counted, 64.0 * 50.0, "and all of them in the cell");
}
