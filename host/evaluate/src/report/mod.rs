//! What a folder of results says: one HTML page that needs nothing else, and the same as Markdown.
//!
//! Everything is made of rows that count and of the manifest, so that the same folder gives the same bytes. All text of files is
//! escaped.

mod aims;
mod analysis;
mod doc;
mod duel;
mod figures;
mod oracle;
mod pages;
mod plot;

use std::path::Path;

use serde::Serialize;

pub use self::aims::{Aim, Met};
pub use self::analysis::{Accurate, Analysis, Block, Goals, Standing};
pub(crate) use self::doc::number;
pub use self::duel::{Duel, Outcome};
pub(crate) use self::figures::column;
pub use self::figures::{Cost, Figures, Spread};
pub use self::oracle::Oracle;
use crate::rows::{FolderError, Results};

/// A report.
#[derive(Clone, Debug)]
pub struct Report {
    /// One page, with its pictures.
    pub html: String,
    /// The same without pictures.
    pub markdown: String,
    /// What is on its first page.
    pub summary: Summary,
}

/// A report in few words, for programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Summary {
    /// Of the specification.
    pub name: String,
    /// Turns that are finished.
    pub turns_done: usize,
    /// Turns that are wanted of the specification, by what is known.
    pub turns: usize,
    /// Which policies are as accurate as the baseline, and how sure that is. Empty on twins.
    pub accuracy: Vec<Accurate>,
    /// The subject against the best ranked baseline, block by block.
    pub duels: Vec<Duel>,
    /// What was to be reached.
    pub aims: Vec<Aim>,
    /// What choosing between whole answers could come to at best.
    pub oracle: Vec<Oracle>,
}

/// Reads a folder and reports on it.
///
/// # Errors
/// [`FolderError`]: it has no results, or they are not as they were left.
pub fn report(folder: &Path) -> Result<Report, FolderError> {
    Ok(of(&Results::read(folder)?))
}

/// Reports on results.
pub fn of(results: &Results) -> Report {
    let analysis = Analysis::of(results);
    let duels = analysis.duels();
    let aims = aims::aims(&analysis, &duels);
    let oracle = Oracle::all(&analysis);
    let doc = pages::doc(&analysis, &duels, &aims, &oracle);
    Report {
        html: doc.html(),
        markdown: doc.markdown(),
        summary: Summary {
            name: results.manifest.spec.name.clone(),
            turns_done: results.finished.len(),
            turns: analysis.turns(),
            accuracy: analysis.accurate(),
            duels,
            aims,
            oracle,
        },
    }
}

#[cfg(test)]
mod tests;
