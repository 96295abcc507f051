//! What is learned, as it lies in the database: a value for each pair of models, one for each model's speeds, and one for
//! the bandwidth of each link.
//!
//! Values are JSON, which brings every number back to the bit. What is of another version, lies under a key that is not
//! its own, or cannot have been learned is not taken: it is counted, and learned anew.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use msao_adapt::acceptance::{AcceptanceCounts, Learner, Map};
use msao_adapt::audit::Audit;
use msao_core::digest::Digest;
use msao_link::estimate::{Bandwidth, Figures};
use msao_registry::state::{Batch, Storage, StorageError};
use serde::{Deserialize, Serialize};

use super::class::Class;
use super::known::{Known, Trial};
use super::pair::Pair;

/// The version of what is written here; no other is read.
const VERSION: u32 = 1;
const PAIRS: &[u8] = b"adapt/pair/";
const SPEEDS: &[u8] = b"adapt/speeds/";
const LINKS: &[u8] = b"adapt/links/";

/// A pair as it is kept.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct KeptPair {
    version: u32,
    pub pair: Pair,
    learner: Learner,
    counts: AcceptanceCounts,
    revision: u64,
    settled: Option<Map>,
    alarms: u64,
    classes: Vec<KeptClass>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct KeptClass {
    class: Class,
    next: u64,
    audit: Audit,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct KeptSpeeds {
    version: u32,
    model: String,
    figures: Figures,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct KeptLink {
    version: u32,
    link: String,
    bandwidth: Bandwidth,
}

impl KeptPair {
    /// A copy of what is known.
    pub fn of(pair: &Pair, known: &Known) -> KeptPair {
        let classes = known.classes.iter().map(|(class, trial)| KeptClass {
            class: *class,
            next: trial.next,
            audit: trial.audit.clone(),
        });
        KeptPair {
            version: VERSION,
            pair: pair.clone(),
            learner: known.learner.clone(),
            counts: known.counts.clone(),
            revision: known.revision,
            settled: known.settled.as_deref().cloned(),
            alarms: known.alarms,
            classes: classes.collect(),
        }
    }

    /// What is known again. None: it cannot have been written here.
    fn known(self) -> Option<(Pair, Known)> {
        let is_sound = self.version == VERSION && self.settled.iter().all(Map::is_sound);
        if !is_sound {
            return None;
        }
        let classes = self.classes.into_iter().map(|kept| {
            let trial = Trial {
                audit: kept.audit,
                next: kept.next,
                shut: Arc::new(AtomicBool::new(false)),
            };
            (kept.class, trial)
        });
        let known = Known {
            revision: self.revision,
            alarms: self.alarms,
            // Audits without the map that they hold to say nothing.
            classes: match self.settled {
                Some(_) => classes.collect(),
                None => BTreeMap::new(),
            },
            settled: self.settled.map(Arc::new),
            ..Known::of(self.learner, self.counts)
        };
        Some((self.pair, known))
    }
}

/// What a database keeps.
#[derive(Default)]
pub(super) struct Loaded {
    /// By pair.
    pub pairs: BTreeMap<Pair, Known>,
    /// By model.
    pub speeds: BTreeMap<String, Figures>,
    /// By link.
    pub links: BTreeMap<String, Bandwidth>,
    /// Values that could not be taken.
    pub unreadable: u64,
}

/// Reads all that is kept.
///
/// # Errors
/// The database cannot be read at all.
pub(super) fn load(storage: &dyn Storage) -> Result<Loaded, StorageError> {
    let mut loaded = Loaded::default();
    storage.scan(PAIRS, &mut |place, value| {
        let kept = serde_json::from_slice::<KeptPair>(value).ok();
        match kept.and_then(KeptPair::known) {
            Some((pair, known)) if pair.place(PAIRS) == place => {
                loaded.pairs.insert(pair, known);
            }
            _ => loaded.unreadable += 1,
        }
        ControlFlow::Continue(())
    })?;
    storage.scan(SPEEDS, &mut |place, value| {
        match serde_json::from_slice::<KeptSpeeds>(value) {
            Ok(kept) if kept.version == VERSION && place_of_speeds(&kept.model) == place => {
                loaded.speeds.insert(kept.model, kept.figures.checked());
            }
            _ => loaded.unreadable += 1,
        }
        ControlFlow::Continue(())
    })?;
    storage.scan(LINKS, &mut |place, value| {
        match serde_json::from_slice::<KeptLink>(value) {
            Ok(kept) if kept.version == VERSION && place_of_link(&kept.link) == place => {
                loaded.links.insert(kept.link, kept.bandwidth);
            }
            _ => loaded.unreadable += 1,
        }
        ControlFlow::Continue(())
    })?;
    Ok(loaded)
}

fn place_of_speeds(model: &str) -> Vec<u8> {
    place_of(SPEEDS, model)
}

fn place_of_link(link: &str) -> Vec<u8> {
    place_of(LINKS, link)
}

/// Names come from outside, so their digests stand for them.
fn place_of(kind: &[u8], name: &str) -> Vec<u8> {
    [kind, Digest::of(name.as_bytes()).to_string().as_bytes()].concat()
}

/// Writes a pair down.
pub(super) fn put_pair(batch: &mut Batch, kept: &KeptPair) -> Result<(), String> {
    let bytes = serde_json::to_vec(kept).map_err(|error| error.to_string())?;
    batch.put(&kept.pair.place(PAIRS), &bytes);
    Ok(())
}

/// Takes a pair away.
pub(super) fn remove_pair(batch: &mut Batch, pair: &Pair) {
    batch.remove(&pair.place(PAIRS));
}

/// Writes a model's speeds down.
pub(super) fn put_speeds(batch: &mut Batch, model: &str, figures: Figures) -> Result<(), String> {
    let kept = KeptSpeeds {
        version: VERSION,
        model: model.to_owned(),
        figures,
    };
    let bytes = serde_json::to_vec(&kept).map_err(|error| error.to_string())?;
    batch.put(&place_of_speeds(model), &bytes);
    Ok(())
}

/// Writes a link's bandwidth down.
pub(super) fn put_link(batch: &mut Batch, link: &str, bandwidth: Bandwidth) -> Result<(), String> {
    let kept = KeptLink {
        version: VERSION,
        link: link.to_owned(),
        bandwidth,
    };
    let bytes = serde_json::to_vec(&kept).map_err(|error| error.to_string())?;
    batch.put(&place_of_link(link), &bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use msao_adapt::acceptance::{Draft, Mix};
    use msao_adapt::audit::Audited;
    use msao_registry::state::MemoryStorage;

    use super::super::known::{Lesson, Terms};
    use super::*;

    fn pair(held: &str) -> Pair {
        Pair {
            draft: Digest::of(b"draft"),
            target: Digest::of(b"target"),
            held: held.into(),
        }
    }

    /// A pair of which something is known: its map has settled, and audits have been.
    fn known(pair: &Pair) -> Known {
        let terms = Terms {
            budget: 0.2,
            delta: 0.05,
            rate: 1.0,
            settle: 50,
        };
        let mut known = Known::default();
        let lessons = (0..100).map(|i| Lesson {
            draft: Draft {
                top1: 0.5 + 0.004 * f64::from(i),
                entropy_nats: 1.0 / (1.0 + f64::from(i)),
                margin: 0.1 * f64::from(i),
                mas: 0.25,
            },
            p_accept: 0.7,
            accepted: i % 7 != 0,
        });
        let lessons: Vec<Lesson> = lessons.collect();
        known.learn(Mix::TEXT, &lessons, Some(&terms));
        let class = Class::whole(0.0);
        for i in 0..60 {
            let stand = known.admit(pair, class, &terms, 3, 9).unwrap();
            if i < 55 {
                let number = stand.audited.unwrap();
                known.finished(class, stand.revision, number, Audited::Agreed);
            }
        }
        known
    }

    fn kept(storage: &MemoryStorage, pair: &Pair, known: &Known) {
        let mut batch = Batch::default();
        put_pair(&mut batch, &KeptPair::of(pair, known)).unwrap();
        storage.apply(batch).unwrap();
    }

    #[test]
    fn a_pair_comes_back_to_the_bit_and_apart_from_others() {
        let storage = MemoryStorage::default();
        let (one, other) = (pair("f32"), pair("bf16"));
        let (first, second) = (known(&one), Known::default());
        kept(&storage, &one, &first);
        kept(&storage, &other, &second);
        let loaded = load(&storage).unwrap();
        assert_eq!((loaded.pairs.len(), loaded.unreadable), (2, 0));
        let back = &loaded.pairs[&one];
        assert_eq!(back.learner, first.learner);
        assert_eq!(back.counts, first.counts);
        assert_eq!((back.revision, back.alarms), (first.revision, first.alarms));
        assert_eq!(back.settled, first.settled);
        let class = Class::whole(0.0);
        assert_eq!(back.classes[&class].audit, first.classes[&class].audit);
        assert_eq!(back.classes[&class].next, 60);
        assert_eq!(back.floor(0.0, true), first.floor(0.0, true));
        assert!(back.floor(0.0, true) < 1.0);
        // What readers see is there at once.
        assert_eq!(**back.live.load(), first.learner.map());
        assert_eq!(loaded.pairs[&other].learner, Learner::default());
    }

    #[test]
    fn what_cannot_be_is_counted_and_not_taken() {
        let one = pair("f32");
        let value = serde_json::to_value(KeptPair::of(&one, &known(&one))).unwrap();
        let place = one.place(PAIRS);
        let mut cases: Vec<(Vec<u8>, Vec<u8>)> = vec![
            (place.clone(), b"{".to_vec()),
            (place.clone(), Vec::new()),
            // Under another pair's key.
            (
                pair("bf16").place(PAIRS),
                serde_json::to_vec(&value).unwrap(),
            ),
        ];
        for (pointer, wrong) in [
            ("/version", serde_json::json!(2)),
            ("/learner/score/weights/1", serde_json::json!(-1.0)),
            ("/settled/knots/0/1", serde_json::json!(1.5)),
            ("/classes/0/audit/evidence/open", serde_json::json!(1000)),
            ("/pair/draft", serde_json::json!("abc")),
        ] {
            let mut value = value.clone();
            *value.pointer_mut(pointer).unwrap() = wrong;
            cases.push((place.clone(), serde_json::to_vec(&value).unwrap()));
        }
        cases.push((place_of_speeds("x"), b"[]".to_vec()));
        for (place, bytes) in cases {
            let storage = MemoryStorage::default();
            storage.put(&place, &bytes).unwrap();
            let loaded = load(&storage).unwrap();
            let told = String::from_utf8_lossy(&bytes);
            assert_eq!((loaded.pairs.len(), loaded.unreadable), (0, 1), "{told}");
        }
    }

    #[test]
    fn speeds_come_back_by_model() {
        let storage = MemoryStorage::default();
        let figures = Figures {
            draft_tok_per_s: 812.5,
            verify_ms: 3.25,
            ..Figures::UNKNOWN
        };
        let mut batch = Batch::default();
        put_speeds(&mut batch, "model on cpu", figures).unwrap();
        storage.apply(batch).unwrap();
        let loaded = load(&storage).unwrap();
        assert_eq!(loaded.speeds["model on cpu"], figures);
        assert_eq!(loaded.unreadable, 0);
    }
}
