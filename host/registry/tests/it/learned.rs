//! What plug-ins have learned is taken along to the same plug-in, schema and models, and to nothing else.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use msao_core::offload::Calibration;
use msao_registry::state::CellsKey;
use msao_registry::{Choice, NotTaken};

use crate::common::{Bench, push};

fn cells() -> Calibration {
    Calibration {
        keys: vec![1, 4],
        mean: vec![0.5, 2.0],
        variance: vec![0.0, 1.0],
        count: vec![10.0, 3.0],
    }
}

#[test]
fn cells_go_to_the_same_plugin_schema_and_models_alone() {
    let bench = Bench::new("");
    let plugins = bench.plugins();
    let from_elsewhere = CellsKey {
        plugin: "patient".into(),
        state_schema: 1,
        models: "draft/target".into(),
        node: "another".into(),
    };
    let inactive = plugins.take_learned(&from_elsewhere, &cells());
    assert_eq!(inactive, Err(NotTaken::NotActive("patient".into())));
    let release = push(&plugins, "salt=1");
    plugins.activate(Choice::policy(release)).unwrap();
    for (key, words) in [
        (
            CellsKey {
                state_schema: 2,
                ..from_elsewhere.clone()
            },
            "schema 2",
        ),
        (
            CellsKey {
                models: "draft/other".into(),
                ..from_elsewhere.clone()
            },
            "draft/other",
        ),
    ] {
        let refused = plugins.take_learned(&key, &cells()).unwrap_err();
        assert!(refused.to_string().contains(words), "{refused}");
    }
    let odd = Calibration {
        mean: vec![0.5],
        ..cells()
    };
    let refused = plugins.take_learned(&from_elsewhere, &odd).unwrap_err();
    assert!(matches!(refused, NotTaken::Cells { .. }), "{refused}");
    bench.calibration.settle();
    assert!(plugins.learned()[0].1.calibration().is_empty());

    assert_eq!(plugins.take_learned(&from_elsewhere, &cells()), Ok(2));
    bench.calibration.settle();
    let learned = plugins.learned_by_key();
    assert_eq!(learned.len(), 1);
    let (key, snapshot) = &learned[0];
    assert_eq!(
        (key.node.as_str(), key.plugin.as_str()),
        ("edge", "patient")
    );
    assert_eq!(snapshot.calibration(), &cells());
}

#[test]
fn what_is_kept_of_another_schema_is_told_and_can_be_forgotten() {
    let bench = Bench::new("");
    let plugins = bench.plugins();
    let release = push(&plugins, "salt=1");
    plugins.activate(Choice::policy(release)).unwrap();
    let (own, _) = plugins.learned_by_key().remove(0);
    assert_eq!(plugins.take_learned(&own, &cells()), Ok(2));
    // As a version before has left them.
    let before = CellsKey {
        state_schema: own.state_schema + 1,
        ..own.clone()
    };
    let left = bench.calibration.live(&before);
    left.replace(&cells()).unwrap();
    drop(left);
    let told = || -> Vec<(u32, usize, bool)> {
        let kept = plugins.kept_learned().into_iter();
        kept.map(|(key, cells, active)| (key.state_schema, cells.calibration().len(), active))
            .collect()
    };
    let (schema, other) = (own.state_schema, before.state_schema);
    assert_eq!(told(), [(schema, 2, true), (other, 2, false)]);
    assert_eq!(plugins.forget_kept(&before), 2);
    assert_eq!(told(), [(schema, 2, true)]);
    assert_eq!(plugins.forget_kept(&own), 2);
    // The active one goes on, from nothing.
    assert_eq!(told(), [(schema, 0, true)]);
    assert!(plugins.learned()[0].1.calibration().is_empty());
}
