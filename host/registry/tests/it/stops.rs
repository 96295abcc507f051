//! A real process, killed at random moments: what is active afterwards is what was before or after the change.
#![allow(clippy::unwrap_used, clippy::panic)] // a test's helpers may panic

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use msao_registry::proof::stop_at_random;

/// Cargo builds examples together with tests, beside them.
fn torture() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    let path = path.join("examples/torture");
    assert!(
        path.exists(),
        "{} is missing: cargo builds it with the tests",
        path.display()
    );
    path
}

#[test]
fn killed_at_random_moments_the_active_generation_is_the_one_before_or_after() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let (child, registry, database) = (torture(), folder.path().join("registry"), state.clone());
    let mut spawn = |seed: u64| {
        let mut command = Command::new(&child);
        command.arg(&registry).arg(&database).arg(seed.to_string());
        command
    };
    let longest = Duration::from_millis(400);
    let figures = stop_at_random(&mut spawn, &registry, &state, 45, 7, longest).unwrap();
    assert_eq!(figures.failures, Vec::<String>::new());
    assert_eq!(figures.stops, 45);
    let all = (
        figures.changes,
        figures.in_the_middle,
        figures.before_a_word,
    );
    assert!(all.0 > 0 && all.1 > 0 && all.2 > 0, "{figures:?}");
    // Each push was of another: there are more than the policies that take turns.
    assert!(figures.releases > 7, "{figures:?}");
}
