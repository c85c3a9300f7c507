//! What can be wrong with an argument: one variant for each pair of things that can disagree.

use crate::Level;

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation refused its arguments. The outputs of a refused operation are untouched, save after
/// [`Error::Memory`]: a task that finds no memory of its own leaves its part of the outputs as it was,
/// while other tasks write theirs.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A rate that is no probability.
    #[error("rate is {rate}: it must be a probability to drop, from 0 to 1")]
    Rate {
        /// The rate that was given.
        rate: f64,
    },

    /// Two sizes that must be equal are not.
    #[error("{left} is {left_value}, but {right} is {right_value}: they must be equal")]
    Mismatch {
        /// What the first size is.
        left: &'static str,
        /// The first size.
        left_value: usize,
        /// What the second size is.
        right: &'static str,
        /// The second size.
        right_value: usize,
    },

    /// Two matrices that must have the same shape have not.
    #[error(
        "{left} is {left_rows} x {left_cols}, but {right} is {right_rows} x {right_cols}: they must have the same shape"
    )]
    Shape {
        /// What the first matrix is.
        left: &'static str,
        /// Rows of the first matrix.
        left_rows: usize,
        /// Columns of the first matrix.
        left_cols: usize,
        /// What the second matrix is.
        right: &'static str,
        /// Rows of the second matrix.
        right_rows: usize,
        /// Columns of the second matrix.
        right_cols: usize,
    },

    /// A slice too short for the matrix it should hold.
    #[error(
        "{rows} rows of {cols} columns, {stride} apart, need {needed} elements, but the slice has {len}"
    )]
    TooShort {
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        cols: usize,
        /// Elements from one row to the next.
        stride: usize,
        /// Elements the matrix spans.
        needed: usize,
        /// Elements the slice has.
        len: usize,
    },

    /// A row stride smaller than a row.
    #[error("the row stride is {stride}, but a row has {cols} columns: rows would overlap")]
    Stride {
        /// Elements from one row to the next.
        stride: usize,
        /// Columns of the matrix.
        cols: usize,
    },

    /// A matrix with more elements than an address can count.
    #[error("{rows} rows {stride} elements apart: more than memory can hold")]
    Overflow {
        /// Rows of the matrix.
        rows: usize,
        /// Elements from one row to the next.
        stride: usize,
    },

    /// Rows, columns or a layer outside what a mask can address.
    #[error("{what}: {first} + {count} goes past {limit}, the last that a mask can address")]
    Address {
        /// Which coordinate.
        what: &'static str,
        /// The origin.
        first: u64,
        /// How many from there.
        count: u64,
        /// The exclusive end of what can be addressed.
        limit: u64,
    },

    /// Memory that could not be had.
    #[error("{bytes} bytes of memory could not be had")]
    Memory {
        /// How many bytes.
        bytes: usize,
    },

    /// A number outside the range it must lie in.
    #[error("{name} is {value}: it must be {expected}")]
    Parameter {
        /// Which number.
        name: &'static str,
        /// The number that was given.
        value: f64,
        /// The range it must lie in.
        expected: &'static str,
    },

    /// An axis of a noise shape that is neither 1 nor the tensor's.
    #[error(
        "axis {axis} of the noise shape is {noise}, but the tensor's is {size}: it must be that or 1"
    )]
    NoiseShape {
        /// The axis.
        axis: usize,
        /// Its size in the noise shape.
        noise: usize,
        /// Its size in the tensor.
        size: usize,
    },

    /// A bit of a packed mask that belongs to no column is not 0.
    #[error(
        "the last word of row {row} is {word:#010x}, but a row of {cols} columns leaves higher bits 0"
    )]
    UnusedBits {
        /// The row.
        row: usize,
        /// Its last word.
        word: u32,
        /// Columns of the mask.
        cols: usize,
    },

    /// A kept unit that is not above the one before it in its list, or that the layer has not.
    #[error(
        "kept unit {unit} at position {position} must be above the one before it, and below {units}, \
         the number of units"
    )]
    Unit {
        /// Where in the list.
        position: usize,
        /// The unit that was given.
        unit: u32,
        /// Number of units.
        units: usize,
    },

    /// Gaussian noise where whole units were asked for.
    #[error(
        "noise {position} of the network is Gaussian, but its granularity is that of units: \
         it must be that of elements"
    )]
    NoiseOfUnits {
        /// Which noise: 0 the input's, then one for each hidden layer.
        position: usize,
    },

    /// A label that names no class.
    #[error("label {label} of example {index} names no class: there are {classes}")]
    Label {
        /// Position of the label.
        index: usize,
        /// The label that was given.
        label: u32,
        /// Number of classes.
        classes: usize,
    },

    /// Backward needs something that forward did not keep.
    #[error("the backward pass of {activation} needs {missing}, which was not saved")]
    NotSaved {
        /// The activation function.
        activation: &'static str,
        /// What is missing.
        missing: &'static str,
    },

    /// Weights that were packed with another dropout than that of the arguments.
    #[error(
        "the weights were packed with the dropout {packed}, but that of the arguments is {arguments}"
    )]
    PackedDropout {
        /// The dropout and the key of the packed weights.
        packed: String,
        /// The dropout and the key of the arguments.
        arguments: String,
    },

    /// An activation's name that is not known.
    #[error(
        "unknown activation {name:?}: the activations are identity, relu, leaky-relu, \
         leaky-relu:SLOPE, sigmoid, tanh, gelu, gelu-tanh, silu and selu"
    )]
    UnknownActivation {
        /// The name that was given.
        name: String,
    },

    /// A level's name that is not known.
    #[error("unknown level {name:?}: the levels are portable, avx2 and avx512")]
    UnknownLevel {
        /// The name that was given.
        name: String,
    },

    /// A level this machine does not have.
    #[error("level {level} was asked for, but this machine's best is {best}")]
    LevelUnavailable {
        /// The level that was asked for.
        level: Level,
        /// The best level of this machine.
        best: Level,
    },
}

/// `Ok` when the two sizes are equal, else an error that names both.
pub(crate) fn check_equal(
    left: &'static str,
    left_value: usize,
    right: &'static str,
    right_value: usize,
) -> Result<()> {
    if left_value == right_value {
        return Ok(());
    }
    Err(Error::Mismatch { left, left_value, right, right_value })
}

/// `Ok` when the two matrices, given as name, rows and columns, have the same shape.
pub(crate) fn check_shape(
    (left, left_rows, left_cols): (&'static str, usize, usize),
    (right, right_rows, right_cols): (&'static str, usize, usize),
) -> Result<()> {
    if (left_rows, left_cols) == (right_rows, right_cols) {
        return Ok(());
    }
    Err(Error::Shape { left, left_rows, left_cols, right, right_rows, right_cols })
}
