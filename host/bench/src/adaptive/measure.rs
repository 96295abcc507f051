//! One question: what post-processors say of its media, and what the target really loses without them.
//!
//! *Harm* is the loss of the target's log-probability of the reference answer, in nats a token, the answer's end included,
//! when tokens of one medium are not read and all else is. An item is dropped as a node drops it: its keep list is empty,
//! its markers stay. (The recipe's "taken away" leaves the markers out, too.)

use anyhow::{Context, Result};
use msao_core::chat::Modality;
use msao_core::inputs::Grid;
use msao_core::offload::{Report, Scores, Treatment};
use msao_engine::Keep;
use serde::{Deserialize, Serialize};

use super::judges::Judges;
use super::lab::Lab;
use super::questions::Asked;

/// Less harm than this counts as none.
pub const NONE: f64 = 0.02;
/// More harm than this is what necessity must tell from the rest.
pub const MUCH: f64 = 0.1;
/// Shares of an item that are tried, falling.
pub const SHARES: [f64; 6] = [1.0, 0.75, 0.5, 0.25, 0.1, 0.05];

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// [`Asked::id`].
    pub id: String,
    /// [`Asked::mix`].
    pub mix: String,
    /// Its media, in the prompt's order.
    pub items: Vec<Item>,
}

/// What came of a medium.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// What it is.
    pub modality: Modality,
    /// Its tokens.
    pub tokens: u32,
    /// What the prompt's last token pays to it, over what any text would.
    pub relevance: f64,
    /// Harm when all of it is dropped.
    pub harm: f64,
    /// What each post-processor says, in their order.
    pub said: Vec<Said>,
}

/// What a post-processor says of a medium, and how that turned out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// How much it is needed.
    pub necessity: f64,
    /// The share of it that can go.
    pub mas: f64,
    /// How unusual it is.
    pub unusual: f64,
    /// The smallest share that does no harm, and no larger one does, by its own keep order. 1 where that was not looked
    /// for.
    pub least: f64,
}

/// What is found out beside harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Nothing.
    Harm,
    /// The smallest share without harm.
    Shares,
}

impl Item {
    /// Harm, less than [`NONE`] being none.
    pub fn felt(&self) -> f64 {
        if self.harm < NONE { 0.0 } else { self.harm }
    }

    /// Whether the answer needs it.
    pub fn is_needed(&self) -> bool {
        self.harm >= NONE
    }
}

/// The tokens of one item that are kept, all of the others.
pub fn only(items: usize, item: usize, kept: Vec<u32>) -> Keep {
    let mut kept = Some(kept);
    let each = (0..items).map(|number| if number == item { kept.take() } else { None });
    Keep {
        items: each.collect(),
    }
}

/// The tokens of an item that a share keeps by an order, as a node does it; None for all.
pub fn share(grid: Grid, order: &[u32], share: f64) -> Option<Vec<u32>> {
    let treatment = Treatment {
        keep: share,
        ..Treatment::WHOLE
    };
    msao_node::request::kept(&treatment, grid, Some(order))
}

/// Looks at a question, has it scored, and finds out what its media are worth. Gives what the post-processors were shown,
/// too.
///
/// # Errors
/// A file, a model or a post-processor fails.
pub fn measure(
    lab: &mut Lab,
    judges: &Judges,
    asked: &Asked,
    depth: Depth,
) -> Result<(Measured, Report)> {
    let question = &asked.question;
    let prompt = lab.prompt(question)?;
    let seed = asked.seed();
    let probe = lab.look(&prompt, seed)?;
    let report = msao_node::request::report(&probe);
    let all = judges.all().iter().map(|judge| judge.score(&report, seed));
    let scores: Vec<Scores> = all.collect::<Result<_>>()?;
    let answer = lab.reference(&question.answer)?;
    let whole = lab.log_probability(&prompt, None, &answer)?;
    let mut items = Vec::with_capacity(probe.items.len());
    for (number, (seen, shown)) in probe.items.iter().zip(&report.items).enumerate() {
        let mut loss = |kept: Vec<u32>| -> Result<f64> {
            let keep = only(probe.items.len(), number, kept);
            Ok(whole - lab.log_probability(&prompt, Some(keep), &answer)?)
        };
        let harm = loss(Vec::new())?;
        let mut said = Vec::with_capacity(scores.len());
        for score in &scores {
            let score = score.items.get(number).context("an item has no score")?;
            said.push(Said {
                necessity: score.necessity,
                mas: score.mas,
                unusual: score.unusual,
                least: match depth {
                    Depth::Harm => 1.0,
                    Depth::Shares => least(seen.grid, &score.keep_order, &mut loss)?,
                },
            });
        }
        items.push(Item {
            modality: seen.modality,
            tokens: shown.tokens,
            relevance: shown.relevance,
            harm,
            said,
        });
    }
    let measured = Measured {
        id: asked.id.clone(),
        mix: asked.mix.clone(),
        items,
    };
    Ok((measured, report))
}

/// The smallest of [`SHARES`] that does no harm, going down until one does.
fn least(grid: Grid, order: &[u32], loss: &mut impl FnMut(Vec<u32>) -> Result<f64>) -> Result<f64> {
    let mut least = 1.0;
    let mut before = grid.patches();
    for keep in SHARES {
        // The same tokens do the same; of a small item several shares are.
        if let Some(kept) = share(grid, order, keep)
            && kept.len() < before
        {
            before = kept.len();
            if loss(kept)? >= NONE {
                break;
            }
        }
        least = keep;
    }
    Ok(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_share_is_looked_for_until_one_does_harm() {
        let grid = Grid { t: 1, h: 10, w: 10 };
        let order: Vec<u32> = (0..100).rev().collect();
        let look = |harms: &dyn Fn(usize) -> f64| {
            let mut asked = Vec::new();
            let least = least(grid, &order, &mut |kept: Vec<u32>| {
                // The first of the order are the last tokens.
                assert_eq!(kept.last(), Some(&99));
                asked.push(kept.len());
                Ok(harms(kept.len()))
            });
            (least.unwrap(), asked)
        };
        // Harm from fewer than 25 tokens on.
        let (least, asked) = look(&|count: usize| if count < 25 { 0.3 } else { 0.0199 });
        assert_eq!((least, asked), (0.25, vec![75, 50, 25, 10]));
        let (least, asked) = look(&|_: usize| -0.5);
        assert_eq!((least, asked), (0.05, vec![75, 50, 25, 10, 5]));
        // A lucky smaller share does not count where a larger one does harm.
        let (least, asked) = look(&|count: usize| if count == 50 { 0.02 } else { 0.0 });
        assert_eq!((least, asked), (0.75, vec![75, 50]));
    }

    #[test]
    fn shares_of_a_few_tokens_are_asked_once() {
        let grid = Grid { t: 1, h: 1, w: 2 };
        let mut asked = Vec::new();
        let found = least(grid, &[1, 0], &mut |kept: Vec<u32>| {
            asked.push(kept);
            Ok(0.0)
        });
        // Three quarters of two tokens are both, a half and less are one.
        assert_eq!(found.unwrap(), 0.05);
        assert_eq!(asked, [[1]]);
        let none = least(Grid { t: 0, h: 0, w: 0 }, &[], &mut |_: Vec<u32>| Ok(1.0));
        assert_eq!(none.unwrap(), 0.05);
    }

    #[test]
    fn one_item_alone_is_cut() {
        let keep = only(3, 1, vec![4, 5]);
        assert_eq!(keep.items, [None, Some(vec![4, 5]), None]);
    }

    #[test]
    fn little_harm_is_none() {
        let item = |harm| Item {
            modality: Modality::Image,
            tokens: 4,
            relevance: 1.0,
            harm,
            said: Vec::new(),
        };
        assert_eq!((item(0.0199).felt(), item(-2.0).felt()), (0.0, 0.0));
        assert_eq!((item(0.02).felt(), item(0.02).is_needed()), (0.02, true));
        assert!(!item(0.0199).is_needed());
    }
}
