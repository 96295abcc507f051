//! Memory for what lives no longer than a call.
//!
//! Nearly all that a plug-in allocates is gone when its call is over: arguments, what it works with, its answer. So
//! blocks are cut one behind the other from a room of fixed size, which is empty again as soon as none of them lives.
//! That takes a small part of what a general allocator does, and a `plan` has some twenty blocks. What finds no place
//! in the room comes from the general allocator behind it: large blocks, and all of them for as long as something in a
//! full room lives.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::{Cell, UnsafeCell};
use core::mem::MaybeUninit;
use core::ptr;

/// The alignment of the room, and the largest of a block in it.
const ALIGNED: usize = 16;

#[repr(C, align(16))]
struct Room<const BYTES: usize>(UnsafeCell<[MaybeUninit<u8>; BYTES]>);

/// An allocator with a room of so many bytes in front of another one.
pub struct CallMemory<A, const BYTES: usize> {
    room: Room<BYTES>,
    /// Where the part of the room begins that is free.
    top: Cell<usize>,
    /// Blocks in the room that live.
    live: Cell<usize>,
    behind: A,
}

// SAFETY: without atomics there are no threads.
#[cfg(all(target_arch = "wasm32", not(target_feature = "atomics")))]
unsafe impl<A, const BYTES: usize> Sync for CallMemory<A, BYTES> {}

impl<A, const BYTES: usize> CallMemory<A, BYTES> {
    /// An empty room.
    pub const fn new(behind: A) -> Self {
        CallMemory {
            room: Room(UnsafeCell::new([MaybeUninit::uninit(); BYTES])),
            top: Cell::new(0),
            live: Cell::new(0),
            behind,
        }
    }

    fn base(&self) -> *mut u8 {
        self.room.0.get().cast()
    }

    /// Where in the room a block begins; `None` for one that came from behind.
    fn place(&self, block: *mut u8) -> Option<usize> {
        let place = block.addr().wrapping_sub(self.base().addr());
        (place < BYTES).then_some(place)
    }

    /// Cuts a block off, if it has a place.
    fn cut(&self, layout: Layout) -> Option<*mut u8> {
        let align = layout.align();
        if align > ALIGNED {
            return None;
        }
        let begin = (self.top.get() + (align - 1)) & !(align - 1);
        let room = BYTES.checked_sub(begin)?;
        if layout.size() > room {
            return None;
        }
        self.top.set(begin + layout.size());
        self.live.set(self.live.get() + 1);
        // SAFETY: `begin` and the block's end are in the room.
        Some(unsafe { self.base().add(begin) })
    }
}

// SAFETY: `cut` gives memory that no living block has, since the top only goes back to where a block begins whose end
// it was, or to the front when no block lives. What came from behind goes back there.
unsafe impl<A: GlobalAlloc, const BYTES: usize> GlobalAlloc for CallMemory<A, BYTES> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.cut(layout) {
            Some(block) => block,
            // SAFETY: the caller's promise is handed on.
            None => unsafe { self.behind.alloc(layout) },
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(place) = self.place(block) else {
            // SAFETY: it is none of the room's, so it came from there.
            return unsafe { self.behind.dealloc(block, layout) };
        };
        self.live.set(self.live.get() - 1);
        if self.live.get() == 0 {
            self.top.set(0);
        } else if place + layout.size() == self.top.get() {
            self.top.set(place);
        }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Some(place) = self.place(block) else {
            // SAFETY: as in `dealloc`.
            return unsafe { self.behind.realloc(block, layout, new_size) };
        };
        if place + layout.size() == self.top.get() && new_size <= BYTES - place {
            self.top.set(place + new_size);
            return block;
        }
        if new_size <= layout.size() {
            return block;
        }
        // SAFETY: the caller promises that `new_size` is a size for this alignment. The blocks are two, and the old
        // one's bytes fit into the new one.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
            if !new.is_null() {
                ptr::copy_nonoverlapping(block, new, layout.size());
                self.dealloc(block, layout);
            }
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::System;
    use std::vec::Vec;

    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn the_room_is_empty_again_when_nothing_in_it_lives() {
        let memory = CallMemory::<System, 256>::new(System);
        // SAFETY: each block is given back once, with the layout that it has.
        unsafe {
            let first = memory.alloc(layout(100, 1));
            let second = memory.alloc(layout(100, 8));
            assert_eq!(first.addr() % ALIGNED, 0);
            assert_eq!(second.addr(), first.addr() + 104);
            // Too large for what is left, and aligned as nothing in the room is.
            for other in [layout(60, 1), layout(8, 64)] {
                let behind = memory.alloc(other);
                assert_eq!(memory.place(behind), None);
                memory.dealloc(behind, other);
            }
            memory.dealloc(first, layout(100, 1));
            assert_eq!(memory.top.get(), 204);
            memory.dealloc(second, layout(100, 8));
            assert_eq!((memory.top.get(), memory.live.get()), (0, 0));
            let all = memory.alloc(layout(256, 16));
            assert_eq!(memory.place(all), Some(0));
            memory.dealloc(all, layout(256, 16));
        }
    }

    #[test]
    fn the_last_block_grows_where_it_is_and_others_move() {
        let memory = CallMemory::<System, 256>::new(System);
        // SAFETY: as above.
        unsafe {
            let first = memory.alloc(layout(8, 4));
            first.write_bytes(7, 8);
            assert_eq!(memory.realloc(first, layout(8, 4), 32), first);
            let second = memory.alloc(layout(8, 4));
            let moved = memory.realloc(first, layout(32, 4), 64);
            assert_ne!(moved, first);
            assert_eq!(moved.add(7).read(), 7);
            assert_eq!(memory.realloc(second, layout(8, 4), 2), second);
            // The room ends here: it goes behind, and its bytes with it.
            let out = memory.realloc(moved, layout(64, 4), 1000);
            assert_eq!((memory.place(out), out.read()), (None, 7));
            memory.dealloc(out, layout(1000, 4));
            memory.dealloc(second, layout(2, 4));
            assert_eq!(memory.live.get(), 0);
        }
    }

    /// Marsaglia's xorshift64.
    fn drawn(state: &mut u64, below: u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state % below
    }

    struct Block {
        at: *mut u8,
        layout: Layout,
        mark: u8,
    }

    impl Block {
        /// Whether its bytes are as they were written.
        fn holds(&self, bytes: usize) -> bool {
            // SAFETY: it lives, and all its bytes were written.
            let read = |byte: usize| unsafe { self.at.add(byte).read() };
            (0..bytes).all(|byte| read(byte) == self.mark)
        }
    }

    #[test]
    fn no_block_touches_another() {
        let memory = CallMemory::<System, 512>::new(System);
        let mut state = 0x9e37_79b9_7f4a_7c15;
        let mut blocks: Vec<Block> = Vec::new();
        for turn in 0..20_000_u32 {
            let mark = turn as u8;
            let size = 1 + drawn(&mut state, 90) as usize;
            // SAFETY: each block is given back once, with the layout that it has.
            unsafe {
                // Now and then everything goes, as at the end of a call.
                let all = turn % 97 == 0;
                while all && let Some(block) = blocks.pop() {
                    assert!(block.holds(block.layout.size()));
                    memory.dealloc(block.at, block.layout);
                }
                if all {
                    assert_eq!((memory.top.get(), memory.live.get()), (0, 0));
                }
                match drawn(&mut state, 4) {
                    0 if !blocks.is_empty() => {
                        let one = drawn(&mut state, blocks.len() as u64) as usize;
                        let block = blocks.swap_remove(one);
                        assert!(block.holds(block.layout.size()));
                        memory.dealloc(block.at, block.layout);
                    }
                    1 if !blocks.is_empty() => {
                        let one = drawn(&mut state, blocks.len() as u64) as usize;
                        let mut block = blocks.swap_remove(one);
                        let before = block.layout.size();
                        block.at = memory.realloc(block.at, block.layout, size);
                        assert!(block.holds(before.min(size)));
                        block.layout = layout(size, block.layout.align());
                        block.mark = mark;
                        block.at.write_bytes(mark, size);
                        blocks.push(block);
                    }
                    _ => {
                        let layout = layout(size, 1_usize << drawn(&mut state, 6));
                        let at = memory.alloc(layout);
                        assert_eq!(at.addr() % layout.align(), 0);
                        at.write_bytes(mark, size);
                        blocks.push(Block { at, layout, mark });
                    }
                }
            }
        }
        assert!(!blocks.is_empty());
        for block in blocks {
            // SAFETY: as above.
            unsafe { memory.dealloc(block.at, block.layout) };
        }
    }
}
