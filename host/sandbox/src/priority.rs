//! Lets a thread go first.
//!
//! The clock of deadlines works for some microseconds once a millisecond. Where other threads keep it from the processor, a
//! plug-in that does not end runs on. So it asks for what the system gives: real-time priority (the lowest there is), which
//! wants CAP_SYS_NICE or an `ulimit -r`; else the highest nice value, which wants the same or an `ulimit -e`; else it stays
//! as it is, and deadlines are as sharp as the machine is idle.
#![allow(unsafe_code)]

/// What a thread got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// `SCHED_FIFO`, before every ordinary thread.
    RealTime,
    /// More processor time than others; it still waits for them.
    Raised,
    /// Nothing.
    Ordinary,
}

/// Nice values to ask for, the best first.
const NICE: [libc::c_int; 4] = [-20, -15, -10, -5];

/// Raises the priority of the calling thread as far as the system allows. Children of it are ordinary again.
pub fn raise() -> Priority {
    // SAFETY: all bits zero are a valid `sched_param`: some systems have fields beside the priority.
    let mut param: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: takes a number, and answers with one.
    param.sched_priority = unsafe { libc::sched_get_priority_min(libc::SCHED_FIFO) };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: 0 is the calling thread; `param` outlives the call, which only reads it.
    if unsafe { libc::sched_setscheduler(0, policy, &raw const param) } == 0 {
        return Priority::RealTime;
    }
    for nice in NICE {
        // SAFETY: takes numbers; on Linux 0 is the calling thread alone.
        if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } == 0 {
            return Priority::Raised;
        }
    }
    Priority::Ordinary
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> libc::c_int {
        // SAFETY: 0 is the calling thread.
        unsafe { libc::sched_getscheduler(0) }
    }

    #[test]
    fn a_thread_gets_what_it_is_told_and_no_other_does() {
        let before = policy();
        std::thread::spawn(|| {
            let got = raise();
            let fifo = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
            assert_eq!(got == Priority::RealTime, policy() == fifo, "{got:?}");
            let child = std::thread::spawn(policy).join().unwrap();
            assert_eq!(child & libc::SCHED_FIFO, 0);
        })
        .join()
        .unwrap();
        assert_eq!(policy(), before);
    }
}
