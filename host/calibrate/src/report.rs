//! What a search came to: for programs, and for people.

use std::collections::BTreeMap;

use msao_core::offload::manifest::Value;
use msao_operate::output::table;
use serde::Serialize;

use crate::judge::{Judge, Measured};
use crate::plot::{Dot, Plot};
use crate::search::{Best, Origin, Search, Trial};
use crate::state::Settings;

/// One trial.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Row {
    /// Where it comes from.
    pub origin: Origin,
    /// Its number among those, from 1; 0 for the declared defaults.
    pub number: usize,
    /// The tuned parameters.
    pub values: BTreeMap<String, Value>,
    /// What it came to; none where no request was answered.
    pub measured: Option<Measured>,
    /// What is to be low, in ms.
    pub objective: Option<f64>,
    /// The audits' bound on the share of requests with an unverified disagreement.
    pub bound: Option<f64>,
    /// Whether the constraint holds.
    pub kept: bool,
}

/// What a search came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// The policy's name and version.
    pub policy: String,
    /// Likewise.
    pub version: String,
    /// What it depends on.
    pub settings: Settings,
    /// Whether it came to its end.
    pub finished: bool,
    /// The declared defaults.
    pub declared: Option<Row>,
    /// The best of them and of what the tuner suggested that kept the constraint.
    pub best: Option<Row>,
    /// The best of them and of as many points drawn at random.
    pub best_random: Option<Row>,
    /// Whether something better than the declared defaults is proposed.
    pub better: bool,
    /// Everything that was tried.
    pub trials: Vec<Row>,
    /// What people should know of what was played.
    pub notes: Vec<String>,
    /// Files that were written.
    pub files: BTreeMap<&'static str, String>,
    /// What to type next.
    pub next: Option<String>,
    /// What a node said to the revision.
    pub pushed: Option<serde_json::Value>,
    /// Why it did not take it.
    pub refused: Option<String>,
}

fn row(search: &Search, origin: Origin, number: usize, trial: &Trial) -> Row {
    let judged = search.judge().zip(trial.measured.as_ref());
    let of = |figure: fn(&Judge, &Measured) -> f64| judged.map(|(judge, it)| figure(judge, it));
    Row {
        origin,
        number,
        values: search.tunables().values(&trial.point),
        measured: trial.measured.clone(),
        objective: of(Judge::objective),
        bound: of(Judge::bound),
        kept: judged.is_some_and(|(judge, it)| judge.keeps(it)),
    }
}

fn best_row(search: &Search, best: Option<Best>) -> Option<Row> {
    let best = best?;
    let number = match best.origin {
        Origin::Declared => 0,
        Origin::Tuned | Origin::Random => best.number + 1,
    };
    Some(row(search, best.origin, number, best.trial))
}

impl Report {
    /// Of a search, before anything was written.
    pub fn new(
        policy: (String, String),
        settings: Settings,
        search: &Search,
        finished: bool,
        notes: Vec<String>,
    ) -> Report {
        let trials = search.trials();
        let of = |origin: Origin, trials: &[Trial]| {
            let trials = (1..).zip(trials);
            let rows = trials.map(|(number, trial)| row(search, origin, number, trial));
            rows.collect::<Vec<Row>>()
        };
        let declared = trials
            .declared
            .as_ref()
            .map(|trial| row(search, Origin::Declared, 0, trial));
        let mut all: Vec<Row> = declared.iter().cloned().collect();
        all.extend(of(Origin::Tuned, &trials.tuned));
        all.extend(of(Origin::Random, &trials.random));
        let best = best_row(search, search.best());
        Report {
            policy: policy.0,
            version: policy.1,
            settings,
            finished,
            better: best
                .as_ref()
                .is_some_and(|best| best.origin == Origin::Tuned),
            best_random: best_row(search, search.best_random()),
            best,
            declared,
            trials: all,
            notes,
            files: BTreeMap::new(),
            next: None,
            pushed: None,
            refused: None,
        }
    }

    /// The trace as a picture.
    pub fn svg(&self) -> String {
        let dot = |row: &Row| Dot {
            objective: row.objective,
            kept: row.kept,
        };
        let of = |origin: Origin| {
            let rows = self.trials.iter().filter(|row| row.origin == origin);
            rows.map(dot).collect::<Vec<Dot>>()
        };
        let nothing = Dot {
            objective: None,
            kept: false,
        };
        let plot = Plot {
            title: &format!(
                "{} {}: {} requests a point, seed {}",
                self.policy, self.version, self.settings.played.requests, self.settings.seed
            ),
            unit: &format!(
                "mean latency + {} * mean cost, ms",
                self.settings.wanted.weight
            ),
            declared: self.declared.as_ref().map_or(nothing, dot),
            tuned: &of(Origin::Tuned),
            random: &of(Origin::Random),
        };
        plot.svg()
    }

    /// For people: the trace of defaults and tuner as a table, the comparison, and what to do next.
    pub fn text(&self) -> String {
        let names: Vec<&str> = (self.trials.first())
            .map(|row| row.values.keys().map(String::as_str).collect())
            .unwrap_or_default();
        let mut head = vec!["point"];
        head.extend(&names);
        head.extend(FIGURES);
        let traced = self.trials.iter().filter(|it| it.origin != Origin::Random);
        let rows: Vec<Vec<String>> = traced.map(|row| self.cells(row)).collect();
        let mut text = format!(
            "{} {}: {} requests a point\n",
            self.policy, self.version, self.settings.played.requests
        );
        text.push_str(&table(&head, &rows));
        text.push('\n');
        text.push_str(&self.comparison());
        for (what, file) in &self.files {
            text.push_str(&format!("{what}: {file}\n"));
        }
        if let Some(next) = &self.next {
            text.push_str(&format!("next: {next}\n"));
        }
        text
    }

    fn cells(&self, row: &Row) -> Vec<String> {
        let name = match row.origin {
            Origin::Declared => "declared".to_owned(),
            Origin::Tuned | Origin::Random => row.number.to_string(),
        };
        let values = row.values.values().map(|value| match value {
            Value::Text(word) => word.clone(),
            other => other.to_string(),
        });
        let mut cells = vec![name];
        cells.extend(values);
        let Some(measured) = &row.measured else {
            cells.extend(["-"; FIGURES.len()].map(str::to_owned));
            cells.pop();
            cells.push("nothing was answered".to_owned());
            return cells;
        };
        let best = self.best.as_ref().is_some_and(|best| best == row);
        cells.extend([
            format!("{:.2}", measured.latency_ms),
            format!("{:.6}", measured.cost),
            percent(f64::from(measured.unanswered) / f64::from(measured.requests.max(1))),
            percent(measured.wrong),
            row.bound.map_or_else(dash, percent),
            row.objective
                .map_or_else(dash, |objective| format!("{objective:.2}")),
            match (row.kept, best) {
                (true, true) => "best".to_owned(),
                (true, false) => String::new(),
                (false, _) => "breaks the constraint".to_owned(),
            },
        ]);
        cells
    }

    fn comparison(&self) -> String {
        let objective = |row: &Option<Row>| row.as_ref().and_then(|row| row.objective);
        let declared = objective(&self.declared);
        let mut text = String::new();
        for (name, row) in [
            ("declared defaults", &self.declared),
            ("tuned", &self.best),
            ("random search", &self.best_random),
        ] {
            let words = match objective(row) {
                None => "nothing that keeps the constraint".to_owned(),
                Some(reached) => {
                    let less = declared.filter(|declared| *declared > 0.0 && *declared != reached);
                    let less = less.map_or_else(String::new, |declared| {
                        format!(", {:+.1}%", 100.0 * (reached / declared - 1.0))
                    });
                    let broken = row.as_ref().is_some_and(|row| !row.kept);
                    let broken = if broken {
                        ", breaks the constraint"
                    } else {
                        ""
                    };
                    format!("{reached:.2} ms{less}{broken}")
                }
            };
            text.push_str(&format!("{name:18} {words}\n"));
        }
        text.push_str(match (self.better, self.finished) {
            (true, _) => "",
            (false, true) => {
                "nothing was found that keeps the constraint and is better than the declared defaults: they stay\n"
            }
            (false, false) => "nothing better than the declared defaults was found so far\n",
        });
        let failures = self.trials.iter().filter_map(|row| row.measured.as_ref());
        let failures: u64 = failures.map(|it| it.failures).sum();
        if failures > 0 {
            text.push_str(&format!(
                "the policy failed in {failures} calls, and fallbacks took its place: `msao policy test` and `replay` show where\n"
            ));
        }
        text
    }
}

const FIGURES: [&str; 7] = [
    "latency ms",
    "cost",
    "unanswered",
    "not the target's",
    "bound",
    "objective",
    "",
];

fn dash() -> String {
    "-".to_owned()
}

fn percent(share: f64) -> String {
    format!("{:.2}%", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use msao_core::offload::manifest::Manifest;

    use super::*;
    use crate::judge::Wanted;
    use crate::search::{Played, go_on};
    use crate::tunable::Tunables;

    fn report(budget: Option<f64>) -> Report {
        let text = "name = \"p\"\nversion = \"1.0.0\"\nworld = \"offload-policy\"\ndescription = \"\"\nstate-schema = 0\n\
                    [[parameter]]\nname = \"gamma\"\ntype = \"int\"\ndefault = 8\nmin = 1\nmax = 9\nmeaning = \"\"\ntune = true\n";
        let manifest = Manifest::parse(text).unwrap();
        let tunables = Tunables::new(&manifest, &BTreeMap::new()).unwrap();
        let wanted = Wanted {
            weight: 10.0,
            delta: 0.05,
            budget,
        };
        let mut search = Search::new(tunables, wanted, 1, 5);
        let mut play = |_: Origin, params: Vec<f64>| -> anyhow::Result<Played> {
            let gamma = params[0];
            Ok(Played::Over((gamma != 3.0).then(|| Measured {
                latency_ms: 100.0 + gamma,
                cost: 0.25,
                requests: 500,
                exposed: 50,
                disagreed: 2,
                ..Measured::default()
            })))
        };
        go_on(&mut search, &mut play, &mut |_| Ok(())).unwrap();
        let digest = "00".repeat(32);
        let content = serde_json::json!({ "component": digest, "manifest": digest });
        let played = serde_json::json!({
            "policy": content, "postprocessor": null, "records": digest, "world": digest, "requests": 500, "pace": 1.0, "held": {},
        });
        let settings = Settings {
            played: serde_json::from_value(played).unwrap(),
            parameters: Vec::new(),
            wanted,
            seed: 1,
        };
        let policy = ("p".to_owned(), "1.0.0".to_owned());
        Report::new(policy, settings, &search, true, Vec::new())
    }

    #[test]
    fn the_table_has_defaults_and_tuner_and_the_comparison_all_three() {
        let report = report(None);
        assert_eq!(report.trials.len(), 11);
        assert!(report.better && report.best.is_some());
        let text = report.text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("gamma") && lines[1].contains("objective"));
        // Head, defaults, five points, an empty line.
        assert!(
            lines[2].contains("declared") && lines[2].contains("110.50"),
            "{text}"
        );
        assert_eq!(lines[8], "", "{text}");
        assert!(lines[9].starts_with("declared defaults") && lines[9].contains("110.50 ms"));
        assert!(
            lines[10].starts_with("tuned") && lines[10].contains('%'),
            "{text}"
        );
        assert!(lines[11].starts_with("random search"));
        assert_eq!(text.matches("best").count(), 1, "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["declared"]["values"]["gamma"], 8);
        assert_eq!(json["trials"].as_array().map(Vec::len), Some(11));
        assert!(
            report
                .svg()
                .contains("p 1.0.0: 500 requests a point, seed 1")
        );
    }

    #[test]
    fn where_nothing_keeps_the_budget_nothing_is_proposed() {
        let report = report(Some(0.001));
        assert!(!report.better && report.best.is_none());
        let text = report.text();
        assert!(
            text.contains("tuned              nothing that keeps the constraint"),
            "{text}"
        );
        assert!(text.contains("they stay"), "{text}");
    }
}
