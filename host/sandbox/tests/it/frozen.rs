//! The contract's text is frozen: what is in `wit/types.wit` and `wit/worlds.wit` stays, word for word, but for comments and
//! the last digit of the package's version, which all files of a package share.

use msao_core::digest::Digest;
use msao_sandbox::CONTRACT;

/// The files of 0.1.0. What a later version adds stands in files of its own.
const TYPES: &str = include_str!("../../../../wit/types.wit");
const WORLDS: &str = include_str!("../../../../wit/worlds.wit");

/// SHA-256 of [`plain`] of both.
const FROZEN: &str = "7c8116264ba58c1c9ddf946ae49fc66c65c54f8d559e456f302984ca0b8bf4a4";

/// A file's words without comments and without the package's name, a blank between two, and a line's end.
fn plain(text: &str) -> String {
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("package "))
        .map(|line| line.split("//").next().unwrap_or_default());
    let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    words.join(" ") + "\n"
}

fn digest(types: &str, worlds: &str) -> String {
    Digest::of((plain(types) + &plain(worlds)).as_bytes()).to_string()
}

#[test]
fn the_frozen_contract_is_as_it_was() {
    assert_eq!((CONTRACT.major, CONTRACT.minor), (0, 1));
    for file in [TYPES, WORLDS] {
        let package = format!("package msao:offload@{CONTRACT};");
        assert_eq!(file.lines().next(), Some(package.as_str()));
    }
    assert!(
        digest(TYPES, WORLDS) == FROZEN,
        "wit/types.wit or wit/worlds.wit says something else than msao:offload 0.1.0 did when it was frozen. A component \
         that was built before would not load any more, or be misunderstood. Put the text back; what a later version adds \
         goes into a new file with new interfaces: docs/wit-evolution.md says how. Comments may change: they do not count."
    );
}

#[test]
fn comments_and_blanks_do_not_count_and_everything_else_does() {
    let same = TYPES.replace("///", "/// As ever:").replace("  ", "\t") + "\n// The end.\n";
    assert_ne!(same, TYPES);
    assert_eq!(digest(&same, WORLDS), digest(TYPES, WORLDS));
    for (was, is) in [
        // A field more, another type, a case more, another gate, another name.
        ("now-ms: f64,", "now-ms: f64,\n    later-ms: f64,"),
        ("seed: u64", "seed: u32"),
        ("speculate,", "speculate,\n    both,"),
        ("@since(version = 0.1.0)", "@since(version = 0.2.0)"),
        ("interface types", "interface words"),
    ] {
        let changed = TYPES.replacen(was, is, 1);
        assert_ne!(changed, TYPES, "there is no {was}");
        assert_ne!(digest(&changed, WORLDS), FROZEN, "{is}");
    }
    let changed = WORLDS.replacen("export explanation;", "", 1);
    assert_ne!(changed, WORLDS);
    assert_ne!(digest(TYPES, &changed), FROZEN);
}
