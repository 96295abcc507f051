//! The `msao` command.
#![forbid(unsafe_code)]
// A command's business is to print.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod chat;
mod config;
mod format;
mod init;
mod inspect;
mod loss;
mod media;
mod serve;
mod tensors;
mod twin;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use msao_engine::{LoadOptions, Model, Place, Precision, Quantize};

/// Multimodal models at the edge and in the cloud.
///
/// Models are local Hugging Face directories of the Qwen2-VL, Qwen2.5-VL and Qwen2.5-Omni families. Two small ones
/// come with the project: models/demo-target and models/demo-draft.
#[derive(Parser)]
#[command(name = "msao", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Chat(Box<chat::ChatArgs>),
    /// Look into models and compare them with their reference.
    #[command(subcommand)]
    Model(ModelCommand),
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Make certificates and tokens for nodes, look at a running one, or drain it.
    #[command(subcommand)]
    Node(NodeCommand),
    Explain(msao_operate::ExplainArgs),
    Top(msao_operate::TopArgs),
    /// Write, test, measure and sign plug-ins (policies and probe post-processors); bring them to nodes and change what is
    /// active there.
    ///
    /// A first one takes ten minutes: docs/tutorial-policy.md. What happens on a node: docs/releases.md.
    Policy(Box<PolicyArgs>),
    Calibrate(Box<msao_calibrate::CalibrateArgs>),
    Bench(Box<msao_evaluate::BenchArgs>),
}

#[derive(Subcommand)]
enum NodeCommand {
    Init(init::InitArgs),
    #[command(flatten)]
    Operate(msao_operate::NodeCommands),
}

#[derive(Args)]
struct PolicyArgs {
    /// Answer with one JSON value on standard output.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: PolicyCommand,
}

/// Two crates' commands in one list: `grouped` keeps them apart in the help.
#[derive(Subcommand)]
enum PolicyCommand {
    #[command(flatten)]
    Author(msao_author::PolicyCommands),
    #[command(flatten)]
    Operate(msao_operate::PolicyCommands),
}

/// What authors do, in the order in which they do it. What is not listed here or in [`msao_operate::OPERATING`] comes last
/// in the help.
const AUTHORING: [&str; 15] = [
    "new", "build", "dev", "check", "inspect", "test", "run", "explain", "bench", "record",
    "replay", "keygen", "sign", "failures", "doctor",
];

/// The command line, with the help in order.
fn command_line() -> clap::Command {
    let groups: [(&str, &[&str]); 2] = [
        ("Write a plug-in", &AUTHORING),
        ("On running nodes", &msao_operate::OPERATING),
    ];
    Cli::command().mut_subcommand("policy", |policy| msao_operate::grouped(policy, &groups))
}

#[derive(Subcommand)]
enum ModelCommand {
    Inspect(inspect::InspectArgs),
    Preprocess(tensors::PreprocessArgs),
    Forward(tensors::ForwardArgs),
    Twin(twin::TwinArgs),
}

/// How to hold a model.
#[derive(Args, Clone, Debug)]
struct Holding {
    /// Where to compute: cpu, cuda or cuda:N.
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: Place,
    /// Precision of weights and activations: stored (as the checkpoint's files are), f32, bf16 or f16.
    #[arg(long, default_value = "stored", value_name = "PRECISION")]
    precision: Precision,
    /// Hold the language model's matrices coarser: int8 (8-bit integers with a scale for each output).
    #[arg(long, value_name = "HOW")]
    quantize: Option<Quantize>,
    /// Threads that one operation may use [default: all cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

impl Holding {
    fn load(&self, dir: &std::path::Path) -> anyhow::Result<Model> {
        // Before anything else with libtorch: see there.
        self.device.open()?;
        if let Some(threads) = self.threads {
            msao_engine::set_threads(threads.into());
        }
        Ok(Model::load(
            dir,
            &LoadOptions {
                place: self.device,
                precision: self.precision,
                quantize: self.quantize,
                ..Default::default()
            },
        )?)
    }
}

/// The model directory, as every command takes it.
#[derive(Args, Clone, Debug)]
struct ModelDir {
    /// A Hugging Face model directory (config.json, safetensors, tokenizer.json, ...).
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
}

fn main() -> ExitCode {
    run(&std::env::args_os().collect::<Vec<_>>())
}

/// Runs the command that these words are.
fn run(words: &[OsString]) -> ExitCode {
    let done = |result: anyhow::Result<()>| result.map(|()| ExitCode::SUCCESS);
    let matches = command_line().get_matches_from(words);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let result = match cli.command {
        Command::Serve(args) => done(serve::run(&args)),
        Command::Chat(args) => done(chat::run(&args)),
        Command::Model(ModelCommand::Inspect(args)) => done(inspect::run(&args)),
        Command::Model(ModelCommand::Preprocess(args)) => done(tensors::preprocess(&args)),
        Command::Model(ModelCommand::Forward(args)) => done(tensors::forward(&args)),
        Command::Model(ModelCommand::Twin(args)) => done(twin::run(&args)),
        Command::Config(command) => done(config::run(&command)),
        Command::Node(NodeCommand::Init(args)) => done(init::run(&args)),
        Command::Node(NodeCommand::Operate(command)) => command.run(),
        Command::Explain(args) => args.run(),
        Command::Top(args) => args.run(),
        Command::Calibrate(args) => args.run(),
        Command::Bench(args) => args.run(&bench::Here),
        Command::Policy(args) => match args.command {
            PolicyCommand::Author(command) => match command.of_running_node(args.json) {
                Some(words) => return run(&[&["msao".into()][..], &words].concat()),
                None => command.run(args.json, command_line()),
            },
            PolicyCommand::Operate(command) => command.run(),
        },
    };
    match result {
        Ok(code) => code,
        // Whoever reads our output has had enough: that is no failure to report.
        Err(error) if format::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Names from files and nodes of others may be in it.
            let told = msao_author::output::tame(&format::error_line(&error));
            eprintln!("msao: {told}");
            ExitCode::FAILURE
        }
    }
}
