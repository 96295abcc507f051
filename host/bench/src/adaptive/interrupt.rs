//! Ctrl-C as a wish that is noticed between two questions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};

/// What a program that was interrupted ends with, by the shell's custom.
const INTERRUPTED: i32 = 130;

/// Whether somebody wants this to end.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Notices Ctrl-C from now on. A second one ends the program at once.
    ///
    /// # Errors
    /// The operating system's.
    pub fn watch() -> Result<Interrupt> {
        let interrupt = Interrupt::default();
        let came = Arc::clone(&interrupt.0);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("what waits for Ctrl-C")?;
        let watch = move || {
            runtime.block_on(async {
                if tokio::signal::ctrl_c().await.is_err() {
                    // It then ends the program, as ever.
                    return;
                }
                came.store(true, Ordering::SeqCst);
                eprintln!("\n  ending after the questions under way; Ctrl-C again ends at once");
                if tokio::signal::ctrl_c().await.is_ok() {
                    std::process::exit(INTERRUPTED);
                }
            });
        };
        std::thread::Builder::new()
            .name("interrupt".to_owned())
            .spawn(watch)
            .context("a thread that waits for Ctrl-C")?;
        Ok(interrupt)
    }

    /// Whether it came.
    pub fn came(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// What is set once it came, for whoever looks at that by itself.
    pub fn flag(&self) -> &AtomicBool {
        &self.0
    }

    /// Fails if it came.
    ///
    /// # Errors
    /// It did; `then` says what becomes of what was done.
    pub fn check(&self, then: &str) -> Result<()> {
        if self.came() {
            bail!("interrupted; {then}");
        }
        Ok(())
    }

    /// As if it had come.
    #[cfg(test)]
    pub(super) fn now() -> Interrupt {
        Interrupt(Arc::new(AtomicBool::new(true)))
    }
}
