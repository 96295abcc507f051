//! How a model's thread ends: soon after it is let go of, without anybody waiting for it, and before its process does.
//!
//! A process that ends while a thread is at work with libtorch or on a GPU crashes. So whoever lets go of a thread leaves it
//! to a list, and when the process ends it first waits for those that are on it: for a pass, or for the tensor that is
//! being loaded.

use std::io::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::watch;

/// Threads that were let go of and that may still be at work.
static ENDING: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// A thread that looks at a word of its owner's now and then.
#[derive(Debug)]
pub(super) struct Thread {
    handle: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    /// Closed when all that the thread ran is over and gone.
    ended: watch::Receiver<()>,
}

impl Thread {
    /// Starts a thread, whose work ends early once the word that it gets is true.
    pub fn start(work: impl FnOnce(Arc<AtomicBool>) + Send + 'static) -> Result<Self, Error> {
        wait_at_exit();
        let stop = Arc::new(AtomicBool::new(false));
        let (alive, ended) = watch::channel(());
        let word = Arc::clone(&stop);
        let handle = std::thread::Builder::new()
            .name("msao-engine".into())
            .spawn(move || {
                work(word);
                drop(alive);
            })?;
        Ok(Thread {
            handle,
            stop,
            ended,
        })
    }

    /// Has it end.
    pub fn let_go(self) {
        self.stop.store(true, Ordering::Relaxed);
        let mut ending = ENDING.lock().unwrap_or_else(PoisonError::into_inner);
        ending.retain(|thread| !thread.is_finished());
        ending.push(self.handle);
    }

    /// Comes once all that it ran is over and gone.
    pub fn ended(&self) -> impl Future<Output = ()> + use<> {
        let mut ended = self.ended.clone();
        async move {
            // Nothing is ever sent: this ends with the sender.
            while ended.changed().await.is_ok() {}
        }
    }
}

/// Has the process wait for threads that were let go of before it ends. What was registered last is done first, so this is
/// called again once libraries that clean up behind themselves at the end have been opened.
pub(super) fn wait_at_exit() {
    // SAFETY: the function is C's, touches nothing but what is static, and does not unwind. Where it cannot be
    // registered, there is no memory for one more pointer, and the process ends as it would have without.
    let _refused = unsafe { libc::atexit(wait_for_all) };
}

extern "C" fn wait_for_all() {
    loop {
        let next = ENDING.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match next {
            // It catches what panics, and what it left behind is nobody's any more.
            Some(thread) => drop(thread.join()),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn who_lets_go_waits_for_nothing_and_who_asks_is_told_of_the_end() {
        let (go, told_to_go) = channel::<()>();
        let (looked, stopped) = channel();
        let thread = Thread::start(move |stop| {
            told_to_go.recv().unwrap();
            looked.send(stop.load(Ordering::Relaxed)).unwrap();
        })
        .unwrap();
        let ended = thread.ended();
        // It is still at work then: it ends when it is told to go, behind this.
        thread.let_go();
        go.send(()).unwrap();
        assert!(stopped.recv().unwrap());
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(ended);
    }
}
