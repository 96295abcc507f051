//! `msao policy remove`.

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use crate::connect::Common;
use crate::output::{bytes, plain};
use crate::release::{Named, Release, listed, resolve};

/// Remove a plug-in from a node, or all that it does not need
///
/// What is active, a canary, a shadow, or what a rollback goes back to stays, and so does what has requests under way; the node
/// says which of these it is. Serials stay used: a removed release that is pushed again is still older than what came after it.
/// Needs a token of the role push.
///
///   msao policy remove patient@0.1.0
///   msao policy remove --unused
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct RemoveArgs {
    /// A release that the node has: NAME@VERSION, or how its digest begins.
    #[arg(value_name = "PLUG-IN", required_unless_present = "unused")]
    release: Option<String>,
    /// Remove every release that nothing needs.
    #[arg(long, conflicts_with = "release")]
    unused: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

pub fn run(args: &RemoveArgs) -> anyhow::Result<bool> {
    let (client, output) = (args.common.client()?, args.common.output());
    let body = match &args.release {
        None => json!({ "unused": true }),
        Some(name) => match Named::new(name) {
            Named::Here(_) => bail!(
                "{name} is a path: name a release that the node has, as `msao policy list` shows them"
            ),
            Named::There(name) => {
                let there = listed(&client.get("/v1/policies")?);
                json!({ "release": resolve(&name, &there)?.release })
            }
        },
    };
    let answer = client.post("/v1/remove", &body)?;
    output.answer(&answer, words)?;
    Ok(true)
}

/// What became of it.
fn words(answer: &Value) -> String {
    let list = |key: &str| {
        let entries = answer.get(key).and_then(Value::as_array);
        entries.into_iter().flatten()
    };
    let freed = bytes(answer.get("bytes").and_then(Value::as_f64).unwrap_or(0.0));
    let mut text = match list("removed").count() {
        0 => "nothing to remove".to_owned(),
        1 => "1 release was removed".to_owned(),
        some => format!("{some} releases were removed"),
    };
    text.push_str(&format!(": {freed} freed\n"));
    for entry in list("removed") {
        text.push_str(&format!("  removed  {}\n", named(entry)));
    }
    for entry in list("kept") {
        let why = entry.get("why").and_then(Value::as_str).unwrap_or("?");
        text.push_str(&format!("  kept     {}: {}\n", named(entry), plain(why)));
    }
    text
}

/// A release as people know it.
fn named(entry: &Value) -> String {
    let text = |key: &str| entry.get(key).and_then(Value::as_str);
    let release = entry.get("release").cloned().unwrap_or_default();
    let digest = serde_json::from_value::<Release>(release)
        .map_or_else(|_| "?".to_owned(), |it| it.artifact.short());
    match text("name").zip(text("version")) {
        Some((name, version)) => plain(&format!("{name}@{version} ({digest})")),
        // Its manifest could not be read.
        None => digest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_and_what_stays_is_told() {
        let release =
            |digit: &str| json!({ "artifact": digit.repeat(64), "manifest": "0".repeat(64) });
        let answer = json!({
            "removed": [
                { "release": release("a"), "name": "patient", "version": "0.1.0" },
                { "release": release("b"), "name": null, "version": null },
            ],
            "kept": [{
                "release": release("c"), "name": "patient", "version": "0.2.0", "needed": "active", "why": "it is active",
            }],
            "bytes": 2048,
        });
        assert_eq!(
            words(&answer),
            "2 releases were removed: 2.0 KiB freed\n  removed  patient@0.1.0 (aaaaaaaaaaaa)\n  removed  bbbbbbbbbbbb\n  \
             kept     patient@0.2.0 (cccccccccccc): it is active\n"
        );
        let nothing = json!({ "removed": [], "kept": [], "bytes": 0 });
        assert_eq!(words(&nothing), "nothing to remove: 0 B freed\n");
    }
}
