//! `msao node failures`.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

use crate::connect::Common;
use crate::files;
use crate::output::{ago, bytes, now_s, plain, table};

/// List the inputs on which plug-ins have failed on a node, or pull one to replay it
///
/// A node keeps each input that made a plug-in trap, run too long, eat memory or answer nonsense, once, however often it
/// came. With --json: {"failures": [..]}.
///
///   msao node failures
///   msao node failures --pull 3f9a
///   msao policy run policies/patient 3f9a12bc00d4e561.json
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct FailuresArgs {
    /// The failure to pull: its id, or how it begins.
    #[arg(long, value_name = "ID")]
    pull: Option<String>,
    /// The file to write instead of ID.json in this folder.
    #[arg(long, value_name = "FILE", requires = "pull")]
    out: Option<PathBuf>,
    #[command(flatten)]
    pub(super) common: Common,
}

fn ids(failures: &[Value]) -> Vec<&str> {
    failures
        .iter()
        .filter_map(|it| it.get("id").and_then(Value::as_str))
        .collect()
}

/// The one id that begins so.
fn only<'a>(ids: &[&'a str], prefix: &str) -> anyhow::Result<&'a str> {
    let found: Vec<&'a str> = ids
        .iter()
        .copied()
        .filter(|id| id.starts_with(prefix))
        .collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => bail!("no failure's id begins with {prefix}; `msao node failures` lists them"),
        many => bail!(
            "{} failures' ids begin with {prefix}; say more of it",
            many.len()
        ),
    }
}

fn row(failure: &Value, now_s: f64) -> Vec<String> {
    let word = |at: &str| {
        failure
            .get(at)
            .and_then(Value::as_str)
            .map(plain)
            .unwrap_or_default()
    };
    let number = |at: &str| failure.get(at).and_then(Value::as_f64).unwrap_or(0.0);
    vec![
        word("id"),
        ago(number("at-ms"), now_s),
        word("plugin"),
        word("export"),
        word("kind"),
        bytes(number("memory-peak")),
        format!("{:.1} ms", number("elapsed-ms")),
        word("message").chars().take(80).collect(),
    ]
}

pub fn run(args: &FailuresArgs) -> anyhow::Result<bool> {
    let (client, output) = (args.common.client()?, args.common.output());
    let value = client.get("/v1/failures")?;
    let failures = value.get("failures").and_then(Value::as_array);
    let failures = failures.context("the node's list is not understood: update this program")?;
    let Some(prefix) = &args.pull else {
        output.answer(&value, |_| {
            if failures.is_empty() {
                return "no plug-in's failure is kept\n".to_owned();
            }
            let now_s = now_s();
            let rows: Vec<_> = failures.iter().map(|it| row(it, now_s)).collect();
            table(
                &[
                    "id", "when", "plug-in", "call", "kind", "memory", "time", "message",
                ],
                &rows,
            )
        })?;
        return Ok(true);
    };
    let id = only(&ids(failures), prefix)?;
    // It becomes a path, here and there.
    if !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        bail!("the node's id {id:?} is none that this program knows");
    }
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{id}.json")));
    files::write_with(&out, |file| {
        Ok(client.copy(&format!("/v1/failures/{id}"), file)?)
    })?;
    let failure = failures
        .iter()
        .find(|it| it.get("id").and_then(Value::as_str) == Some(id));
    output.answer(&failure, |_| {
        format!(
            "{0}: replay it with `msao policy run PLUG-IN {0}`\n",
            out.display()
        )
    })?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_id_means_one_failure_or_none() {
        let ids = ["3f9a12", "3f9b00", "77aa"];
        assert_eq!(only(&ids, "3f9a").unwrap(), "3f9a12");
        assert!(
            only(&ids, "3f9")
                .unwrap_err()
                .to_string()
                .contains("2 failures")
        );
        assert!(
            only(&ids, "00")
                .unwrap_err()
                .to_string()
                .contains("lists them")
        );
    }
}
