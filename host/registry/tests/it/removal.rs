//! Releases that are removed: what is needed stays, and what has gone does not come back in place of something newer.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::fs;
use std::sync::Arc;

use msao_core::offload::Outcome;
use msao_registry::driver::Driver;
use msao_registry::{
    Arrival, Bundle, Choice, InUse, Loader, Plugins, Refused, Release, SignatureError,
    SigningKeyFile,
};

use crate::common::plain::SlowLoader;
use crate::common::{Bench, plain, push, until};

/// What a release is needed for.
fn needed(plugins: &Plugins, release: Release) -> InUse {
    match plugins.remove(release) {
        Err(Refused::InUse { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

fn here(plugins: &Plugins) -> Vec<Release> {
    let releases = plugins.releases().unwrap().into_iter();
    releases.map(|(release, ..)| release).collect()
}

/// How many components lie on the disk.
fn components(bench: &Bench) -> usize {
    fs::read_dir(bench.registry().join("artifacts"))
        .unwrap()
        .count()
}

#[test]
fn what_is_needed_stays_and_says_what_for() {
    let bench = Bench::new("");
    let plugins = bench.plugins();
    let [left, before, active, canary, shadow, unused] =
        ["salt=1", "salt=2", "salt=3", "salt=4", "salt=5", "salt=6"]
            .map(|words| push(&plugins, words));
    let choice = Choice::policy;
    let scenario = Driver::new(1).next().unwrap();
    let left_number = plugins.activate(choice(left)).unwrap().number;
    let ticket = plugins.admit(&Arrival::new("old", scenario.content));
    let before_number = plugins.activate(choice(before)).unwrap().number;
    let active_number = plugins.activate(choice(active)).unwrap().number;
    let canary_number = plugins.canary(choice(canary)).unwrap().number;
    let shadow_number = plugins.shadow(choice(shadow)).unwrap().number;
    let deployment = plugins.deployment();
    assert_eq!(needed(&plugins, left), InUse::UnderWay(left_number));
    assert_eq!(needed(&plugins, before), InUse::Before(before_number));
    assert_eq!(needed(&plugins, active), InUse::Active(active_number));
    assert_eq!(needed(&plugins, canary), InUse::Canary(canary_number));
    assert_eq!(needed(&plugins, shadow), InUse::Shadow(shadow_number));
    let told = plugins.remove(active).unwrap_err().to_string();
    assert!(
        told.starts_with("patient 0.1.0 stays: it is active (generation "),
        "{told}"
    );

    let removed = plugins.remove(unused).unwrap();
    assert_eq!(removed.removed[0].release, unused);
    // Its manifest is that of all others.
    assert_eq!(removed.bytes, "name=patient salt=6".len() as u64);
    assert!(!here(&plugins).contains(&unused));
    assert_eq!(components(&bench), 5);
    let again = plugins.remove(unused).unwrap_err();
    assert!(
        matches!(again, Refused::NotHere(it) if it == unused),
        "{again}"
    );
    let gone = plugins.activate(choice(unused)).unwrap_err().to_string();
    assert!(gone.contains("push the release again"), "{gone}");

    // Once its last request is over, what was left may go.
    ticket.finish(Outcome::default());
    plugins.remove(left).unwrap();
    assert_eq!(plugins.deployment(), deployment);
    // All that stays is there after a restart.
    drop(plugins);
    let plugins = bench.plugins();
    assert_eq!(plugins.deployment(), deployment);
    assert_eq!(here(&plugins).len(), 4);
}

#[test]
fn all_that_nothing_needs_goes_at_once() {
    let bench = Bench::new("");
    let plugins = bench.plugins();
    let releases = ["salt=1", "salt=2", "salt=3", "salt=4"].map(|words| push(&plugins, words));
    for release in &releases[2..] {
        plugins.activate(Choice::policy(*release)).unwrap();
    }
    let removed = plugins.remove_unused().unwrap();
    let mut gone: Vec<Release> = removed.removed.iter().map(|it| it.release).collect();
    gone.sort_unstable();
    let mut expected = releases[..2].to_vec();
    expected.sort_unstable();
    assert_eq!(gone, expected);
    assert_eq!(removed.bytes, 2 * "name=patient salt=1".len() as u64);
    let mut needs: Vec<&str> = removed.kept.iter().map(|(_, need)| need.name()).collect();
    needs.sort_unstable();
    assert_eq!(needs, ["active", "before"]);
    assert!(plugins.rollback("it works").is_ok());
    // Turned off, the node keeps what a rollback brings back, and that alone.
    plugins.off().unwrap();
    let removed = plugins.remove_unused().unwrap();
    assert_eq!((removed.removed.len(), removed.kept.len()), (1, 1));
    assert_eq!(components(&bench), 1);
    assert!(plugins.rollback("on again").is_ok());
}

#[test]
fn older_serials_are_refused_after_their_release_was_removed_too() {
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
    let push = |bundle: &Bundle| plugins.push(bundle).unwrap();
    let bundles = [
        signed("salt=1", 1),
        signed("salt=2", 2),
        signed("salt=3", 3),
    ];
    let releases = bundles.each_ref().map(push);
    for release in releases {
        plugins.activate(Choice::policy(release)).unwrap();
    }
    plugins.remove(releases[0]).unwrap();
    let signatures = fs::read_dir(bench.registry().join("signatures")).unwrap();
    assert_eq!(signatures.count(), 2);
    let older = |plugins: &Plugins| {
        let refused = plugins.activate(Choice::policy(releases[0])).unwrap_err();
        refused.to_string()
    };
    assert_eq!(push(&bundles[0]), releases[0]);
    let told = older(&plugins);
    assert!(told.contains("serial 1, but serial 3 was active"), "{told}");
    // The newest itself may go as well, and its serial stays used.
    plugins.rollback("to see").unwrap();
    let posing = push(&signed("salt=4", 3));
    plugins.remove(releases[2]).unwrap();
    let used = plugins.activate(Choice::policy(posing)).unwrap_err();
    assert!(used.to_string().contains("which another release"), "{used}");
    drop(plugins);
    let plugins = bench.plugins();
    assert!(older(&plugins).contains("but serial 3 was active"));
    let used = plugins.activate(Choice::policy(posing)).unwrap_err();
    let newest = SignatureError::SerialUsed {
        plugin: "patient".into(),
        serial: 3,
    };
    assert_eq!(used.to_string(), newest.to_string());
}

#[test]
fn what_was_removed_while_it_was_compiled_does_not_become_active() {
    let bench = Bench::new("");
    let release = {
        let plugins = bench.plugins();
        push(&plugins, "slow")
    };
    let slow = SlowLoader::new();
    let mut options = bench.options(&bench.registry());
    options.loader = Arc::clone(&slow) as Arc<dyn Loader>;
    let plugins = Plugins::open(options).unwrap().plugins;
    let before = plugins.deployment();
    let refused = std::thread::scope(|scope| {
        let activating = scope.spawn(|| plugins.activate(Choice::policy(release)));
        slow.begun.wait();
        plugins.remove(release).unwrap();
        slow.go.wait();
        activating.join().unwrap().unwrap_err().to_string()
    });
    assert!(refused.contains("push the release again"), "{refused}");
    assert_eq!(plugins.deployment(), before);
}

#[test]
fn nothing_goes_while_the_disk_knows_another_state() {
    let bench = Bench::new("");
    let plugins = bench.plugins();
    let unused = push(&plugins, "salt=1");
    plugins
        .activate(Choice::policy(push(&plugins, "salt=2")))
        .unwrap();
    let (journal, away) = (
        bench.registry().join("journal"),
        bench.folder.path().join("away"),
    );
    fs::rename(&journal, &away).unwrap();
    assert!(matches!(plugins.off(), Err(Refused::NotDurable(_))));
    for refused in [plugins.remove(unused), plugins.remove_unused()] {
        assert!(matches!(refused, Err(Refused::Unsettled(_))), "{refused:?}");
    }
    fs::rename(&away, &journal).unwrap();
    until("it is written down", || plugins.remove(unused).is_ok());
}

#[test]
fn a_removal_that_a_stop_cut_short_is_finished_at_the_next_start() {
    let bench = Bench::new("");
    let release = {
        let plugins = bench.plugins();
        push(&plugins, "salt=1")
    };
    // What a stop just after the removal began leaves.
    let mark = format!("{}-{}", release.artifact, release.manifest);
    let folder = bench.registry().join("releases");
    fs::rename(folder.join(&mark), folder.join(format!("{mark}.removed"))).unwrap();
    let plugins = bench.plugins();
    assert_eq!(here(&plugins), []);
    assert_eq!(components(&bench), 0);
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
}
