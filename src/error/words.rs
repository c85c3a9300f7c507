//! Values in the words of error messages.

/// `count` rows, say, from `first` on, in words.
pub(super) fn range(what: &str, first: u64, count: u64) -> String {
    match count {
        0 => format!("no {what}s from {first} on"),
        1 => format!("{what} {first}"),
        _ => format!("{what}s {first} to {}", u128::from(first) + u128::from(count) - 1),
    }
}

/// The step that gradients are of, in words.
pub(super) fn step_of(step: Option<u32>) -> String {
    step.map_or("no step yet".to_owned(), |step| format!("step {step}"))
}

/// What a mask of units is, and what was asked for.
pub(super) fn unit_mask(row0: u64, rows: usize) -> String {
    if rows > 1 {
        format!("a mask of units is one row, but {rows} rows were asked for")
    } else {
        format!("a mask of units is row 0, but the key's origin is row {row0}")
    }
}

/// A number as the caller wrote it: the f64 of the shortest decimal that is `x`, where the f64 of `x`
/// itself shows what its rounding added (0.1 is 0.10000000149 then).
pub(crate) fn as_written(x: f32) -> f64 {
    match x.to_string().parse() {
        Ok(shortest) => shortest,
        Err(_) => unreachable!("every f32 is shown as a decimal, NaN or inf, which are read back"),
    }
}
