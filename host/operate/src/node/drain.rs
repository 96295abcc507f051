//! `msao node drain`.

use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::client::Client;
use crate::connect::Common;
use crate::interrupt::Interrupt;
use crate::output::Output;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(500);

/// Have a node take no more requests, and finish those that are under way
///
/// It goes on running, refuses new requests with 503, and tells edge nodes so that they plan nothing onto it. --undo has it
/// take requests again, unless it is being stopped. Needs a token of the role activate.
///
///   msao node drain --wait && systemctl restart msao
///   msao node drain --undo
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct DrainArgs {
    /// Take requests again.
    #[arg(long, conflicts_with_all = ["wait", "within"])]
    undo: bool,
    /// Return when no request is under way any more; exit code 1 if some still are after --within.
    #[arg(long)]
    wait: bool,
    /// How long --wait waits.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 300.0,
        requires = "wait"
    )]
    within: f64,
    #[command(flatten)]
    pub(super) common: Common,
}

fn under_way(client: &Client) -> anyhow::Result<Option<u64>> {
    let state = client.get("/v1/state");
    match state {
        Ok(state) => Ok(state.pointer("/requests/under-way").and_then(Value::as_u64)),
        // Whoever drains a node may stop it before this looks again.
        Err(error) if error.is_silence() => Ok(Some(0)),
        Err(error) => Err(error.into()),
    }
}

fn undo(client: &Client, output: Output) -> anyhow::Result<bool> {
    let answer = client.post("/v1/undrain", &json!({}))?;
    output.answer(&answer, |_| "takes requests again\n".to_owned())?;
    Ok(true)
}

pub fn run(args: &DrainArgs) -> anyhow::Result<bool> {
    let (client, output) = (args.common.client()?, args.common.output());
    if args.undo {
        return undo(&client, output);
    }
    let interrupt = Interrupt::watch()?;
    let answer = client.post("/v1/drain", &json!({}))?;
    let mut left = answer.get("under-way").and_then(Value::as_u64);
    let end = Instant::now() + Duration::try_from_secs_f64(args.within)?;
    let mut told = None;
    while args.wait && left != Some(0) && Instant::now() < end && !interrupt.came() {
        if left != told {
            output.note(format_args!("{} requests are under way", left.unwrap_or(0)));
            told = left;
        }
        sleep(EVERY);
        left = under_way(&client)?;
    }
    let answer = json!({ "draining": true, "under-way": left });
    output.answer(&answer, |_| match left {
        Some(0) => "draining: no request is under way any more\n".to_owned(),
        Some(left) => format!("draining: {left} requests are still under way\n"),
        None => "draining\n".to_owned(),
    })?;
    Ok(!args.wait || left == Some(0))
}
