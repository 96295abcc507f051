//! The soft accuracy of VQAv2.
//!
//! Forks of the official evaluation differ. This follows `PythonEvaluationTools/vqaEvaluation/vqaEval.py` of GT-Vision-Lab/VQA at
//! commit c4e6a0e (the last one), and not Cloud-CV's, LAVIS's, TextVQA's or Pythia's. A prediction is right to the degree
//!
//! ```text
//! mean over the ten answers of min(1, (matches among the other nine) / 3)
//! ```
//!
//! so that 0, 1, 2, 3 and 4 matches of ten give 0, 0.3, 0.6, 0.9 and 1. What that file does, and one might not expect:
//! - The prediction is always normalised ([`normalise`]). The answers are not, but for [`punctuation`], and only where not all
//!   ten are the same text. So `Two` among the answers matches nothing: a prediction can only be `2`.
//! - A mark is deleted everywhere if it stands beside a space anywhere, and every mark is if a comma stands between two digits
//!   anywhere; else it becomes a space.
//! - The pattern for periods, `(?!<=\d)(\.)(?!\d)`, was meant to look behind and does not: a period goes unless a digit follows.
//!   And `re.UNICODE` is handed over in the place of a count: only the first 32 periods of a text go.
//! - Colons, apostrophes and other marks stay. `none` is a number.
//! - Contractions are looked up in lower case, though five of their keys have capitals.
//!
//! Differences to that file, none of which published data can show:
//! - It processes the answers in place, so evaluating twice within a process works on what the first time left. Here each
//!   evaluation starts from the file.
//! - "The other nine" leaves out every answer equal in all three keys, so two with the same `answer_id` would leave out each other.
//!   Here that is an error of the file, and so is a question without just ten answers.
//! - `\d` is an ASCII digit here; in Python 3 it is any decimal digit of Unicode.
//! - It rounds means to two decimals of a percent. Here values are kept whole; [`Mean::percent`](crate::Mean::percent) rounds.

use super::contractions::expand;

const MARKS: [char; 21] = [
    ';', '/', '[', ']', '"', '{', '}', '(', ')', '=', '+', '\\', '_', '-', '>', '<', '@', '`', ',',
    '?', '!',
];
const NUMBERS: [(&str, &str); 12] = [
    ("none", "0"),
    ("zero", "0"),
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
    ("ten", "10"),
];
const ARTICLES: [&str; 3] = ["a", "an", "the"];
/// The value of Python's `re.UNICODE`, which is taken for a count.
const PERIODS: usize = 32;
/// Matches among the others from which on an answer is wholly right.
const ENOUGH: f64 = 3.0;

/// By which rules a set's answers are held against a prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// As `vqaEval.py`.
    Official,
    /// As `vqaEval.py` for answers that are already in normal form, which those of the demo world are made to be when loaded:
    /// it asks for letters (`K`) and lists (`low, high`), which raw would match no prediction. Where nothing is left of a text
    /// (the letter `A` is taken for an article), its form before articles are dropped counts, on both sides.
    Demo,
}

/// Ten people's answers to a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Answers {
    answers: Box<[Box<str>]>,
    rules: Rules,
}

impl Answers {
    /// From the file's answers, in its order.
    pub fn new(raw: Vec<Box<str>>, rules: Rules) -> Answers {
        let differ = raw.windows(2).any(|pair| pair.first() != pair.last());
        let answers = match rules {
            Rules::Official if !differ => raw,
            Rules::Official => raw.iter().map(|it| punctuation(it).into()).collect(),
            Rules::Demo => raw.iter().map(|it| demo(it).into()).collect(),
        };
        Answers {
            answers: answers.into(),
            rules,
        }
    }

    /// The answers that predictions are held against.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.answers.iter().map(AsRef::as_ref)
    }

    /// The soft accuracy of a prediction, and whether anything of it is left once normalised.
    pub fn score(&self, prediction: &str) -> (f64, bool) {
        let prediction = match self.rules {
            Rules::Official => normalise(prediction),
            Rules::Demo => demo(prediction),
        };
        let matching = self.all().filter(|&it| it == prediction).count();
        let each = self.all().map(|it| {
            let others = matching - usize::from(it == prediction);
            (others as f64 / ENOUGH).min(1.0)
        });
        // In the order of the file, so that the sum is the official one to the bit.
        let value = each.sum::<f64>() / self.answers.len().max(1) as f64;
        (value, !prediction.is_empty())
    }
}

/// What the official code makes of a prediction before it is compared: newlines and tabs to spaces, ends stripped, then
/// [`punctuation`], then in lower case number words to digits, articles dropped, contractions with their apostrophes.
///
/// Doing it twice changes nothing more, unless there are more than 32 periods to go.
pub fn normalise(prediction: &str) -> String {
    let words = words(prediction);
    let kept = words.iter().map(|word| number(word));
    let kept: Vec<&str> = kept
        .filter(|word| !ARTICLES.contains(word))
        .map(expand)
        .collect();
    kept.join(" ")
}

/// The official `processPunctuation`.
pub fn punctuation(text: &str) -> String {
    let delete_all = comma_in_number(text);
    let mut out = text.to_owned();
    for mark in MARKS {
        if text.contains(mark) {
            let beside = text.contains(&format!("{mark} ")) || text.contains(&format!(" {mark}"));
            let instead = if beside || delete_all { "" } else { " " };
            out = out.replace(mark, instead);
        }
    }
    strip_periods(&out)
}

fn words(prediction: &str) -> Vec<String> {
    let spaced = prediction.replace(['\n', '\t'], " ");
    let plain = punctuation(spaced.trim_matches(is_space)).to_lowercase();
    let words = plain.split(is_space).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

/// Normal form for the demo world, see [`Rules::Demo`].
fn demo(text: &str) -> String {
    let normal = normalise(text);
    if normal.is_empty() {
        words(text).join(" ")
    } else {
        normal
    }
}

fn number(word: &str) -> &str {
    let found = NUMBERS.iter().find(|(name, _)| *name == word);
    found.map_or(word, |(_, digits)| digits)
}

/// Python's `str.isspace`: Unicode's white space and four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Whether `(\d)(\,)(\d)` is found.
fn comma_in_number(text: &str) -> bool {
    let digit = |byte: &u8| byte.is_ascii_digit();
    let mut triples = text.as_bytes().windows(3);
    triples.any(|three| matches!(three, [a, b',', c] if digit(a) && digit(c)))
}

/// Drops the first 32 periods that no digit follows.
fn strip_periods(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut gone = 0;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let kept = rest.peek().is_some_and(char::is_ascii_digit);
        if c == '.' && !kept && gone < PERIODS {
            gone += 1;
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests;
