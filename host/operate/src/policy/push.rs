//! `msao policy push`.

use std::path::PathBuf;

use clap::Args;

use crate::connect::Common;
use crate::output::{bytes, plain};
use crate::plugin::Plugin;

/// Bring a plug-in to a node, without using it yet
///
/// The node checks the signature and compiles the component first, and refuses what does not do. Pushing what the node has
/// already changes nothing. Needs a token of the role push.
///
///   msao policy build policies/patient
///   msao policy push policies/patient
///   msao policy canary patient@0.2.0
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct PushArgs {
    /// A plug-in's folder, its policy.toml, or its .wasm with the manifest beside it.
    #[arg(value_name = "PLUG-IN")]
    path: PathBuf,
    #[command(flatten)]
    pub(super) common: Common,
}

pub fn run(args: &PushArgs) -> anyhow::Result<bool> {
    let client = args.common.client()?;
    let plugin = Plugin::read(&args.path)?;
    let answer = plugin.push(&client)?;
    let it = plugin.listed();
    args.common.output().answer(&answer, |_| {
        format!(
            "{} is at {}: {}, {}\nuse it: msao policy canary {}@{}\n",
            it.words(),
            client.url(),
            bytes(plugin.component_bytes() as f64),
            if it.signed { "signed" } else { "not signed" },
            plain(&it.name),
            it.version,
        )
    })?;
    Ok(true)
}
