//! `msao explain`: why a request went where it did.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::connect::Common;
use crate::output::say;

/// Tell why a request went where it did
///
/// What the plug-ins saw, what they said, what the host did otherwise, and what came of it. The id stands in the answer's
/// header x-request-id; `msao node decisions` lists the newest. Ask the node that the client spoke to.
///
///   msao explain req_3f9a12bc
///   msao explain req_3f9a12bc --json > decision.json
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct ExplainArgs {
    /// The request's id.
    #[arg(value_name = "REQUEST-ID")]
    id: String,
    #[command(flatten)]
    common: Common,
}

/// What stands for itself in a part of a path.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The id as part of a path.
fn path_of(id: &str) -> anyhow::Result<String> {
    // Whoever hands paths on takes dots alone for steps between folders, escaped or not.
    if ["", ".", ".."].contains(&id) {
        bail!("\"{id}\" is no request's id");
    }
    Ok(format!(
        "/v1/decisions/{}",
        utf8_percent_encode(id, ESCAPED)
    ))
}

impl ExplainArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// What went wrong and what to do about it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let output = self.common.output();
        output.or_error(self.ask())
    }

    fn ask(self) -> anyhow::Result<ExitCode> {
        let (client, output) = (self.common.client()?, self.common.output());
        let path = path_of(&self.id)?;
        if output.json {
            let record: Value = client.get(&path)?;
            output.answer(&record, |_| String::new())?;
        } else {
            say(&tame(&client.text(&format!("{path}/words"))?))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The node's words, without what would steer a terminal: names of plug-ins' reasons are in them.
fn tame(text: &str) -> String {
    text.lines()
        .map(|line| format!("{}\n", crate::output::plain(line)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_become_paths() {
        for (id, path) in [
            ("req_3f-9.a", "req_3f-9.a"),
            ("a/b", "a%2Fb"),
            ("a b?c#d", "a%20b%3Fc%23d"),
            ("a%20b", "a%2520b"),
            ("\u{e9}", "%C3%A9"),
        ] {
            assert_eq!(path_of(id).unwrap(), format!("/v1/decisions/{path}"));
        }
        for wrong in ["", ".", ".."] {
            assert!(path_of(wrong).is_err(), "{wrong}");
        }
        assert_eq!(tame("a\n\u{1b}[2Jb"), "a\n [2Jb\n");
    }
}
