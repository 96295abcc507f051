//! Plug-ins that do not end, stopped; and their neighbours meanwhile.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use msao_core::offload::manifest::Manifest;
use msao_hostile::{Case, Expected, corpus};
use msao_sandbox::{Export, FailureKind, Limits, Sandbox, SandboxConfig};

use super::costs::policy;
use super::hostile::call;
use super::inputs::Inputs;
use super::measure::median;
use crate::report::Row;

/// Calls of each runaway.
const CALLS: usize = 20;
/// How late it may be stopped, in ms.
const LATE_MS: f64 = 2.0;

fn deadline_ms(limits: &Limits, export: &str) -> Option<u32> {
    let export = Export::ALL.into_iter().find(|it| it.name() == export)?;
    Some(match export {
        Export::Score => limits.score_ms,
        Export::Plan => limits.plan_ms,
        Export::Step => limits.step_ms,
        Export::Observe => limits.observe_ms,
        Export::Explain => limits.explain_ms,
    })
}

/// Tells how long the threads that take part in a call have been ready to run and without a processor: this one, those that
/// score, and the clock.
struct Waits(Vec<File>);

impl Waits {
    /// Nothing, where the system does not tell.
    fn new() -> Waits {
        let mut files: Vec<File> = File::open("/proc/thread-self/schedstat")
            .into_iter()
            .collect();
        let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten();
        for thread in threads.filter_map(|entry| Some(entry.ok()?.path())) {
            let name = std::fs::read_to_string(thread.join("comm")).unwrap_or_default();
            if name.trim() == "plugin-clock" {
                files.extend(File::open(thread.join("schedstat")));
            }
        }
        Waits(files)
    }

    /// So far, ms. Takes some microseconds: a call that begins just after a tick is stopped latest, and that is how calls that
    /// follow each other begin.
    fn ms(&self) -> f64 {
        let waited = self.0.iter().filter_map(|file| {
            let mut text = [0; 128];
            let length = file.read_at(&mut text, 0).ok()?;
            let text = std::str::from_utf8(text.get(..length)?).ok()?;
            text.split_whitespace().nth(1)?.parse::<f64>().ok()
        });
        waited.sum::<f64>() / 1e6
    }
}

/// How late a runaway's call ended, and how long of the call it waited for a processor, in ms.
#[derive(Clone, Copy)]
struct Late {
    late: f64,
    waited: f64,
}

/// How late a runaway's calls ended after their deadline, sorted.
fn late(sandbox: &Sandbox, case: &Case, export: &str) -> Result<Vec<Late>> {
    let plugin = sandbox.load(&case.file, &Manifest::parse(&case.manifest)?)?;
    let deadline = deadline_ms(plugin.limits(), export).context("no such export")?;
    // Has the clock started.
    let _ = call(&plugin, export);
    let waits = Waits::new();
    let mut late = Vec::new();
    for _ in 0..CALLS {
        // Made before the clock starts: the deadline is the call's.
        plugin.warm(1)?;
        let before = waits.ms();
        let start = Instant::now();
        let failure = call(&plugin, export).err().context("it ended by itself")?;
        let took = start.elapsed().as_secs_f64() * 1000.0;
        if failure.kind != FailureKind::Deadline {
            bail!("{failure}");
        }
        late.push(Late {
            late: took - f64::from(deadline),
            waited: waits.ms() - before,
        });
    }
    late.sort_by(|a, b| a.late.total_cmp(&b.late));
    Ok(late)
}

/// So many at once, more than cores. None can be stopped while it waits for a core, and each gets one for a fraction of the
/// time: told, and held to no aim. What matters is that all end.
const AT_ONCE: usize = 8;

/// Runaways in `plan`, all at once.
fn crowd(sandbox: &Sandbox) -> Result<Row> {
    let cases = corpus()?;
    let case = (cases
        .iter()
        .find(|case| case.name == "endless loop in plan"))
    .context("no case")?;
    let plugin = sandbox.load(&case.file, &Manifest::parse(&case.manifest)?)?;
    let deadline = f64::from(plugin.limits().plan_ms);
    let mut late = Vec::new();
    for _ in 0..CALLS {
        plugin.warm(u32::try_from(AT_ONCE)?)?;
        let together = Barrier::new(AT_ONCE);
        late.extend(thread::scope(|scope| -> Result<Vec<f64>> {
            let all = [(); AT_ONCE].map(|()| {
                scope.spawn(|| {
                    together.wait();
                    let start = Instant::now();
                    let failure = call(&plugin, "plan").err().context("it ended by itself")?;
                    let took = start.elapsed().as_secs_f64() * 1000.0;
                    if failure.kind != FailureKind::Deadline {
                        bail!("{failure}");
                    }
                    Ok(took - deadline)
                })
            });
            (all.into_iter())
                .map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")))
                .collect()
        })?);
    }
    late.sort_by(f64::total_cmp);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let name = format!("{AT_ONCE} endless plans at once: late at most, of {CALLS} times");
    Ok(
        Row::told(name, late.last().copied().unwrap_or(f64::NAN), " ms").with_details(vec![
            format!("median {:.2} ms after the deadline, on {cores} cores", median(late)),
            "one that waits for a core is stopped when it has had it for half a millisecond more: no aim".to_owned(),
        ]),
    )
}

/// Each runaway of the corpus, and an honest policy called all the while.
///
/// # Errors
/// A component cannot be built or loaded.
pub fn rows(wasm: &[u8]) -> Result<Vec<Row>> {
    let sandbox = Sandbox::new(&SandboxConfig::default())?;
    let neighbour = policy(&sandbox, wasm)?;
    let inputs = Inputs::default();
    let expected = neighbour.plan(inputs.plan())?;
    let time = |calls: usize, stop: Option<&AtomicBool>| -> Result<(Vec<f64>, usize)> {
        let mut times = Vec::new();
        let mut wrong = 0;
        while stop.map_or(times.len() < calls, |stop| !stop.load(Ordering::Relaxed)) {
            let start = Instant::now();
            let answer = neighbour.plan(inputs.plan());
            times.push(start.elapsed().as_secs_f64() * 1e6);
            wrong += usize::from(!answer.is_ok_and(|answer| answer == expected));
        }
        Ok((times, wrong))
    };
    let (alone, _) = time(20_000, None)?;

    let mut rows = Vec::new();
    let stop = AtomicBool::new(false);
    let beside = thread::scope(|scope| -> Result<(Vec<f64>, usize)> {
        let beside = scope.spawn(|| time(0, Some(&stop)));
        let measured = corpus().and_then(|cases| {
            for case in cases {
                let Expected::Fails {
                    export,
                    kind: "deadline",
                    ..
                } = case.expected
                else {
                    continue;
                };
                let late = late(&sandbox, &case, export)?;
                let name = format!("{}: late at most, of {CALLS}", case.name);
                let of = |it: Option<&Late>| it.map_or(f64::NAN, |it| it.late);
                let mut details = vec![format!(
                    "earliest {:.2} ms, median {:.2} ms after the deadline",
                    of(late.first()),
                    median(late.iter().map(|it| it.late).collect()),
                )];
                // A thread without a processor can neither run on, nor be stopped, nor stop another; it counts all the same.
                let waited = late.last().map_or(0.0, |it| it.waited);
                details.push(format!(
                    "its threads and the clock's waited {waited:.2} ms for a processor in the call that was stopped last"
                ));
                let worst = of(late.last());
                rows.push(Row::at_most(name, worst, LATE_MS, " ms").with_details(details));
            }
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        let beside = beside
            .join()
            .unwrap_or_else(|_| bail!("the neighbour's thread panicked"));
        measured?;
        beside
    })?;
    rows.push(crowd(&sandbox)?);
    let (times, wrong) = beside;
    rows.push(Row::all(
        "a neighbour's plans meanwhile, answered alike",
        times.len(),
        (0..wrong)
            .map(|_| "another answer, or none".to_owned())
            .collect(),
    ));
    rows.push(Row::told(
        "a neighbour's plan alone, median",
        median(alone),
        " us",
    ));
    rows.push(Row::told(
        "a neighbour's plan meanwhile, median",
        median(times),
        " us",
    ));
    Ok(rows)
}
