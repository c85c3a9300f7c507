//! Packing ahead, for tiles whose chains skip steps: the tiles of one panel of B copy the next one, as far
//! as they get. How many steps they have is known only as they go, so no tile has a share of its own.

use super::super::Operand;
use super::super::microkernel::StepHook;
use crate::isa::Isa;
use crate::threads::Part;

/// Rows from the one that is copied to the one that is prefetched.
const DISTANCE: usize = 16;
/// Rows that are copied each four steps of k. Half of the tiles of a panel skip half of their steps, so
/// there are about as many times four steps as rows.
const ROWS: usize = 2;

/// What the tiles of a panel of B do for the next panel.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    from: *const f32,
    from_step: usize,
    /// Where rows are copied to, `width` floats each.
    to: *mut f32,
    width: usize,
    /// Rows that are left, and that are done.
    left: usize,
    done: usize,
}

impl Ahead {
    /// Nothing.
    pub(super) const NOTHING: Self = Self {
        from: std::ptr::null(),
        from_step: 0,
        to: std::ptr::null_mut(),
        width: 0,
        left: 0,
        done: 0,
    };

    /// The panel of `part`, which has `width` columns and goes to `to`: nothing where it is not just copied.
    ///
    /// # Safety
    ///
    /// The part lies in the operand, which is alive as long as this is used; `to` has room for the panel.
    pub(super) unsafe fn new(operand: Operand, part: Part, width: usize, to: *mut f32) -> Self {
        let source = operand.source();
        let from = source.near(part.row, part.col);
        if operand.is_copied() && part.cols == width {
            return Self { from, from_step: source.row_step, to, width, left: part.rows, done: 0 };
        }
        Self::NOTHING
    }

    /// Rows that are copied.
    pub(super) fn rows(&self) -> usize {
        self.done
    }
}

impl StepHook for Ahead {
    #[inline(always)]
    fn before_steps<I: Isa>(&mut self, isa: I, _: usize) {
        for _ in 0..ROWS {
            if self.left == 0 {
                return;
            }
            let ahead = self.from.wrapping_add(DISTANCE.wrapping_mul(self.from_step));
            let mut c = 0;
            while c < self.width {
                isa.prefetch(ahead.wrapping_add(c));
                c += 16;
            }
            let mut c = 0;
            while c < self.width {
                // SAFETY: `Ahead::new`: there is another row.
                unsafe { isa.store(self.to.add(c), isa.load(self.from.add(c))) };
                c += I::LANES;
            }
            self.from = self.from.wrapping_add(self.from_step);
            self.to = self.to.wrapping_add(self.width);
            self.left -= 1;
            self.done += 1;
        }
    }
}
