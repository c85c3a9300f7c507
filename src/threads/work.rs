//! How much work is worth a task: ten times what it costs to hand one over, or more, by kind of work.

/// Elements that are read, changed a little and written: element-wise passes, gathers, updates, norms.
/// Some 10 microseconds.
pub(crate) const COPY: usize = 1 << 17;

/// Elements that take a function's polynomial each, or several random numbers: softmax, cross-entropy,
/// normal numbers. Some 20 microseconds.
pub(crate) const FUNCTION: usize = 1 << 15;

/// Multiply-adds of a product: some 20 microseconds.
pub(crate) const MULTIPLY_ADD: usize = 1 << 20;

/// Mask bits with one threshold, of one plane or two: at about 30 ps a bit, some 8 microseconds.
pub(crate) const BIT: usize = 1 << 18;

/// Mask bits with a threshold for each row or column: ten planes or more.
pub(crate) const BIT_OF_RATES: usize = 1 << 16;
