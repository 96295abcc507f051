//! One answer, place by place: what the target says, what the draft model guesses and says of its guess.
//!
//! Both are drawn from the question's own seed and depend on the place alone, not on when or how often it is asked, so that
//! every policy meets the same answer, and figures of two policies differ by what they do and not by luck.

use msao_core::offload::BINS;
use msao_registry::driver::Random;

use crate::traffic::{Drawn, Guessing, Question, Said};

/// Largest doubt: no draft is certainly wrong.
const MOST_DOUBT: f64 = 0.999;

#[derive(Clone, Copy, Debug)]
struct Place {
    right: bool,
    said: Said,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Script {
    places: Vec<Place>,
    /// Tokens after which the target ends the answer; none: it goes on.
    ends: Option<u32>,
}

/// A token that the draft model chooses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Guess {
    /// None: it ends the answer.
    pub id: Option<u32>,
    /// What it says of it.
    pub said: Said,
}

/// The target's token at a place.
pub(crate) fn right(place: u32) -> u32 {
    2 * place
}

fn wrong(place: u32) -> u32 {
    2 * place + 1
}

impl Script {
    /// The answer to a question, where the share `lost` of what it needs of its media was dropped from the draft's input.
    pub fn write(question: &Question, lost: f64) -> Script {
        let mut random = Random::fork(question.seed, 3);
        let count = question.answer_tokens as usize + 1;
        let mut places = Vec::with_capacity(count);
        match &question.guessing {
            Guessing::Drawn(drawn) => {
                let mut level = None;
                places.extend((0..count).map(|_| place(drawn, lost, &mut level, &mut random)));
            }
            Guessing::Recorded { said, stood, blind } => {
                let said = said.iter().cycle().take(count);
                // What is left of a guess, and of what the draft model says of it.
                let left = 1.0 - blind * lost;
                places.extend(said.map(|&said| Place {
                    right: random.unit() < left * share(stood, said.p_accept),
                    said: Said {
                        p_accept: left * said.p_accept,
                        top1: left * said.top1,
                        ..said
                    },
                }));
            }
        }
        Script {
            places,
            ends: (question.answer_tokens < question.max_tokens).then_some(question.answer_tokens),
        }
    }

    /// The target's choice at a place; none: it ends the answer there.
    pub fn target(&self, place: u32) -> Option<u32> {
        self.ends
            .is_none_or(|end| place < end)
            .then(|| right(place))
    }

    /// The draft model's choice at a place.
    pub fn draft(&self, place: u32) -> Guess {
        match self.places.get(place as usize) {
            Some(here) => Guess {
                id: if here.right {
                    self.target(place)
                } else {
                    Some(wrong(place))
                },
                said: here.said,
            },
            // Whoever has missed the end comes to it now.
            None => Guess {
                id: None,
                said: Said {
                    p_accept: 0.0,
                    top1: 0.0,
                    entropy_nats: 1.0,
                    margin: 0.0,
                },
            },
        }
    }
}

impl Question {
    /// The largest acceptance probability that the draft model says of a guess of the answer which is wrong, with everything
    /// read: what an audit of this question would tell. None: it guesses all of it right.
    pub fn rejected(&self) -> Option<f64> {
        let script = Script::write(self, 0.0);
        let places = script.places.iter().take(self.answer_tokens as usize);
        let wrong = places.filter(|place| !place.right);
        wrong.map(|place| place.said.p_accept).reduce(f64::max)
    }
}

fn share(stood: &[f64; BINS], p_accept: f64) -> f64 {
    let bin = ((p_accept * BINS as f64) as usize).min(BINS - 1);
    stood.get(bin).copied().unwrap_or(p_accept)
}

/// See [`Drawn`]. Every place draws as many numbers, whatever they come to.
fn place(drawn: &Drawn, lost: f64, level: &mut Option<f64>, random: &mut Random) -> Place {
    let (u, v) = (random.unit(), random.unit());
    let fresh = drawn.doubt * ((1.0 - drawn.spread) + drawn.spread * 4.0 * u * v);
    let new = level.map_or(fresh, |before| {
        drawn.correlation * before + (1.0 - drawn.correlation) * fresh
    });
    *level = Some(new);
    let doubt = (new + drawn.blind * lost * (1.0 - new)).clamp(0.0, MOST_DOUBT);
    let right = random.unit() >= doubt;
    let off = 1.0 + drawn.blur * (2.0 * random.unit() - 1.0);
    let told = (doubt * (1.0 - drawn.overconfidence) * off).clamp(0.0, MOST_DOUBT);
    let p_accept = 1.0 - told;
    Place {
        right,
        said: Said {
            p_accept,
            top1: p_accept,
            entropy_nats: told * random.between(1.0, 4.0),
            margin: p_accept * random.between(1.0, 8.0),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(drawn: Drawn, answer: u32, most: u32) -> Question {
        Question {
            max_tokens: most,
            guessing: Guessing::Drawn(drawn),
            ..Question::plain(0, 10, answer)
        }
    }

    #[test]
    fn guesses_are_right_as_often_as_they_should_be() {
        for doubt in [0.0, 0.1, 0.3] {
            let drawn = Drawn {
                doubt,
                ..Drawn::default()
            };
            let script = Script::write(&question(drawn, 40_000, 40_000), 0.0);
            let right = (0..40_000).filter(|&place| script.draft(place).id == script.target(place));
            let share = right.count() as f64 / 40_000.0;
            // Four standard deviations of a coin, and as much again for places that are like each other.
            assert!((share - (1.0 - doubt)).abs() < 0.02, "{doubt}: {share}");
        }
    }

    #[test]
    fn hard_places_come_together_and_the_draft_says_too_little_of_it() {
        let drawn = Drawn {
            doubt: 0.3,
            spread: 1.0,
            correlation: 0.8,
            overconfidence: 0.5,
            blur: 0.0,
            blind: 0.0,
        };
        let script = Script::write(&question(drawn, 20_000, 20_000), 0.0);
        let said: Vec<f64> = (0..20_000)
            .map(|place| script.draft(place).said.p_accept)
            .collect();
        let mean = said.iter().sum::<f64>() / said.len() as f64;
        assert!((mean - 0.85).abs() < 0.02, "{mean}");
        let of = |lag: usize| -> f64 {
            let pairs = said.iter().zip(&said[lag..]);
            pairs.map(|(a, b)| (a - mean) * (b - mean)).sum()
        };
        let correlation = of(1) / of(0);
        assert!((correlation - 0.8).abs() < 0.05, "{correlation}");
    }

    #[test]
    fn the_same_place_says_the_same_and_the_end_is_an_end() {
        let script = Script::write(&question(Drawn::even(1.0), 5, 9), 0.0);
        assert_eq!((script.target(4), script.target(5)), (Some(8), None));
        assert_eq!(script.draft(4).id, Some(8));
        assert_eq!((script.draft(5).id, script.draft(6).id), (None, None));
        // What is cut off goes on.
        let script = Script::write(&question(Drawn::even(1.0), 5, 5), 0.0);
        assert_eq!(script.target(5), Some(10));
        // What the draft cannot see it guesses worse.
        let blind = Drawn {
            blind: 1.0,
            ..Drawn::even(1.0)
        };
        let script = Script::write(&question(blind, 1000, 1000), 0.5);
        let right = (0..1000).filter(|&place| script.draft(place).id == script.target(place));
        assert!((400..600).contains(&right.count()));
    }

    #[test]
    fn an_audit_sees_the_surest_of_the_wrong_guesses() {
        assert_eq!(question(Drawn::even(1.0), 50, 50).rejected(), None);
        let question = question(Drawn::default(), 200, 200);
        let script = Script::write(&question, 0.0);
        let told = question.rejected().unwrap();
        let mut surest = 0.0_f64;
        for place in 0..200 {
            let guess = script.draft(place);
            if guess.id != script.target(place) {
                surest = surest.max(guess.said.p_accept);
            }
        }
        assert_eq!(told, surest);
    }

    #[test]
    fn recorded_guesses_stand_as_often_as_they_did() {
        let said = |p_accept| Said {
            p_accept,
            top1: p_accept,
            entropy_nats: 1.0,
            margin: 1.0,
        };
        let mut stood = [0.0; BINS];
        stood[15] = 1.0;
        let question = Question {
            guessing: Guessing::Recorded {
                said: [said(0.99), said(0.1)].into(),
                stood,
                blind: 0.5,
            },
            ..Question::plain(0, 10, 100)
        };
        let script = Script::write(&question, 0.0);
        for place in 0..100 {
            let right = script.draft(place).id == script.target(place);
            assert_eq!(right, place % 2 == 0);
        }
        // Without what the answer needs half of them are guessed wrong, and nothing else is.
        let blind = Script::write(&question, 1.0);
        let right: Vec<u32> = (0..100)
            .filter(|&place| blind.draft(place).id == blind.target(place))
            .collect();
        assert!((10..40).contains(&right.len()), "{right:?}");
        assert!(right.iter().all(|place| place % 2 == 0), "{right:?}");
        assert_eq!(blind.draft(0).said.p_accept, 0.495);
    }
}
