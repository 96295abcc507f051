//! Work without tensors on the threads of libtorch's OpenMP team.
//!
//! A pool of our own would fight with that team over the cores: its threads stay awake for a while after each operation.

use std::panic::AssertUnwindSafe;
use std::sync::Mutex;

/// Does `work` on every item, on up to `threads` threads, the caller's among them. Items are handed out one by one, so
/// their order of treatment is open. Where `work` panics its item is left as it is.
pub(crate) fn for_each<T: Send>(threads: usize, items: &mut [T], work: impl Fn(&mut T) + Sync) {
    let threads = threads.min(items.len());
    let queue = Mutex::new(items.iter_mut());
    let serve = || {
        loop {
            let next = match queue.lock() {
                Ok(mut queue) => queue.next(),
                Err(_) => None,
            };
            let Some(item) = next else {
                return;
            };
            // An unwinding panic must not cross OpenMP's frames.
            let _ = std::panic::catch_unwind(AssertUnwindSafe(|| work(item)));
        }
    };
    if threads > 1 {
        on_each(threads, &serve);
    } else {
        serve();
    }
}

#[cfg(target_arch = "x86_64")]
fn on_each<F: Fn() + Sync>(threads: usize, serve: &F) {
    use std::ffi::{c_uint, c_void};

    // GCC's own entry to `#pragma omp parallel`, part of libgomp's stable interface; the kernels link the library.
    unsafe extern "C" {
        fn GOMP_parallel(
            function: extern "C" fn(*mut c_void),
            data: *mut c_void,
            threads: c_uint,
            flags: c_uint,
        );
    }

    extern "C" fn call<F: Fn() + Sync>(data: *mut c_void) {
        // SAFETY: `data` is the `&F` below, which outlives the parallel region; F is Sync.
        let serve = unsafe { &*data.cast_const().cast::<F>() };
        serve();
    }

    let data = std::ptr::from_ref(serve).cast_mut().cast();
    // SAFETY: the region ends, on all threads, before the call returns, so `serve` is there as long as it is used.
    unsafe { GOMP_parallel(call::<F>, data, threads as c_uint, 0) };
}

#[cfg(not(target_arch = "x86_64"))]
fn on_each<F: Fn() + Sync>(_threads: usize, serve: &F) {
    serve();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_treated_once_on_any_number_of_threads() {
        for threads in [0, 1, 2, 5] {
            let mut items: Vec<usize> = (0..100).collect();
            for_each(threads, &mut items, |item| *item += 1000);
            assert!(items.iter().zip(1000..).all(|(a, b)| *a == b));
        }
        for_each(3, &mut [] as &mut [usize], |_| unreachable!());
    }

    #[test]
    fn a_panic_stays_with_its_item() {
        let mut items: Vec<usize> = (0..20).collect();
        for_each(2, &mut items, |item| {
            assert!(*item != 7, "on purpose");
            *item = 0;
        });
        assert_eq!(items.iter().sum::<usize>(), 7);
    }
}
