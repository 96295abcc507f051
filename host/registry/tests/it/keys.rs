//! Signing keys that change while a node runs: what they do then is what a restart with them would do.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::sync::Arc;

use msao_core::offload::record::Called;
use msao_core::offload::{Action, Outcome, StepInput, overrides};
use msao_registry::driver::Driver;
use msao_registry::{
    Arrival, Bundle, Choice, Loader, Pick, Plugins, PolicyConfig, Refused, Release, SignatureError,
    SigningKeyFile,
};

use crate::common::plain::SlowLoader;
use crate::common::{Bench, plain, until};

/// A node's folder, and two keys that it trusts.
struct Signed {
    bench: Bench,
    good: SigningKeyFile,
    lost: SigningKeyFile,
}

impl Signed {
    fn new() -> Signed {
        let (good, lost) = (
            SigningKeyFile::generate().unwrap(),
            SigningKeyFile::generate().unwrap(),
        );
        let mut bench = Bench::new("");
        bench.config.allow_unsigned = false;
        bench.config.keys.insert("good".into(), good.public());
        bench.config.keys.insert("lost".into(), lost.public());
        Signed { bench, good, lost }
    }

    /// The configuration after the second key was revoked.
    fn without_lost(&self) -> PolicyConfig {
        PolicyConfig {
            revoked: vec![self.lost.public()],
            ..self.bench.config.clone()
        }
    }
}

fn signed(bundle: Bundle, key: &SigningKeyFile, serial: u64) -> Bundle {
    let signature = Some(key.sign(bundle.release(), serial));
    Bundle {
        signature,
        ..bundle
    }
}

fn push(plugins: &Plugins, words: &str, key: &SigningKeyFile, serial: u64) -> Release {
    let bundle = signed(plain::policy(words), key, serial);
    plugins.push(&bundle).unwrap()
}

/// What the newest changes were, newest first.
fn told(plugins: &Plugins, count: usize) -> Vec<String> {
    let history = plugins.history(count).into_iter();
    history.map(|entry| format!("{:?}", entry.event)).collect()
}

#[test]
fn what_a_revoked_key_has_signed_gives_way_at_once_as_it_does_at_a_restart() {
    let it = Signed::new();
    let plugins = it.bench.plugins();
    let sound = push(&plugins, "salt=1", &it.good, 1);
    let stolen = push(&plugins, "salt=2", &it.lost, 1);
    let active = plugins.activate(Choice::policy(sound)).unwrap();
    let left = plugins.activate(Choice::policy(stolen)).unwrap();
    let lines = plugins.trust(&it.without_lost()).unwrap();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].starts_with(&format!("generation {} was left", left.number))
            && lines[0].contains("policy.revoked withdraws"),
        "{lines:?}"
    );
    assert_eq!(plugins.deployment().active.number, active.number);
    assert_eq!(plugins.status().active.number, active.number);
    assert_eq!(plugins.deployment().previous, None);
    let newest = &told(&plugins, 1)[0];
    assert!(
        newest.starts_with("Left") && newest.contains("policy.revoked withdraws"),
        "{newest}"
    );
    // It comes back in no way.
    let other = signed(plain::policy("salt=3"), &it.lost, 2);
    for refused in [
        plugins.push(&other).unwrap_err(),
        plugins.activate(Choice::policy(stolen)).unwrap_err(),
        plugins.canary(Choice::policy(stolen)).unwrap_err(),
        plugins.shadow(Choice::policy(stolen)).unwrap_err(),
        plugins.rollback_to(Choice::policy(stolen)).unwrap_err(),
    ] {
        assert!(
            matches!(
                refused,
                Refused::Signature(SignatureError::Revoked(key, _)) if key == it.lost.public()
            ),
            "{refused}"
        );
    }
    // Said again it is no news, and a restart finds nothing to do.
    let before = (plugins.deployment(), plugins.history(100).len());
    assert!(plugins.trust(&it.without_lost()).unwrap().is_empty());
    drop(plugins);
    let bench = Bench {
        config: it.without_lost(),
        ..it.bench
    };
    let plugins = bench.plugins();
    assert_eq!((plugins.deployment(), plugins.history(100).len()), before);
}

#[test]
fn without_a_generation_whose_signature_holds_the_fallback_takes_over() {
    let it = Signed::new();
    let plugins = it.bench.plugins();
    for (salt, serial) in [("salt=1", 1), ("salt=2", 2)] {
        let release = push(&plugins, salt, &it.lost, serial);
        plugins.activate(Choice::policy(release)).unwrap();
    }
    assert_eq!(plugins.trust(&it.without_lost()).unwrap().len(), 2);
    let deployment = plugins.deployment();
    assert_eq!(
        (deployment.active.policy, deployment.previous),
        (None, None)
    );
    assert_eq!(plugins.status().active.policy, None);
    assert!(plugins.rollback("to see").is_err());

    // So it is with post-processors alone.
    let it = Signed::new();
    let plugins = it.bench.plugins();
    for (salt, serial) in [("salt=1", 1), ("salt=2", 2)] {
        let scorer = signed(plain::postprocessor(salt), &it.lost, serial);
        let choice = Choice {
            policy: Pick::Keep,
            postprocessor: Pick::Take(plugins.push(&scorer).unwrap()),
        };
        plugins.activate(choice).unwrap();
    }
    plugins.trust(&it.without_lost()).unwrap();
    assert_eq!(plugins.deployment().active.postprocessor, None);
    assert_eq!(plugins.status().active.postprocessor, None);
}

#[test]
fn a_canary_and_a_shadow_of_a_revoked_key_end_and_the_active_one_stays() {
    let it = Signed::new();
    let plugins = it.bench.plugins();
    let sound = push(&plugins, "salt=1", &it.good, 1);
    let active = plugins.activate(Choice::policy(sound)).unwrap();
    let stolen = push(&plugins, "salt=2", &it.lost, 1);
    plugins.canary(Choice::policy(stolen)).unwrap();
    plugins.shadow(Choice::policy(stolen)).unwrap();
    plugins.trust(&it.without_lost()).unwrap();
    let status = plugins.status();
    assert_eq!(status.active.number, active.number);
    assert!(status.rollout.is_none() && status.shadow.is_none());
    let deployment = plugins.deployment();
    assert!(deployment.rollout.is_none() && deployment.shadow.is_none());
    let newest = told(&plugins, 2);
    assert!(newest.iter().all(|it| it.starts_with("Left")), "{newest:?}");
    // What was active before, the fallback, needs no signature.
    assert!(deployment.previous.is_some());
}

#[test]
fn keys_with_which_the_node_would_not_start_are_refused_as_a_whole() {
    let it = Signed::new();
    let plugins = it.bench.plugins();
    let first = push(&plugins, "salt=1", &it.good, 1);
    let second = push(&plugins, "salt=2", &it.lost, 1);
    plugins.activate(Choice::policy(first)).unwrap();
    let active = plugins.activate(Choice::policy(second)).unwrap();
    let before = (plugins.deployment(), plugins.history(100).len());
    // The active one's key is listed nowhere, and the other one is revoked.
    let mut config = PolicyConfig {
        revoked: vec![it.good.public()],
        ..it.bench.config.clone()
    };
    config.keys.remove("lost");
    let refused = plugins.trust(&config).unwrap_err();
    assert_eq!(refused.number, active.number);
    let text = refused.to_string();
    assert!(text.contains("Put the key back into policy.keys"), "{text}");
    assert_eq!((plugins.deployment(), plugins.history(100).len()), before);
    // The old keys count on: both of them.
    for (salt, key) in [("salt=3", &it.good), ("salt=4", &it.lost)] {
        push(&plugins, salt, key, 9);
    }
    // A key that is listed nowhere keeps nothing that is only gone back to.
    let mut config = it.bench.config.clone();
    config.keys.remove("good");
    assert_eq!(plugins.trust(&config).unwrap().len(), 1);
    let deployment = plugins.deployment();
    assert_eq!(deployment.active.number, active.number);
    assert_eq!(deployment.previous, None);
}

#[test]
fn a_revoked_half_counts_more_than_one_that_can_be_mended() {
    let it = Signed::new();
    let plugins = it.bench.plugins();
    let scorer = signed(plain::postprocessor("salt=1"), &it.lost, 1);
    let choice = Choice {
        policy: Pick::Take(push(&plugins, "salt=1", &it.good, 1)),
        postprocessor: Pick::Take(plugins.push(&scorer).unwrap()),
    };
    plugins.activate(choice).unwrap();
    let mut config = it.without_lost();
    config.keys.remove("good");
    plugins.trust(&config).unwrap();
    assert_eq!(plugins.deployment().active.postprocessor, None);
}

#[test]
fn what_was_signed_anew_with_another_key_stays() {
    let it = Signed::new();
    let plugins = it.bench.plugins();
    let release = push(&plugins, "salt=1", &it.lost, 1);
    let active = plugins.activate(Choice::policy(release)).unwrap();
    assert_eq!(push(&plugins, "salt=1", &it.good, 1), release);
    assert!(plugins.trust(&it.without_lost()).unwrap().is_empty());
    assert_eq!(plugins.deployment().active.number, active.number);
}

#[test]
fn requests_under_way_call_nothing_of_a_revoked_key_any_more() {
    let it = Signed::new();
    let plugins = it.bench.plugins();
    let stolen = push(&plugins, "salt=1", &it.lost, 1);
    plugins.activate(Choice::policy(stolen)).unwrap();
    let scenario = Driver::new(1).next().unwrap();
    let mut ticket = plugins.admit(&Arrival::new("old", scenario.content));
    ticket.plan(&scenario.request, &scenario.parts, &scenario.nodes);
    let input = StepInput {
        unsent: 4,
        ..StepInput::default()
    };
    assert_eq!(ticket.step(&input), Action::Send);
    plugins.trust(&it.without_lost()).unwrap();
    ticket.step(&input);
    assert!(ticket.failed());
    ticket.finish(Outcome::default());
    it.bench.records.settle().unwrap();
    let record = it.bench.records.get("old").unwrap().unwrap();
    assert_eq!(record.steps[0].action, Called::Answered(Action::Send));
    assert_eq!(record.steps[1].action, Called::Failed("revoked".to_owned()));
    assert_eq!(record.updates, Some(Called::Failed("revoked".to_owned())));
    let outcome = record.outcome.as_ref().unwrap();
    assert_ne!(outcome.overrides & overrides::FALLBACK, 0);
    // Its words are code of its own too, as long as it is in memory.
    assert!(plugins.explain(&record).is_err());
    until("it is taken apart", || {
        plugins.status().generations_in_memory <= 1
    });
}

#[test]
fn an_activation_that_was_compiling_is_held_against_the_new_keys() {
    let it = Signed::new();
    let stolen = {
        let plugins = it.bench.plugins();
        push(&plugins, "slow", &it.lost, 1)
    };
    let slow = SlowLoader::new();
    let mut options = it.bench.options(&it.bench.registry());
    options.loader = Arc::clone(&slow) as Arc<dyn Loader>;
    let plugins = Plugins::open(options).unwrap().plugins;
    let activated = std::thread::scope(|scope| {
        let activating = scope.spawn(|| plugins.activate(Choice::policy(stolen)));
        slow.begun.wait();
        plugins.trust(&it.without_lost()).unwrap();
        slow.go.wait();
        activating.join().unwrap()
    });
    let refused = activated.unwrap_err().to_string();
    assert!(refused.contains("policy.revoked withdraws"), "{refused}");
    assert_eq!(plugins.deployment().active.policy, None);
}

#[test]
fn without_a_disk_a_revocation_takes_effect_and_is_written_down_later() {
    let it = Signed::new();
    let plugins = it.bench.plugins();
    let stolen = push(&plugins, "salt=1", &it.lost, 1);
    plugins.activate(Choice::policy(stolen)).unwrap();
    let (journal, away) = (
        it.bench.registry().join("journal"),
        it.bench.folder.path().join("away"),
    );
    std::fs::rename(&journal, &away).unwrap();
    let lines = plugins.trust(&it.without_lost()).unwrap();
    assert!(
        lines
            .iter()
            .any(|line| line.contains("cannot be written down")),
        "{lines:?}"
    );
    assert_eq!(plugins.status().active.policy, None);
    std::fs::rename(&away, &journal).unwrap();
    until("it is written down", || {
        plugins.status().not_durable.is_none()
    });
    drop(plugins);
    let bench = Bench {
        config: it.without_lost(),
        ..it.bench
    };
    assert_eq!(bench.plugins().deployment().active.policy, None);
}
