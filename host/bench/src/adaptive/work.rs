//! Many jobs on a few threads, each of which has models of its own.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use anyhow::Result;

use super::interrupt::Interrupt;

/// Threads that share the work where nobody says how many: as many as there are cores, and no more models than fit a small
/// machine.
pub fn workers() -> usize {
    std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(8)
}

/// Does `jobs` on so many threads. `prepare` makes what a thread works with; `done` is told each result with its job's number,
/// on this thread, in the order in which they end. Begins nothing more once it is interrupted, which is no error here.
///
/// # Errors
/// The first of any thread, or of `done`; nothing more is begun then.
pub fn share<J: Sync, S, T: Send>(
    jobs: &[J],
    workers: usize,
    interrupt: &Interrupt,
    prepare: impl Fn() -> Result<S> + Sync,
    work: impl Fn(&mut S, &J) -> Result<T> + Sync,
    mut done: impl FnMut(usize, T) -> Result<()>,
) -> Result<()> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (send, results) = mpsc::channel::<Result<(usize, T)>>();
    let one = |send: &mpsc::Sender<Result<(usize, T)>>| -> Result<()> {
        let mut own = prepare()?;
        while !(stop.load(Ordering::SeqCst) || interrupt.came()) {
            let number = next.fetch_add(1, Ordering::SeqCst);
            let Some(job) = jobs.get(number) else { break };
            let result = work(&mut own, job)?;
            if send.send(Ok((number, result))).is_err() {
                break;
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        for _ in 0..workers.clamp(1, jobs.len().max(1)) {
            let (send, one) = (send.clone(), &one);
            scope.spawn(move || {
                if let Err(error) = one(&send) {
                    // Nobody hears it where another thread's came first.
                    let _ = send.send(Err(error));
                }
            });
        }
        drop(send);
        for result in results {
            if let Err(error) = result.and_then(|(number, result)| done(number, result)) {
                stop.store(true, Ordering::SeqCst);
                return Err(error);
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use anyhow::ensure;

    use super::*;

    #[test]
    fn every_job_is_done_once_by_threads_with_their_own_means() {
        let jobs: Vec<u32> = (0..100).collect();
        let made = AtomicUsize::new(0);
        let mut results = BTreeMap::new();
        let prepare = || Ok(made.fetch_add(1, Ordering::SeqCst));
        let work = |_: &mut usize, job: &u32| Ok(job * 2);
        share(
            &jobs,
            3,
            &Interrupt::default(),
            prepare,
            work,
            |number, it| {
                assert!(results.insert(number, it).is_none());
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(results.len(), 100);
        assert!(
            results
                .iter()
                .all(|(number, it)| *it as usize == 2 * number)
        );
        assert_eq!(made.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn an_error_ends_it_and_an_interrupt_begins_nothing() {
        let jobs: Vec<u32> = (0..100).collect();
        let work = |(): &mut (), job: &u32| {
            ensure!(*job != 7, "job 7 cannot be done");
            Ok(())
        };
        let shared = |interrupt: &Interrupt| {
            let mut count = 0;
            let shared = share(
                &jobs,
                2,
                interrupt,
                || Ok(()),
                work,
                |_, ()| {
                    count += 1;
                    Ok(())
                },
            );
            (shared, count)
        };
        let (failed, count) = shared(&Interrupt::default());
        assert_eq!(failed.unwrap_err().to_string(), "job 7 cannot be done");
        assert!(count < 100);
        let (ended, count) = shared(&Interrupt::now());
        assert!(ended.is_ok());
        assert_eq!(count, 0);
        let unprepared = share(
            &jobs,
            2,
            &Interrupt::default(),
            || Err::<(), _>(anyhow::anyhow!("no model")),
            work,
            |_, ()| Ok(()),
        );
        assert_eq!(unprepared.unwrap_err().to_string(), "no model");
        let none: [u32; 0] = [];
        assert!(
            share(
                &none,
                2,
                &Interrupt::default(),
                || Ok(()),
                work,
                |_, ()| Ok(())
            )
            .is_ok()
        );
    }
}
