//! An edge and a cloud as processes, asked over HTTP with nothing between them that takes time.
//!
//! Nodes tell how long their models computed for a request (`busy_ms`). What a client waits beyond that, for an answer of one token, is
//! what nodes do beside their models.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use msao_datasets::Item;
use msao_pair::asker::question;
use msao_pair::client::{Answer, ask};
use msao_pair::pair::{Pair, Places, Wanted};
use msao_simulate::NodeCost;
use serde_json::{Value, json};

use crate::plugins::{AT_EDGE, IN_CLOUD};
use crate::questions::{Kind, Questions};
use crate::{Job, median, ms, pause};

/// Tokens of a long answer at most.
const LONG: u32 = 64;
/// An answer that is shorter says nothing of how long a token takes.
const LONG_ENOUGH: u64 = 8;
/// Who has no answer after so long gets none.
const ANSWERED_WITHIN: Duration = Duration::from_secs(300);

/// What nodes were found to cost.
#[derive(Clone, Debug)]
pub(crate) struct NodeFigures {
    pub edge: NodeCost,
    pub cloud: NodeCost,
    /// What a token takes through everything: at the edge by the draft model, and in the cloud by the target.
    pub draft_token_ms: f64,
    pub target_token_ms: f64,
    /// Tokens of the answers by which that was found.
    pub draft_tokens: u64,
    pub target_tokens: u64,
    /// Questions with an answer of one token.
    pub questions: usize,
}

/// # Errors
/// Nodes do not come up or do not answer, or somebody wants it to end.
pub(crate) async fn measure(
    places: &Places,
    wanted: &Wanted,
    questions: &Questions,
    job: &mut Job<'_>,
) -> Result<NodeFigures> {
    job.tell("starting an edge and a cloud")?;
    let pair = Pair::start(places, wanted).await?;
    let mut found = Vec::new();
    for (policy, place) in [(AT_EDGE, "edge"), (IN_CLOUD, "cloud")] {
        pair.policy(policy).await?;
        found.push(asked(&pair, questions, place, job).await?);
    }
    let (Some(cloud), Some(edge)) = (found.pop(), found.pop()) else {
        bail!("nobody was asked");
    };
    // The same question at both: what the second takes longer is the way to the other node and what that does.
    let more = (cloud.beside.iter()).map(|(place, (kind, cloud_ms, tokens))| {
        let at_edge = edge.beside.get(place);
        let (_, edge_ms, _) = at_edge.context("a question that only one was asked")?;
        Ok((*kind, cloud_ms - edge_ms, *tokens))
    });
    let more: Vec<Beside> = more.collect::<Result<_>>()?;
    let own: Vec<Beside> = edge.beside.into_values().collect();
    Ok(NodeFigures {
        questions: own.len(),
        edge: costs(&own)?,
        cloud: costs(&more)?,
        draft_token_ms: edge.token_ms,
        target_token_ms: cloud.token_ms,
        draft_tokens: edge.tokens,
        target_tokens: cloud.tokens,
    })
}

/// A question's kind, the time beside the models in ms, and the tokens of its prompt.
type Beside = (Kind, f64, f64);

/// What answers from one place came to.
struct Found {
    /// By the question's place among all.
    beside: BTreeMap<usize, Beside>,
    token_ms: f64,
    tokens: u64,
}

async fn asked(
    pair: &Pair,
    questions: &Questions,
    place: &str,
    job: &mut Job<'_>,
) -> Result<Found> {
    let mut beside = BTreeMap::new();
    let (mut number, all) = (0, questions.count());
    let (mut streamed_ms, mut tokens, mut gaps) = (0.0, 0, 0);
    for group in &questions.groups {
        let lists = [(&group.warm, 1), (&group.short, 1), (&group.long, LONG)];
        for (list, (items, most)) in lists.into_iter().enumerate() {
            for item in items {
                number += 1;
                job.tell(&format!("nodes: {place}, question {number} of {all}"))?;
                let answer = answered(pair, item, most, place).await?;
                match list {
                    0 => {}
                    1 => {
                        let beside_ms = ms(answer.total) - busy_ms(&answer.report, place)?;
                        let tokens = answer.prompt_tokens as f64;
                        beside.insert(number, (group.kind, beside_ms, tokens));
                    }
                    _ if answer.tokens >= LONG_ENOUGH => {
                        streamed_ms += ms(answer.total.saturating_sub(answer.first));
                        tokens += answer.tokens;
                        gaps += answer.tokens - 1;
                    }
                    _ => {}
                }
            }
        }
    }
    ensure!(
        gaps > 0,
        "no answer of the {place}'s had {LONG_ENOUGH} tokens: what one takes cannot be said"
    );
    Ok(Found {
        beside,
        token_ms: streamed_ms / gaps as f64,
        tokens,
    })
}

async fn answered(pair: &Pair, item: &Item, most: u32, place: &str) -> Result<Answer> {
    let mut body = question(item)?;
    if let Value::Object(fields) = &mut body {
        fields.insert("max_completion_tokens".into(), json!(most));
        fields.insert("temperature".into(), json!(0.0));
    }
    pause().await;
    let answer = tokio::time::timeout(ANSWERED_WITHIN, ask(pair.edge.api, &body)).await;
    let within = || format!("question {}: no answer in time", item.id);
    let answer = answer.with_context(within)??;
    if !answer.is_whole() {
        let error = answer.error.unwrap_or_default();
        bail!(
            "question {}: status {}, {error}: not answered",
            item.id,
            answer.status
        );
    }
    let route = answer.report.get("route").and_then(Value::as_str);
    ensure!(
        route == Some(place),
        "question {} was to be answered by the {place}, and went by {}",
        item.id,
        route.unwrap_or("an unknown way")
    );
    Ok(answer)
}

/// How long a node's models computed for an answer, as the answer tells.
fn busy_ms(report: &Value, place: &str) -> Result<f64> {
    let told = report.pointer(&format!("/cost/{place}/busy_ms"));
    told.and_then(Value::as_f64)
        .with_context(|| format!("the answer does not tell cost.{place}.busy_ms"))
}

/// The middle of what questions of words alone take, and for other kinds what they take longer, by token.
fn costs(beside: &[Beside]) -> Result<NodeCost> {
    let of = |wanted: Kind| beside.iter().filter(move |(kind, _, _)| *kind == wanted);
    let mut words: Vec<f64> = of(Kind::Text).map(|(_, ms, _)| *ms).collect();
    let mut lengths: Vec<f64> = of(Kind::Text).map(|(_, _, tokens)| *tokens).collect();
    let request_ms = median(&mut words)?.max(0.0);
    let length = median(&mut lengths)?;
    let per_token = |kind: Kind| {
        let (mut more_ms, mut tokens) = (0.0, 0.0);
        for (_, ms, length_with) in of(kind) {
            more_ms += ms - request_ms;
            tokens += (length_with - length).max(1.0);
        }
        (more_ms / f64::max(tokens, 1.0)).max(0.0)
    };
    Ok(NodeCost {
        request_ms,
        picture_ms_per_token: per_token(Kind::Picture),
        clip_ms_per_token: per_token(Kind::Clip),
        sound_ms_per_token: per_token(Kind::Sound),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kind_takes_is_what_it_takes_beyond_words_by_token() {
        let beside = [
            (Kind::Text, 2.0, 15.0),
            (Kind::Text, 3.0, 15.0),
            // The odd one out is not the middle.
            (Kind::Text, 90.0, 16.0),
            (Kind::Picture, 13.0, 35.0),
            (Kind::Picture, 23.0, 55.0),
            (Kind::Clip, 43.0, 95.0),
            // Faster than words alone: by chance.
            (Kind::Sound, 2.5, 25.0),
        ];
        let costs = costs(&beside).unwrap();
        assert_eq!(costs.request_ms, 3.0);
        assert_eq!(costs.picture_ms_per_token, 30.0 / 60.0);
        assert_eq!(costs.clip_ms_per_token, 0.5);
        assert_eq!(costs.sound_ms_per_token, 0.0);
        assert!(super::costs(&beside[3..]).is_err());
    }

    #[test]
    fn what_is_not_told_is_not_taken_for_nothing() {
        let report = json!({ "cost": { "edge": { "busy_ms": 1.5 } } });
        assert_eq!(busy_ms(&report, "edge").unwrap(), 1.5);
        assert!(busy_ms(&report, "cloud").is_err());
    }
}
