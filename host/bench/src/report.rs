//! Figures beside their aims.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// The figure as people read it.
    pub figure: String,
    /// The figure as a number, where it is one.
    pub value: Option<f64>,
    /// What it has to be; empty for a figure that is only told.
    pub aim: String,
    /// Whether it is.
    pub met: bool,
    /// What to look at where it is not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

impl Row {
    /// A figure that may not exceed `limit`.
    pub fn at_most(name: impl Into<String>, value: f64, limit: f64, unit: &str) -> Self {
        Row::judged(
            name,
            value,
            format!("<= {}{unit}", short(limit)),
            value <= limit,
            unit,
        )
    }

    /// A figure that may not fall below `limit`.
    pub fn at_least(name: impl Into<String>, value: f64, limit: f64, unit: &str) -> Self {
        Row::judged(
            name,
            value,
            format!(">= {}{unit}", short(limit)),
            value >= limit,
            unit,
        )
    }

    /// A figure that must exceed `limit`.
    pub fn above(name: impl Into<String>, value: f64, limit: f64, unit: &str) -> Self {
        Row::judged(
            name,
            value,
            format!("> {}{unit}", short(limit)),
            value > limit,
            unit,
        )
    }

    /// A figure that must lie between two limits, both included.
    pub fn between(name: impl Into<String>, value: f64, low: f64, high: f64, unit: &str) -> Self {
        let aim = format!("{}{unit} to {}{unit}", short(low), short(high));
        Row::judged(name, value, aim, (low..=high).contains(&value), unit)
    }

    fn judged(name: impl Into<String>, value: f64, aim: String, met: bool, unit: &str) -> Self {
        Row {
            name: name.into(),
            figure: format!("{}{unit}", short(value)),
            value: Some(value),
            aim,
            met,
            details: Vec::new(),
        }
    }

    /// Things that must all hold: `failures` names those that do not.
    pub fn all(name: impl Into<String>, checked: usize, failures: Vec<String>) -> Self {
        Row {
            name: name.into(),
            figure: format!("{} of {checked}", checked - failures.len().min(checked)),
            value: Some((checked - failures.len().min(checked)) as f64),
            aim: "all".into(),
            // Nothing checked shows nothing.
            met: failures.is_empty() && checked > 0,
            details: failures,
        }
    }

    /// A figure that has no aim.
    pub fn told(name: impl Into<String>, value: f64, unit: &str) -> Self {
        Row::judged(name, value, String::new(), true, unit)
    }

    /// A figure that could not be measured, which misses its aim.
    pub fn failed(name: impl Into<String>, aim: &str, why: impl std::fmt::Display) -> Self {
        Row {
            name: name.into(),
            figure: "not measured".into(),
            value: None,
            aim: aim.into(),
            met: false,
            details: vec![why.to_string()],
        }
    }

    /// Adds something to look at, where there is something.
    pub fn with_more(mut self, detail: Option<String>) -> Self {
        self.details.extend(detail);
        self
    }

    /// Sets what to look at.
    pub fn with_details(mut self, details: Vec<String>) -> Self {
        self.details = details;
        self
    }
}

/// A number in as few digits as tell it apart.
fn short(value: f64) -> String {
    let size = value.abs();
    if value == value.trunc() && size < 1e9 {
        format!("{value:.0}")
    } else if (0.01..1e6).contains(&size) {
        let digits = if size >= 100.0 {
            1
        } else if size >= 10.0 {
            2
        } else {
            3
        };
        format!("{value:.digits$}")
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned()
    } else {
        format!("{value:.1e}")
    }
}

/// A part of a proof with its rows.
#[derive(Clone, Debug, Serialize)]
pub struct Section {
    /// What the part shows.
    pub title: String,
    /// Its figures.
    pub rows: Vec<Row>,
}

/// A whole proof, as it is written down.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The proof's name.
    pub name: String,
    /// The command that made it.
    pub command: String,
    /// The processor's name.
    pub machine: String,
    /// Processor cores.
    pub cores: usize,
    /// Whether only a part of the proof ran.
    pub partial: bool,
    /// Whether every aim of what ran is met.
    pub met: bool,
    /// The parts.
    pub sections: Vec<Section>,
}

impl Report {
    /// Gathers finished sections.
    pub fn new(name: &str, command: String, partial: bool, sections: Vec<Section>) -> Self {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find(|line| line.starts_with("model name"));
        Report {
            name: name.to_owned(),
            command,
            machine: model
                .and_then(|line| line.split_once(':'))
                .map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            partial,
            met: sections
                .iter()
                .flat_map(|section| &section.rows)
                .all(|row| row.met),
            sections,
        }
    }

    /// Writes the report as JSON.
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        }
        std::fs::write(path, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| path.display().to_string())
    }
}

/// Prints a section as a table.
pub fn print(section: &Section) {
    println!("\n{}", section.title);
    let width = |column: fn(&Row) -> &str, least: usize| {
        let each = section.rows.iter().map(|row| column(row).chars().count());
        each.max().unwrap_or(0).max(least)
    };
    let name = width(|row| &row.name, 20);
    let figure = width(|row| &row.figure, 8);
    let aim = width(|row| &row.aim, 8);
    for row in &section.rows {
        let verdict = match (row.aim.is_empty(), row.met) {
            (true, _) => "",
            (false, true) => "met",
            (false, false) => "MISSED",
        };
        println!(
            "  {:<name$}  {:>figure$}  {:<aim$}  {verdict}",
            row.name, row.figure, row.aim
        );
        for detail in row.details.iter().take(8) {
            println!("      {detail}");
        }
        if row.details.len() > 8 {
            println!("      and {} more", row.details.len() - 8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_met_only_within_its_aim() {
        assert!(Row::at_most("x", 1.2, 1.2, "").met);
        assert!(!Row::at_most("x", 1.21, 1.2, "").met);
        assert!(!Row::at_most("x", f64::NAN, 1.2, "").met);
        assert!(!Row::above("x", 1.2, 1.2, "").met);
        assert!(Row::above("x", 1.21, 1.2, "").met);
        assert!(!Row::between("x", 64.9, 65.0, 88.0, " %").met);
        assert!(!Row::all("x", 0, Vec::new()).met);
        assert!(!Row::failed("x", "all", "no file").met);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(short(95.0), "95");
        assert_eq!(short(95.25), "95.25");
        assert_eq!(short(0.0002), "2.0e-4");
        assert_eq!(short(0.125), "0.125");
    }
}
