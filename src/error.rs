//! What can be wrong with an argument: one variant for each pair of things that can disagree.

mod words;

use crate::Level;
pub(crate) use words::as_written;
use words::{range, step_of, unit_mask};

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

    /// An array whose strides are not those of one matrix; only conversions of arrays of other crates
    /// return it.
    #[error(
        "an array of {rows} x {cols} has the strides {row_stride} and {col_stride}: one must be 1, and \
         the other at least the number of elements along the first"
    )]
    ArrayStrides {
        /// Rows of the array.
        rows: usize,
        /// Columns of the array.
        cols: usize,
        /// Elements from one row to the next.
        row_stride: isize,
        /// Elements from one column to the next.
        col_stride: isize,
    },

    /// A range of rows or columns that a matrix has not.
    #[error(
        "{count} {what}s from {what} {first} on were asked for, but the matrix has {all} {what}s"
    )]
    Range {
        /// Rows or columns.
        what: &'static str,
        /// The first of the range.
        first: usize,
        /// How many from there.
        count: usize,
        /// How many the matrix has.
        all: usize,
    },

    /// A matrix with more elements than an address can count.
    #[error("{rows} rows {stride} elements apart: more than memory can hold")]
    Overflow {
        /// Rows of the matrix.
        rows: usize,
        /// Elements from one row to the next.
        stride: usize,
    },

    /// Memory that the arguments ask for, and that could not be had.
    #[error("{bytes} bytes of memory could not be had")]
    Memory {
        /// How many bytes were asked for.
        bytes: usize,
    },

    /// Rows, columns, a layer or a step outside what a mask can address.
    #[error("{}: masks have {what}s 0 to {}", range(what, *.first, *.count), .limit - 1)]
    Address {
        /// Which coordinate, in the singular.
        what: &'static str,
        /// The first that was asked for.
        first: u64,
        /// How many from there.
        count: u64,
        /// The end of what can be addressed: one more than the last.
        limit: u64,
    },

    /// A key of units where the mask is not one row, row 0.
    #[error("{}", unit_mask(*.row0, *.rows))]
    UnitMask {
        /// The row of the key's origin.
        row0: u64,
        /// Rows that were asked for.
        rows: usize,
    },

    /// An exact number of units of a part of a layer.
    #[error(
        "an exact number of units is one of a whole layer: the key's origin must be row 0 and column 0, \
         but it is row {row0} and column {col0}"
    )]
    ExactOrigin {
        /// The row of the key's origin.
        row0: u64,
        /// The column of the key's origin.
        col0: u64,
    },

    /// Blocks of a part of a layer's units.
    #[error(
        "blocks of units are those of a whole layer: the key's origin must be column 0, but it is \
         column {col0}"
    )]
    BlockOrigin {
        /// The column of the key's origin.
        col0: u64,
    },

    /// Blocks of different examples on the two sides of a layer.
    #[error(
        "a block of the layer's input covers {input} examples and one of its output {output}: \
         groups of examples must be the same on both sides"
    )]
    BlockRows {
        /// Examples of a block of the input.
        input: usize,
        /// Examples of a block of the output.
        output: usize,
    },

    /// Packed weights of a layer that skips blocks of them.
    #[error("the layer drops blocks, which it skips as it packs W: it cannot use packed weights")]
    PackedBlocks,

    /// A parameter whose optimiser state is not what the update needs.
    #[error("the state of {of} is {state}, but {step} needs {needs}")]
    State {
        /// The parameter.
        of: &'static str,
        /// The state that was given.
        state: &'static str,
        /// The update.
        step: &'static str,
        /// The state that it needs.
        needs: &'static str,
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

    /// A mask was given or asked for where whole units or blocks of them are dropped.
    #[error(
        "a mask is given or asked for, but the layer's output drops whole units or blocks of them: \
         it has kept units or blocks, and no mask of elements"
    )]
    MaskOfUnits,

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

    /// Weights that were packed for another product.
    #[error("the weights were packed for {packed}, but are used for {used}")]
    PackedFor {
        /// The product that they were packed for.
        packed: &'static str,
        /// The product that was asked for.
        used: &'static str,
    },

    /// Weights that were packed with other kept units than those of the layer.
    #[error("the weights were packed with other {name} than those of the layer")]
    PackedUnits {
        /// On which side of the layer.
        name: &'static str,
    },

    /// No step is left, of which each has masks of its own.
    #[error("all 2^32 - 1 steps of the network are taken: each has masks of its own")]
    Steps,

    /// Gradients of another step than the coming one.
    #[error("the gradients are of {}, but the coming step is step {step}", step_of(*of))]
    GradientsOfStep {
        /// The step that the gradients are of, counted from 0, if they are of one.
        of: Option<u32>,
        /// The step that comes.
        step: u32,
    },

    /// A residual around a layer of which units are dropped, whose input and output are compact.
    #[error(
        "layer {layer} adds its input to its output, but units of one of them are dropped: \
         elements must be"
    )]
    ResidualOfUnits {
        /// The layer, counted from 0.
        layer: usize,
    },

    /// A loss that is not a number, or infinite: the network was not changed.
    #[error("the loss of step {step} is {loss}: the network was not changed")]
    Loss {
        /// The step, counted from 0.
        step: u32,
        /// The mean loss.
        loss: f64,
    },

    /// A file that could not be read or written.
    #[error("cannot {action} {path}: {reason}")]
    File {
        /// What was attempted: to read or write what.
        action: &'static str,
        /// The file or folder.
        path: String,
        /// What the operating system says.
        reason: String,
    },

    /// A part of a checkpoint that does not fit the rest of it, or this version of the crate.
    #[error("the checkpoint's {what} is {found}, but must be {expected}")]
    Checkpoint {
        /// Which part.
        what: String,
        /// What it is.
        found: String,
        /// What it must be.
        expected: String,
    },

    /// An element that lies outside the matrix.
    #[error("element ({row}, {col}) lies outside a matrix of {rows} x {cols}")]
    Index {
        /// The row that was given.
        row: usize,
        /// The column that was given.
        col: usize,
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        cols: usize,
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
