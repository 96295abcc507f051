//! MMBench: its tables ([`load`](crate::Set::load)) and its multiple choice.
//!
//! A question comes as several rows whose options are rotated, `index + 1,000,000 * rotation`. Vanilla accuracy counts rows;
//! CircularEval counts a question only if every one of its rows is answered rightly ([`Tally`](crate::Tally)).

mod extract;
mod load;
mod tsv;

pub(crate) use self::load::load;

/// Rotations of a question have this distance.
pub const ROTATION: u64 = 1_000_000;

/// One row's options and which is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The right option.
    pub letter: char,
    /// Letter and text of each option that there is, in order.
    pub options: Vec<(char, String)>,
    /// The question that this is a rotation of: `index % 1_000_000`.
    pub group: u64,
    /// Rows that the whole set has of that question.
    pub rotations: u32,
}

/// The question in the words that MMBench is asked in.
///
/// ```
/// let options = [('A', "red".to_owned()), ('B', "blue".to_owned())];
/// assert_eq!(
///     msao_datasets::mmbench::prompt("Which color?", None, &options),
///     "Question: Which color?\nOptions:\nA. red\nB. blue\nPlease select the correct answer from the options above."
/// );
/// ```
pub fn prompt(question: &str, hint: Option<&str>, options: &[(char, String)]) -> String {
    let hint = hint.map_or(String::new(), |hint| format!("Hint: {hint}\n"));
    let options = options
        .iter()
        .map(|(letter, text)| format!("{letter}. {text}\n"));
    let options: String = options.collect();
    format!(
        "{hint}Question: {question}\nOptions:\n{options}Please select the correct answer from the options above."
    )
}
