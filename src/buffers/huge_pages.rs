//! Large buffers in huge pages, where the system has them on request: a walk down the rows of a matrix,
//! each of which is in another page of 4 KiB, would miss the cache of address translations at each step.

/// Bytes of a huge page on x86-64 and, with pages of 4 KiB, on AArch64.
#[cfg(target_os = "linux")]
const PAGE: usize = 2 << 20;

/// Asks for huge pages for memory that is not in use yet, as far as whole ones lie in it.
#[cfg(target_os = "linux")]
pub(super) fn advise(memory: &Vec<f32>) {
    let start = memory.as_ptr() as usize;
    let end = (start + memory.capacity() * size_of::<f32>()) / PAGE * PAGE;
    let first = start.next_multiple_of(PAGE);
    if first < end {
        // SAFETY: the range lies in memory that the vector owns, and the advice changes neither what is
        // in it nor who may access it. Systems that know no huge pages refuse it, which is as well.
        unsafe { libc::madvise(first as *mut libc::c_void, end - first, libc::MADV_HUGEPAGE) };
    }
}

/// Other systems decide by themselves.
#[cfg(not(target_os = "linux"))]
pub(super) fn advise(_: &Vec<f32>) {}
