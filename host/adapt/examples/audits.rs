//! Plays 200 streams of 50,000 requests for each kind of traffic and budget, and prints how they went.
//!
//!     cargo run --release -p msao-adapt --example audits
#![allow(clippy::print_stdout)] // What it is for.

use std::error::Error;

use msao_adapt::audit::AuditConfig;
use msao_adapt::audit::simulate::{Play, Traffic, Truth, simulate};

fn main() -> Result<(), Box<dyn Error>> {
    println!("traffic           budget  over  broken  part  least  oracle  waited  alarms");
    for budget in [0.004, 0.01, 0.05] {
        let play = Play {
            audit: AuditConfig {
                budget,
                ..AuditConfig::new(1)
            },
            streams: 200,
            requests: 50_000,
            unfinished: 0.0,
        };
        let mut truths: Vec<(&str, Truth)> = (Traffic::KINDS.iter())
            .map(|(name, traffic)| (*name, traffic.truth(9)))
            .collect();
        truths.push(("none is allowed", Truth::brink(budget, budget * 1.01)?));
        truths.push(("half are allowed", Truth::brink(budget, budget * 0.1)?));
        for (name, truth) in truths {
            let report = simulate(&truth, &play)?;
            let mut waited: Vec<u64> = report.runs.iter().map(|run| run.waited).collect();
            waited.sort_unstable();
            println!(
                "{name:16} {budget:7} {:5} {:7} {:5.2} {:6.2} {:7.3} {:7} {:7}",
                report.over_budget(),
                report.broken(),
                report.part_of_oracle(),
                report.least_part_of_oracle(),
                report.oracle,
                waited.get(waited.len() / 2).copied().unwrap_or(0),
                report.runs.iter().map(|run| run.alarms).sum::<u64>(),
            );
        }
    }
    Ok(())
}
