//! Epilogues that are put off: the sums of a tile wait, and are finished a row at a time while the sums
//! of the next tile are made.
//!
//! An update reads and writes weights and velocities, of which each row is in other pages and mostly in
//! the same sets of the caches as the one before. At the end of a tile the multiply-adds would wait for
//! them. Between the steps of k loads and stores have room, and other multiply-adds are there to be done.

use super::epilogue::Epilogue;
use super::tile::Passing;
use crate::isa::Isa;
use crate::mask::Tile;
use crate::threads::Part;

/// A tile that waits for its epilogue.
pub(super) struct Deferred<E> {
    epilogue: E,
    /// Where sums wait.
    buffer: *mut f32,
    /// What of the tile is not finished, and its sums, row after row.
    part: Part,
    sums: *const f32,
    /// Its mask bits, from bit `shift` of each row on.
    bits: Tile,
    shift: usize,
    /// The four steps of k at which the next row is finished, and how many there are from row to row.
    due: usize,
    every: usize,
    /// Rows of the tile whose sums are being made, which have not been asked for.
    ahead: Part,
}

impl<E: Epilogue> Deferred<E> {
    /// No tile waits; the sums of one that does will be in `buffer`, which has room for any.
    pub(super) fn none(epilogue: E, buffer: *mut f32) -> Self {
        let bits = Tile { words: std::ptr::null(), stride: 0 };
        let (ahead, part) = Default::default();
        let (due, every, shift) = (usize::MAX, 0, 0);
        Self { epilogue, buffer, part, sums: buffer, bits, shift, due, every, ahead }
    }

    /// Where the sums of a tile go that is put off; no other waits then.
    pub(super) fn buffer(&self) -> *mut f32 {
        self.buffer
    }

    /// Puts off the tile `part`, whose sums are in place.
    ///
    /// # Safety
    ///
    /// The tile lies in every matrix of the epilogue, and no other task accesses it. It has whole vectors,
    /// and its bits, if they matter, stay what they are until it is finished.
    #[inline(always)]
    pub(super) unsafe fn put_off(&mut self, part: Part, bits: Tile, shift: usize) {
        (self.part, self.sums, self.bits, self.shift) = (part, self.buffer, bits, shift);
    }

    /// Spreads what waits over the `k` steps of the tile `ahead`; rows for which there is no room are
    /// finished at once.
    #[inline(always)]
    pub(super) fn spread<I: Isa, const NV: usize>(&mut self, isa: I, k: usize, ahead: Part) {
        self.ahead = ahead;
        while self.part.rows > k / 4 {
            self.finish_row::<I, NV>(isa);
        }
        self.every = k / 4 / self.part.rows.max(1);
        self.due = if self.part.rows > 0 { 0 } else { usize::MAX };
    }

    /// Finishes what waits.
    #[inline(always)]
    pub(super) fn finish<I: Isa, const NV: usize>(&mut self, isa: I) {
        self.ahead.rows = 0;
        while self.part.rows > 0 {
            self.finish_row::<I, NV>(isa);
        }
    }

    /// Finishes a row, and asks for one of the tile ahead.
    #[inline(always)]
    fn finish_row<I: Isa, const NV: usize>(&mut self, isa: I) {
        let Part { row, col, .. } = self.part;
        // SAFETY: what was promised of the tile; both parts lie in the matrices.
        unsafe {
            let word = if E::MASKED { *self.bits.words >> self.shift } else { 0 };
            self.epilogue.finish_row::<I, NV>(isa, row, col, self.sums, isa.word(word));
            if self.ahead.rows > 0 {
                self.epilogue.prefetch(isa, Part { rows: 1, ..self.ahead });
                self.ahead.row += 1;
                self.ahead.rows -= 1;
            }
        }
        self.part.row += 1;
        self.part.rows -= 1;
        self.sums = self.sums.wrapping_add(NV * I::LANES);
        self.bits.words = self.bits.words.wrapping_add(self.bits.stride);
    }
}

impl<E: Epilogue> Passing for Deferred<E> {
    #[inline(always)]
    fn pass<I: Isa, const NV: usize>(&mut self, isa: I, step: usize) {
        if E::DEFERRED && step == self.due {
            self.finish_row::<I, NV>(isa);
            self.due = if self.part.rows > 0 { step + self.every } else { usize::MAX };
        }
    }
}
