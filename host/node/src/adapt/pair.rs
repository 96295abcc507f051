//! What is learned belongs to two models.

use std::fmt;

use msao_core::digest::Digest;
use serde::{Deserialize, Serialize};

/// Two models of which one drafts and the other verifies. What was learned of one pair says nothing of another, and is
/// never taken for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Pair {
    /// Weights, configuration and precision of the model that drafts.
    pub draft: Digest,
    /// The same of the one that verifies.
    pub target: Digest,
    /// How this node holds the first, and where, such as `f32/none on cpu`: its numbers differ by the device too.
    pub held: String,
}

impl Pair {
    /// Where what is known of it lies in the database, behind a prefix.
    pub(super) fn place(&self, prefix: &[u8]) -> Vec<u8> {
        let text = format!("{}\n{}\n{}", self.draft, self.target, self.held);
        let name = Digest::of(text.as_bytes()).to_string();
        [prefix, name.as_bytes()].concat()
    }
}

/// In short, for people and metrics: `0123456789ab/cdef01234567`.
impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.draft.short(), self.target.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_a_pair_has_a_place_of_its_own() {
        let pair = |draft: &[u8], target: &[u8], held: &str| Pair {
            draft: Digest::of(draft),
            target: Digest::of(target),
            held: held.into(),
        };
        let all = [
            pair(b"a", b"b", "f32"),
            pair(b"b", b"a", "f32"),
            pair(b"a", b"b", "bf16"),
            pair(b"a", b"c", "f32"),
        ];
        for (i, one) in all.iter().enumerate() {
            for (j, other) in all.iter().enumerate() {
                let same = one.place(b"x/") == other.place(b"x/");
                assert_eq!(same, i == j);
            }
        }
        assert!(all[0].place(b"x/").starts_with(b"x/"));
    }
}
