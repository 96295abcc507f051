//! `msao policy doctor`.

use clap::Args;
use msao_guests::{Language, Tools};
use serde::Serialize;

use crate::output::Output;

/// Say which languages' tools are there, and what to install
///
/// Looks where `msao policy build` looks. Exit code 1 when no language can be built, or the one that is asked for cannot.
///
///   msao policy doctor
///   msao policy doctor --lang python
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct DoctorArgs {
    /// Only this language: rust, c, javascript or python.
    #[arg(long)]
    lang: Option<Language>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Row {
    language: &'static str,
    ready: bool,
    /// The tool and its version, or what is missing and the way to get it.
    says: String,
}

pub fn run(args: &DoctorArgs, output: Output) -> anyhow::Result<bool> {
    let tools = Tools::find();
    let rows: Vec<Row> = (Language::ALL.into_iter())
        .filter(|language| args.lang.is_none_or(|wanted| wanted == *language))
        .map(|language| {
            let state = tools.state(language);
            let ready = state.is_ok();
            let (Ok(says) | Err(says)) = state;
            Row {
                language: language.name(),
                ready,
                says,
            }
        })
        .collect();
    output.answer(&rows, |rows| {
        rows.iter()
            .map(|row| {
                let state = if row.ready { "ready  " } else { "missing" };
                format!("{state}  {:<11} {}\n", row.language, row.says)
            })
            .collect()
    })?;
    Ok(rows.iter().any(|row| row.ready))
}
