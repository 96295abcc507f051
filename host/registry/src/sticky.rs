//! Which requests a canary gets: always the same sessions, and more of them at each step.

use msao_core::digest::Digest;
use sha2::{Digest as _, Sha256};

/// What keeps a session together, from what a request carries: the first that is present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionKey<'a> {
    /// `x-msao-session`.
    Session(&'a str),
    /// `prompt_cache_key`.
    PromptCacheKey(&'a str),
    /// `user`.
    User(&'a str),
    /// The API key.
    ApiKey(&'a str),
    /// The request's own id: nothing keeps it together with another.
    Request(&'a str),
}

impl<'a> SessionKey<'a> {
    fn parts(self) -> (u8, &'a str) {
        match self {
            SessionKey::Session(text) => (0, text),
            SessionKey::PromptCacheKey(text) => (1, text),
            SessionKey::User(text) => (2, text),
            SessionKey::ApiKey(text) => (3, text),
            SessionKey::Request(text) => (4, text),
        }
    }

    /// Its place in [0, 1) for the candidate generation `number`. A canary of a share gets the places below it, so
    /// that who is in at one step is in at the next. Each candidate shuffles anew.
    pub(crate) fn place(self, salt: &Digest, number: u64) -> f64 {
        let (kind, text) = self.parts();
        let mut hash = Sha256::new();
        hash.update(salt.0);
        hash.update(number.to_le_bytes());
        hash.update([kind]);
        hash.update(text.as_bytes());
        let bytes: [u8; 32] = hash.finalize().into();
        let [a, b, c, d, e, f, g, h, ..] = bytes;
        let bits = u64::from_le_bytes([a, b, c, d, e, f, g, h]) >> 11;
        bits as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shares_are_met_and_candidates_shuffle_anew() {
        let salt = Digest::of(b"salt");
        let places: Vec<(f64, f64)> = (0..40_000)
            .map(|i| {
                let id = format!("session-{i}");
                let key = SessionKey::Session(&id);
                (key.place(&salt, 1), key.place(&salt, 2))
            })
            .collect();
        for share in [0.01, 0.05, 0.25] {
            let below = places.iter().filter(|place| place.0 < share).count() as f64;
            // Five standard deviations of 40,000 coins.
            let room = 5.0 * (40_000.0 * share * (1.0 - share)).sqrt();
            assert!((below - 40_000.0 * share).abs() < room, "{share}: {below}");
        }
        let both = places
            .iter()
            .filter(|place| place.0 < 0.25 && place.1 < 0.25);
        assert!((both.count() as f64 - 2500.0).abs() < 250.0);
    }

    proptest! {
        #[test]
        fn a_place_depends_on_kind_text_salt_and_candidate_alone(text in ".{0,40}", number: u64) {
            let salt = Digest::of(b"salt");
            let place = SessionKey::User(&text).place(&salt, number);
            prop_assert!((0.0..1.0).contains(&place));
            prop_assert_eq!(place, SessionKey::User(&text).place(&salt, number));
            prop_assert_ne!(place, SessionKey::ApiKey(&text).place(&salt, number));
            prop_assert_ne!(place, SessionKey::User(&text).place(&Digest::of(b"other"), number));
        }
    }
}
