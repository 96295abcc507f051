//! The committed demo pair keeps its promises, on a sample of the held-out questions; `cargo xtask prove engine` asks
//! all of them.
#![allow(clippy::unwrap_used)] // a test's helpers may panic

use std::path::PathBuf;

use msao_bench::pair::measure;
use msao_engine::Place;

fn models() -> PathBuf {
    msao_golden::root().join("../../models")
}

#[test]
fn the_pair_answers_a_sample_as_it_should() {
    msao_engine::set_threads(2);
    let figures = measure(&models(), Place::Cpu, 19, &mut |_, _| {}).unwrap();
    println!("{figures:#?}");
    // Some hundred questions: the bounds are those of the proof with room for the sample's chance.
    assert!(figures.short_questions >= 80);
    assert!(figures.target >= 85.0);
    assert!((50.0..=95.0).contains(&figures.draft));
    assert!(figures.agreement >= 60.0);
    assert!(figures.surest_equal >= 94.0);
    for (modality, (questions, points)) in figures.needed {
        assert!(
            questions < 10 || points >= 15.0,
            "{modality:?}: {points} points lost"
        );
    }
}
