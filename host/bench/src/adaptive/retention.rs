//! What is lost as less of a picture is read, and whose keep order loses least.
//!
//! Questions that need a picture of at least [`LEAST_TOKENS`] tokens are answered with shares of its tokens, chosen by each
//! post-processor's keep order from the same look of the draft's probe. Both models drop what is not kept before their
//! first layer. All orders get the same questions, so differences are paired, and their errors know that several questions
//! are about one picture.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use msao_core::chat::Modality;
use msao_core::offload::Scores;
use msao_engine::Keep;
use msao_processor::Processor;
use serde::{Deserialize, Serialize};

use super::checkpoint::Checkpoint;
use super::fit::fit;
use super::judges::{Judges, NAMES};
use super::lab::{Lab, Side};
use super::measure::{only, share as cut};
use super::progress::Progress;
use super::questions::Asked;
use super::setting::{Setting, questions};
use super::stats::{mean, paired};
use super::work::share;
use crate::report::Row;
use crate::vqa::Question;

/// The part's name.
pub const PART: &str = "retention";
/// Tokens of a picture that is large enough.
pub const LEAST_TOKENS: usize = 256;
/// Moves when what is measured of a question changes.
const EDITION: u32 = 1;
/// Shares that are kept, falling; all is asked beside them.
const SHARES: [f64; 4] = [0.75, 0.5, 0.25, 0.1];
/// Shares at which `mas-joint` must be above all others.
const ABOVE_AT: [f64; 2] = [0.25, 0.1];
/// The share at which it may lose so much, in points.
const LITTLE_AT: f64 = 0.5;
const LITTLE: f64 = 0.4;
const POINTS: &str = " points";

/// Whether a model's answers to a question are right.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Answers {
    /// With all tokens.
    whole: bool,
    /// By post-processor, then by share.
    cut: Vec<Vec<bool>>,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Answered {
    id: String,
    /// The picture's file.
    picture: String,
    /// Whether it reads a printed digit.
    digit: bool,
    target: Answers,
    draft: Answers,
}

/// The part's rows.
///
/// # Errors
/// Data, a model or a component fails, or it is interrupted.
pub fn rows(setting: &Setting) -> Result<Vec<Row>> {
    setting.interrupt.check("this part had not begun")?;
    let mut judges = Judges::load(&setting.shelf)?;
    let fitted = fit(setting, &judges)?;
    judges.calibrate(fitted.params, fitted.calibration);
    let processor = setting.processor()?;
    let all = crate::vqa::read(&setting.heldout)?;
    let asked = large(&processor, &all)?;
    ensure!(
        !asked.is_empty(),
        "{} has no question about a picture of {LEAST_TOKENS} tokens",
        setting.heldout.display()
    );
    let answered = ask(setting, &judges, &processor, &asked)?;
    Ok(curve(&answered))
}

/// Questions that need a large picture, over mixes that the models were trained on.
fn large(processor: &Processor, all: &[Question]) -> Result<Vec<Asked>> {
    let mut sizes: BTreeMap<String, bool> = BTreeMap::new();
    let mut asked = Vec::new();
    let needs = |it: &&Question| it.seen_mix && !it.long && it.needs.contains(&Modality::Image);
    for question in all.iter().filter(needs) {
        let file = picture(question);
        let is_large = match sizes.get(&file) {
            Some(is_large) => *is_large,
            None => {
                let spans = crate::serving::prepare(processor, question)?.spans;
                let mut pictures = spans.iter().filter(|it| it.modality == Modality::Image);
                let is_large = pictures.any(|it| it.tokens.len() >= LEAST_TOKENS);
                sizes.insert(file, is_large);
                is_large
            }
        };
        if is_large {
            asked.push(Asked::own(question));
        }
    }
    Ok(asked)
}

/// The file of a question's first picture.
fn picture(question: &Question) -> String {
    let first = question.media.iter().find(|it| it.0 == Modality::Image);
    first.map_or_else(String::new, |(_, file)| file.display().to_string())
}

/// Whether a question reads a printed digit: by the data set's own word for its kind, which nothing that is judged sees.
fn reads_digit(question: &Question) -> bool {
    let digit = question.answer.bytes().all(|byte| byte.is_ascii_digit());
    (question.kind == "read" && digit) || question.kind == "digit-plus-beeps"
}

/// Asks all questions that an earlier run has not.
fn ask(
    setting: &Setting,
    judges: &Judges,
    processor: &Processor,
    asked: &[Asked],
) -> Result<Vec<Answered>> {
    let of = format!(
        "{PART} {EDITION}; {}; {}; questions {}",
        setting.pair()?,
        judges.named(),
        questions(&setting.heldout)?
    );
    let kept = setting.kept(PART);
    let (mut checkpoint, mut answered) = Checkpoint::<Answered>::open(&kept, &of, setting.fresh)?;
    let is_left = |it: &&Asked| !answered.iter().any(|done| done.id == it.id);
    let left: Vec<&Asked> = asked.iter().filter(is_left).collect();
    let done = asked.len() - left.len();
    let mut progress = Progress::new("questions about large pictures", asked.len(), done);
    share(
        &left,
        setting.workers,
        &setting.interrupt,
        || Lab::load(&setting.models, processor),
        |lab, asked| answer(lab, judges, asked),
        |_, it| {
            checkpoint.add(&it)?;
            answered.push(it);
            progress.step();
            Ok(())
        },
    )?;
    progress.end();
    setting.interrupt.check(&setting.to_go_on(PART))?;
    checkpoint.remove()?;
    Ok(answered)
}

/// Has a question answered with all shares of its picture by all orders, by both models.
fn answer(lab: &mut Lab, judges: &Judges, asked: &Asked) -> Result<Answered> {
    let question = &asked.question;
    let prompt = lab.prompt(question)?;
    let seed = asked.seed();
    let probe = lab.look(&prompt, seed)?;
    let report = msao_node::request::report(&probe);
    let all = judges.all().iter().map(|judge| judge.score(&report, seed));
    let scores: Vec<Scores> = all.collect::<Result<_>>()?;
    let is_picture = |it: &msao_core::probe::ItemReport| it.modality == Modality::Image;
    let number = probe.items.iter().position(is_picture);
    let number = number.context("the picture is not in the prompt")?;
    let grid = probe.items.get(number).map(|it| it.grid);
    let grid = grid.context("the picture has no extent")?;
    let mut keeps: Vec<Vec<Option<Keep>>> = Vec::new();
    for scores in &scores {
        let score = scores
            .items
            .get(number)
            .context("the picture has no score")?;
        let of =
            |kept| cut(grid, &score.keep_order, kept).map(|it| only(probe.items.len(), number, it));
        keeps.push(SHARES.into_iter().map(of).collect());
    }
    let mut answers = |side: Side| -> Result<Answers> {
        let mut ask = |keep| lab.is_right(side, &prompt, keep, &question.answer);
        Ok(Answers {
            whole: ask(None)?,
            cut: (keeps.iter().cloned())
                .map(|by| by.into_iter().map(&mut ask).collect::<Result<Vec<bool>>>())
                .collect::<Result<_>>()?,
        })
    };
    Ok(Answered {
        id: asked.id.clone(),
        picture: picture(question),
        digit: reads_digit(question),
        target: answers(Side::Target)?,
        draft: answers(Side::Draft)?,
    })
}

impl Answers {
    /// 1 where it is right by an order at a share, by their numbers; else 0.
    fn at(&self, order: usize, share: usize) -> f64 {
        let by = self.cut.get(order).and_then(|by| by.get(share));
        f64::from(u8::from(by.copied().unwrap_or(false)))
    }

    fn whole(&self) -> f64 {
        f64::from(u8::from(self.whole))
    }
}

/// All rows of what was answered.
fn curve(answered: &[Answered]) -> Vec<Row> {
    let target = |it: &Answered| it.target.clone();
    let draft = |it: &Answered| it.draft.clone();
    let digits: Vec<Answered> = answered.iter().filter(|it| it.digit).cloned().collect();
    let mut rows = shares("target, right", answered, target);
    rows.extend(judged(answered));
    rows.extend(shares("target, printed digits read right", &digits, target));
    rows.extend(shares("draft, right", answered, draft));
    rows
}

/// A row an order: how many answers are right at each share, in percent.
fn shares(what: &str, answered: &[Answered], of: impl Fn(&Answered) -> Answers) -> Vec<Row> {
    let percent = |right: &dyn Fn(&Answers) -> f64| {
        let each = answered.iter().map(|it| right(&of(it)));
        100.0 * mean(each).unwrap_or(f64::NAN)
    };
    let whole = percent(&|it: &Answers| it.whole());
    let row = |(order, name): (usize, &str)| {
        let by = (0..SHARES.len()).map(|share| percent(&|it: &Answers| it.at(order, share)));
        let figures: Vec<String> = [whole]
            .into_iter()
            .chain(by)
            .map(|figure| format!("{figure:.1}"))
            .collect();
        Row {
            name: format!("{what} at 100, 75, 50, 25, 10 %, {name}"),
            figure: figures.join(" / "),
            value: None,
            aim: String::new(),
            met: true,
            details: vec![format!("{} questions", answered.len())],
        }
    };
    NAMES.into_iter().enumerate().map(row).collect()
}

/// The target's rows that have an aim.
fn judged(answered: &[Answered]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (number, share) in SHARES.into_iter().enumerate() {
        let at = 100.0 * share;
        for (order, other) in NAMES.into_iter().enumerate().skip(1) {
            let name = format!("target at {at} %: mas-joint less {other}");
            let difference = |it: &Answered| it.target.at(0, number) - it.target.at(order, number);
            rows.push(held(name, answered, difference, |points, error| {
                if ABOVE_AT.contains(&share) {
                    (Row::above as Judge, points, 0.0)
                } else {
                    // Not below by more than the error.
                    (Row::at_least as Judge, points, 0.0 - error)
                }
            }));
        }
        if share == LITTLE_AT {
            let name = format!("target at {at} %: points that mas-joint loses");
            let lost = |it: &Answered| it.target.whole() - it.target.at(0, number);
            rows.push(held(name, answered, lost, |points, _| {
                (Row::at_most as Judge, points, LITTLE)
            }));
        }
    }
    rows
}

/// How a row with a limit is made.
type Judge = fn(String, f64, f64, &str) -> Row;

/// A row of a mean difference in points, with its paired error, and its limit by `judge`.
fn held(
    name: String,
    answered: &[Answered],
    difference: impl Fn(&Answered) -> f64,
    judge: impl Fn(f64, f64) -> (Judge, f64, f64),
) -> Row {
    let differences: Vec<(&str, f64)> = answered
        .iter()
        .map(|it| (it.picture.as_str(), 100.0 * difference(it)))
        .collect();
    let Some(all) = paired(&differences) else {
        return Row::failed(name, "a paired error", "fewer than two pictures");
    };
    let (row, points, limit) = judge(all.mean, all.error);
    row(name, points, limit, POINTS).with_details(vec![format!(
        "paired standard error {:.2} points over {} questions",
        all.error, all.count
    )])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer on a picture; `cut` by order and share.
    fn answered(picture: &str, whole: bool, cut: [[bool; 4]; 4]) -> Answered {
        let answers = Answers {
            whole,
            cut: cut.iter().map(|by| by.to_vec()).collect(),
        };
        Answered {
            id: picture.into(),
            picture: picture.into(),
            digit: picture == "b",
            target: answers.clone(),
            draft: answers,
        }
    }

    const GOOD: [bool; 4] = [true; 4];
    const BAD: [bool; 4] = [false; 4];

    #[test]
    fn orders_are_compared_over_the_same_questions() {
        // At every share mas-joint is right on both, uniform on the first, the others on none.
        let all = [
            answered("a", true, [GOOD, GOOD, BAD, BAD]),
            answered("b", true, [GOOD, BAD, BAD, BAD]),
        ];
        let rows = judged(&all);
        // Three others at four shares, and what is lost at a half.
        assert_eq!(rows.len(), 13);
        assert!(rows.iter().all(|row| row.met), "{rows:?}");
        assert_eq!(rows[0].name, "target at 75 %: mas-joint less uniform");
        // Differences 0 and 100: 50 points, and an error of 70.7 / sqrt(2) = 50.
        assert_eq!(
            (rows[0].value, rows[0].aim.as_str()),
            (Some(50.0), ">= -50 points")
        );
        assert_eq!(rows[1].aim, ">= 0 points");
        let lost = rows.iter().find(|row| row.name.contains("loses")).unwrap();
        assert_eq!(
            (lost.value, lost.aim.as_str()),
            (Some(0.0), "<= 0.4 points")
        );
        assert_eq!(rows.last().unwrap().aim, "> 0 points");
    }

    #[test]
    fn being_as_good_is_not_being_above() {
        let all = [
            answered("a", true, [GOOD; 4]),
            answered("b", true, [[true, false, true, true]; 4]),
        ];
        let rows = judged(&all);
        let missed: Vec<&str> = (rows.iter().filter(|row| !row.met))
            .map(|row| row.name.as_str())
            .collect();
        assert_eq!(missed.len(), 7, "{missed:?}");
        assert!(missed[0].contains("at 50 %: points that mas-joint loses"));
        assert!(
            missed[1..]
                .iter()
                .all(|name| name.contains("25 %") || name.contains("10 %"))
        );
    }

    #[test]
    fn one_picture_alone_shows_nothing() {
        let rows = judged(&[answered("a", true, [GOOD; 4])]);
        assert!(rows.iter().all(|row| !row.met && row.value.is_none()));
    }

    #[test]
    fn digits_are_shown_apart() {
        let all = [
            answered("a", true, [BAD; 4]),
            answered("b", true, [[true, false, false, true]; 4]),
        ];
        let rows = curve(&all);
        let of = |what: &str| rows.iter().find(|row| row.name.starts_with(what)).unwrap();
        assert_eq!(
            of("target, right").figure,
            "100.0 / 50.0 / 0.0 / 0.0 / 50.0"
        );
        let digits = of("target, printed digits");
        assert_eq!(digits.figure, "100.0 / 100.0 / 0.0 / 0.0 / 100.0");
        assert_eq!(digits.details, ["1 questions"]);
        assert!(rows.iter().any(|row| row.name.starts_with("draft, right")));
    }

    #[test]
    fn what_reads_a_printed_digit_is_known_by_its_kind_and_answer() {
        let question = |kind: &str, answer: &str| Question {
            id: 1,
            text: String::new(),
            media: Vec::new(),
            needs: Vec::new(),
            kind: kind.into(),
            long: false,
            seen_mix: true,
            answer: answer.into(),
        };
        assert!(reads_digit(&question("read", "7")));
        assert!(!reads_digit(&question("read", "K")));
        assert!(reads_digit(&question("digit-plus-beeps", "11")));
        assert!(!reads_digit(&question("count", "3")));
    }
}
