//! `msao policy tune`.

use std::path::PathBuf;

use clap::Args;
use msao_core::offload::manifest::Value as Tuned;
use serde_json::{Map, Value, json};

use super::change::{Condition, tell};
use crate::connect::Common;
use crate::output::plain;
use crate::revision::Revision;

/// Change parameters of an active plug-in
///
/// The manifest says which parameters there are and what they may be (`msao policy inspect`). NAME= alone goes back to the
/// default. What the node's configuration pins stays as it is. --gradually makes it a canary. --from takes plug-in and values
/// from a file that `msao calibrate` has written.
///
///   msao policy tune patient rtt-limit=80 mode=exact --gradually
///   msao policy tune patient rtt-limit=
///   msao policy tune --from revision.json --gradually
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct TuneArgs {
    /// The plug-in's name.
    #[arg(value_name = "PLUG-IN", required_unless_present = "from")]
    plugin: Option<String>,
    /// Parameters and their values.
    #[arg(value_name = "NAME=VALUE", required_unless_present = "from", value_parser = assignment)]
    values: Vec<(String, Option<Tuned>)>,
    /// A revision of parameters, as `msao calibrate` writes it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["plugin", "values"])]
    from: Option<PathBuf>,
    /// For a share of the sessions first, as a canary.
    #[arg(long)]
    gradually: bool,
    #[command(flatten)]
    condition: Condition,
    #[command(flatten)]
    pub(super) common: Common,
}

/// `true` and `false` are switches, what reads as a number is one, everything else is a choice's name.
fn assignment(text: &str) -> Result<(String, Option<Tuned>), String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("\"{text}\" is no NAME=VALUE"))?;
    let value = match value {
        "" => None,
        "true" => Some(Tuned::Bool(true)),
        "false" => Some(Tuned::Bool(false)),
        _ => Some(match (value.parse::<i64>(), value.parse::<f64>()) {
            (Ok(whole), _) => Tuned::Int(whole),
            (_, Ok(number)) if number.is_finite() => Tuned::Float(number),
            _ => Tuned::Text(value.to_owned()),
        }),
    };
    Ok((name.to_owned(), value))
}

pub fn run(args: &TuneArgs) -> anyhow::Result<bool> {
    let (client, output) = (args.common.client()?, args.common.output());
    let (plugin, body) = match &args.from {
        Some(file) => {
            let revision = Revision::read(file)?;
            let body = revision.body(args.gradually);
            (revision.plugin, body)
        }
        None => given(args)?,
    };
    let how = if args.gradually {
        "tuned, as a canary"
    } else {
        "tuned"
    };
    tell(
        &client,
        output,
        "/v1/tune",
        &args.condition.on(body),
        &format!("{}: {how}", plain(&plugin)),
    )
}

/// The plug-in, and what the node is sent.
fn given(args: &TuneArgs) -> anyhow::Result<(String, Value)> {
    let plugin = args.plugin.clone().unwrap_or_default();
    let mut values = Map::new();
    for (name, value) in &args.values {
        if values.insert(name.clone(), json!(value)).is_some() {
            anyhow::bail!("{name} is given twice: give it once");
        }
    }
    let body =
        json!({ "plugin": plugin, "values": Value::Object(values), "gradually": args.gradually });
    Ok((plugin, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_a_manifest_writes_them() {
        let read = |text: &str| assignment(text).map(|(_, value)| json!(value));
        for (text, value) in [
            ("a=80", json!(80)),
            ("a=80.5", json!(80.5)),
            ("a=-3", json!(-3)),
            ("a=true", json!(true)),
            ("a=exact", json!("exact")),
            ("a=", Value::Null),
            ("a=x=y", json!("x=y")),
            ("a=nan", json!("nan")),
        ] {
            assert_eq!(read(text), Ok(value), "{text}");
        }
        assert!(read("a").is_err() && read("=3").is_err());
    }
}
