//! Which instructions the kernels run on: the best that the CPU has, unless a test or a benchmark asks for others.

use std::cell::Cell;
use std::fmt;
use std::sync::OnceLock;

use crate::error::KernelError;
use crate::ffi::{self, Kernels};

/// An instruction set that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Instructions {
    /// AVX-512 F, BW, VL, DQ, VBMI and BF16: bf16 products are the processor's own.
    Avx512 = 0,
    /// AVX2, FMA and F16C: everything is computed in f32.
    Avx2 = 1,
}

impl Instructions {
    /// All there are, the best first.
    pub const ALL: [Instructions; 2] = [Instructions::Avx512, Instructions::Avx2];

    /// Whether this CPU has them.
    pub fn available(self) -> bool {
        self.kernels().is_some()
    }

    /// Runs `f` with these instructions in place of the best: what `f` calls on this thread, and for good the matrices
    /// that it makes. For tests and benchmarks, which look at each set on its own.
    ///
    /// # Errors
    /// [`KernelError::Unsupported`] where this CPU lacks them; `f` is not called then.
    pub fn with<T>(self, f: impl FnOnce() -> T) -> Result<T, KernelError> {
        struct Restore(Option<Instructions>);
        impl Drop for Restore {
            fn drop(&mut self) {
                ASKED_FOR.set(self.0);
            }
        }
        if !self.available() {
            return Err(KernelError::Unsupported);
        }
        let _restore = Restore(ASKED_FOR.replace(Some(self)));
        Ok(f())
    }

    /// Looked up once.
    fn kernels(self) -> Option<&'static Kernels> {
        static FOUND: [OnceLock<Option<&'static Kernels>>; 2] = [OnceLock::new(), OnceLock::new()];
        let [avx512, avx2] = &FOUND;
        let found = match self {
            Instructions::Avx512 => avx512,
            Instructions::Avx2 => avx2,
        };
        // SAFETY: takes a number, only asks the CPU, and gives null or a table that lives as long as the process.
        *found.get_or_init(|| unsafe { ffi::msao_kernels(self).as_ref() })
    }
}

impl fmt::Display for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Instructions::Avx512 => "AVX-512 BF16",
            Instructions::Avx2 => "AVX2",
        })
    }
}

thread_local! {
    static ASKED_FOR: Cell<Option<Instructions>> = const { Cell::new(None) };
}

/// The instructions that the kernels run on, the best that this CPU has; none where it has too few.
pub fn instructions() -> Option<Instructions> {
    let best = || Instructions::ALL.into_iter().find(|set| set.available());
    ASKED_FOR.get().or_else(best)
}

/// Whether this CPU has the instructions for the kernels. Looked up once.
pub fn supported() -> bool {
    instructions().is_some()
}

/// The kernels to call on this thread.
pub(crate) fn kernels() -> Option<&'static Kernels> {
    instructions().and_then(Instructions::kernels)
}
