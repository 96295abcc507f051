//! `msao explain`: why a request went where it did.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
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

/// The id as part of a path, if it can be one.
fn path_of(id: &str) -> anyhow::Result<String> {
    // The node takes paths as they come and undoes no escapes.
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte);
    match id.bytes().find(|byte| !fits(*byte)) {
        _ if id.is_empty() || id == "." || id == ".." => bail!("\"{id}\" is no request's id"),
        Some(byte) => bail!(
            "the id has {:?}, which a node cannot be asked for; `msao node decisions --json` holds its decision too",
            char::from(byte)
        ),
        None => Ok(format!("/v1/decisions/{id}")),
    }
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
    fn ids_become_paths_or_are_refused() {
        assert_eq!(path_of("req_3f-9:a").unwrap(), "/v1/decisions/req_3f-9:a");
        for wrong in ["", "..", "a/b", "a b", "a?b", "a%20b", "é"] {
            assert!(path_of(wrong).is_err(), "{wrong}");
        }
        assert_eq!(tame("a\n\u{1b}[2Jb"), "a\n [2Jb\n");
    }
}
