//! The axes of a broadcast mask as loops, and the walk over them in the order of the elements.

/// Most axes of a tensor: batch, channels, and three of space.
pub(crate) const AXES: usize = 5;

/// One loop: how often it runs, and how far a step goes in the reduced tensor, 0 where the axis is
/// shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Axis {
    pub(crate) size: usize,
    pub(crate) step: usize,
}

/// Loops, the outermost first; shared and own ones alternate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Nest {
    axes: [Axis; AXES],
    count: usize,
}

impl Nest {
    /// The loops over a tensor, neighbours of one kind joined, those of size 1 left out.
    pub(super) fn new(dims: &[usize; AXES], shared: &[bool; AXES]) -> Self {
        let mut nest = Self::default();
        for (&size, &shared) in dims.iter().zip(shared).filter(|(size, _)| **size != 1) {
            let step = usize::from(!shared);
            match nest.axes[..nest.count].last_mut() {
                Some(last) if last.step == step => last.size *= size,
                _ => {
                    nest.axes[nest.count] = Axis { size, step };
                    nest.count += 1;
                }
            }
        }
        let mut own = 1;
        for axis in nest.axes[..nest.count].iter_mut().rev().filter(|axis| axis.step != 0) {
            axis.step = own;
            own *= axis.size;
        }
        nest
    }

    /// The loops without the innermost, and that one.
    pub(crate) fn split_inner(mut self) -> (Self, Option<Axis>) {
        if self.count == 0 {
            return (self, None);
        }
        self.count -= 1;
        (self, Some(self.axes[self.count]))
    }

    /// Whether every element has a decision of its own.
    pub(crate) fn is_elements(&self) -> bool {
        self.axes[..self.count].iter().all(|axis| axis.step != 0)
    }

    /// The walk over all loops, from the `turn`-th turn of the innermost on.
    #[inline(always)]
    pub(crate) fn walk_from(self, mut turn: usize) -> Turns {
        let (mut at, mut bit) = ([0; AXES], 0);
        for i in (0..self.count).rev() {
            let Axis { size, step } = self.axes[i];
            at[i] = turn % size;
            turn /= size;
            bit += at[i] * step;
        }
        Turns { nest: self, at, bit }
    }
}

/// A place in a walk over loops.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turns {
    nest: Nest,
    at: [usize; AXES],
    bit: usize,
}

impl Turns {
    /// The index in the reduced tensor.
    #[inline(always)]
    pub(crate) fn bit(&self) -> usize {
        self.bit
    }

    /// One turn further.
    #[inline(always)]
    pub(crate) fn advance(&mut self) {
        for i in (0..self.nest.count).rev() {
            let Axis { size, step } = self.nest.axes[i];
            self.at[i] += 1;
            self.bit += step;
            if self.at[i] < size {
                return;
            }
            self.at[i] = 0;
            self.bit -= step * size;
        }
    }
}
