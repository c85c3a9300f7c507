//! What an update keeps from step to step.

use crate::error::{Result, check_shape};
use crate::isa::{Isa, load, store};
use crate::view::{MatMut, Target};

/// What an update keeps of a parameter from step to step, each matrix of the parameter's shape and 0
/// before the first step.
#[derive(Debug, Default)]
#[non_exhaustive]
pub enum State<'a, T = f32> {
    /// Nothing: gradient descent without momentum.
    #[default]
    None,
    /// The velocity of gradient descent with momentum.
    Velocity(MatMut<'a, T>),
    /// The moments of Adam.
    Moments {
        /// m, the mean of gradients.
        first: MatMut<'a, T>,
        /// v, the mean of squared gradients.
        second: MatMut<'a, T>,
    },
}

impl<'a, T> From<MatMut<'a, T>> for State<'a, T> {
    /// A velocity.
    fn from(velocity: MatMut<'a, T>) -> Self {
        State::Velocity(velocity)
    }
}

impl<'a, T> From<Option<MatMut<'a, T>>> for State<'a, T> {
    /// A velocity, or nothing.
    fn from(velocity: Option<MatMut<'a, T>>) -> Self {
        velocity.map_or(State::None, State::Velocity)
    }
}

impl<'a, T> From<(MatMut<'a, T>, MatMut<'a, T>)> for State<'a, T> {
    /// Two moments.
    fn from((first, second): (MatMut<'a, T>, MatMut<'a, T>)) -> Self {
        State::Moments { first, second }
    }
}

impl<'a, T> From<&'a mut [T]> for State<'a, T> {
    /// A velocity, of a bias.
    fn from(velocity: &'a mut [T]) -> Self {
        State::Velocity(MatMut::row_vector(velocity))
    }
}

impl<'a, T> From<(&'a mut [T], &'a mut [T])> for State<'a, T> {
    /// Two moments, of a bias.
    fn from((first, second): (&'a mut [T], &'a mut [T])) -> Self {
        State::Moments { first: MatMut::row_vector(first), second: MatMut::row_vector(second) }
    }
}

impl<T> State<'_, T> {
    /// What it is, for errors.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            State::None => "none",
            State::Velocity(_) => "a velocity",
            State::Moments { .. } => "two moments",
        }
    }

    /// `Ok` when each matrix has the shape of `parameter`, given as name, rows and columns.
    pub(crate) fn check_shape(&self, parameter: (&'static str, usize, usize)) -> Result<()> {
        match self {
            State::None => Ok(()),
            State::Velocity(velocity) => check_shape(parameter, velocity.named("the velocity")),
            State::Moments { first, second } => {
                check_shape(parameter, first.named("the first moment"))?;
                check_shape(parameter, second.named("the second moment"))
            }
        }
    }

    /// Another borrow of the same state.
    pub(crate) fn reborrow(&mut self) -> State<'_, T> {
        match self {
            State::None => State::None,
            State::Velocity(velocity) => State::Velocity(velocity.reborrow()),
            State::Moments { first, second } => {
                State::Moments { first: first.reborrow(), second: second.reborrow() }
            }
        }
    }

    /// The matrices, for kernels.
    pub(crate) fn targets(&mut self) -> StateTargets<T> {
        let (first, second) = match self {
            State::None => (None, None),
            State::Velocity(velocity) => (Some(velocity.target()), None),
            State::Moments { first, second } => (Some(first.target()), Some(second.target())),
        };
        StateTargets { first, second }
    }
}

impl<T: Copy> State<'_, T> {
    /// What is kept of element (row, col).
    pub(crate) fn element(&self, row: usize, col: usize) -> [Option<T>; 2] {
        let at = |matrix: &MatMut<'_, T>| Some(matrix.as_ref().at(row, col));
        match self {
            State::None => [None, None],
            State::Velocity(velocity) => [at(velocity), None],
            State::Moments { first, second } => [at(first), at(second)],
        }
    }

    /// Replaces what is kept of element (row, col).
    pub(crate) fn put(&mut self, row: usize, col: usize, element: [Option<T>; 2]) {
        let (first, second) = match self {
            State::None => (None, None),
            State::Velocity(velocity) => (Some(velocity), None),
            State::Moments { first, second } => (Some(first), Some(second)),
        };
        for (matrix, value) in [first, second].into_iter().zip(element) {
            if let (Some(matrix), Some(value)) = (matrix, value) {
                matrix.put(row, col, value);
            }
        }
    }
}

/// A state's matrices, for kernels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StateTargets<T = f32> {
    pub(crate) first: Option<Target<T>>,
    pub(crate) second: Option<Target<T>>,
}

impl<T> StateTargets<T> {
    /// The matrices that there are.
    pub(crate) fn iter(self) -> impl Iterator<Item = Target<T>> {
        [self.first, self.second].into_iter().flatten()
    }

    /// Each matrix in transposed order.
    pub(crate) fn t(self) -> Self {
        Self { first: self.first.map(Target::t), second: self.second.map(Target::t) }
    }
}

impl StateTargets {
    /// Where `n` elements of a row are in each matrix.
    ///
    /// # Safety
    ///
    /// The elements lie in the matrices, and are contiguous where there are several.
    #[inline(always)]
    pub(crate) unsafe fn run(self, row: usize, col: usize, n: usize) -> StatePointers {
        // SAFETY: the caller's promise.
        let at = |target: Target| unsafe { target.run(row, col, n) };
        StatePointers { first: self.first.map(at), second: self.second.map(at) }
    }
}

/// Where a run of elements is in each matrix of a state.
#[derive(Clone, Copy)]
pub(crate) struct StatePointers {
    first: Option<*mut f32>,
    second: Option<*mut f32>,
}

/// A vector of each matrix of a state.
#[derive(Clone, Copy)]
pub(crate) struct StateVectors<I: Isa> {
    pub(crate) first: Option<I::F32>,
    pub(crate) second: Option<I::F32>,
}

impl StatePointers {
    /// The first `n` lanes from memory.
    ///
    /// # Safety
    ///
    /// The pointers are valid for reads of `n` floats.
    #[inline(always)]
    pub(crate) unsafe fn load<I: Isa>(self, isa: I, n: usize) -> StateVectors<I> {
        // SAFETY: the caller's promise.
        let vector = |at: *mut f32| unsafe { load(isa, at.cast_const(), n) };
        StateVectors { first: self.first.map(vector), second: self.second.map(vector) }
    }

    /// The first `n` lanes to memory.
    ///
    /// # Safety
    ///
    /// The pointers are valid for writes of `n` floats.
    #[inline(always)]
    pub(crate) unsafe fn store<I: Isa>(self, isa: I, n: usize, state: StateVectors<I>) {
        let StateVectors { first, second } = state;
        for (at, vector) in [(self.first, first), (self.second, second)] {
            if let (Some(at), Some(vector)) = (at, vector) {
                // SAFETY: the caller's promise.
                unsafe { store(isa, at, n, vector) }
            }
        }
    }
}

impl<I: Isa> StateVectors<I> {
    /// `if removed { old } else { new }` of each.
    #[inline(always)]
    pub(crate) fn select(isa: I, removed: I::Mask, old: Self, new: Self) -> Self {
        let vector = |old: Option<I::F32>, new: Option<I::F32>| match (old, new) {
            (Some(old), Some(new)) => Some(isa.select(removed, old, new)),
            _ => None,
        };
        Self { first: vector(old.first, new.first), second: vector(old.second, new.second) }
    }
}
