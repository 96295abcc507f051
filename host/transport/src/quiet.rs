//! Lines in the log that a stranger can cause: a few a second, and a count of the others.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// Lines that are let through in each period.
const LINES: u32 = 5;
const PERIOD: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Quiet(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    since: Option<Instant>,
    lines: u32,
    held: u64,
}

impl Quiet {
    /// Whether a line may be written now; with how many were held back before it.
    pub(crate) fn line(&self) -> Option<u64> {
        let mut seen = crate::lock(&self.0);
        let now = Instant::now();
        if seen.since.is_none_or(|since| now - since >= PERIOD) {
            seen.since = Some(now);
            seen.lines = 0;
        }
        if seen.lines >= LINES {
            seen.held += 1;
            return None;
        }
        seen.lines += 1;
        Some(std::mem::take(&mut seen.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_counted_instead_of_written() {
        let quiet = Quiet::default();
        let written = (0..100).filter(|_| quiet.line().is_some()).count();
        assert_eq!(written, LINES as usize);
        tokio::time::sleep(PERIOD).await;
        assert_eq!(quiet.line(), Some(100 - u64::from(LINES)));
    }
}
