//! `msao policy list` and `msao policy history`.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::Value;

use super::change::plans;
use crate::connect::Common;
use crate::glance::Glance;
use crate::output::{ago, now_s, plain, table};
use crate::release::{Listed, Release, listed};

/// List the plug-ins that a node has, and what is active
///
///   msao policy list
///   msao policy list --node http://10.0.0.7:8081 --token-file operator.token
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct ListArgs {
    #[command(flatten)]
    pub(super) common: Common,
}

/// Tell the newest changes of what is active on a node, newest first
///
/// With who made each: an operator's token by name, or a dash for the node itself. What else they asked for stands in
/// audit.jsonl in the node's state folder.
///
///   msao policy history --last 5
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct HistoryArgs {
    /// How many.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    last: u32,
    #[command(flatten)]
    pub(super) common: Common,
}

/// What a release is used for now, by the node's deployment.
fn uses(deployment: &Value, release: &Release) -> String {
    let of = |at: &str| {
        let spec = deployment.pointer(at);
        ["policy", "postprocessor"].iter().any(|part| {
            let part = spec.and_then(|it| it.get(part)).cloned();
            part.and_then(|it| serde_json::from_value::<Release>(it).ok())
                .as_ref()
                == Some(release)
        })
    };
    let places = [
        ("/active", "active"),
        ("/rollout/candidate", "canary"),
        ("/shadow", "shadow"),
        ("/previous", "before"),
    ];
    let used: Vec<&str> = places
        .iter()
        .filter(|(at, _)| of(at))
        .map(|(_, use_)| *use_)
        .collect();
    used.join(", ")
}

/// How each release's digest is shown: so that no two look alike.
fn digests(releases: &[Listed]) -> BTreeMap<Release, String> {
    let alike = |it: &Release| {
        releases
            .iter()
            .filter(|other| other.release.artifact == it.artifact)
            .count()
    };
    let shown = releases.iter().map(|it| {
        let artifact = it.release.artifact.short();
        let shown = match alike(&it.release) {
            1 => artifact,
            _ => format!("{artifact}:{}", it.release.manifest.short()),
        };
        (it.release, shown)
    });
    shown.collect()
}

/// The releases in a table.
fn releases_in_words(value: &Value) -> String {
    let mut releases = listed(value);
    if releases.is_empty() {
        return "no plug-in has been pushed here yet: msao policy push PLUG-IN\n".to_owned();
    }
    releases
        .sort_by(|a, b| (&a.name, &a.version, a.release).cmp(&(&b.name, &b.version, b.release)));
    let deployment = value.get("deployment").cloned().unwrap_or_default();
    let shown = digests(&releases);
    let rows: Vec<Vec<String>> = releases
        .iter()
        .map(|it| {
            vec![
                plain(&format!("{}@{}", it.name, it.version)),
                shown.get(&it.release).cloned().unwrap_or_default(),
                it.world.to_string(),
                if it.signed { "signed" } else { "-" }.to_owned(),
                uses(&deployment, &it.release),
                plain(&it.description).chars().take(60).collect(),
            ]
        })
        .collect();
    table(
        &[
            "plug-in",
            "digest",
            "world",
            "signature",
            "now",
            "description",
        ],
        &rows,
    )
}

pub fn list(args: &ListArgs) -> anyhow::Result<bool> {
    let (client, output) = (args.common.client()?, args.common.output());
    let value = client.get("/v1/policies")?;
    let mut text = String::new();
    if !output.json {
        text = format!(
            "{}\n{}",
            releases_in_words(&value),
            plans(&Glance::read(&client.get("/v1/state")?))
        );
    }
    output.answer(&value, |_| text)?;
    Ok(true)
}

/// An event of the journal: its name and what belongs to it.
fn event(value: &Value) -> (String, Value) {
    match value {
        Value::String(name) => (name.clone(), Value::Null),
        Value::Object(map) => match map.iter().next() {
            Some((name, with)) => (name.clone(), with.clone()),
            None => Default::default(),
        },
        _ => Default::default(),
    }
}

/// A change in words.
fn change(value: &Value) -> String {
    let (name, with) = event(value);
    let number = with
        .pointer("/spec/number")
        .or_else(|| with.get("number"))
        .and_then(Value::as_u64);
    let generation = number.map_or_else(
        || "a generation".to_owned(),
        |it| format!("generation {it}"),
    );
    let why = with
        .get("why")
        .and_then(Value::as_str)
        .map(|why| format!(": {}", plain(why)))
        .unwrap_or_default();
    match name.as_str() {
        "began" => "the node began".to_owned(),
        "restarted" => {
            format!("the node started, with {generation} in place of what was active{why}")
        }
        "activated" => format!("{generation} was activated{why}"),
        "canary-started" => format!("{generation} became a canary"),
        "canary-stepped" => {
            let step = with
                .get("step")
                .and_then(Value::as_u64)
                .map_or(0, |it| it + 1);
            format!("the canary, {generation}, went to step {step}")
        }
        "promoted" => format!("the canary, {generation}, was promoted"),
        "left" => format!("{generation} was left{why}"),
        "repinned" => format!("{generation} goes on under other pins"),
        "shadow-started" => format!("{generation} runs in the shadow"),
        "off" => "off: the built-in fallback took over".to_owned(),
        other => plain(other),
    }
}

pub fn history(args: &HistoryArgs) -> anyhow::Result<bool> {
    let (client, output) = (args.common.client()?, args.common.output());
    let value = client.get(&format!("/v1/history?last={}", args.last))?;
    output.answer(&value, |value| {
        let now_s = now_s();
        let entries = value.get("history").and_then(Value::as_array);
        let rows: Vec<Vec<String>> = entries
            .into_iter()
            .flatten()
            .map(|entry| {
                let number = |at: &str| entry.pointer(at).and_then(Value::as_f64);
                vec![
                    number("/sequence").map_or_else(|| "-".to_owned(), |it| format!("{it}")),
                    number("/at-ms").map_or_else(|| "-".to_owned(), |it| ago(it, now_s)),
                    number("/state/active/number")
                        .map_or_else(|| "-".to_owned(), |it| format!("{it}")),
                    entry
                        .get("by")
                        .and_then(Value::as_str)
                        .map_or_else(|| "-".to_owned(), plain),
                    entry.get("event").map(change).unwrap_or_default(),
                ]
            })
            .collect();
        table(&["change", "when", "active then", "by", "what"], &rows)
    })?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_are_told_in_words() {
        for (value, words) in [
            (json!("began"), "the node began"),
            (
                json!({"activated": {"spec": {"number": 3}, "claims": []}}),
                "generation 3 was activated",
            ),
            (
                json!({"activated": {"spec": {"number": 3}, "claims": [], "why": "too slow"}}),
                "generation 3 was activated: too slow",
            ),
            (
                json!({"canary-stepped": {"number": 4, "step": 1}}),
                "the canary, generation 4, went to step 2",
            ),
            (
                json!({"left": {"number": 4, "why": "too slow"}}),
                "generation 4 was left: too slow",
            ),
            (json!({"teleported": {"number": 4}}), "teleported"),
            (json!(7), ""),
        ] {
            assert_eq!(change(&value), words);
        }
    }

    #[test]
    fn a_list_says_what_each_release_is_used_for() {
        let release = |digit: char, manifest: char| {
            json!({
                "artifact": digit.to_string().repeat(64), "manifest": manifest.to_string().repeat(64)
            })
        };
        let entry = |name: &str, release: &Value| {
            json!({
                "release": release, "name": name, "version": "1.0.0", "world": "offload-policy", "description": "d", "signed": false
            })
        };
        let (one, two, twin) = (release('a', '1'), release('b', '2'), release('b', '3'));
        let text = releases_in_words(&json!({
            "releases": [entry("zeta", &one), entry("alpha", &two), entry("beta", &twin)],
            "deployment": {
                "active": {"policy": one, "postprocessor": null},
                "previous": {"policy": two},
                "rollout": {"candidate": {"policy": twin}},
                "shadow": null
            }
        }));
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[1].contains("alpha@1.0.0") && lines[1].contains("bbbbbbbbbbbb:222222222222"),
            "{text}"
        );
        assert!(
            lines[1].contains("before")
                && lines[2].contains("canary")
                && lines[3].contains("active"),
            "{text}"
        );
        assert!(lines[3].contains("aaaaaaaaaaaa   "), "{text}");
    }
}
