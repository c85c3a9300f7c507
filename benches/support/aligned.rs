//! Memory that starts at a cache line, as that of other frameworks' tensors does, for all candidates of
//! a bench: a `Vec` of the system's allocator starts 16 bytes after one.

use std::alloc::{GlobalAlloc, Layout, System};

struct Aligned;

/// Bytes of a cache line, and from how many on a tensor starts at one.
const LINE: usize = 64;
const TENSOR: usize = 1024;

fn aligned(layout: Layout) -> Layout {
    let line = if layout.size() < TENSOR { 1 } else { LINE };
    layout.align_to(line).unwrap_or(layout)
}

// SAFETY: every call is handed on to the system's allocator, with an alignment that only the layout
// decides; `realloc` and `alloc_zeroed` are made of these two.
unsafe impl GlobalAlloc for Aligned {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise; the size is the same.
        unsafe { System.alloc(aligned(layout)) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise; the layout is that of `alloc`.
        unsafe { System.dealloc(ptr, aligned(layout)) }
    }
}

#[global_allocator]
static ALLOCATOR: Aligned = Aligned;
