//! `msao node whoami`.

use clap::Args;
use serde_json::Value;

use crate::connect::Common;
use crate::output::plain;

/// Tell as whom a node knows you, and what you may do there
///
/// The name is that of your token in [operator.tokens] of the node's configuration, as it stands in the node's audit log and
/// in `msao policy history`. A node without tokens takes everyone on its machine for `local`.
///
///   msao node whoami
///   msao node whoami --token-file operator.token --json
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct WhoamiArgs {
    #[command(flatten)]
    pub(super) common: Common,
}

pub fn run(args: &WhoamiArgs) -> anyhow::Result<bool> {
    let client = args.common.client()?;
    let answer = client.get("/v1/whoami")?;
    args.common.output().answer(&answer, |answer| {
        let word = |key: &str| {
            let word = answer.get(key).and_then(Value::as_str);
            word.map_or_else(|| "?".to_owned(), plain)
        };
        format!(
            "{}, role {}, at {}\n",
            word("name"),
            word("role"),
            client.url()
        )
    })?;
    Ok(true)
}
