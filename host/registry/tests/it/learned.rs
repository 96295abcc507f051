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
