//! Alignment, growth, errors for want of memory, and the workspace of a thread.

use super::*;

#[test]
fn they_start_at_a_line() {
    for len in [0, 1, 15, 16, 17, 1000, 100_000] {
        let mut buffer = AlignedBuffer::zeros(len).unwrap();
        assert_eq!(*buffer, vec![0.0; len]);
        buffer.fill(1.5);
        let copy = buffer.clone();
        assert_eq!(*copy, vec![1.5; len]);
        for buffer in [&buffer, &copy] {
            assert!(len == 0 || (buffer.as_ptr() as usize).is_multiple_of(4 * LINE));
        }
    }
}

#[test]
fn they_grow_and_never_shrink() {
    let mut buffer = AlignedBuffer::default();
    assert_eq!(buffer.room(3, 7).map(|room| room.len()), Ok(21));
    let first = buffer.as_ptr();
    assert_eq!(buffer.room(2, 5).map(|room| room.len()), Ok(10));
    assert_eq!((buffer.as_ptr(), buffer.len()), (first, 21));
    assert_eq!(buffer.grow(0).map(|room| room.len()), Ok(0));
    let mut words = vec![1_u32; 3];
    assert_eq!(grow(&mut words, 2).map(|words| words.len()), Ok(2));
    assert_eq!(grow(&mut words, 5).map(|words| words.len()), Ok(5));
    assert_eq!(words.len(), 5);
}

#[test]
fn memory_that_cannot_be_had_is_an_error() {
    let mut buffer = AlignedBuffer::default();
    let overflow = Error::Overflow { rows: usize::MAX, stride: 2 };
    assert_eq!(buffer.room(usize::MAX, 2).unwrap_err(), overflow);
    assert!(buffer.room(1, isize::MAX as usize / 4).is_err());
    let len = isize::MAX as usize / 4 - LINE;
    let memory = Error::Memory { bytes: 4 * (len + LINE - 1) };
    assert_eq!(buffer.room(1, len).unwrap_err(), memory);
    assert_eq!(
        memory.to_string(),
        format!("{} bytes of memory could not be had", 4 * (len + LINE - 1))
    );
    assert!(buffer.is_empty());
    let mut words = vec![1_u32];
    let memory = Error::Memory { bytes: usize::MAX };
    assert_eq!(grow(&mut words, usize::MAX / 2).unwrap_err(), memory);
}

#[test]
fn what_is_in_use_is_not_given_out_again() {
    let address = |lease: &Lease<AlignedBuffer>| lease.as_ptr();
    let mut outer: Lease<AlignedBuffer> = Slot::Output.take();
    outer.grow(100).unwrap().fill(1.0);
    let inner: Lease<AlignedBuffer> = Slot::Output.take();
    assert!(inner.is_empty());
    drop(inner);
    let kept = address(&outer);
    drop(outer);
    let again: Lease<AlignedBuffer> = Slot::Output.take();
    assert_eq!((address(&again), again.len()), (kept, 100));
    // Another type finds nothing, and takes the place.
    drop(again);
    assert!(Slot::Output.take::<Vec<u8>>().is_empty());
}

#[test]
fn what_is_released_is_gone_and_what_is_in_use_stays() {
    drop(Slot::Rows.take::<Vec<u8>>());
    let mut used = Slot::Layer.take::<Vec<u8>>();
    used.extend([1, 2, 3]);
    let mut kept = Slot::Planes.take::<Vec<u8>>();
    kept.push(1);
    drop(kept);
    release_buffers();
    assert!(Slot::Planes.take::<Vec<u8>>().is_empty());
    assert_eq!(**used, [1, 2, 3]);
}
