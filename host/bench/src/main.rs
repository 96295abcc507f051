//! `msao-prove NAME`: measures what must be shown. `cargo xtask prove NAME` sets up, builds and runs it.
#![forbid(unsafe_code)]
// A prover's business is to print.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use msao_bench::proof::{Part, prove};
use msao_bench::report::Row;
use msao_bench::{
    adaptive, evaluation, hostile, loading, nodes, pair, parity, sampler, serving, speed,
};
use msao_engine::{Place, Precision};

/// Measures what must be shown: a row a figure, with its aim and whether it is met. Exit code 1 while one is missed.
#[derive(Parser)]
#[command(name = "msao-prove", version)]
struct Cli {
    #[command(subcommand)]
    proof: Proof,
}

#[derive(Subcommand)]
enum Proof {
    /// Parity with Hugging Face, the demo pair's figures, the sampler, bad input, memory while loading.
    Engine(EngineArgs),
    /// The engine for serving: its speed beside Hugging Face's.
    Serving(ServingArgs),
    /// An edge and a cloud node as processes: identity, policies exchanged under load, processes killed.
    Nodes(NodesArgs),
    /// Modality sparsity and adaptation: what scores mean, what pruning costs, the guarantee, tuning.
    Adaptive(adaptive::Args),
    /// The evaluation against baselines, in a grid of at most half an hour: latency, operations, caches, goodput.
    Bench(evaluation::Args),
    #[command(name = sampler::TOKENS_COMMAND, hide = true)]
    SamplerTokens,
    #[command(name = loading::LOAD_COMMAND, hide = true)]
    LoadMemory { dir: PathBuf, precision: String },
    #[command(name = speed::ours::COMMAND, hide = true)]
    ServingSpeed {
        dir: PathBuf,
        precision: String,
        weights: String,
        threads: usize,
        place: Place,
    },
}

#[derive(clap::Args)]
struct EngineArgs {
    /// Where the demo pair computes: cpu, cuda or cuda:N. Parity is always judged on the processor.
    #[arg(long, default_value = "cpu")]
    device: Place,
    /// Show these parts only: parity, pair, sampler, input, loading. May be given several times.
    #[arg(long, value_name = "PART", value_parser = PARTS)]
    only: Vec<String>,
    /// Ask the demo pair only each N-th held-out question.
    #[arg(long, value_name = "N", default_value_t = 1)]
    every: usize,
    /// The folder that holds demo-target, demo-draft and heldout [default: this checkout's models].
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Where the figures are written [default: target/prove/engine.json; engine-partial.json for a part].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(clap::Args)]
struct ServingArgs {
    /// Where both sides compute: cpu, cuda or cuda:N.
    #[arg(long, default_value = "cpu")]
    device: Place,
    /// Minutes of the soak.
    #[arg(long, value_name = "MINUTES", default_value_t = 20.0)]
    minutes: f64,
    /// Show these parts only: equality, speed, cost, service, probe, soak. May be given several times.
    #[arg(long, value_name = "PART", value_parser = SERVING_PARTS)]
    only: Vec<String>,
    /// Compare these models only, and use them only through the service: demo, 0.5b. May be given several times.
    #[arg(long, value_name = "MODEL", value_parser = ["demo", "0.5b"])]
    model: Vec<String>,
    /// Threads for both sides [default: all cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Ways in which Hugging Face may run, the fastest of which counts: eager, static, compile.
    #[arg(long, value_name = "MODES", default_value = "eager,static")]
    reference_modes: String,
    /// Seconds that Hugging Face may take for a figure in each way, about; longer prompts and answers are cut for both.
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    reference_seconds: f64,
    /// The folder that holds demo-target [default: this checkout's models].
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Where the figures are written [default: target/prove/serving.json; serving-partial.json for a part].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl ServingArgs {
    /// Whether less is measured than the aims are for, though all parts may be.
    fn is_cut(&self) -> bool {
        let modes: Vec<&str> = self.reference_modes.split(',').collect();
        !self.model.is_empty()
            || self.minutes < 20.0
            || self.reference_seconds < 30.0
            || !["eager", "static"].iter().all(|mode| modes.contains(mode))
    }
}

#[derive(clap::Args)]
struct NodesArgs {
    /// Show these parts only: identity, link, paced, swaps, faults, floods, overload, overhead. May be given several times.
    #[arg(long, value_name = "PART", value_parser = NODE_PARTS)]
    only: Vec<String>,
    /// The folder that holds demo-target, demo-draft and heldout [default: this checkout's models].
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// The folder of components that `cargo xtask plugins` makes [default: plugins in cargo's target folder].
    #[arg(long, value_name = "DIR")]
    plugins: Option<PathBuf>,
    /// Where the figures are written [default: target/prove/nodes.json; nodes-partial.json for a part].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

const NODE_PARTS: [&str; 8] = [
    "identity", "link", "paced", "swaps", "faults", "floods", "overload", "overhead",
];
const SERVING_PARTS: [&str; 6] = ["equality", "speed", "cost", "service", "probe", "soak"];
const PARTS: [&str; 5] = ["parity", "pair", "sampler", "input", "loading"];

fn main() -> ExitCode {
    let result = match Cli::parse().proof {
        Proof::Engine(args) => engine(&args),
        Proof::SamplerTokens => sampler::tokens().map(|tokens| {
            println!("{tokens}");
            true
        }),
        Proof::LoadMemory { dir, precision } => {
            loading::load_and_tell(&dir, &precision).map(|()| true)
        }
        Proof::Serving(args) => serving(&args),
        Proof::Nodes(args) => nodes(&args),
        Proof::Adaptive(args) => adaptive::run(&args),
        Proof::Bench(args) => evaluation::run(&args),
        Proof::ServingSpeed {
            dir,
            precision,
            weights,
            threads,
            place,
        } => speed::ours::serve(&dir, &precision, &weights, threads, place).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("msao-prove: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn engine(args: &EngineArgs) -> Result<bool> {
    // Before anything else with libtorch: see there.
    args.device.open()?;
    let prover = std::env::current_exe().context("this program's own path")?;
    let msao = prover.with_file_name("msao");
    let own = || msao_golden::root().join("../../models");
    let models = args.models.clone().unwrap_or_else(own);
    let omni = msao_golden::root().join("models/omni-thinker");
    let parts: [Part; 5] = [
        (
            "parity",
            "Parity with Hugging Face transformers on tiny random checkpoints",
            Box::new(parity::rows),
        ),
        (
            "sampler",
            "The coupled sampler against the softmax",
            Box::new(|| sampler::rows(&prover)),
        ),
        (
            "input",
            "Bad input",
            Box::new(|| hostile::rows(need(&msao)?, &omni)),
        ),
        (
            "loading",
            "Memory while loading",
            Box::new(|| loading::rows(&prover)),
        ),
        (
            "pair",
            "The demo pair on held-out questions",
            Box::new(|| pair::rows(&models, args.device, args.every)),
        ),
    ];
    prove(
        "engine",
        &parts,
        &args.only,
        args.every > 1,
        args.out.as_deref(),
    )
}

/// An edge and a cloud node, each a process on a core of its own.
fn nodes(args: &NodesArgs) -> Result<bool> {
    let prover = std::env::current_exe().context("this program's own path")?;
    let beside = |name: &str| prover.with_file_name(name);
    let folder = prover.parent().and_then(Path::parent);
    let models = args.models.clone();
    let plugins = args.plugins.clone();
    let places = nodes::pair::Places {
        msao: beside("msao"),
        models: models.unwrap_or_else(|| msao_golden::root().join("../../models")),
        plugins: plugins
            .or_else(|| folder.map(|folder| folder.join("plugins")))
            .context("the folder of components: give --plugins")?,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let scratch = Path::new("target/prove");
    let parts: [Part; 8] = [
        (
            "identity",
            "Whatever drafts, and whatever the link does, the tokens are the target's (edge on core 0 with the client, cloud on core 1)",
            Box::new(|| runtime.block_on(nodes::identity::rows(&places))),
        ),
        (
            "link",
            "Hiding the link: a twin (edge on core 0 with the client, cloud on core 1)",
            Box::new(|| runtime.block_on(nodes::link::rows(&places, scratch))),
        ),
        (
            "paced",
            "Hiding the link: engines that take a given time (one process; nothing is shared)",
            Box::new(|| runtime.block_on(nodes::link::paced(&places))),
        ),
        (
            "swaps",
            "Policies exchanged under load",
            Box::new(|| runtime.block_on(nodes::swaps::rows(&places))),
        ),
        (
            "faults",
            "Processes killed",
            Box::new(|| runtime.block_on(nodes::faults::rows(&places))),
        ),
        (
            "floods",
            "Clients and peers that mean harm, while others ask",
            Box::new(|| runtime.block_on(nodes::floods::rows(&places))),
        ),
        (
            "overload",
            "More requests than can be served (edge on core 0 with the clients, cloud on core 1)",
            Box::new(|| runtime.block_on(nodes::overload::rows(&places))),
        ),
        (
            "overhead",
            "A node by itself, with an engine that answers at once, beside a bare server of the same bytes (one process, node and client together)",
            Box::new(|| runtime.block_on(nodes::overhead::rows(&places))),
        ),
    ];
    prove("nodes", &parts, &args.only, false, args.out.as_deref())
}

fn serving(args: &ServingArgs) -> Result<bool> {
    // Before anything else with libtorch: see there.
    args.device.open()?;
    let prover = std::env::current_exe().context("this program's own path")?;
    let models = args
        .models
        .clone()
        .unwrap_or_else(|| msao_golden::root().join("../../models"));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let compare = || {
        speed::rows(&speed::Options {
            prover: &prover,
            models: &models,
            scratch: Path::new("target/prove"),
            place: args.device,
            threads: args.threads.map_or(cores, usize::from),
            modes: &args.reference_modes,
            reference_seconds: args.reference_seconds.clamp(1.0, 1e5),
            only: &args.model,
        })
    };
    let threads = args.threads.map_or(cores, usize::from);
    let twin = || speed::twin(Path::new("target/prove"), &models);
    let demo = models.join("demo-target");
    let own_kernels = msao_engine::machine::own_kernels().is_some();
    let twin_precision = if args.device == Place::Cpu && !own_kernels {
        // libtorch multiplies bf16 some hundred times slower there than f32: nobody would run it.
        Precision::F32
    } else {
        Precision::Bf16
    };
    let probe = || -> Result<Vec<Row>> {
        msao_engine::set_threads(threads);
        let mut rows = serving::probe::rows(&demo, "demo target", args.device, Precision::F32)?;
        rows.extend(serving::probe::rows(
            &twin()?,
            "0.5B twin",
            args.device,
            twin_precision,
        )?);
        Ok(rows)
    };
    let through = || -> Result<Vec<Row>> {
        msao_engine::set_threads(threads);
        let through = serving::through::rows;
        let wanted = |name: &str| args.model.is_empty() || args.model.iter().any(|m| m == name);
        let mut rows = Vec::new();
        if wanted("demo") {
            rows.extend(through(&demo, "demo target", args.device, Precision::F32)?);
        }
        if wanted("0.5b") {
            rows.extend(through(&twin()?, "0.5B twin", args.device, twin_precision)?);
        }
        Ok(rows)
    };
    let parts: [Part; 6] = [
        (
            "equality",
            "Batching, drafting, pruning and caching change nothing (demo target, f32)",
            Box::new(|| serving::equality::rows(&models, args.device)),
        ),
        (
            "speed",
            "Speed beside Hugging Face's generate",
            Box::new(compare),
        ),
        (
            "cost",
            "What verifying and batching cost (0.5B twin)",
            Box::new(|| serving::cost::rows(&twin()?, args.device, twin_precision, threads)),
        ),
        (
            "service",
            "Through the service: answers at once, and a burst of pictures",
            Box::new(through),
        ),
        ("probe", "What the probe costs", Box::new(probe)),
        (
            "soak",
            "A soak: random arrivals, cancels, rollbacks (demo target)",
            Box::new(|| {
                let length =
                    std::time::Duration::from_secs_f64(60.0 * args.minutes.clamp(0.1, 1e4));
                serving::soak::rows(&models, args.device, length)
            }),
        ),
    ];
    prove(
        "serving",
        &parts,
        &args.only,
        args.is_cut(),
        args.out.as_deref(),
    )
}

/// The path, if there is such a file.
fn need(path: &Path) -> Result<&Path> {
    anyhow::ensure!(
        path.is_file(),
        "{} is missing: cargo build --release --package msao-cli",
        path.display()
    );
    Ok(path)
}
