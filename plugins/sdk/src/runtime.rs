//! What Rust's std would bring along, without its imports from WASI.

use alloc::alloc::{Layout, alloc, realloc};
use core::panic::PanicInfo;
use core::ptr;

use dlmalloc::GlobalDlmalloc;

use crate::arena::CallMemory;

/// Bytes for what lives no longer than a call: arguments and answer of a `plan` over a dozen nodes and some hundred cells.
const ROOM: usize = 32 << 10;

#[global_allocator]
static ALLOCATOR: CallMemory<GlobalDlmalloc, ROOM> = CallMemory::new(GlobalDlmalloc);

/// A panic is a trap: the host drops the instance and uses its fallback. The backtrace that the host keeps names the
/// function.
#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}

/// The memory into which the host writes arguments. With std, WASI's C library has it.
///
/// # Safety
/// The canonical ABI's: `old` is null, or came from here with `old_size` and `align`, which is a power of two.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cabi_realloc(
    old: *mut u8,
    old_size: usize,
    align: usize,
    new_size: usize,
) -> *mut u8 {
    if new_size == 0 {
        return ptr::without_provenance_mut(align);
    }
    // SAFETY: `align` is a power of two, `new_size` is not 0, and an old block is as the caller promises.
    let block = unsafe {
        if old_size == 0 {
            alloc(Layout::from_size_align_unchecked(new_size, align))
        } else {
            let layout = Layout::from_size_align_unchecked(old_size, align);
            realloc(old, layout, new_size)
        }
    };
    if block.is_null() {
        core::arch::wasm32::unreachable()
    }
    block
}
