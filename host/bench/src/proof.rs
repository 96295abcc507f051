//! A proof: its parts, run one after the other, printed and written down.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::report::{Report, Row, Section, print};

/// A part's name, what it shows, and how.
pub type Part<'a> = (&'a str, &'a str, Box<dyn Fn() -> Result<Vec<Row>> + 'a>);

/// Runs a proof's parts, prints each as it ends, and writes all of them down. `cut` says that the parts themselves are
/// cut short.
///
/// # Errors
/// The figures cannot be written down.
pub fn prove(
    proof: &str,
    parts: &[Part],
    only: &[String],
    cut: bool,
    out: Option<&Path>,
) -> Result<bool> {
    let mut sections = Vec::new();
    for (name, title, run) in parts {
        if !only.is_empty() && !only.iter().any(|only| only == name) {
            continue;
        }
        let rows = run()
            .unwrap_or_else(|error| vec![Row::failed(*title, "measured", format!("{error:#}"))]);
        let section = Section {
            title: (*title).to_owned(),
            rows,
        };
        print(&section);
        sections.push(section);
    }
    let command = std::env::args()
        .skip(1)
        .fold("cargo xtask prove".to_owned(), |all, word| {
            all + " " + &word
        });
    // Part of a proof proves nothing: it is told and written down as such, beside the whole one.
    let partial = !only.is_empty() || cut;
    let ending = if partial { "-partial" } else { "" };
    let out = out.map_or_else(
        || PathBuf::from(format!("target/prove/{proof}{ending}.json")),
        Path::to_path_buf,
    );
    let report = Report::new(proof, command, partial, sections);
    report.write(&out)?;
    let rows = report.sections.iter().flat_map(|section| &section.rows);
    let missed = rows.filter(|row| !row.met).count();
    let verdict = match (missed, partial) {
        (0, false) => "every aim is met".to_owned(),
        (0, true) => "every aim of this part is met".to_owned(),
        _ => format!("{missed} missed"),
    };
    println!("\n{verdict}; written to {}", out.display());
    Ok(report.met)
}
