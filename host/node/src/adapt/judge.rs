//! What a request is told of its drafts, token by token, and what it tells of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;
use msao_adapt::acceptance::{Draft, Learner, Map, Mix};
use msao_core::sampling::Confidence;
use msao_session::edge::Judged;

use super::Lost;
use super::known::Lesson;
use super::pair::Pair;
use super::writer::Message;

/// Lessons that a request gathers before it hands them in.
const TOGETHER: usize = 32;

/// What an untaught map says: the draft model's own word, calibrated by nobody.
static UNTAUGHT: LazyLock<Arc<ArcSwap<Map>>> =
    LazyLock::new(|| Arc::new(ArcSwap::from_pointee(Learner::default().map())));

/// The map that what may be committed unverified is held against, as long as that is open.
#[derive(Clone, Debug)]
pub struct Sure {
    /// It.
    pub map: Arc<Map>,
    /// Set once nothing is open any more.
    pub shut: Arc<AtomicBool>,
}

/// Where what a request learns goes.
pub(super) struct School {
    pub pair: Arc<Pair>,
    pub mix: Mix,
    pub lessons: SyncSender<Message>,
    pub lost: Arc<Lost>,
}

/// Judges the drafts of one answer. Asking takes well below a microsecond and no lock; what it is told goes to the one
/// that learns in handfuls, and nobody waits for that.
pub struct Judge {
    map: Arc<ArcSwap<Map>>,
    sure: Option<Sure>,
    mas: f64,
    school: Option<School>,
    gathered: Vec<Lesson>,
}

impl Judge {
    /// Of an answer whose models nothing can be learned of. `mas`: the request's, in `[0, 1]`.
    pub fn untaught(mas: f64) -> Judge {
        Judge {
            map: Arc::clone(&UNTAUGHT),
            sure: None,
            mas,
            school: None,
            gathered: Vec::new(),
        }
    }

    pub(super) fn new(
        map: Arc<ArcSwap<Map>>,
        sure: Option<Sure>,
        mas: f64,
        school: School,
    ) -> Judge {
        Judge {
            map,
            sure,
            mas,
            school: Some(school),
            gathered: Vec::new(),
        }
    }

    /// The probability that the target accepts a draft of which the draft model says this, in `[0, 1]`; and the same by
    /// the map that may let it be committed unverified: 0 where nothing may.
    pub fn of(&self, confidence: &Confidence) -> (f64, f64) {
        let draft = Draft::of(confidence, self.mas);
        let p_accept = self.map.load().acceptance(&draft);
        let sure = match &self.sure {
            Some(sure) if !self.is_shut() => sure.map.acceptance(&draft),
            _ => 0.0,
        };
        (p_accept, sure)
    }

    /// Whether drafts could be sure, and cannot be any more: nor can those that [`Judge::of`] was sure of before.
    pub fn is_shut(&self) -> bool {
        (self.sure.as_ref()).is_some_and(|sure| sure.shut.load(Ordering::Relaxed))
    }

    /// The request's MAS, in `[0, 1]`.
    pub fn mas(&self) -> f64 {
        self.mas
    }

    /// The target judged a draft.
    pub fn saw(&mut self, judged: &Judged) {
        let drafted = &judged.drafted;
        let confidence = Confidence {
            top1: drafted.top1,
            entropy: drafted.entropy_nats,
            margin: drafted.margin,
        };
        self.learn(&confidence, drafted.p_accept, judged.accepted);
    }

    /// The same of a draft of which the draft model said this, and the map so much.
    pub fn learn(&mut self, confidence: &Confidence, p_accept: f64, accepted: bool) {
        if self.school.is_none() {
            return;
        }
        self.gathered.push(Lesson {
            draft: Draft::of(confidence, self.mas),
            p_accept,
            accepted,
        });
        if self.gathered.len() >= TOGETHER {
            self.hand_in();
        }
    }

    fn hand_in(&mut self) {
        let lessons = std::mem::take(&mut self.gathered);
        let Some(school) = self.school.as_ref().filter(|_| !lessons.is_empty()) else {
            return;
        };
        let message = Message::Learn {
            pair: Arc::clone(&school.pair),
            mix: school.mix,
            lessons,
        };
        // A node that learns slower than it answers learns from some: that is better than answering slower.
        if let Err(TrySendError::Full(Message::Learn { lessons, .. })) =
            school.lessons.try_send(message)
        {
            school.lost.add(lessons.len() as u64);
        }
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        self.hand_in();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    const SAID: Confidence = Confidence {
        top1: 0.9,
        entropy: 0.3,
        margin: 2.0,
    };

    fn taught(room: usize) -> (Judge, std::sync::mpsc::Receiver<Message>, Arc<Lost>) {
        let (lessons, handed_in) = sync_channel(room);
        let lost = Arc::new(Lost::default());
        let school = School {
            pair: Arc::new(Pair {
                draft: msao_core::digest::Digest::of(b"draft"),
                target: msao_core::digest::Digest::of(b"target"),
                held: String::new(),
            }),
            mix: Mix::TEXT,
            lessons,
            lost: Arc::clone(&lost),
        };
        let judge = Judge::new(Arc::clone(&UNTAUGHT), None, 0.0, school);
        (judge, handed_in, lost)
    }

    #[test]
    fn untaught_it_is_the_draft_models_own_word_and_nothing_is_sure() {
        let judge = Judge::untaught(0.3);
        let (p_accept, sure) = judge.of(&SAID);
        assert!((0.85..0.95).contains(&p_accept), "{p_accept}");
        assert_eq!(sure, 0.0);
        let nonsense = Confidence {
            top1: f64::NAN,
            ..SAID
        };
        assert_eq!(judge.of(&nonsense), (0.0, 0.0));
    }

    #[test]
    fn what_was_shut_is_sure_no_more() {
        let (mut judge, ..) = taught(1);
        let shut = Arc::new(AtomicBool::new(false));
        judge.sure = Some(Sure {
            map: Arc::new(Learner::default().map()),
            shut: Arc::clone(&shut),
        });
        let (p_accept, sure) = judge.of(&SAID);
        assert_eq!(p_accept, sure);
        assert!(!judge.is_shut());
        shut.store(true, Ordering::Relaxed);
        assert_eq!(judge.of(&SAID), (p_accept, 0.0));
        assert!(judge.is_shut());
        // Where nothing ever was open there is nothing to shut.
        assert!(!Judge::untaught(0.0).is_shut());
    }

    #[test]
    fn lessons_are_handed_in_together_and_at_the_end_and_nobody_waits() {
        let (mut judge, handed_in, lost) = taught(1);
        let count = |message: Message| match message {
            Message::Learn { lessons, .. } => lessons.len(),
            other => panic!("{other:?} is no lesson"),
        };
        for _ in 0..TOGETHER {
            judge.learn(&SAID, 0.5, true);
        }
        assert_eq!(count(handed_in.try_recv().unwrap()), TOGETHER);
        // Nobody takes them: those that find no room are lost and counted.
        for _ in 0..2 * TOGETHER + 3 {
            judge.learn(&SAID, 0.5, true);
        }
        assert_eq!(lost.count(), TOGETHER as u64);
        handed_in.try_recv().unwrap();
        drop(judge);
        assert_eq!(count(handed_in.try_recv().unwrap()), 3);
    }
}
