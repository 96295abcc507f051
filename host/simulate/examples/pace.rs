//! How many requests are simulated a second: `pace [REQUESTS [EDGES [CLOUDS [CORES]]]]`; with cores, all work of a node shares so many.
#![allow(clippy::print_stdout)] // what it is for

use std::time::Instant;

use msao_core::offload::{Action, Plan, PlanInput, Route, StepInput, kind};
use msao_simulate::traffic::{Generator, Pattern};
use msao_simulate::{Options, Plain, World, run};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |otherwise: u32| {
        let text = arguments.next();
        text.map_or(Ok(otherwise), |text| text.parse::<u32>())
    };
    let (count, edges, clouds) = (next(20_000)?, next(1_000)?, next(20)?);
    let cores = Some(next(0)?).filter(|cores| *cores > 0);
    let mut world = World::parse(&format!(
        "
        [[clouds]]
        count = {clouds}
        target = 'demo-target-zen3'
        draft = 'demo-draft-zen3'
        [[edges]]
        count = {edges}
        draft = 'demo-draft-zen3'
        [edges.link]
        up = {{ bandwidth = '20 Mbit/s', delay-ms = 20.0, jitter-ms = 3.0 }}
        down = {{ bandwidth = '50 Mbit/s', delay-ms = 20.0, jitter-ms = 3.0 }}
        "
    ))?;
    for group in &mut world.edges {
        group.cores = cores;
    }
    for group in &mut world.clouds {
        group.cores = cores;
    }
    let generator = Generator {
        edges,
        count,
        pattern: Pattern::Poisson {
            per_s: 10.0 * f64::from(clouds),
        },
        ..Generator::default()
    };
    let traffic = generator.traffic()?;
    for (name, route) in [
        ("edge", Route::Edge),
        ("cloud", Route::Cloud),
        ("cloud-draft", Route::CloudDraft),
        ("speculate", Route::Speculate),
    ] {
        let plan = Plan {
            in_flight_max: 8,
            ..Plan::plain(route, u32::from(route != Route::Edge))
        };
        let mut decides = Plain::new(
            |_: PlanInput| plan.clone(),
            |input: &StepInput| match input.kind {
                _ if route == Route::Edge => Action::Finish,
                kind::DRAFTED => Action::Send,
                _ => Action::Draft,
            },
        );
        let began = Instant::now();
        let results = run(&world, &traffic, &mut decides, Options::default())?;
        let took_s = began.elapsed().as_secs_f64();
        let summary = &results.summary;
        println!(
            "{name}: {:.0} requests/s, {:.2} us a token, {:.2} us an event; simulated p95 {:.0} ms, {:.0} tokens/s, {} refused",
            f64::from(count) / took_s,
            1e6 * took_s / summary.tokens.max(1) as f64,
            1e6 * took_s / results.events.max(1) as f64,
            summary.latency_ms.p95,
            summary.tokens_per_s,
            summary.refused,
        );
    }
    Ok(())
}
