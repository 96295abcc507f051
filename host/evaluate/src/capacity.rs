//! How many clients so many clouds serve, as the simulator has it. Who simulates comes from outside.
//!
//! What is simulated stands in a table of its own, and is never ranked.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::report::number;

/// What is simulated.
#[derive(Args, Clone, Debug)]
pub struct CapacityArgs {
    /// Edges, links, engines, what is asked and the goal (configs/simulate/capacity.toml, each line commented).
    #[arg(value_name = "SPEC.toml")]
    pub spec: PathBuf,
    /// Numbers of clouds, with commas between them, in place of the specification's.
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    pub clouds: Vec<u32>,
}

/// What it came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Capacity {
    /// The specification's.
    pub name: String,
    /// The profile's.
    pub profile: String,
    /// 95% of all requests are to be answered within so long, in ms.
    pub goal_p95_ms: f64,
    /// A client asks so often, in s.
    pub every_s: f64,
    /// In the order of the specification.
    pub points: Vec<Point>,
    /// By how much more clients a cloud that only verifies should serve than one that drafts for itself.
    pub formula: Formula,
    /// Requests of all trials.
    pub requests: u64,
    /// How long they took to simulate, in s.
    pub took_s: f64,
    /// What had to be assumed, a sentence each.
    pub assumed: Vec<String>,
}

/// The most clients that so many clouds serve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Point {
    /// How many.
    pub clouds: u32,
    /// Edges draft, clouds verify.
    pub edges_draft: Served,
    /// Clouds draft for themselves.
    pub clouds_draft: Served,
}

/// The most clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Served {
    /// How many; 0 if not even one is.
    pub clients: u32,
    /// What 95% of their answers took at most, in ms. None: there are no clients.
    pub p95_ms: Option<f64>,
}

/// `1 + gamma * t_d / t_v`: a cloud that drafts for itself spends a round's drafts and a verdict on an answer where another spends the
/// verdict alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Formula {
    /// Drafts of a round.
    pub gamma: u32,
    /// `t_d`: a draft in the cloud, in ms.
    pub draft_ms: f64,
    /// `t_v`: a verdict on a round, in ms.
    pub verify_ms: f64,
}

impl Formula {
    /// What it comes to.
    pub fn ratio(&self) -> f64 {
        1.0 + f64::from(self.gamma) * self.draft_ms / self.verify_ms
    }
}

impl Point {
    /// How many times the clients are served where edges draft. None: otherwise nobody is.
    pub fn ratio(&self) -> Option<f64> {
        let (more, clients) = (self.edges_draft.clients, self.clouds_draft.clients);
        (clients > 0).then(|| f64::from(more) / f64::from(clients))
    }
}

impl Capacity {
    /// Requests that were simulated in a minute.
    pub fn requests_per_min(&self) -> f64 {
        60.0 * self.requests as f64 / self.took_s.max(1e-9)
    }

    /// As a table for people.
    pub fn text(&self) -> String {
        let mut out = format!(
            "simulated, by \"{}\": clients that are served, 95% of their requests within {} ms, each asking every {} s\n{:>7}  {:>12}  {:>13}  {:>6}\n",
            self.profile,
            number(self.goal_p95_ms),
            number(self.every_s),
            "clouds",
            "edges draft",
            "clouds draft",
            "ratio"
        );
        for point in &self.points {
            let ratio = point.ratio().map_or("-".to_owned(), number);
            out.push_str(&format!(
                "{:>7}  {:>12}  {:>13}  {ratio:>6}\n",
                point.clouds, point.edges_draft.clients, point.clouds_draft.clients
            ));
        }
        let formula = &self.formula;
        out.push_str(&format!(
            "1 + gamma * t_d / t_v = {} (gamma {}, t_d {} ms, t_v {} ms)\n{} requests in {} s: {} a minute\n",
            number(formula.ratio()),
            formula.gamma,
            number(formula.draft_ms),
            number(formula.verify_ms),
            self.requests,
            number(self.took_s),
            number(self.requests_per_min())
        ));
        for assumed in &self.assumed {
            out.push_str(&format!("assumed: {assumed}\n"));
        }
        out
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn capacity() -> Capacity {
        let served = |clients: u32| Served {
            clients,
            p95_ms: (clients > 0).then_some(900.0),
        };
        let point = |clouds, more, clients| Point {
            clouds,
            edges_draft: served(more),
            clouds_draft: served(clients),
        };
        Capacity {
            name: "made up".to_owned(),
            profile: "assumed".to_owned(),
            goal_p95_ms: 1000.0,
            every_s: 60.0,
            points: vec![point(1, 300, 120), point(10, 40, 0)],
            formula: Formula {
                gamma: 4,
                draft_ms: 5.0,
                verify_ms: 10.0,
            },
            requests: 1000,
            took_s: 0.5,
            assumed: vec!["all of it".to_owned()],
        }
    }

    #[test]
    fn a_table_has_the_formula_and_the_pace_below_it() {
        let found = capacity();
        assert_eq!(found.formula.ratio(), 3.0);
        assert_eq!(found.points[0].ratio(), Some(2.5));
        // Of nobody there is no multiple.
        assert_eq!(found.points[1].ratio(), None);
        assert_eq!(found.requests_per_min(), 120_000.0);
        let text = found.text();
        assert!(text.starts_with("simulated"), "{text}");
        assert!(text.contains("1 + gamma * t_d / t_v = 3"), "{text}");
        assert!(text.ends_with("assumed: all of it\n"), "{text}");
        let json = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<Capacity>(&json).unwrap(), found);
    }
}
