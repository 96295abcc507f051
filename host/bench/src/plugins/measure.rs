//! Times of short calls that are to be compared: measured by turns, so that what else the machine does hits all alike.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How long a batch of calls is to take. Long against the clock's own cost, short against a time slice.
const BATCH: Duration = Duration::from_micros(200);
/// Batches of each side.
const ROUNDS: usize = 600;

/// One side of a comparison: makes a number of calls.
pub type Side<'a> = Box<dyn FnMut(u32) -> Result<()> + 'a>;

/// The median time of a call on each side, in ns.
///
/// # Errors
/// The first call that fails.
pub fn by_turns<const N: usize>(mut sides: [Side; N]) -> Result<[f64; N]> {
    let mut counts = [1; N];
    for (side, count) in sides.iter_mut().zip(&mut counts) {
        // Warms up, and finds how many calls fill a batch.
        loop {
            let start = Instant::now();
            side(*count)?;
            if start.elapsed() >= BATCH || *count >= 1 << 20 {
                break;
            }
            *count *= 2;
        }
    }
    let mut times = [(); N].map(|()| Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        for ((side, &count), times) in sides.iter_mut().zip(&counts).zip(&mut times) {
            let start = Instant::now();
            side(count)?;
            times.push(start.elapsed().as_nanos() as f64 / f64::from(count));
        }
    }
    Ok(times.map(median))
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A line of `/proc/self/FILE` in bytes, for instance `VmRSS` of `status`.
///
/// # Errors
/// The file cannot be read or lacks the line.
pub fn proc_bytes(file: &str, line: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/{file}"))?;
    let value = (text.lines())
        .find_map(|it| it.strip_prefix(line)?.strip_prefix(':'))
        .and_then(|value| value.split_whitespace().next())
        .with_context(|| format!("/proc/self/{file} has no {line}"))?;
    Ok(value.parse::<u64>()? << 10)
}

/// Lets the peak of memory begin anew.
///
/// # Errors
/// The system does not offer it.
pub fn reset_peak() -> Result<()> {
    std::fs::write("/proc/self/clear_refs", "5").context("/proc/self/clear_refs")
}
