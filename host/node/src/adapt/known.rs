//! What is known of one pair of models: the acceptance map as it is learned, the map that audits hold to, and the audits.
//!
//! Audits speak of thresholds of *one* map. So once the map has been learned from enough drafts ([`Terms::settle`]) a
//! copy of it is held still, and classes begin: what may be committed unverified is decided by that copy, while the map
//! that policies are told of goes on learning. A drift alarm of any class ends all of them: a new copy is taken, and
//! audits begin anew.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use msao_adapt::acceptance::{AcceptanceCounts, Draft, Learner, Map, Mix};
use msao_adapt::audit::{Audit, AuditConfig, Audited, Change};
use msao_core::digest::Digest;

use super::class::{Class, Heat};
use super::pair::Pair;

/// Above every acceptance probability: nothing may be committed unverified.
pub const CLOSED: f64 = 2.0;

/// Bits of a request's number that count requests; those above tell one run of the node from another.
const COUNT_BITS: u32 = 40;

/// What the operator says of confident mode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// Share of requests, in `(0, 1)`.
    pub budget: f64,
    /// In `(0, 1)`.
    pub delta: f64,
    /// Share of requests that are audited, in `(0, 1]`.
    pub rate: f64,
    /// Drafts judged after which the map is held still for audits.
    pub settle: u64,
}

/// A draft that was judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lesson {
    /// What the draft model said of it.
    pub draft: Draft,
    /// What the map made of that, in `[0, 1]`.
    pub p_accept: f64,
    /// Whether the target chose the same.
    pub accepted: bool,
}

/// A class of requests, and what audits have shown of it.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What they have shown.
    pub audit: Audit,
    /// Requests so far: the next one's number.
    pub next: u64,
    /// Set when what was open is so no longer: requests that are under way see it.
    pub shut: Arc<AtomicBool>,
}

/// What a request of a class may do.
#[derive(Clone, Debug)]
pub struct Stand {
    /// The lowest acceptance probability that may be committed unverified; [`CLOSED`]: none may.
    pub floor: f64,
    /// By this map.
    pub map: Arc<Map>,
    /// Set once that is no longer so.
    pub shut: Arc<AtomicBool>,
    /// The map's number: what is told later of another one's audits is ignored.
    pub revision: u64,
    /// Its number among the audits, where it is one.
    pub audited: Option<u64>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Known {
    /// Learns from every draft that is judged.
    pub learner: Learner,
    /// Counts them by what a request was made of.
    pub counts: AcceptanceCounts,
    /// The map that audits hold to.
    pub settled: Option<Arc<Map>>,
    /// Counts those maps, from 1 on; 0 before the first.
    pub revision: u64,
    /// Of [`Known::settled`].
    pub classes: BTreeMap<Class, Trial>,
    /// Drift alarms so far.
    pub alarms: u64,
    /// What readers see of the learner.
    pub live: Arc<ArcSwap<Map>>,
    /// The learner knows more than readers see.
    pub unseen: bool,
    /// Something has changed since it was last written down.
    pub unwritten: bool,
    /// When it was asked for last, by a count of such questions.
    pub used: u64,
}

impl Default for Known {
    fn default() -> Known {
        Known::of(Learner::default(), AcceptanceCounts::default())
    }
}

impl Known {
    /// What was learned before, without audits.
    pub fn of(learner: Learner, counts: AcceptanceCounts) -> Known {
        Known {
            live: Arc::new(ArcSwap::from_pointee(learner.map())),
            learner,
            counts,
            settled: None,
            revision: 0,
            classes: BTreeMap::new(),
            alarms: 0,
            unseen: false,
            unwritten: false,
            used: 0,
        }
    }

    /// Drafts of a request were judged.
    pub fn learn(&mut self, mix: Mix, lessons: &[Lesson], terms: Option<&Terms>) {
        for lesson in lessons {
            self.counts.judged(mix, lesson.p_accept, lesson.accepted);
            self.learner.learn(&lesson.draft, lesson.accepted);
        }
        self.unseen = true;
        self.unwritten = true;
        self.settle(terms);
    }

    /// Lets readers see what was learned.
    pub fn publish(&mut self) {
        if std::mem::take(&mut self.unseen) {
            self.live.store(Arc::new(self.learner.map()));
        }
    }

    /// Holds the map still for audits, where there is a budget and enough was learned.
    pub fn settle(&mut self, terms: Option<&Terms>) {
        let enough = terms.is_some_and(|terms| self.learner.judged() >= terms.settle);
        if enough && self.settled.is_none() {
            self.hold_still();
        }
    }

    fn hold_still(&mut self) {
        self.settled = Some(Arc::new(self.learner.map()));
        self.revision += 1;
        self.unwritten = true;
    }

    /// Nothing is open any more, and all audits begin anew, by the map as it was learned meanwhile.
    fn begin_anew(&mut self) {
        self.shut();
        self.alarms += 1;
        self.hold_still();
    }

    /// Nothing is open any more. Requests under way see it too.
    pub fn shut(&mut self) {
        for trial in self.classes.values() {
            trial.shut.store(true, Ordering::Relaxed);
        }
        self.classes.clear();
        self.unwritten = true;
    }

    /// A request of a class has come. `boot`: another number in each run of the node; `seed`: that of coins.
    ///
    /// None: the map has not settled yet, or an alarm was just raised: exact mode, and no audit.
    pub fn admit(
        &mut self,
        pair: &Pair,
        class: Class,
        terms: &Terms,
        boot: u64,
        seed: u64,
    ) -> Option<Stand> {
        let map = Arc::clone(self.settled.as_ref()?);
        let revision = self.revision;
        let trial = match self.classes.entry(class) {
            Entry::Occupied(trial) => trial.into_mut(),
            Entry::Vacant(place) => {
                let audit = Audit::new(config(terms, coin_seed(seed, pair, class, revision)));
                place.insert(Trial {
                    // The operator's figures were checked when they were read.
                    audit: audit.ok()?,
                    next: 0,
                    shut: Arc::default(),
                })
            }
        };
        let number = boot << COUNT_BITS | (trial.next & ((1 << COUNT_BITS) - 1));
        trial.next = trial.next.wrapping_add(1);
        self.unwritten = true;
        let alarms = trial.audit.figures().alarms;
        let audited = trial.audit.admit(number);
        if trial.audit.figures().alarms != alarms {
            // Too many have not ended: the oldest counted as unfinished.
            self.begin_anew();
            return None;
        }
        Some(Stand {
            floor: trial.audit.open_threshold().unwrap_or(CLOSED),
            map,
            shut: Arc::clone(&trial.shut),
            revision,
            audited: audited.then_some(number),
        })
    }

    /// An audit has ended. Gives what that changed.
    pub fn finished(
        &mut self,
        class: Class,
        revision: u64,
        number: u64,
        audited: Audited,
    ) -> Option<Change> {
        if revision != self.revision {
            return None;
        }
        self.unwritten = true;
        let trial = self.classes.get_mut(&class)?;
        let change = trial.audit.finished(number, audited);
        if change == Some(Change::Closed) {
            self.begin_anew();
        }
        change
    }

    /// The lowest acceptance probability that may be committed unverified by requests of this temperature; [`CLOSED`]
    /// where none may. Of those with media it is not known yet what a plan keeps: the lowest of all classes is told.
    pub fn floor(&self, temperature: f64, text_alone: bool) -> f64 {
        let open = |trial: &Trial| trial.audit.open_threshold().unwrap_or(CLOSED);
        if text_alone {
            return self
                .classes
                .get(&Class::whole(temperature))
                .map_or(CLOSED, open);
        }
        let heat = Heat::of(temperature);
        let alike = self.classes.iter().filter(|(class, _)| class.heat == heat);
        alike.map(|(_, trial)| open(trial)).fold(CLOSED, f64::min)
    }

    /// The share of drafts accepted of late in requests of such media, or where there were none in all; None before the
    /// first.
    pub fn acceptance(&self, mix: Mix) -> Option<f64> {
        let all = || {
            let totals = Mix::all().map(|mix| self.counts.total(mix));
            let (accepted, drafted) = totals.fold((0.0, 0.0), |(accepted, drafted), cell| {
                (accepted + cell.accepted, drafted + cell.drafted)
            });
            (drafted > 0.0).then(|| (accepted / drafted).clamp(0.0, 1.0))
        };
        self.counts.total(mix).rate().or_else(all)
    }

    /// After a restart, or a change of the operator's figures: audits that had not ended never will, and those of other
    /// figures begin anew.
    pub fn restart(&mut self, terms: Option<&Terms>) {
        if let Some(terms) = terms {
            let before = self.classes.len();
            self.classes.retain(|_, trial| {
                let was = *trial.audit.config();
                let now = config(terms, was.seed);
                was == now
            });
            self.unwritten |= self.classes.len() != before;
        }
        let mut alarm = false;
        for trial in self.classes.values_mut() {
            if trial.audit.figures().pending > 0 {
                self.unwritten = true;
                alarm |= trial.audit.abandon() == Some(Change::Closed);
            }
        }
        if alarm {
            self.begin_anew();
        }
        self.settle(terms);
    }
}

fn config(terms: &Terms, seed: u64) -> AuditConfig {
    AuditConfig {
        budget: terms.budget,
        delta: terms.delta,
        rate: terms.rate,
        ..AuditConfig::new(seed)
    }
}

/// A seed of its own for each class of each map: their coins have nothing to do with each other.
fn coin_seed(seed: u64, pair: &Pair, class: Class, revision: u64) -> u64 {
    let (draft, target, held) = (pair.draft, pair.target, &pair.held);
    let text = format!("{seed} {revision} {class} {draft} {target} {held}");
    let Digest([a, b, c, d, e, f, g, h, ..]) = Digest::of(text.as_bytes());
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVERY: Terms = Terms {
        budget: 0.5,
        delta: 0.05,
        rate: 1.0,
        settle: 10,
    };

    fn pair() -> Pair {
        Pair {
            draft: Digest::of(b"draft"),
            target: Digest::of(b"target"),
            held: "f32/none on cpu".into(),
        }
    }

    fn lesson(top1: f64, accepted: bool) -> Lesson {
        Lesson {
            draft: Draft {
                top1,
                entropy_nats: 1.0 - top1,
                margin: 3.0,
                mas: 0.0,
            },
            p_accept: top1,
            accepted,
        }
    }

    /// One whose map has settled.
    fn settled() -> Known {
        let mut known = Known::default();
        known.learn(Mix::TEXT, &[lesson(0.9, true); 10], Some(&EVERY));
        assert_eq!(known.revision, 1);
        known
    }

    fn admit(known: &mut Known, class: Class) -> Option<Stand> {
        known.admit(&pair(), class, &EVERY, 1, 7)
    }

    /// Audits so many requests that end alike.
    fn audit(known: &mut Known, class: Class, count: usize, end: Audited) -> Vec<Change> {
        let one = |_| {
            let stand = admit(known, class)?;
            known.finished(class, stand.revision, stand.audited?, end)
        };
        (0..count).filter_map(one).collect()
    }

    #[test]
    fn nothing_is_open_before_the_map_has_settled_and_audits_have_agreed() {
        let class = Class::whole(0.0);
        let mut known = Known::default();
        known.learn(Mix::TEXT, &[lesson(0.9, true); 9], Some(&EVERY));
        assert!(admit(&mut known, class).is_none());
        // Without a budget it never settles.
        known.learn(Mix::TEXT, &[lesson(0.9, true); 9], None);
        assert!(admit(&mut known, class).is_none());
        known.learn(Mix::TEXT, &[lesson(0.9, true)], Some(&EVERY));
        assert_eq!(admit(&mut known, class).unwrap().floor, CLOSED);
        let mut known = settled();
        let changes = audit(&mut known, class, 12, Audited::Agreed);
        assert!(matches!(changes[0], Change::Opened { .. }), "{changes:?}");
        let floor = admit(&mut known, class).unwrap().floor;
        assert!(floor > 0.5 && floor < 1.0);
        assert_eq!(
            (known.floor(0.0, true), known.floor(0.0, false)),
            (floor, floor)
        );
        // Another class knows nothing of it.
        assert_eq!(known.floor(0.5, true), CLOSED);
        let pruned = Class {
            draft: super::super::class::Retained::Half,
            ..class
        };
        assert_eq!(admit(&mut known, pruned).unwrap().floor, CLOSED);
    }

    #[test]
    fn what_audits_hold_to_stays_while_the_map_goes_on_learning() {
        let mut known = settled();
        let sure = lesson(0.95, true).draft;
        let (held, live) = (
            Arc::clone(known.settled.as_ref().unwrap()),
            known.live.clone(),
        );
        let before = held.acceptance(&sure);
        known.learn(Mix::TEXT, &[lesson(0.95, false); 2_000], Some(&EVERY));
        let told = live.load().acceptance(&sure);
        known.publish();
        assert_eq!(known.settled.as_ref().unwrap().acceptance(&sure), before);
        assert!(live.load().acceptance(&sure) < 0.1 && told > 0.8);
    }

    #[test]
    fn an_alarm_shuts_every_class_at_once_and_begins_anew() {
        let (one, other) = (Class::whole(0.0), Class::whole(1.0));
        let mut known = settled();
        audit(&mut known, one, 40, Audited::Agreed);
        audit(&mut known, other, 40, Audited::Agreed);
        let under_way = admit(&mut known, other).unwrap();
        assert!(under_way.floor < 1.0 && !under_way.shut.load(Ordering::Relaxed));
        let changes = audit(&mut known, one, 100, Audited::Unfinished);
        assert_eq!(changes.first(), Some(&Change::Closed));
        assert!(under_way.shut.load(Ordering::Relaxed));
        assert_eq!(
            (known.floor(0.0, true), known.floor(1.0, true)),
            (CLOSED, CLOSED)
        );
        assert!(known.alarms >= 1 && known.revision >= 2);
        // What ends now was asked of another map.
        let (revision, number) = (under_way.revision, under_way.audited.unwrap());
        let end = known.finished(other, revision, number, Audited::Agreed);
        assert_eq!(end, None);
        assert!(
            known
                .classes
                .get(&other)
                .is_none_or(|it| it.audit.figures().audits == 0)
        );
    }

    #[test]
    fn a_restart_ends_what_was_under_way_and_other_figures_begin_anew() {
        let class = Class::whole(0.0);
        let mut known = settled();
        admit(&mut known, class);
        known.restart(Some(&EVERY));
        let figures = known.classes[&class].audit.figures();
        assert_eq!(
            (figures.audits, figures.pending, figures.disagreements),
            (1, 0, 1)
        );
        audit(&mut known, class, 60, Audited::Agreed);
        assert!(known.floor(0.0, true) < 1.0);
        known.restart(Some(&EVERY));
        assert!(known.floor(0.0, true) < 1.0);
        for other in [
            Terms {
                budget: 0.4,
                ..EVERY
            },
            Terms {
                delta: 0.01,
                ..EVERY
            },
            Terms { rate: 0.5, ..EVERY },
        ] {
            let mut known = known.clone();
            known.restart(Some(&other));
            assert_eq!(known.floor(0.0, true), CLOSED);
        }
    }

    #[test]
    fn acceptance_is_told_by_what_a_request_is_made_of() {
        use msao_core::chat::Modality;
        let (image, sound) = (
            Mix::TEXT.with(Modality::Image),
            Mix::TEXT.with(Modality::Audio),
        );
        let mut known = Known::default();
        assert_eq!(known.acceptance(image), None);
        known.learn(Mix::TEXT, &[lesson(0.9, true); 30], None);
        known.learn(image, &[lesson(0.9, false); 10], None);
        assert_eq!(known.acceptance(image), Some(0.0));
        assert_eq!(known.acceptance(Mix::TEXT), Some(1.0));
        let all = known.acceptance(sound).unwrap();
        assert!((all - 0.75).abs() < 1e-3, "{all}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever is told in whatever order: nothing is open without a settled map, and floors are thresholds.
        #[test]
        fn floors_are_thresholds_whatever_is_told(
            told in prop::collection::vec((0_u8..6, 0.0..1.0_f64, any::<bool>()), 0..200),
        ) {
            let class = Class::whole(0.0);
            let mut known = Known::default();
            let mut under_way: Vec<(u64, u64)> = Vec::new();
            for (what, p, yes) in told {
                match what {
                    0 => known.learn(Mix::TEXT, &[lesson(p, yes); 3], Some(&EVERY)),
                    1 | 2 => {
                        let stand = admit(&mut known, class);
                        prop_assert_eq!(stand.is_some(), known.settled.is_some());
                        if let Some(stand) = stand {
                            prop_assert!(stand.floor == CLOSED || (0.5..1.0).contains(&stand.floor));
                            under_way.extend(stand.audited.map(|number| (stand.revision, number)));
                        }
                    }
                    3 | 4 => if let Some((revision, number)) = under_way.pop() {
                        let end = if yes { Audited::Agreed } else { Audited::Rejected { acceptance: p } };
                        known.finished(class, revision, number, end);
                    }
                    _ => known.restart(Some(&EVERY)),
                }
                let floor = known.floor(0.0, true);
                prop_assert!(floor == CLOSED || (0.5..1.0).contains(&floor));
            }
        }
    }
}
