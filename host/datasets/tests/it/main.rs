//! Sets in folders: the demo world's own, small ones in the published layouts, and damaged ones.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

mod heldout;
mod mmbench;
mod vqa;

use std::path::{Path, PathBuf};

use msao_datasets::{Kind, Set};

/// The demo world's held-out data.
fn heldout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/heldout")
}

fn load(folder: &Path, kind: &str) -> Result<Set, String> {
    let kind: Kind = kind.parse()?;
    Set::load(folder, &kind).map_err(|error| error.to_string())
}

/// That loading fails, and with a message that has all of these in it.
#[track_caller]
fn fails(folder: &Path, kind: &str, with: &[&str]) {
    let message = load(folder, kind).unwrap_err();
    for part in with {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn kinds_are_read_as_they_are_written() {
    for text in [
        "vqav2",
        "vqav2:val2014",
        "mmbench",
        "mmbench:MMBench_DEV_EN.tsv",
    ] {
        assert_eq!(text.parse::<Kind>().unwrap().to_string(), text);
    }
    for text in ["", "vqa", "vqav2:", "MMBench"] {
        assert!(text.parse::<Kind>().is_err());
    }
}
