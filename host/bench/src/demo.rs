//! `msao-demo`: called by `cargo xtask demo` and `cargo xtask record`.
#![forbid(unsafe_code)]
#![allow(clippy::print_stderr)] // a command says why it ends

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use msao_bench::nodes::demo::{Places, run};
use msao_bench::nodes::record::record;

/// Two nodes with a slow link between them, every route, and another policy while requests run.
#[derive(Parser)]
#[command(name = "msao-demo", version)]
struct Args {
    /// The msao program.
    #[arg(long)]
    msao: PathBuf,
    /// The folder of the demo's models and media.
    #[arg(long, default_value = "models")]
    models: PathBuf,
    /// The folder of components.
    #[arg(long)]
    plugins: PathBuf,
    /// A folder for the nodes' state and logs.
    #[arg(long)]
    work: PathBuf,
    /// Leave both nodes running until Ctrl-C.
    #[arg(long)]
    stay: bool,
    /// Show nothing, and write what nodes record of each policy's decisions into this folder.
    #[arg(long, requires = "policies", conflicts_with = "stay")]
    record: Option<PathBuf>,
    /// The folder with a folder of each policy that is recorded.
    #[arg(long, requires = "record")]
    policies: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    let places = Places {
        msao: absolute(args.msao),
        models: absolute(args.models),
        plugins: absolute(args.plugins),
        work: absolute(args.work),
        stay: args.stay,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let recording = args.policies.zip(args.record);
    let ran = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| match recording {
            Some((policies, out)) => {
                runtime.block_on(record(&places, &absolute(policies), &absolute(out)))
            }
            None => runtime.block_on(run(&places)),
        });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("msao-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
