//! `msao node calibration`.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use super::acceptance;
use crate::client::Client;
use crate::connect::Common;
use crate::files;
use crate::output::{Output, plain, table};

/// Bytes of a file that is taken in at most: far more than a node learns.
const MOST: u64 = 256 << 20;

/// Tell what was learned of outcomes, take it to another node, or have it forgotten
///
/// A cell is what a plug-in's `observe` has summed up under a key of its own. The node itself learns how probably the target
/// accepts a draft, and what may be committed without asking it (--acceptance).
///
/// What is taken in has to be of the same plug-in, the same schema of its state and the same models; what does not fit is
/// told, and the command ends with 1. Audits are evidence of a node's own traffic, and never taken in.
///
/// Cells stay where a plug-in is no longer active, has another schema or serves other models (--kept).
///
///   msao node calibration
///   msao node calibration --acceptance
///   msao node calibration --kept
///   msao node calibration --export learned.json
///   msao node calibration --import learned.json --node http://10.0.0.3:8081
///   msao node calibration --reset patient
///   msao node calibration --reset patient --kept --schema 1
///   msao node calibration --reset-acceptance 0123456789ab/fedcba987654
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct CalibrationArgs {
    /// Tell what the node itself has learned: the acceptance of drafts, and what audits have shown.
    #[arg(long)]
    acceptance: bool,
    /// Tell which cells are kept, of plug-ins, schemas and models that are not active too; export them; or, with --reset,
    /// have all that are kept of a plug-in forgotten.
    #[arg(long, conflicts_with_all = ["acceptance", "import", "reset_acceptance"])]
    kept: bool,
    /// Write all that was learned to this file.
    #[arg(long, value_name = "FILE", conflicts_with = "acceptance")]
    export: Option<PathBuf>,
    /// Of it only the cells of this plug-in.
    #[arg(long, value_name = "PLUG-IN", requires = "export")]
    plugin: Option<String>,
    /// Have the node go on from what another has learned, in place of its own. Needs a token of the role activate.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["acceptance", "export"])]
    import: Option<PathBuf>,
    /// Forget all that this plug-in has learned. Cannot be undone; needs a token of the role activate.
    #[arg(long, value_name = "PLUG-IN", conflicts_with_all = ["acceptance", "export", "import"])]
    reset: Option<String>,
    /// Of what is kept of it only the cells of this schema.
    #[arg(long, value_name = "N", requires_all = ["reset", "kept"])]
    schema: Option<u32>,
    /// Of what is kept of it only what was learned of these models, as --kept tells them.
    #[arg(long, value_name = "MODELS", requires_all = ["reset", "kept"])]
    models: Option<String>,
    /// Forget what the node itself has learned, audits included: nothing is committed unverified until new ones have shown
    /// that it may be. Of one pair of models, named as --acceptance tells it (DRAFT/TARGET), or of all. Cannot be undone;
    /// needs a token of the role activate.
    #[arg(long, value_name = "PAIR", conflicts_with_all = ["acceptance", "export", "import", "reset"])]
    reset_acceptance: Option<Option<String>>,
    /// Cells of each plug-in that are listed; --json has all.
    #[arg(long, value_name = "N", default_value_t = 20, conflicts_with = "reset")]
    cells: usize,
    #[command(flatten)]
    pub(super) common: Common,
}

pub fn run(args: &CalibrationArgs) -> anyhow::Result<bool> {
    let (client, output) = (args.common.client()?, args.common.output());
    if let Some(plugin) = &args.reset {
        let mut body = json!({ "plugin": plugin });
        if let (true, Value::Object(fields)) = (args.kept, &mut body) {
            fields.insert("kept".into(), json!(true));
            let schema = args.schema.map(|schema| ("state-schema", json!(schema)));
            let models = (args.models.as_ref()).map(|models| ("models", json!(models)));
            for (name, value) in schema.into_iter().chain(models) {
                fields.insert(name.into(), value);
            }
        }
        let answer = client.post("/v1/calibration/reset", &body)?;
        output.answer(&answer, |answer| {
            let cells = answer.get("cells").and_then(Value::as_u64).unwrap_or(0);
            format!("{plugin} has forgotten {cells} cells\n")
        })?;
        return Ok(true);
    }
    if let Some(wanted) = &args.reset_acceptance {
        let mut body = json!({ "acceptance": true });
        if let (Some(wanted), Value::Object(fields)) = (wanted, &mut body) {
            let known = client.get("/v1/calibration/acceptance")?;
            fields.insert("pair".into(), acceptance::pair(&known, wanted)?);
        }
        let answer = client.post("/v1/calibration/reset", &body)?;
        output.answer(&answer, |answer| {
            let count = |name: &str| answer.get(name).and_then(Value::as_u64).unwrap_or(0);
            format!(
                "what was learned of {} drafts is forgotten, and audits begin anew\n",
                count("drafts")
            )
        })?;
        return Ok(true);
    }
    if let Some(path) = &args.export {
        let mut asked = vec![];
        if let Some(plugin) = &args.plugin {
            asked.push(format!("plugin={}", name(plugin)?));
        }
        if args.kept {
            asked.push("kept=true".to_owned());
        }
        let asked = match asked.is_empty() {
            true => "/v1/calibration/export".to_owned(),
            false => format!("/v1/calibration/export?{}", asked.join("&")),
        };
        // As it came: numbers are to be the same to the bit.
        let bytes = files::write_with(path, |file| Ok(client.copy(&asked, file)?))?;
        let answer = json!({ "file": path.display().to_string(), "bytes": bytes });
        output.answer(&answer, |_| format!("{}: {bytes} bytes\n", path.display()))?;
        return Ok(true);
    }
    if let Some(path) = &args.import {
        let text = files::read_text(path, MOST)?;
        let exported: Value = serde_json::from_str(&text).with_context(|| {
            format!("{} is no export of `msao node calibration`", path.display())
        })?;
        return import(&client, output, &exported);
    }
    if args.kept {
        let value = client.get("/v1/calibration/kept")?;
        output.answer(&value, kept)?;
        return Ok(true);
    }
    if args.acceptance {
        let value = client.get("/v1/calibration/acceptance")?;
        output.answer(&value, acceptance::words)?;
        return Ok(true);
    }
    let value = client.get("/v1/calibration")?;
    let learned = value
        .as_object()
        .context("the node's calibration is not understood: update this program")?;
    let text: String = learned
        .iter()
        .map(|(name, it)| words(&plain(name), it, args.cells))
        .collect();
    output.answer(&value, |_| match text.is_empty() {
        true => "no plug-in is active\n".to_owned(),
        false => text,
    })?;
    Ok(true)
}

/// A plug-in's name as it may stand in an address.
fn name(plugin: &str) -> anyhow::Result<&str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if plugin.is_empty() || !plugin.chars().all(plain) {
        bail!("\"{plugin}\" is no plug-in's name; `msao node calibration` lists them");
    }
    Ok(plugin)
}

/// Has a node take in what another has learned. False: not all of it fits.
fn import(client: &Client, output: Output, exported: &Value) -> anyhow::Result<bool> {
    let answer = client.post("/v1/calibration/import", exported)?;
    let list = |name: &str| {
        let list = answer.get(name).and_then(Value::as_array);
        list.cloned().unwrap_or_default()
    };
    let (taken, refused) = (list("taken"), list("refused"));
    let word = |it: &Value, name: &str| it.get(name).and_then(Value::as_str).map(plain);
    output.answer(&answer, |_| {
        let mut text = String::new();
        for it in &taken {
            let what = word(it, "what").unwrap_or_default();
            let much = ["cells", "drafts"].into_iter().filter_map(|unit| {
                let count = it.get(unit).and_then(Value::as_u64)?;
                Some(format!(": {count} {unit}"))
            });
            text.push_str(&format!("{what}{}\n", much.collect::<String>()));
        }
        for it in &refused {
            let (what, why) = (word(it, "what"), word(it, "why"));
            text.push_str(&format!(
                "{} not taken: {}\n",
                what.unwrap_or_default(),
                why.unwrap_or_default()
            ));
        }
        match text.is_empty() {
            true => "there was nothing in it\n".to_owned(),
            false => text,
        }
    })?;
    Ok(refused.is_empty())
}

/// Which cells are kept.
fn kept(value: &Value) -> String {
    let kept = value.get("kept").and_then(Value::as_array);
    let row = |it: &Value| {
        let word = |name: &str| it.pointer(name).and_then(Value::as_str).map(plain);
        let count = |name: &str| it.pointer(name).and_then(Value::as_u64).unwrap_or(0);
        let active = it.get("active").and_then(Value::as_bool) == Some(true);
        vec![
            word("/key/plugin").unwrap_or_default(),
            count("/key/state-schema").to_string(),
            word("/key/models").unwrap_or_default(),
            count("/cells").to_string(),
            if active { "active" } else { "-" }.to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = kept.into_iter().flatten().map(row).collect();
    match rows.is_empty() {
        true => "no cells are kept\n".to_owned(),
        false => table(&["plug-in", "schema", "models", "cells", ""], &rows),
    }
}

/// One plug-in's cells.
fn words(name: &str, calibration: &Value, most: usize) -> String {
    let column = |name: &str| {
        let values = calibration.get(name).and_then(Value::as_array);
        values.cloned().unwrap_or_default()
    };
    let (keys, mean, variance, count) = (
        column("keys"),
        column("mean"),
        column("variance"),
        column("count"),
    );
    if keys.is_empty() {
        return format!("{name}: nothing yet\n");
    }
    let figure = |values: &[Value], at: usize| {
        let value = values.get(at).and_then(Value::as_f64);
        value.map_or_else(|| "-".to_owned(), |it| format!("{it:.4}"))
    };
    let rows: Vec<Vec<String>> = keys
        .iter()
        .enumerate()
        .take(most)
        .map(|(at, key)| {
            vec![
                key.to_string(),
                figure(&count, at),
                figure(&mean, at),
                figure(&variance, at),
            ]
        })
        .collect();
    let more = keys.len().saturating_sub(most);
    let more = if more > 0 {
        format!("  and {more} more\n")
    } else {
        String::new()
    };
    format!(
        "{name}: {} cells\n{}{more}",
        keys.len(),
        table(&["key", "count", "mean", "variance"], &rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_listed_so_far() {
        let calibration =
            json!({"keys": [1, 9], "mean": [0.5, 2.0], "variance": [0.0], "count": [4.0, 7.0]});
        assert_eq!(
            words("patient", &calibration, 1),
            "patient: 2 cells\n  key   count    mean  variance\n    1  4.0000  0.5000    0.0000\n  and 1 more\n"
        );
        assert!(words("patient", &calibration, 5).contains("2.0000         -"));
        assert_eq!(words("patient", &json!({}), 5), "patient: nothing yet\n");
    }
}
