//! Updates with a gradient that is in memory.

use super::{Ready, State, StateTargets, Step, StepWork, TASK};
use crate::Level;
use crate::error::{Error, Result, check_shape};
use crate::isa::{Isa, Kernel, load, store};
use crate::threads::{Grid, Part, for_each};
use crate::view::{MatMut, MatRef, Source, Target};

/// A gradient, and a factor that it is multiplied by before it is used: 1, or [`clip_factor`]'s.
///
/// [`clip_factor`]: super::clip_factor
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
#[must_use]
pub struct Gradient<'a, T = f32> {
    /// Of the parameter's shape.
    pub dw: MatRef<'a, T>,
    /// The factor.
    pub scale: f32,
}

impl<'a, T> From<MatRef<'a, T>> for Gradient<'a, T> {
    /// As it is.
    fn from(dw: MatRef<'a, T>) -> Self {
        Self { dw, scale: 1.0 }
    }
}

impl<'a, T> Gradient<'a, T> {
    /// The gradient `scale · dw`.
    pub fn scaled(dw: MatRef<'a, T>, scale: f32) -> Self {
        Self { dw, scale }
    }

    /// `Ok` when the factor is a number.
    pub(crate) fn check(&self) -> Result<()> {
        if self.scale.is_finite() {
            return Ok(());
        }
        let (name, value) = ("factor of the gradient", self.scale.into());
        Err(Error::Parameter { name, value, expected: "finite" })
    }
}

/// Updates the parameter `w` and its state with a gradient.
///
/// ```
/// use fused_dropout::update::{AdamStep, SgdStep, State, apply};
/// use fused_dropout::{MatMut, MatRef};
///
/// let (mut w, mut velocity, dw) = ([1.0, 2.0], [0.0, 0.5], [4.0, -4.0]);
/// let step = SgdStep::new(0.25).with_momentum(0.5);
/// let (to, v) = (MatMut::new(&mut w, 1, 2)?, MatMut::new(&mut velocity, 1, 2)?);
/// apply(to, MatRef::new(&dw, 1, 2)?, v, step)?;
/// assert_eq!((w, velocity), ([0.0, 2.9375], [4.0, -3.75]));
///
/// // Adam's first step is about as long as the learning rate, whatever the gradient.
/// let (mut w, mut m, mut v) = ([1.0], [0.0], [0.0]);
/// let (to, dw) = (MatMut::row_vector(&mut w), MatRef::row_vector(&[100.0]));
/// let state = (MatMut::row_vector(&mut m), MatMut::row_vector(&mut v));
/// apply(to, dw, state, AdamStep::new(0.5))?;
/// assert!((w[0] - 0.5).abs() < 1e-6);
/// # Ok::<(), fused_dropout::Error>(())
/// ```
///
/// # Errors
///
/// When shapes differ, a number of the step is out of its range, the factor of the gradient is not
/// finite, or the state is not what the step needs.
pub fn apply<'g, 's>(
    mut w: MatMut<'_>,
    gradient: impl Into<Gradient<'g>>,
    state: impl Into<State<'s>>,
    step: impl Into<Step>,
) -> Result<()> {
    let (gradient, mut state, step) = (gradient.into(), state.into(), step.into());
    check_apply(&w, &gradient, &state, &step)?;
    let level = Level::current()?;
    let (mut rows, mut cols) = (w.rows(), w.cols());
    let (mut w, mut dw, mut state) = (w.target(), gradient.dw.source(), state.targets());
    if w.col_step != 1 {
        (rows, cols) = (cols, rows);
        (w, dw, state) = (w.t(), dw.t(), state.t());
    }
    let apply = Apply { w, dw, scale: gradient.scale, state, step: step.ready() };
    let grid = Grid::new(rows, cols, TASK, 1, 32);
    for_each(grid.len(), |i| {
        // SAFETY: the part lies in the matrices, and is this task's alone.
        level.vectorize(unsafe { Task::new(apply, grid.part(i)) });
    });
    Ok(())
}

/// `Ok` when an update can be made.
pub(crate) fn check_apply<T>(
    w: &MatMut<'_, T>,
    gradient: &Gradient<'_, T>,
    state: &State<'_, T>,
    step: &Step,
) -> Result<()> {
    step.check()?;
    gradient.check()?;
    check_shape(w.named("w"), gradient.dw.named("dw"))?;
    state.check_shape(w.named("w"))?;
    step.check_state("w", state)
}

/// Matrices and a step.
#[derive(Clone, Copy)]
struct Apply {
    /// Its rows are contiguous.
    w: Target,
    dw: Source,
    scale: f32,
    state: StateTargets,
    step: Ready,
}

/// A part of the matrices.
struct Task {
    apply: Apply,
    part: Part,
}

impl Task {
    /// # Safety
    ///
    /// The part lies in all matrices, which are alive, and no other task accesses it.
    unsafe fn new(apply: Apply, part: Part) -> Self {
        Self { apply, part }
    }
}

impl Kernel for Task {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Apply { state, step, .. } = self.apply;
        step.unswitch(state, Rows { isa, task: self });
    }
}

/// The rows of a task.
struct Rows<I> {
    isa: I,
    task: Task,
}

impl<I: Isa> StepWork for Rows<I> {
    #[inline(always)]
    fn call(self, step: Ready, state: StateTargets) {
        let Self { isa, task: Task { apply: Apply { w, dw, scale, .. }, part } } = self;
        let Part { row, rows, col, cols } = part;
        let by_rows = dw.col_step == 1 && state.iter().all(|matrix| matrix.col_step == 1);
        let most = if by_rows { I::LANES } else { 1 };
        for r in row..row + rows {
            let mut c = col;
            while c < col + cols {
                let n = most.min(col + cols - c);
                // SAFETY: `Task::new`.
                unsafe {
                    let (w, at) = (w.in_row(r, c, n), state.run(r, c, n));
                    let g = isa.mul(load(isa, dw.at(r, c), n), isa.splat(scale));
                    let old = load(isa, w.cast_const(), n);
                    let (w_new, state_new) = step.vector(isa, old, g, at.load(isa, n));
                    at.store(isa, n, state_new);
                    store(isa, w, n, w_new);
                }
                c += n;
            }
        }
    }
}
