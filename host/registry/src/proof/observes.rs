//! Many threads that teach at once.

use std::time::Instant;

use msao_core::offload::{BINS, Outcome};
use msao_state::CalibrationStore;

use crate::driver::Driver;
use crate::runtime::{Arrival, Plugins};

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ObserveFigures {
    /// Requests that were finished.
    pub requests: u64,
    /// Of them, those on which a call failed: they teach nothing.
    pub failed: u64,
    /// Updates that reached the cells, or were refused for a reason that is counted.
    pub updates: u64,
    /// What the policy's cells counted more at the end, summed over all: one for each sample, the value of each addition.
    pub counted: f64,
    /// How long it took until the last one was to be seen, s.
    pub seconds: f64,
}

/// The sum of the counts in the active policy's cells.
fn counted(plugins: &Plugins) -> f64 {
    let table = plugins.inner.table.load();
    let policy = table.stable.policy.as_ref();
    policy.map_or(0.0, |part| {
        part.cells.snapshot().calibration().count.iter().sum()
    })
}

/// Has `threads` threads finish `requests` requests each, at the same time. A policy that returns n updates from each
/// `observe` must have led to n times the requests.
pub fn observes(
    plugins: &Plugins,
    calibration: &CalibrationStore,
    threads: u64,
    requests: u64,
) -> ObserveFigures {
    calibration.settle();
    let seen =
        |counters: msao_state::Counters| counters.applied + counters.full + counters.overflow;
    let before = seen(calibration.counters());
    let counted_before = counted(plugins);
    let began = Instant::now();
    let failed = std::thread::scope(|scope| {
        let teach = |thread: u64| {
            let mut failed = 0;
            for scenario in
                Driver::new(thread).take(usize::try_from(requests).unwrap_or(usize::MAX))
            {
                let mut ticket = plugins.admit(&Arrival::new(&scenario.id, scenario.content));
                ticket.plan(&scenario.request, &scenario.parts, &scenario.nodes);
                failed += u64::from(ticket.finish(Outcome {
                    tokens: 1,
                    ttft_ms: 1.0,
                    total_ms: 1.0,
                    drafted: vec![1; BINS],
                    accepted: vec![1; BINS],
                    ..Outcome::default()
                }));
            }
            failed
        };
        let running: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || teach(thread)))
            .collect();
        // A thread that died has finished none of what it should have, which shows in the updates.
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or(requests))
            .sum()
    });
    calibration.settle();
    ObserveFigures {
        requests: threads * requests,
        failed,
        updates: seen(calibration.counters()) - before,
        counted: counted(plugins) - counted_before,
        seconds: began.elapsed().as_secs_f64(),
    }
}
