//! How long a thread has had a processor.
#![allow(unsafe_code)]

use std::time::Duration;

/// Processor time of the calling thread since it began.
pub fn processor_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a timespec that outlives the call, which writes nothing else. The clock exists wherever Linux does.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    debug_assert_eq!(failed, 0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(time.tv_sec.unsigned_abs(), nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;
    use std::time::Instant;

    #[test]
    fn waiting_takes_no_processor_time_and_working_does() {
        let before = processor_time();
        std::thread::sleep(Duration::from_millis(50));
        let waited = processor_time() - before;
        assert!(waited < Duration::from_millis(20), "{waited:?}");
        let before = processor_time();
        let start = Instant::now();
        let mut x = 0u64;
        while processor_time() - before < Duration::from_millis(5) {
            x = black_box(x.wrapping_mul(3) + 1);
            assert!(start.elapsed() < Duration::from_secs(60));
        }
    }
}
