//! The micro-kernel: a tile of C in registers, one multiply-add for each element and k.
//!
//! ```text
//! acc[r][v] = start                            bias, or the partial result of the last block of k
//! for p in 0..k:
//!     b[v]      = B panel, row p               NV loads
//!     acc[r][v] = fma(a[r], b[v], acc[r][v])   MR broadcasts, MR * NV multiply-adds
//! store acc as partial result, or hand it to the epilogue
//! ```

use crate::isa::{Isa, Kernel, TileKernel};

/// The sums of a tile of at most 12 x 2 vectors of 16, aligned for them.
#[repr(align(64))]
pub(super) struct Sums([f32; 12 * 2 * 16]);

impl Sums {
    pub(super) const ZERO: Self = Self([0.0; 12 * 2 * 16]);

    pub(super) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.0.as_mut_ptr()
    }
}

/// What a tile multiplies: packed panels, and how many steps of k they hold.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    pub(super) a: *const f32,
    pub(super) b: *const f32,
    pub(super) k: usize,
    pub(super) next: Next,
}

/// What is done in passing: each few steps of k a row of the next panel of B is copied, and a row further
/// on is prefetched. The load and store units have room for that, so packing takes no time of its own.
#[derive(Clone, Copy)]
pub(super) struct Next {
    /// One less than the number, a power of two, of times four steps of k from a row to the next; more
    /// than there are where only the first is copied.
    pub(super) mask: usize,
    pub(super) from: *const f32,
    pub(super) from_step: usize,
    pub(super) to: *mut f32,
    pub(super) to_step: usize,
    /// The last element of the row to prefetch: where rows do not start at a line, the first line
    /// came with the panel before.
    pub(super) ahead: *const f32,
    pub(super) ahead_step: usize,
    /// AlignedBuffer from a prefetched line to the next, for wider panels.
    pub(super) line_step: isize,
    pub(super) keep: Keep,
}

/// What becomes of copied rows: the bits of the next, from bit `shift` on, and the scale of what they
/// keep. Where there are no bits rows stay as they are.
#[derive(Clone, Copy)]
pub(super) struct Keep {
    pub(super) words: *const u32,
    pub(super) step: usize,
    pub(super) shift: usize,
    pub(super) scale: f32,
}

impl Keep {
    pub(super) const ALL: Self = Self { words: std::ptr::null(), step: 0, shift: 0, scale: 1.0 };

    /// The same after so many rows.
    pub(super) fn after_rows(self, rows: usize) -> Self {
        Self { words: self.words.wrapping_add(rows * self.step), ..self }
    }
}

/// Other work that is done in passing.
pub(super) trait Passing {
    /// What is due before the four steps of k with this number, for tiles of `NV` vectors.
    fn pass<I: Isa, const NV: usize>(&mut self, isa: I, step: usize);
}

impl Passing for () {
    #[inline(always)]
    fn pass<I: Isa, const NV: usize>(&mut self, _: I, _: usize) {}
}

/// `acc += A panel · B panel`, for `R` rows and `V` vectors; rows of B have `nr` floats.
///
/// # Safety
///
/// The panels are valid for `k` rows of `R` floats and of `nr`, and so is what is copied, with its
/// bits, for a row each four steps.
#[inline(always)]
pub(super) unsafe fn accumulate<I: Isa, const R: usize, const V: usize>(
    isa: I,
    panels: Panels,
    nr: usize,
    acc: &mut [[I::F32; V]; R],
    passing: &mut impl Passing,
) {
    let Panels { mut a, mut b, k, mut next } = panels;
    macro_rules! step {
        () => {
            let mut row = [isa.splat(0.0); V];
            let mut v = 0;
            while v < V {
                row[v] = isa.load(b.add(v * I::LANES));
                v += 1;
            }
            let mut r = 0;
            while r < R {
                let x = isa.splat(*a.add(r));
                let mut v = 0;
                while v < V {
                    acc[r][v] = isa.mul_add(x, row[v], acc[r][v]);
                    v += 1;
                }
                r += 1;
            }
            a = a.add(R);
            b = b.add(nr);
        };
    }
    let drops = !next.keep.words.is_null();
    // SAFETY: the caller's promise.
    unsafe {
        let mut i = 0;
        while i < k / 4 {
            if i & next.mask == 0 {
                let mut line = 0;
                while line < nr.div_ceil(16) {
                    isa.prefetch(next.ahead.wrapping_offset(line as isize * next.line_step));
                    line += 1;
                }
                let mut c = 0;
                if drops {
                    let word = isa.word(*next.keep.words >> next.keep.shift);
                    while c < nr {
                        let x = isa.mul(isa.load(next.from.add(c)), isa.splat(next.keep.scale));
                        isa.store(next.to.add(c), isa.keep(isa.lanes(word, c), x));
                        c += I::LANES;
                    }
                    next.keep.words = next.keep.words.wrapping_add(next.keep.step);
                }
                while c < nr {
                    isa.store(next.to.add(c), isa.load(next.from.add(c)));
                    c += I::LANES;
                }
                next.from = next.from.wrapping_add(next.from_step);
                next.to = next.to.wrapping_add(next.to_step);
                next.ahead = next.ahead.wrapping_add(next.ahead_step);
            }
            passing.pass::<I, V>(isa, i);
            i += 1;
            step!();
            step!();
            step!();
            step!();
        }
        for _ in 0..k % 4 {
            step!();
        }
    }
}

/// A tile of any number of rows and vectors whose sums start and end in memory: one instance for
/// all epilogues, for tiles that are few.
#[derive(Clone, Copy)]
pub(super) struct MemoryTile {
    pub(super) panels: Panels,
    pub(super) rows: usize,
    pub(super) vectors: usize,
    /// Where the sums start, and the floats between rows; zeros where it is null.
    pub(super) from: *const f32,
    pub(super) from_step: usize,
    /// Where they end.
    pub(super) to: *mut f32,
    pub(super) to_step: usize,
}

impl Kernel for MemoryTile {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        isa.tile(self);
    }
}

impl TileKernel for MemoryTile {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, const MR: usize, const MR1: usize, const NV: usize>(self, isa: I) {
        let nr = NV * I::LANES;
        macro_rules! rows {
            ($($rows:literal)*) => {
                // SAFETY: the caller of this kernel prepared panels and tile for this shape.
                unsafe {
                    match (self.rows, self.vectors) {
                        $(($rows, vectors) if $rows <= MR && vectors == NV => self.tile::<I, $rows, NV>(isa, nr),
                        ($rows, 1) if $rows <= MR && NV > 1 => self.tile::<I, $rows, 1>(isa, nr),)*
                        _ => {}
                    }
                }
            };
        }
        rows!(1 2 3 4 5 6 7 8 9 10 11 12);
    }
}

impl MemoryTile {
    /// # Safety
    ///
    /// The panels and both places have `R` rows of `V` vectors.
    #[inline(always)]
    unsafe fn tile<I: Isa, const R: usize, const V: usize>(self, isa: I, nr: usize) {
        let Self { from, from_step, to, to_step, .. } = self;
        let mut acc = [[isa.splat(0.0); V]; R];
        // SAFETY: the caller's promise.
        unsafe {
            if !from.is_null() {
                for (r, row) in acc.iter_mut().enumerate() {
                    for (v, sum) in row.iter_mut().enumerate() {
                        *sum = isa.load(from.add(r * from_step + v * I::LANES));
                    }
                }
            }
            accumulate(isa, self.panels, nr, &mut acc, &mut ());
            for (r, row) in acc.into_iter().enumerate() {
                for (v, sum) in row.into_iter().enumerate() {
                    isa.store(to.add(r * to_step + v * I::LANES), sum);
                }
            }
        }
    }
}
