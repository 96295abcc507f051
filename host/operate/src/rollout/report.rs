//! What a rollout has done, and what stands where.

use serde::Serialize;

use super::guard::Tripped;
use crate::output::{plain, table};

/// What stands on one node.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Standing {
    /// Nothing was done there.
    Untouched,
    /// It was active there before this rollout began.
    Already {
        /// Its generation.
        generation: u64,
    },
    /// It is a canary there.
    Canary {
        /// Its generation.
        generation: u64,
    },
    /// It is active there.
    Active {
        /// Its generation.
        generation: u64,
    },
    /// The node refused it; nothing has changed there.
    Refused {
        /// Its words.
        why: String,
    },
    /// It was active or a canary, and is no more.
    RolledBack {
        /// What is active now.
        to: String,
    },
    /// The node has left it by itself, or somebody else has changed it.
    Left {
        /// What is active now.
        to: String,
    },
    /// It is to go and may still be there.
    NotRolledBack {
        /// Why.
        why: String,
    },
    /// Nobody knows.
    Unknown {
        /// Why.
        why: String,
    },
}

impl Standing {
    fn words(&self) -> String {
        match self {
            Standing::Untouched => "untouched".to_owned(),
            Standing::Already { generation } => {
                format!("had it before, as generation {generation}")
            }
            Standing::Canary { generation } => format!("canary, generation {generation}"),
            Standing::Active { generation } => format!("active, generation {generation}"),
            Standing::Refused { why } => format!("refused it: {}", plain(why)),
            Standing::RolledBack { to } => format!("rolled back to {}", plain(to)),
            Standing::Left { to } => format!("had left it; active is {}", plain(to)),
            Standing::NotRolledBack { why } => format!("NOT ROLLED BACK: {}", plain(why)),
            Standing::Unknown { why } => format!("NOT KNOWN: {}", plain(why)),
        }
    }
}

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct NodeReport {
    /// Its name in the list.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// The wave that takes it, from 1 on; 0: none.
    pub wave: usize,
    /// What stands there.
    pub standing: Standing,
    /// Requests that were over while it was watched.
    pub watched: u64,
}

/// The guardrail that gave way.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Stop {
    /// On which node.
    pub node: String,
    /// In which wave, from 1 on.
    pub wave: usize,
    /// Which, and why.
    #[serde(flatten)]
    pub tripped: Tripped,
}

/// A whole rollout.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// What was rolled out.
    pub release: String,
    /// Waves that went through.
    pub waves_done: usize,
    /// Waves that there were to be.
    pub waves: usize,
    /// What stopped it.
    pub stopped: Option<Stop>,
    /// Whether somebody interrupted it.
    pub interrupted: bool,
    /// Every node of the list.
    pub nodes: Vec<NodeReport>,
}

impl Report {
    /// Whether all waves went through.
    pub fn is_fine(&self) -> bool {
        self.stopped.is_none() && !self.interrupted
    }

    /// For people.
    pub fn words(&self) -> String {
        let mut text = match &self.stopped {
            Some(stop) => format!(
                "{}: STOPPED in wave {} of {}. On {} the guardrail \"{}\" gave way: {}\n",
                self.release,
                stop.wave,
                self.waves,
                stop.node,
                stop.tripped.guardrail,
                plain(&stop.tripped.why)
            ),
            None if self.interrupted => format!(
                "{}: interrupted after {} of {} waves. Everything stays as it stands\n",
                self.release, self.waves_done, self.waves
            ),
            None => format!("{}: rolled out in {} waves\n", self.release, self.waves),
        };
        text.push('\n');
        let rows: Vec<Vec<String>> = self
            .nodes
            .iter()
            .map(|it| {
                let wave = if it.wave == 0 {
                    "-".to_owned()
                } else {
                    it.wave.to_string()
                };
                vec![
                    it.name.clone(),
                    wave,
                    it.watched.to_string(),
                    it.standing.words(),
                ]
            })
            .collect();
        text.push_str(&table(&["node", "wave", "requests watched", "now"], &rows));
        text.push_str(&self.advice());
        text
    }

    fn advice(&self) -> String {
        let mut text = String::new();
        let is = |wanted: fn(&Standing) -> bool| {
            self.nodes.iter().filter(move |it| wanted(&it.standing))
        };
        let unseen = is(|it| matches!(it, Standing::Active { .. } | Standing::Canary { .. }))
            .filter(|it| it.watched == 0);
        let unseen: Vec<&str> = unseen.map(|it| it.name.as_str()).collect();
        if !unseen.is_empty() {
            text.push_str(&format!(
                "\nno request was over on {} while it was watched: that says nothing about the plug-in there\n",
                unseen.join(", ")
            ));
        }
        if self.interrupted {
            text.push_str("\nthe same command again goes on from here; to undo it on a node: msao policy rollback --node URL\n");
        }
        for it in is(|it| {
            matches!(
                it,
                Standing::NotRolledBack { .. } | Standing::Unknown { .. }
            )
        }) {
            text.push_str(&format!(
                "\nlook at {0}: msao policy list --node {1}\n",
                it.name, it.url
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_where_what_and_what_to_do() {
        let node = |name: &str, wave, standing, watched| NodeReport {
            name: name.into(),
            url: format!("http://{name}:8081"),
            wave,
            standing,
            watched,
        };
        let mut report = Report {
            release: "patient@0.2.0".into(),
            waves_done: 1,
            waves: 3,
            stopped: Some(Stop {
                node: "edge-2".into(),
                wave: 2,
                tripped: Tripped {
                    guardrail: "failed",
                    why: "4 of 40 requests failed (10.0%)".into(),
                },
            }),
            interrupted: false,
            nodes: vec![
                node(
                    "edge-1",
                    1,
                    Standing::RolledBack {
                        to: "generation 6: old 0.1.0".into(),
                    },
                    200,
                ),
                node(
                    "edge-2",
                    2,
                    Standing::NotRolledBack {
                        why: "no answer".into(),
                    },
                    40,
                ),
                node("edge-3", 3, Standing::Untouched, 0),
            ],
        };
        let text = report.words();
        for told in [
            "wave 2 of 3",
            "On edge-2",
            "4 of 40 requests failed",
            "rolled back to generation 6",
            "untouched",
            "msao policy list --node http://edge-2:8081",
        ] {
            assert!(text.contains(told), "{text}");
        }
        assert!(!report.is_fine());
        report.stopped = None;
        report.interrupted = true;
        assert!(report.words().contains("goes on from here"));
        assert!(!report.is_fine());
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["nodes"][0]["standing"]["is"], "rolled-back");
    }
}
