//! `msao config`: what a node would be told.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use msao_node::config::{Loaded, load};
use serde_json::{Value, json};

/// Look at a node's configuration without starting it.
#[derive(Subcommand)]
pub enum ConfigCommand {
    Check(CheckArgs),
    Show(ShowArgs),
}

/// Say what is wrong with a configuration: the key, its line, and what is allowed. Exit code 1 if anything is.
///
/// Variables such as MSAO_API__LISTEN, which override keys, are checked with it.
///
///   msao config check configs/edge.toml
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct CheckArgs {
    /// The file.
    file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Tell what is in force and where each value comes from: a line of the file, a variable of the environment, or the default.
///
///   msao config show configs/edge.toml
///   MSAO_API__LISTEN=127.0.0.1:9000 msao config show configs/edge.toml --changed
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct ShowArgs {
    /// The file.
    file: PathBuf,
    /// Leave out what is at its default.
    #[arg(long)]
    changed: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(command: &ConfigCommand) -> Result<()> {
    let text = match command {
        ConfigCommand::Check(args) => {
            let loaded = load(&args.file, environment())?;
            crate::serve::filter(&loaded.config.log)
                .with_context(|| loaded.origins.of("log.filter").to_string())?;
            let node = &loaded.config.node;
            if args.json {
                serde_json::to_string(&json!({ "name": node.name, "role": node.role }))?
            } else {
                let role = serde_json::to_value(node.role)?;
                let role = role.as_str().unwrap_or_default();
                format!(
                    "{}: good; node \"{}\", role {role}",
                    args.file.display(),
                    node.name
                )
            }
        }
        ConfigCommand::Show(args) => show(args, &load(&args.file, environment())?)?,
    };
    Ok(writeln!(std::io::stdout(), "{}", text.trim_end())?)
}

/// Variables that are no text are none of ours.
pub(crate) fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn show(args: &ShowArgs, loaded: &Loaded) -> Result<String> {
    let mut leaves = Vec::new();
    gather(
        &mut leaves,
        String::new(),
        serde_json::to_value(&loaded.config)?,
    );
    leaves.retain(|(_, value)| !value.is_null());
    let rows = leaves.into_iter().filter_map(|(key, value)| {
        let origin = loaded.origins.of(&key).to_string();
        (!args.changed || origin != "default").then_some((key, value, origin))
    });
    if args.json {
        let rows: serde_json::Map<String, Value> = rows
            .map(|(key, value, origin)| (key, json!({ "value": value, "from": origin })))
            .collect();
        return Ok(serde_json::to_string_pretty(&rows)?);
    }
    let rows: Vec<_> = rows
        .map(|(key, value, origin)| (format!("{key} = {value}"), origin))
        .collect();
    let width = rows.iter().map(|(left, _)| left.len()).max().unwrap_or(0);
    Ok(rows
        .into_iter()
        .map(|(left, origin)| format!("{left:width$}  # {origin}\n"))
        .collect())
}

/// All keys, dotted; lists of sections numbered from 0.
fn gather(leaves: &mut Vec<(String, Value)>, key: String, value: Value) {
    let below = |name: &str| match key.as_str() {
        "" => name.to_owned(),
        _ => format!("{key}.{name}"),
    };
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                gather(leaves, below(&name), value);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (number, item) in items.into_iter().enumerate() {
                gather(leaves, below(&number.to_string()), item);
            }
        }
        value => leaves.push((key, value)),
    }
}
