//! `msao serve`: a node.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use msao_engine::Place;
use msao_node::config::{Log, NodeConfig, load};
use msao_node::serve::Addresses;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Run a node: answer OpenAI clients, by this node's models or together with other nodes.
///
/// Ctrl-C or SIGTERM ends it: no more requests are taken, those under way are finished (node.drain-s); a second time ends it
/// at once. SIGHUP has it read clients' keys, operators' tokens, the keys that sign plug-ins and the certificates for both
/// anew. The first line on standard output says where clients connect.
///
///   msao serve --config configs/single.toml
///   curl http://127.0.0.1:8080/v1/chat/completions -H 'content-type: application/json' \
///     -d '{"model": "msao-demo", "messages": [{"role": "user", "content": "Hello"}]}'
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct ServeArgs {
    /// What the node is told; see `msao config check`.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Say where the node listens as one line of JSON: name, api, nodes, operator.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &ServeArgs) -> Result<()> {
    let loaded = load(&args.config, crate::config::environment())?;
    let config = loaded.config;
    log_to_stderr(&config.log)?;
    for model in [&config.models.draft, &config.models.target]
        .into_iter()
        .flatten()
    {
        let place: Place = model.device.parse().map_err(anyhow::Error::msg)?;
        // Before anything else with libtorch: see there.
        place.open()?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime")?;
    let served = runtime.block_on(serve(config, args));
    // What still runs has had its time.
    runtime.shutdown_background();
    served
}

/// What the file says now, each time that the process is told to look.
fn anew(file: &Path) -> Result<mpsc::Receiver<NodeConfig>> {
    let mut hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
    let (sender, receiver) = mpsc::channel(1);
    let file = file.to_owned();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match load(&file, crate::config::environment()) {
                Ok(loaded) => {
                    // A node that is ending needs nothing new.
                    let _ending = sender.send(loaded.config).await;
                }
                Err(error) => tracing::error!(%error, "the configuration stays as it was"),
            }
        }
    });
    Ok(receiver)
}

async fn serve(config: NodeConfig, args: &ServeArgs) -> Result<()> {
    let anew = anew(&args.config)?;
    let name = config.node.name.clone();
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let (first, ended) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        let mut first = Some(first);
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            match first.take() {
                Some(first) => {
                    let _over = first.send(());
                }
                // Whoever asks twice does not want to wait.
                None => std::process::exit(130),
            }
        }
    });
    let serving = msao_node::serve::serve(
        config,
        async {
            let _never = ended.await;
        },
        anew,
        |addresses| up(&name, addresses, args.json),
    );
    Ok(serving.await?)
}

fn up(name: &str, addresses: &Addresses, json: bool) {
    let scheme = |tls| if tls { "https" } else { "http" };
    let api = format!("{}://{}/v1", scheme(addresses.tls), addresses.api);
    let nodes = addresses.nodes.map(|nodes| nodes.to_string());
    let operator = addresses
        .operator
        .map(|operator| format!("{}://{operator}", scheme(addresses.operator_tls)));
    let text = if json {
        serde_json::json!({ "name": name, "api": api, "nodes": nodes, "operator": operator })
            .to_string()
    } else {
        let nodes = nodes.map(|nodes| format!("\nother nodes: {nodes}"));
        let operator = operator.map(|operator| format!("\noperators: {operator}"));
        let more = nodes.into_iter().chain(operator).collect::<String>();
        format!("node \"{name}\" is up: {api}{more}")
    };
    // Whoever started the node may have closed our output; that is no reason to stop.
    let _closed = writeln!(std::io::stdout(), "{text}");
}

/// What is said, as the configuration has it.
pub(crate) fn filter(log: &Log) -> Result<EnvFilter> {
    EnvFilter::try_new(&log.filter).with_context(|| {
        format!(
            "log.filter is \"{}\"; allowed: error, warn, info, debug, trace, off, or a list such as info,msao_node=debug",
            log.filter
        )
    })
}

fn log_to_stderr(log: &Log) -> Result<()> {
    let filter = filter(log)?;
    let to = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(if log.phases {
            FmtSpan::CLOSE
        } else {
            FmtSpan::NONE
        })
        .with_ansi(std::io::stderr().is_terminal());
    let set = if log.json {
        to.json().flatten_event(true).try_init()
    } else {
        to.compact().try_init()
    };
    set.map_err(|error| anyhow::anyhow!("the log: {error}"))
}
