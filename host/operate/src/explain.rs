//! `msao explain`: why a request went where it did.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::client::ClientError;
use crate::connect::Common;
use crate::output::say;
use crate::overlay::{self, Written};

/// Tell why a request went where it did
///
/// What the plug-ins saw, what they said, what the host did otherwise, and what came of it; how each medium was scored, what was
/// kept of it for either model, and which term decided. The id stands in the answer's header x-request-id; `msao node decisions`
/// lists the newest. Ask the node that the client spoke to.
///
/// With --overlay what was kept is drawn: the kept tokens over an image, the kept frames of a clip as a strip (under it a bar with
/// a place for each frame), the kept segments of a sound over its wave. From left to right what the draft model read (blue frame)
/// and what the target read (orange frame); what was dropped is grey and dark. A node keeps no media: --media gives the files, to
/// the byte as the client sent them. Media without a file are drawn as a grey ground.
///
///   msao explain req_3f9a12bc
///   msao explain req_3f9a12bc --json > decision.json
///   msao explain req_3f9a12bc --overlay kept.png --media photo.jpg --media question.wav
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct ExplainArgs {
    /// The request's id.
    #[arg(value_name = "REQUEST-ID")]
    id: String,
    /// Draw what was kept of the media into this file, a PNG.
    #[arg(long, value_name = "FILE")]
    overlay: Option<PathBuf>,
    /// A medium of the request, to draw over; once for each, in the prompt's order.
    #[arg(long, value_name = "FILE", requires = "overlay")]
    media: Vec<PathBuf>,
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
        let record = match output.json || self.overlay.is_some() {
            true => client.get(&path)?,
            false => Value::Null,
        };
        let overlay = (self.overlay.as_ref())
            .map(|out| overlay::write(&record, &self.media, out))
            .transpose()?;
        if output.json {
            let account = match client.get(&format!("{path}/account")) {
                Ok(account) => Some(account),
                // A node that is older than this program has none.
                Err(ClientError::NotFound { .. }) => None,
                Err(error) => return Err(error.into()),
            };
            let told = with_all(record, account, overlay.as_ref());
            output.answer(&told, |_| String::new())?;
        } else {
            say(&tame(&client.text(&format!("{path}/words"))?))?;
            if let Some(written) = overlay {
                output.note(drawn(&written));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The record, with its account and what was drawn beside its own keys.
fn with_all(mut record: Value, account: Option<Value>, overlay: Option<&Written>) -> Value {
    if let Some(fields) = record.as_object_mut() {
        if let Some(account) = account {
            fields.insert("account".to_owned(), account);
        }
        if let Some(written) = overlay {
            fields.insert("overlay".to_owned(), json!(written));
        }
    }
    record
}

/// What was drawn, in a line.
fn drawn(written: &Written) -> String {
    let unseen = match written.unseen {
        0 => String::new(),
        1 => "; one medium without a file (--media) is grey".to_owned(),
        count => format!("; {count} media without a file (--media) are grey"),
    };
    format!(
        "{}: {} x {} pixels{unseen}",
        written.file.display(),
        written.width,
        written.height
    )
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
