//! How an operator names a plug-in that a node has: by how its digest begins, or by NAME@VERSION.
//!
//! A release is one component with one manifest. What could mean two of them means none: activating the wrong policy is
//! worse than typing more.

use std::path::{Path, PathBuf};

use msao_core::digest::Digest;
use msao_core::offload::manifest::World;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

/// Digits of a digest that are typed at least: with fewer, a release that comes tomorrow often begins the same.
const FEWEST: usize = 4;
/// Releases that an error lists.
const LISTED: usize = 8;

/// One component with one manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Release {
    /// SHA-256 of the component.
    pub artifact: Digest,
    /// SHA-256 of the manifest.
    pub manifest: Digest,
}

/// A release that a node has.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Listed {
    /// It.
    pub release: Release,
    /// Of its manifest.
    pub name: String,
    /// Of its manifest.
    pub version: String,
    /// What it is made for.
    pub world: World,
    /// Of its manifest.
    #[serde(default)]
    pub description: String,
    /// Whether a signature lies with it.
    #[serde(default)]
    pub signed: bool,
}

impl Listed {
    /// For people: `patient@0.2.0 (5b1c0cd78c43)`.
    pub fn words(&self) -> String {
        format!(
            "{}@{} ({})",
            self.name,
            self.version,
            self.release.artifact.short()
        )
    }
}

/// What a node's list (`GET /v1/policies`) holds; entries that are not understood are left out.
pub fn listed(value: &Value) -> Vec<Listed> {
    let entries = value.pointer("/releases").and_then(Value::as_array);
    let read = |entry: &Value| Listed::deserialize(entry).ok();
    entries.into_iter().flatten().filter_map(read).collect()
}

/// Why a name means no release.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Unresolved {
    /// It means none.
    #[error(
        "the node has no release {text}: `msao policy list` shows those that it has; a folder is written with a slash \
         ({}) and is pushed first",
        folder(text)
    )]
    Unknown {
        /// As it was given.
        text: String,
    },
    /// It means several.
    #[error("{text} may mean {}: name one by its digest, or as ARTIFACT:MANIFEST where components are the same", found.join(", "))]
    Ambiguous {
        /// As it was given.
        text: String,
        /// Some of them.
        found: Vec<String>,
    },
    /// Too short a digest.
    #[error("{text} is too short for a digest: give at least {FEWEST} digits of it")]
    Short {
        /// As it was given.
        text: String,
    },
}

fn folder(text: &str) -> String {
    let name = text.split('@').next().unwrap_or(text);
    format!("./{name}")
}

/// What an operator wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// Something on this disk, which is pushed first.
    Here(PathBuf),
    /// Something that the node has.
    There(String),
}

impl Named {
    /// A path has a separator, is `.` or `..`, or names a file of a plug-in. Whether it exists has no say: the same words mean
    /// the same in every folder.
    pub fn new(text: &str) -> Named {
        let path = Path::new(text);
        let is_file = text == "policy.toml" || path.extension().is_some_and(|it| it == "wasm");
        if text.contains(std::path::MAIN_SEPARATOR)
            || text.contains('/')
            || text == "."
            || text == ".."
            || is_file
        {
            Named::Here(path.to_owned())
        } else {
            Named::There(text.to_owned())
        }
    }
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn begins(digest: Digest, text: &str) -> bool {
    text.len() >= FEWEST
        && is_hex(text)
        && digest.to_string().starts_with(&text.to_ascii_lowercase())
}

fn is_meant(text: &str, it: &Listed) -> bool {
    if let Some((name, version)) = text.split_once('@') {
        return it.name == name && it.version == version;
    }
    if let Some((artifact, manifest)) = text.split_once(':') {
        return begins(it.release.artifact, artifact) && begins(it.release.manifest, manifest);
    }
    // A name may look like a digest: then it means both.
    it.name == text || begins(it.release.artifact, text)
}

/// The one release that `text` means: NAME@VERSION, NAME, how the component's digest begins, or
/// ARTIFACT:MANIFEST.
///
/// # Errors
/// [`Unresolved`], where it means none or several.
pub fn resolve<'a>(text: &str, releases: &'a [Listed]) -> Result<&'a Listed, Unresolved> {
    let mut found: Vec<&Listed> = releases.iter().filter(|it| is_meant(text, it)).collect();
    found.sort_by_key(|it| it.release);
    found.dedup_by_key(|it| it.release);
    let text = text.to_owned();
    match found.as_slice() {
        [one] => Ok(one),
        [] if is_hex(&text) && text.len() < FEWEST => Err(Unresolved::Short { text }),
        [] => Err(Unresolved::Unknown { text }),
        many => {
            let mut found: Vec<String> = many
                .iter()
                .take(LISTED)
                .map(|it| {
                    let Release { artifact, manifest } = it.release;
                    format!(
                        "{}@{} ({}:{})",
                        it.name,
                        it.version,
                        artifact.short(),
                        manifest.short()
                    )
                })
                .collect();
            if many.len() > LISTED {
                found.push(format!("{} more", many.len() - LISTED));
            }
            Err(Unresolved::Ambiguous { text, found })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listed(artifact: [u8; 32], manifest: [u8; 32], name: &str, version: &str) -> Listed {
        Listed {
            release: Release {
                artifact: Digest(artifact),
                manifest: Digest(manifest),
            },
            name: name.to_owned(),
            version: version.to_owned(),
            world: World::OffloadPolicy,
            description: String::new(),
            signed: false,
        }
    }

    /// 32 bytes that begin so.
    fn bytes(first: &[u8]) -> [u8; 32] {
        std::array::from_fn(|at| first.get(at).copied().unwrap_or(7))
    }

    #[test]
    fn releases_are_named_in_several_ways() {
        let all = [
            listed(
                bytes(&[0xab, 0xcd, 0x01]),
                bytes(&[1, 1]),
                "patient",
                "0.1.0",
            ),
            listed(
                bytes(&[0xab, 0xcd, 0x02]),
                bytes(&[2, 2]),
                "patient",
                "0.2.0",
            ),
            listed(bytes(&[0x99, 0x01]), bytes(&[3, 3]), "edge-only", "1.0.0"),
            // The same component with two manifests.
            listed(bytes(&[0x55, 0x55]), bytes(&[4, 4]), "tuned", "1.0.0"),
            listed(bytes(&[0x55, 0x55]), bytes(&[5, 5]), "tuned", "1.0.1"),
            // A name of hexadecimal digits, and another's digest that begins with them.
            listed(bytes(&[0x31]), bytes(&[6, 6]), "facade", "1.0.0"),
            listed(bytes(&[0xfa, 0xca, 0xde]), bytes(&[7, 7]), "other", "1.0.0"),
        ];
        let version = |text: &str| {
            resolve(text, &all)
                .map(|it| format!("{} {}", it.name, it.version))
                .map_err(|it| it.to_string())
        };
        for (text, meant) in [
            ("patient@0.2.0", "patient 0.2.0"),
            ("abcd01", "patient 0.1.0"),
            ("ABCD02", "patient 0.2.0"),
            ("edge-only", "edge-only 1.0.0"),
            ("5555:0404", "tuned 1.0.0"),
            ("tuned@1.0.1", "tuned 1.0.1"),
            ("facade@1.0.0", "facade 1.0.0"),
            ("facade07", "other 1.0.0"),
        ] {
            assert_eq!(version(text).unwrap(), meant, "{text}");
        }
        for (text, told) in [
            (
                "patient",
                "patient@0.1.0 (abcd01070707:010107070707), patient@0.2.0",
            ),
            ("abcd", "may mean"),
            ("555507", "may mean"),
            ("5555", "ARTIFACT:MANIFEST"),
            ("facade", "may mean"),
            ("99", "too short"),
            ("patient@9.9.9", "./patient"),
            ("nobody", "msao policy list"),
            (":", "has no release"),
            ("@", "has no release"),
        ] {
            let error = version(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
        // Listed twice is still one.
        let twice = [all[2].clone(), all[2].clone()];
        assert!(resolve("edge-only", &twice).is_ok());
    }

    #[test]
    fn paths_look_like_paths() {
        for path in [
            ".",
            "..",
            "./patient",
            "policies/patient",
            "patient.wasm",
            "policy.toml",
            "/x",
        ] {
            assert_eq!(Named::new(path), Named::Here(path.into()), "{path}");
        }
        for name in ["patient", "patient@0.1.0", "5b1c0cd7", "5555:0404"] {
            assert_eq!(Named::new(name), Named::There(name.into()), "{name}");
        }
    }

    #[test]
    fn entries_that_are_not_understood_are_left_out() {
        let value = serde_json::json!({"releases": [
            {"release": {"artifact": "aa".repeat(32), "manifest": "bb".repeat(32)}, "name": "a", "version": "1.0.0",
             "world": "offload-policy", "description": "", "signed": true, "new": 1},
            {"release": "?"}, 3
        ]});
        let all = super::listed(&value);
        assert_eq!(all.len(), 1);
        assert!(all[0].signed);
    }

    fn release() -> impl Strategy<Value = Listed> {
        // Few different bytes and names: many releases begin alike.
        let digest = || {
            prop::collection::vec(prop::sample::select(vec![0xa1_u8, 0xa2, 0xb1]), 4)
                .prop_map(|it| bytes(&it))
        };
        let name = prop::sample::select(vec!["patient", "a1a1", "a1a1a2", "edge-only"]);
        let version = prop::sample::select(vec!["0.1.0", "0.2.0"]);
        (digest(), digest(), name, version).prop_map(|(artifact, manifest, name, version)| {
            listed(artifact, manifest, name, version)
        })
    }

    proptest! {
        #[test]
        fn an_ambiguous_name_never_means_a_release(
            all in prop::collection::vec(release(), 0..12),
            text in prop_oneof![
                "(a1|a2|b1|A1|a|b){1,5}",
                "(a1|a2|b1){1,4}:(a1|a2|b1){1,4}",
                "(patient|a1a1|edge-only)(@0.[12].0)?",
                ".{0,6}",
            ],
        ) {
            // Said again without any of the code under test: everything that the words could mean.
            let lower = text.to_lowercase();
            let could: std::collections::BTreeSet<_> = all.iter().filter(|it| {
                let (artifact, manifest) = (it.release.artifact.to_string(), it.release.manifest.to_string());
                it.name == text
                    || format!("{}@{}", it.name, it.version) == text
                    || (lower.len() > 3 && artifact.starts_with(&lower))
                    || lower.split_once(':').is_some_and(|(a, m)| {
                        a.len() > 3 && m.len() > 3 && artifact.starts_with(a) && manifest.starts_with(m)
                    })
            }).map(|it| it.release).collect();
            match resolve(&text, &all) {
                Ok(found) => prop_assert_eq!(could.into_iter().collect::<Vec<_>>(), vec![found.release]),
                Err(Unresolved::Ambiguous { .. }) => prop_assert!(could.len() > 1),
                Err(_) => prop_assert!(could.is_empty()),
            }
        }
    }
}
