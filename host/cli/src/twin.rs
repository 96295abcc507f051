//! `msao model twin`: a random pair of a real size whose agreement is a dial.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use msao_engine::twin::{SHAPES, TwinOptions, make};

use crate::format::si;

/// Make a random target and a draft that agrees with it as often as asked, to measure speed with.
///
/// A twin computes what a trained model of its shape computes, at the same cost, and its text means nothing: it claims
/// speed only, at retention 1. The draft is the target's own first layers with the same embedding, last norm and
/// head; what the target's other layers add is scaled until the two choose the same token as often as wanted.
///
/// Written are OUT/target and OUT/draft, Hugging Face directories that `msao chat` and transformers load, and
/// OUT/twin.json with the agreement reached. The search holds one layer at a time and looks at random tokens in f32;
/// then the written pair is measured on the target's greedy answers and corrected, where the memory holds both models.
#[derive(Args)]
pub struct TwinArgs {
    /// demo, 0.5b, 1.5b, 3b, 7b (Qwen2.5's sizes), or a directory whose config.json gives the sizes.
    #[arg(long, value_name = "SHAPE")]
    shape: String,
    /// Layers of the draft: from 1 to one fewer than the target's.
    #[arg(long, value_name = "N")]
    draft_layers: usize,
    /// How often draft and target choose the same token, above 0 and at most 1.
    #[arg(long, value_name = "A")]
    agreement: f64,
    /// The folder to make.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Which twin: the same seed gives the same bytes.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Type of the stored weights.
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = Stored::Bf16)]
    dtype: Stored,
    /// A Qwen2.5-Omni thinker's directory; tokenizer, template and preprocessor files, and towers for shapes without, are
    /// taken from it.
    #[arg(long, value_name = "DIR", default_value = "models/demo-target")]
    tokenizer: PathBuf,
    /// Threads that one operation may use [default: all cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Stored {
    F32,
    Bf16,
}

pub fn run(args: &TwinArgs) -> Result<()> {
    if let Some(threads) = args.threads {
        msao_engine::set_threads(threads.into());
    }
    let options = TwinOptions {
        shape: args.shape.clone(),
        draft_layers: args.draft_layers,
        agreement: args.agreement,
        seed: args.seed,
        bf16: args.dtype == Stored::Bf16,
        tokenizer: args.tokenizer.clone(),
        out: args.out.clone(),
    };
    let twin = make(&options, &mut |step| eprintln!("{step}"))?;
    let named = SHAPES.iter().find(|(name, _)| *name == twin.shape);
    let what = named.map_or(String::new(), |(_, what)| format!(" ({what})"));
    let how = match &twin.measured {
        Some(measured) => format!(
            "measured on {} tokens of greedy answers, {:.0} % of them fresh",
            measured.tokens,
            100.0 * measured.fresh
        ),
        None => format!("estimated on {} random tokens", twin.estimate.positions),
    };
    writeln!(
        std::io::stdout(),
        "{}: twin of shape {}{what}\n  target      {} layers, {} parameters, {}\n  draft       {} layers, {} parameters\n  \
         agreement   {:.1} % ({how}); asked for {:.1} %\n  claim       {}",
        args.out.display(),
        twin.shape,
        twin.target_layers,
        si(twin.target_parameters as f64),
        twin.dtype,
        twin.draft_layers,
        si(twin.draft_parameters as f64),
        100.0 * twin.reached,
        100.0 * twin.asked,
        twin.claim,
    )?;
    Ok(())
}
