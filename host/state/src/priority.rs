//! Lets a thread step back.
#![allow(unsafe_code)]

/// The nice value of work that nobody waits for: a tenth of an ordinary thread's share where both want the processor, and
/// all of it where nobody else does.
const NICE: libc::c_int = 10;

/// Has the calling thread, and those that it starts, step back behind the threads that serve. Where the system does not
/// offer it, it stays as it is.
pub fn step_back() {
    // SAFETY: takes numbers; on Linux 0 is the calling thread alone.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}
