//! `msao node decisions`.

use std::io;
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use crate::client::ClientError;
use crate::connect::Common;
use crate::files;
use crate::output::{ago, now_s, plain, table};

/// List a node's newest decisions, or take them along to replay them elsewhere
///
/// A decision is everything that the plug-ins were given and answered for one request. `msao explain ID` tells one in words.
///
///   msao node decisions --last 50
///   msao node decisions --last 1000 --jsonl --out decisions.jsonl
///   msao policy replay decisions.jsonl policies/patient
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct DecisionsArgs {
    /// How many.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    last: u32,
    /// Write JSON lines, each decision with the calibration that it was given, as `msao policy replay` reads them.
    #[arg(long, conflicts_with = "json")]
    jsonl: bool,
    /// The file to write them to instead of standard output.
    #[arg(long, value_name = "FILE", requires = "jsonl")]
    out: Option<PathBuf>,
    #[command(flatten)]
    pub(super) common: Common,
}

const ROUTES: [&str; 4] = ["edge", "cloud", "cloud-draft", "speculate"];
const STATUSES: [&str; 5] = ["answered", "degraded", "cancelled", "refused", "failed"];

/// A decision in a line.
fn row(record: &Value, now_s: f64) -> Vec<String> {
    let word = |at: &str| record.pointer(at).and_then(Value::as_str).map(plain);
    let number = |at: &str| record.pointer(at).and_then(Value::as_f64);
    let named = |at: &str, names: &[&str]| {
        let number = record.pointer(at).and_then(Value::as_u64)?;
        names
            .get(usize::try_from(number).ok()?)
            .map(|name| (*name).to_owned())
    };
    let none = || "-".to_owned();
    let figure = |at: &str| {
        number(at)
            .filter(|it| *it >= 0.0)
            .map_or_else(none, |it| format!("{it:.0}"))
    };
    let changed = number("/outcome/overrides").is_some_and(|it| it != 0.0);
    let route = named("/outcome/route", &ROUTES)
        .or_else(|| word("/ran/route"))
        .unwrap_or_else(none);
    vec![
        word("/id").unwrap_or_else(none),
        number("/request/now-ms").map_or_else(none, |it| ago(it, now_s)),
        word("/generation/policy")
            .map_or_else(|| "fallback".to_owned(), |it| it.chars().take(12).collect()),
        route,
        if changed { "yes" } else { "-" }.to_owned(),
        named("/outcome/status", &STATUSES).unwrap_or_else(|| "under way".to_owned()),
        figure("/outcome/tokens"),
        figure("/outcome/ttft-ms"),
        figure("/outcome/total-ms"),
    ]
}

pub fn run(args: &DecisionsArgs) -> anyhow::Result<bool> {
    let (client, output) = (args.common.client()?, args.common.output());
    if args.jsonl {
        let path = format!("/v1/decisions?last={}&as=jsonl", args.last);
        match &args.out {
            Some(out) => {
                let bytes = files::write_with(out, |file| Ok(client.copy(&path, file)?))?;
                output.note(format_args!(
                    "{}: {}",
                    out.display(),
                    crate::output::bytes(bytes as f64)
                ));
            }
            None => match client.copy(&path, &mut io::stdout().lock()) {
                // As it came: whoever calls this takes a reader that has gone for no failure.
                Err(ClientError::Local(error)) => return Err(error.into()),
                copied => drop(copied?),
            },
        }
        return Ok(true);
    }
    let value = client.get(&format!("/v1/decisions?last={}", args.last))?;
    output.answer(&value, |value| {
        let records = value.get("decisions").and_then(Value::as_array);
        let now_s = now_s();
        let rows: Vec<_> = records
            .into_iter()
            .flatten()
            .map(|it| row(it, now_s))
            .collect();
        if rows.is_empty() {
            return "no decision is kept: nothing was asked yet, or [records] keeps none\n"
                .to_owned();
        }
        let head = [
            "id",
            "when",
            "policy",
            "route",
            "overridden",
            "became",
            "tokens",
            "first ms",
            "total ms",
        ];
        table(&head, &rows)
    })?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_decisions_have_a_line_each() {
        let packed = include_bytes!("../../../../tests/data/decisions/fixed-speculate.jsonl.zst");
        let text = String::from_utf8(zstd::decode_all(&packed[..]).unwrap()).unwrap();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let records: Vec<Value> = lines
            .filter_map(|line| line.get("decision").cloned())
            .collect();
        assert!(!records.is_empty());
        for record in &records {
            let row = row(record, 1_767_225_700.0);
            assert_eq!(row[0], record["id"].as_str().unwrap());
            assert!(row[1].ends_with(" ago"), "{row:?}");
            assert!(ROUTES.contains(&row[3].as_str()), "{row:?}");
            assert!(STATUSES.contains(&row[5].as_str()), "{row:?}");
        }
        assert_eq!(row(&Value::Null, 0.0)[2], "fallback");
    }
}
