//! Ctrl-C, SIGTERM and SIGHUP as a wish that is noticed between two steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

const SIGNALS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];
/// How soon a wait notices it.
const SOON: Duration = Duration::from_millis(50);

/// Whether somebody wants this to end.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Notices signals from now on. A second one ends the program at once.
    ///
    /// # Errors
    /// The operating system's.
    pub fn watch() -> std::io::Result<Interrupt> {
        let interrupt = Interrupt::default();
        for signal in SIGNALS {
            // Before the flag is set by the same signal: only the second finds it set.
            flag::register_conditional_shutdown(signal, 130, Arc::clone(&interrupt.0))?;
        }
        interrupt.notice()
    }

    /// Notices signals from now on, and nothing else: for who has a terminal to restore.
    ///
    /// # Errors
    /// The operating system's.
    pub fn watch_gently() -> std::io::Result<Interrupt> {
        Interrupt::default().notice()
    }

    fn notice(self) -> std::io::Result<Interrupt> {
        for signal in SIGNALS {
            flag::register(signal, Arc::clone(&self.0))?;
        }
        Ok(self)
    }

    /// Set once one came.
    pub fn flag(&self) -> &AtomicBool {
        &self.0
    }

    /// Whether one came.
    pub fn came(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Waits so long, or until one comes. Returns whether one came.
    pub fn wait(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while !self.came() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            sleep(left.min(SOON));
        }
        true
    }
}
