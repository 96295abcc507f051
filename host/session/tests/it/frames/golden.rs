//! The bytes of each version, which no later change may move.
//!
//! A line holds a frame's name and its bytes in hexadecimal. Vectors of a version are written once, when it comes:
//! `cargo test -p msao-session --test it -- --ignored write_vectors`

use std::fs;
use std::path::PathBuf;

use msao_session::frame::{Decoder, Frame, encode, limits};

use super::samples::samples;

fn path(version: u8) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    PathBuf::from(folder).join(format!("v{version}.hex"))
}

fn vectors(version: u8) -> String {
    let line = |(name, frame): (&str, Frame)| {
        let mut bytes = Vec::new();
        encode(&frame, version, &mut bytes).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{name} {hex}\n")
    };
    samples().into_iter().map(line).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect()
}

#[test]
fn every_version_is_written_as_it_always_was() {
    for version in limits::OLDEST..=limits::NEWEST {
        let golden = fs::read_to_string(path(version)).unwrap();
        assert_eq!(vectors(version), golden, "version {version}");
    }
}

#[test]
fn every_version_is_read_as_it_always_was() {
    for version in limits::OLDEST..=limits::NEWEST {
        let golden = fs::read_to_string(path(version)).unwrap();
        let lines: Vec<_> = golden.lines().collect();
        assert_eq!(lines.len(), samples().len());
        for (line, (name, frame)) in lines.into_iter().zip(samples()) {
            let (named, hex) = line.split_once(' ').unwrap();
            assert_eq!(named, name);
            let bytes = bytes(hex);
            let mut decoder = Decoder::of_version(version);
            assert_eq!(
                decoder.feed(&mut bytes.as_slice()),
                Ok(Some(frame)),
                "{name}"
            );
        }
    }
}

#[test]
#[ignore = "writes the vectors of the newest version, once"]
fn write_vectors() {
    fs::write(path(limits::NEWEST), vectors(limits::NEWEST)).unwrap();
}
