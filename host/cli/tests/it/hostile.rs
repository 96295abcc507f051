//! Bad input to the built command: the very attacks that `cargo xtask prove engine` counts.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test's helpers may panic

use std::path::Path;

#[test]
fn bad_input_is_refused_by_name() {
    let model = msao_golden::root().join("models/omni-thinker");
    let rows = msao_bench::hostile::rows(Path::new(env!("CARGO_BIN_EXE_msao")), &model).unwrap();
    let missed: Vec<String> = rows
        .iter()
        .filter(|row| !row.met)
        .map(|row| {
            format!(
                "{}: {}\n    {}",
                row.name,
                row.figure,
                row.details.join("\n    ")
            )
        })
        .collect();
    assert!(rows.len() > 15, "only {} attacks", rows.len());
    assert!(missed.is_empty(), "\n{}", missed.join("\n"));
}
