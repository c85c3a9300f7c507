//! Parameter updates: stochastic gradient descent with momentum and the penalties L2 and L1, and
//! the max-norm constraint of the dropout papers.

mod max_norm;

use crate::Level;
use crate::error::{Error, Result, check_shape};
use crate::isa::{Isa, Kernel, load, store};
use crate::threads::{Grid, Part, for_each};
use crate::view::{MatMut, MatRef, Source, Target};
pub use max_norm::max_norm;
pub(crate) use max_norm::{check_limit, gathered_max_norm};

/// Elements worth a task.
const TASK: usize = crate::threads::work::COPY;

/// The numbers of one update.
///
/// ```text
/// g = dw + weight_decay · w + l1 · sign(w)
/// v = momentum · v + g          (where there is a velocity; else v = g)
/// w = w - learning_rate · v
/// ```
///
/// each product a fused multiply-add with what is left of it, the L1 term a sum of its own. This is
/// the form of Sutskever et al. 2013 ("On the importance of initialization and momentum in deep
/// learning") with the learning rate outside the velocity.
///
/// g is a subgradient of `loss + weight_decay / 2 · |w|² + l1 · |w|₁` with `sign(0) = 0`. Both
/// penalties are part of the gradient, so momentum gathers them like any other part; without
/// momentum they take `learning_rate · weight_decay · w` and `learning_rate · l1 · sign(w)` off w.
/// A subgradient step passes 0 rather than stopping there: weights come near 0, not exactly to it.
/// Where `l1` is 0 the term is left out.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
#[must_use]
pub struct SgdStep {
    /// The step along the velocity.
    pub learning_rate: f32,
    /// What is left of the last velocity.
    pub momentum: f32,
    /// The L2 penalty's factor.
    pub weight_decay: f32,
    /// The L1 penalty's factor.
    pub l1: f32,
}

impl SgdStep {
    /// This learning rate, no momentum and no penalties.
    pub const fn new(learning_rate: f32) -> Self {
        Self { learning_rate, momentum: 0.0, weight_decay: 0.0, l1: 0.0 }
    }

    /// The same with this share of the last velocity left.
    pub const fn with_momentum(self, momentum: f32) -> Self {
        Self { momentum, ..self }
    }

    /// The same with this factor of the L2 penalty.
    pub const fn with_weight_decay(self, weight_decay: f32) -> Self {
        Self { weight_decay, ..self }
    }

    /// The same with this factor of the L1 penalty.
    pub const fn with_l1(self, l1: f32) -> Self {
        Self { l1, ..self }
    }

    /// The step of the biases of a layer, which are not penalised.
    pub(crate) fn without_penalties(&self) -> Self {
        Self { weight_decay: 0.0, l1: 0.0, ..*self }
    }

    /// `Ok` when all numbers are finite and not negative.
    pub(crate) fn check(&self) -> Result<()> {
        let numbers = [
            ("learning_rate", self.learning_rate),
            ("momentum", self.momentum),
            ("weight_decay", self.weight_decay),
            ("l1", self.l1),
        ];
        for (name, value) in numbers {
            if !(value.is_finite() && value >= 0.0) {
                let expected = "finite and not negative";
                return Err(Error::Parameter { name, value: value.into(), expected });
            }
        }
        Ok(())
    }
}

/// Updates `w`, and `velocity` where there is one, with the gradient `dw`.
///
/// ```
/// use fused_dropout::{MatMut, MatRef};
/// use fused_dropout::sgd::{SgdStep, sgd_update};
///
/// let (mut w, mut velocity, dw) = ([1.0, 2.0], [0.0, 0.5], [4.0, -4.0]);
/// let step = SgdStep::new(0.25).with_momentum(0.5);
/// let (to, v) = (MatMut::new(&mut w, 1, 2)?, MatMut::new(&mut velocity, 1, 2)?);
/// sgd_update(to, MatRef::new(&dw, 1, 2)?, Some(v), &step)?;
/// assert_eq!((w, velocity), ([0.0, 2.9375], [4.0, -3.75]));
/// # Ok::<(), fused_dropout::Error>(())
/// ```
///
/// # Errors
///
/// When shapes differ, or a number of `step` is negative or not finite.
pub fn sgd_update(
    mut w: MatMut<'_>,
    dw: MatRef<'_>,
    mut velocity: Option<MatMut<'_>>,
    step: &SgdStep,
) -> Result<()> {
    step.check()?;
    check_shape(w.named("w"), dw.named("dw"))?;
    if let Some(velocity) = &velocity {
        check_shape(w.named("w"), velocity.named("the velocity"))?;
    }
    let level = Level::current()?;
    let (mut rows, mut cols) = (w.rows(), w.cols());
    let (mut w, mut dw) = (w.target(), dw.source());
    let mut velocity = velocity.as_mut().map(MatMut::target);
    if w.col_step != 1 {
        (rows, cols) = (cols, rows);
        (w, dw, velocity) = (w.t(), dw.t(), velocity.map(Target::t));
    }
    let grid = Grid::new(rows, cols, TASK, 1, 32);
    for_each(grid.len(), |i| {
        // SAFETY: the part lies in the matrices, and is this task's alone.
        level.vectorize(unsafe { Update::new(grid.part(i), w, dw, velocity, *step) });
    });
    Ok(())
}

struct Update {
    part: Part,
    w: Target,
    dw: Source,
    velocity: Option<Target>,
    step: SgdStep,
}

impl Update {
    /// # Safety
    ///
    /// The part lies in all matrices, which are alive, and no other task accesses it. The rows of
    /// `w` are contiguous.
    unsafe fn new(
        part: Part,
        w: Target,
        dw: Source,
        velocity: Option<Target>,
        step: SgdStep,
    ) -> Self {
        Self { part, w, dw, velocity, step }
    }
}

impl Kernel for Update {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Part { row, rows, col, cols } = self.part;
        let by_rows = self.dw.col_step == 1 && self.velocity.is_none_or(|v| v.col_step == 1);
        for r in row..row + rows {
            let mut c = col;
            while c < col + cols {
                let most = if by_rows { I::LANES } else { 1 };
                let n = most.min(col + cols - c);
                // SAFETY: `Update::new`.
                unsafe {
                    let (w, dw) = (self.w.at(r, c), self.dw.at(r, c));
                    let g = load(isa, dw, n);
                    match self.velocity {
                        Some(velocity) => {
                            let velocity = velocity.at(r, c);
                            let old = load(isa, velocity.cast_const(), n);
                            let (w_new, v_new) =
                                self.step.apply(isa, load(isa, w.cast_const(), n), g, Some(old));
                            store(isa, velocity, n, v_new);
                            store(isa, w, n, w_new);
                        }
                        None => {
                            let old = load(isa, w.cast_const(), n);
                            store(isa, w, n, self.step.apply(isa, old, g, None).0);
                        }
                    }
                }
                c += n;
            }
        }
    }
}

impl SgdStep {
    /// The new weight and velocity.
    #[inline(always)]
    pub(crate) fn apply<I: Isa>(
        &self,
        isa: I,
        w: I::F32,
        dw: I::F32,
        velocity: Option<I::F32>,
    ) -> (I::F32, I::F32) {
        let mut g = isa.mul_add(isa.splat(self.weight_decay), w, dw);
        if self.l1 != 0.0 {
            let zero = isa.le(isa.abs(w), isa.splat(0.0));
            g = isa.add(g, isa.zero_where(zero, isa.with_sign_of(isa.splat(self.l1), w)));
        }
        let v = match velocity {
            Some(velocity) => isa.mul_add(isa.splat(self.momentum), velocity, g),
            None => g,
        };
        (isa.neg_mul_add(isa.splat(self.learning_rate), v, w), v)
    }
}
