//! How an answer came about: all that is ours in it, under the key `msao` and, in short, in headers.

use msao_core::chat::Modality;
use msao_core::offload::record::{GenerationId, OpenedAhead};
use msao_core::offload::{Outcome, Part, Route, Status, modality};
use serde::{Deserialize, Serialize};

/// How an answer came about. A client that does not look at it loses nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Where it ran in the end.
    pub route: Route,
    /// Whose plan it was.
    pub generation: GenerationId,
    /// The seed of the noise: the client's, else the one that was drawn.
    pub seed: u64,
    /// Images, clips and sounds, in the order in which the messages name them.
    pub items: Vec<ItemReport>,
    /// Rounds of drafts that went to the target.
    pub rounds: u32,
    /// Drafted tokens that the target judged.
    pub drafted_tokens: u64,
    /// Of them, accepted.
    pub accepted_tokens: u64,
    /// Tokens that were committed without the target's word.
    pub unverified_tokens: u32,
    /// Of them, those that the operator's budget does not cover: the link was down, or media may not leave the edge. 0
    /// where there is no budget.
    pub outside_budget_tokens: u32,
    /// The answer ran in exact mode to show what confident mode would have done.
    pub audited: bool,
    /// Bytes to the other node.
    pub bytes_up: u64,
    /// Bytes from the other node.
    pub bytes_down: u64,
    /// The other node was lost, and this one finished alone.
    pub degraded: bool,
    /// What became of a session that was opened at the other node before there was a plan; left out where none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<OpenedAhead>,
    /// What it took.
    pub cost: Cost,
}

/// What an answer took, all its choices together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Of the node that the request came to, as an edge.
    pub edge: NodeCost,
    /// Of the node with the target, as far as it has told; the same one where it has both models.
    pub cloud: NodeCost,
    /// Of the time to the answer, in the probe, ms.
    pub probe_ms: f64,
    /// Of it, uploading media, ms.
    pub upload_ms: f64,
    /// Of it, waiting in queues, ms.
    pub queue_ms: f64,
}

/// What an answer took of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeCost {
    /// Floating-point operations, those of drafts that were thrown away too.
    pub flops: f64,
    /// Of these, those of the draft model's passes whose choice did not become part of the answer; left out where nobody has
    /// told, as of drafts that were made beside the target. What the target computed to turn drafts down is not in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wasted_flops: Option<f64>,
    /// Bytes of keys and values, each times the seconds that they were held.
    pub cache_byte_seconds: f64,
    /// Time in which its models computed for it, ms; of a pass over several answers its share.
    pub busy_ms: f64,
    /// Most bytes of intermediate results that one of them held for it at once.
    pub activation_bytes: u64,
}

/// What became of one image, clip or sound.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemReport {
    /// What it is.
    pub modality: Modality,
    /// Its tokens before anything was dropped.
    pub tokens: u32,
    /// How much the answer needs it, in [0, 1]; null where nobody looked.
    pub necessity: Option<f64>,
    /// The share of it that could go, in [0, 1] (modality activation sparsity); null where nobody looked.
    pub mas: Option<f64>,
    /// What was kept of it.
    pub retention: Retention,
}

/// The shares of an item's tokens that the models read, in [0, 1]; null for a model that did not take part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Retention {
    /// The draft model.
    pub draft: Option<f64>,
    /// The target model.
    pub target: Option<f64>,
}

impl ItemReport {
    /// The report of a part as the policy saw it; `None` for text, of which nothing is ever dropped.
    pub fn of(part: &Part, retention: Retention) -> Option<ItemReport> {
        let modality = match part.modality {
            modality::IMAGE => Modality::Image,
            modality::VIDEO => Modality::Video,
            modality::AUDIO => Modality::Audio,
            _ => return None,
        };
        // The contract's -1: nobody looked.
        let looked = |value: f64| (value >= 0.0).then_some(value);
        Some(ItemReport {
            modality,
            tokens: part.tokens,
            necessity: looked(part.necessity),
            mas: looked(part.mas),
            retention,
        })
    }
}

/// Items that the header lists: headers have little room.
const HEADER_ITEMS: usize = 16;

impl Report {
    /// The report of an outcome. `route` is the outcome's, as the word for its number. Whether it was audited, what is outside
    /// a budget, what was opened ahead, and what nodes took beside operations is for the caller to fill in.
    pub fn of(
        route: Route,
        generation: GenerationId,
        seed: u64,
        items: Vec<ItemReport>,
        outcome: &Outcome,
    ) -> Report {
        let sum = |bins: &[u32]| bins.iter().map(|count| u64::from(*count)).sum();
        Report {
            route,
            generation,
            seed,
            items,
            rounds: outcome.rounds,
            drafted_tokens: sum(&outcome.drafted),
            accepted_tokens: sum(&outcome.accepted),
            unverified_tokens: outcome.unverified,
            outside_budget_tokens: 0,
            audited: false,
            bytes_up: outcome.sent_bytes as u64,
            bytes_down: outcome.received_bytes as u64,
            degraded: outcome.status == Status::Degraded as u8,
            ahead: None,
            cost: Cost {
                edge: NodeCost {
                    flops: outcome.edge_flops,
                    ..NodeCost::default()
                },
                cloud: NodeCost {
                    flops: outcome.cloud_flops,
                    ..NodeCost::default()
                },
                probe_ms: outcome.probe_ms,
                upload_ms: outcome.upload_ms,
                queue_ms: outcome.queue_ms,
            },
        }
    }

    /// What is known when an answer begins, as headers, names in lower case: all that a streamed answer can say in them.
    pub fn opening_headers(
        route: Route,
        generation: &GenerationId,
        seed: u64,
    ) -> Vec<(&'static str, String)> {
        vec![
            ("x-msao-route", route_name(route).to_owned()),
            ("x-msao-generation", generation_name(generation)),
            ("x-msao-seed", seed.to_string()),
        ]
    }

    /// The report as headers, names in lower case, for an answer that is sent as a whole. `x-msao-items` is a list of RFC 8941, of
    /// the first 16 items.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = Report::opening_headers(self.route, &self.generation, self.seed);
        headers.extend([
            ("x-msao-rounds", self.rounds.to_string()),
            ("x-msao-drafted-tokens", self.drafted_tokens.to_string()),
            ("x-msao-accepted-tokens", self.accepted_tokens.to_string()),
            (
                "x-msao-unverified-tokens",
                self.unverified_tokens.to_string(),
            ),
            (
                "x-msao-outside-budget-tokens",
                self.outside_budget_tokens.to_string(),
            ),
            ("x-msao-audited", self.audited.to_string()),
            ("x-msao-bytes-up", self.bytes_up.to_string()),
            ("x-msao-bytes-down", self.bytes_down.to_string()),
            ("x-msao-degraded", self.degraded.to_string()),
        ]);
        if !self.items.is_empty() {
            let shown = self.items.iter().take(HEADER_ITEMS);
            let items: Vec<String> = shown.map(item_in_short).collect();
            headers.push(("x-msao-items", items.join(", ")));
        }
        headers
    }
}

/// As in JSON.
fn route_name(route: Route) -> &'static str {
    match route {
        Route::Edge => "edge",
        Route::Cloud => "cloud",
        Route::CloudDraft => "cloud-draft",
        Route::Speculate => "speculate",
    }
}

/// Such as `0123456789ab+cdef01234567/3`: policy, post-processor, revision.
fn generation_name(generation: &GenerationId) -> String {
    let policy = generation.policy.map(|digest| digest.short());
    let mut name = policy.unwrap_or_else(|| "builtin".to_owned());
    if let Some(postprocessor) = generation.postprocessor {
        name.push('+');
        name.push_str(&postprocessor.short());
    }
    format!("{name}/{}", generation.revision)
}

/// Such as `image;necessity=0.812;mas=0.400;draft=0.250;target=1.000`; what is not known is left out.
fn item_in_short(item: &ItemReport) -> String {
    let values = [
        ("necessity", item.necessity),
        ("mas", item.mas),
        ("draft", item.retention.draft),
        ("target", item.retention.target),
    ];
    let known = values.into_iter().filter_map(|(name, value)| {
        let value = value.filter(|value| value.is_finite())?;
        Some(format!(";{name}={value:.3}"))
    });
    known.fold(item.modality.name().to_owned(), |text, value| text + &value)
}
