//! Processes that are killed at the worst moments.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::client::{ask, operate, question};
use super::pair::{Pair, Places, Wanted};
use crate::report::Row;

/// The cloud is killed so many times, at moments spread over an answer.
const KILLS: u32 = 24;
/// From the request on.
const LATEST: Duration = Duration::from_millis(240);

/// The part's rows.
///
/// # Errors
/// A node does not come up.
pub async fn rows(places: &Places) -> Result<Vec<Row>> {
    let mut rows = vec![];
    // Slow enough that an upload, drafts and verdicts are each under way for a while.
    let wanted = Wanted {
        shape: "[peers.shape.up]\nbandwidth = \"40 Mbit/s\"\ndelay-ms = 10.0\n[peers.shape.down]\ndelay-ms = 10.0\n".into(),
        ..Wanted::default()
    };
    for policy in ["fixed-speculate", "cloud-only"] {
        let mut pair = Pair::start(places, &wanted).await?;
        pair.policy(policy).await?;
        let (mut broken, mut degraded, mut doubled) = (Vec::new(), 0, Vec::new());
        for kill in 0..KILLS {
            let after = LATEST * kill / KILLS;
            // Another picture each time would be sent again; another question is another session.
            let media = places.models.join("demo-media/scene.png");
            let mut body = question("demo", &[("image", &media)], "Describe the scene.")?;
            if let Value::Object(fields) = &mut body {
                fields.insert("temperature".into(), json!(0));
                fields.insert("max_completion_tokens".into(), json!(120));
            }
            let api = pair.edge.api;
            let asked = tokio::spawn(async move { ask(api, &body).await });
            tokio::time::sleep(after).await;
            let nodes = pair.kill_cloud()?;
            let answer = asked.await?;
            match answer {
                Ok(answer) if answer.is_whole() => {
                    let lost = answer.report.get("degraded") == Some(&json!(true));
                    degraded += u32::from(lost);
                    // One after the other, the sentences are those of a description: none twice.
                    let sentences: Vec<&str> = answer.text.split(". ").collect();
                    let mut distinct = sentences.clone();
                    distinct.sort_unstable();
                    distinct.dedup();
                    if distinct.len() != sentences.len() {
                        doubled.push(format!("after {after:?}: {:?}", answer.text));
                    }
                }
                Ok(answer) => broken.push(format!(
                    "after {after:?}: {} {:?}",
                    answer.status, answer.error
                )),
                Err(error) => broken.push(format!("after {after:?}: {error:#}")),
            }
            pair.revive_cloud(nodes).await?;
        }
        rows.push(
            Row::at_most(
                format!("{policy}: the cloud killed {KILLS} times from before the upload to the end: answers that are not whole"),
                broken.len() as f64,
                0.0,
                "",
            )
            .with_details(broken)
            .with_more(Some(format!("{degraded} of them were finished by the edge, and said so"))),
        );
        rows.push(
            Row::at_most(
                format!("{policy}: answers that say something twice"),
                doubled.len() as f64,
                0.0,
                "",
            )
            .with_details(doubled),
        );
        // With the link down from the start.
        pair.kill_cloud()?;
        pair.wait(false).await?;
        let body = json!({
            "model": "demo", "messages": [{ "role": "user", "content": "7 + 6 = ?" }], "max_completion_tokens": 8,
        });
        let answer = ask(pair.edge.api, &body).await?;
        rows.push(Row::all(
            format!("{policy}: the link down from the start: answered by the edge"),
            1,
            (!answer.is_whole())
                .then(|| format!("{:?}", answer.error))
                .into_iter()
                .collect(),
        ));
    }
    rows.push(edge_killed(places).await?);
    Ok(rows)
}

/// The edge is killed while it speculates: the cloud gives everything back.
async fn edge_killed(places: &Places) -> Result<Row> {
    let pair = Pair::start(places, &Wanted::default()).await?;
    pair.policy("fixed-speculate").await?;
    let api = pair.edge.api;
    for number in 0..8 {
        let body = json!({
            "model": "demo", "messages": [{ "role": "user", "content": format!("Describe the scene {number}.") }],
            "max_completion_tokens": 400, "temperature": 1.5, "seed": number,
        });
        tokio::spawn(async move { ask(api, &body).await });
    }
    let Pair { edge, cloud, .. } = pair;
    let cloud = cloud.context("the cloud")?;
    let operator = cloud.operator.context("the cloud's operators' listener")?;
    let began = Instant::now();
    let mut before = 0;
    while before == 0 && began.elapsed() < Duration::from_secs(10) {
        let state = operate(operator, "/v1/state", None).await?;
        before = state
            .pointer("/sessions")
            .and_then(Value::as_u64)
            .unwrap_or(0);
    }
    anyhow::ensure!(before > 0, "no session has come to the cloud");
    edge.kill()?;
    let began = Instant::now();
    loop {
        let state = operate(operator, "/v1/state", None).await?;
        let number = |path: &str| {
            state
                .pointer(path)
                .and_then(Value::as_u64)
                .unwrap_or(u64::MAX)
        };
        let held = number("/sessions") + number("/models/target/sessions");
        if held == 0 || began.elapsed() > Duration::from_secs(20) {
            return Ok(Row::at_most(
                "the edge killed: sessions that the cloud still holds",
                held as f64,
                0.0,
                "",
            )
            .with_more(Some(format!(
                "{before} before; all given back {:.1} s after (noticed after 1 s, and a lease of 2 s)",
                began.elapsed().as_secs_f64()
            ))));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
