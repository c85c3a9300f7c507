//! Rates for rows and columns, against the reference.

use arbitrary::{Result, Unstructured};
use fused_dropout::elementwise::{rates_dropout_backward, rates_dropout_forward};
use fused_dropout::mask::{RateAxis, Rates};
use fused_dropout::{Mask, Scaling, reference};

use crate::input::{self, Layout, Masking, Matrix, dropout, key, size};
use crate::{assert_same, assert_same_outcome, for_each_level};

/// Runs masks and dropout with a rate for each row or column on every level.
pub fn rates(data: &[u8]) {
    let _ = run(&mut Unstructured::new(data));
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let (rows, cols) = match u.int_in_range(0..=2u8)? {
        0 => (size(u, 40)?, size(u, 200)?),
        1 => (size(u, 3)?, size(u, 5000)?),
        _ => (size(u, 600)?, size(u, 9)?),
    };
    let axis = if u.arbitrary()? { RateAxis::Row } else { RateAxis::Column };
    // Few different rates, and sometimes one too many.
    let palette = [dropout(u)?.rate(), dropout(u)?.rate(), dropout(u)?.rate()];
    let (first, step) = (u.int_in_range(0..=2usize)?, u.int_in_range(0..=5usize)?);
    let len = if axis == RateAxis::Row { rows } else { cols } + usize::from(u.ratio(1, 32)?);
    let mut values: Vec<f64> = (0..len).map(|i| palette[(first + i * step / 2) % 3]).collect();
    if let (true, Some(last)) = (u.ratio(1, 32)?, values.last_mut()) {
        *last = f64::from_bits(u.arbitrary()?);
    }
    let scaling = if u.ratio(1, 4)? { Scaling::Classical } else { Scaling::Inverted };
    let rates = Rates::new(axis, &values, scaling);
    let valid = values.iter().all(|rate| (0.0..=1.0).contains(rate));
    assert_eq!(rates.is_ok(), valid, "{values:?}");
    let Ok(rates) = rates else { return Ok(()) };
    let keyed = rates.with_key(key(u)?);
    let layouts = [Layout::new(u)?, Layout::new(u)?];
    let x = Matrix::random(u, rows, cols, layouts[0])?;
    let masking = Masking::new(u)?;
    let given = input::mask(u, rows, cols)?;
    let blank = Matrix::new(&vec![9.0; rows * cols], rows, cols, layouts[1]);

    let bits = reference::mask_with_rates(rows, cols, &keyed);
    let (mut y, mut expected_mask) = (blank.clone(), given.clone());
    let to = masking.of(&given, &mut expected_mask);
    let forward = reference::rates_dropout_forward((x.view(), y.view_mut()), &keyed, to);
    let y = y.values();
    let saved = masking.saved(&expected_mask);
    let mut dx = blank.clone();
    let backward = reference::rates_dropout_backward((x.view(), dx.view_mut()), &keyed, saved);
    let dx = dx.values();

    for_each_level(|level| {
        match (Mask::generate_with_rates(rows, cols, &keyed), &bits) {
            (Ok(mask), Ok(bits)) => assert_eq!(mask.to_bools().as_ref(), Ok(bits), "{level}"),
            (mask, bits) => assert_eq!(mask.err(), bits.clone().err(), "{level}"),
        }
        let (mut fast, mut mask) = (blank.clone(), given.clone());
        let to = masking.of(&given, &mut mask);
        let result = rates_dropout_forward((x.view(), fast.view_mut()), &keyed, to);
        assert_same_outcome(level, "forward", &result, &forward);
        assert_same(level, "y", &fast.values(), &y);
        if result.is_ok() {
            assert_eq!(mask, expected_mask, "{level}: the mask");
        } else {
            assert!(fast.values().iter().all(|y| *y == 9.0) && mask == given, "{level}: touched");
        }
        let (mut fast, mut mask) = (x.clone(), given.clone());
        let to = masking.of(&given, &mut mask);
        let result = rates_dropout_forward(fast.view_mut(), &keyed, to);
        assert_same_outcome(level, "forward in place", &result, &forward);
        let expected = if result.is_ok() { y.clone() } else { x.values() };
        assert_same(level, "y in place", &fast.values(), &expected);
        let mut fast = blank.clone();
        let result = rates_dropout_backward((x.view(), fast.view_mut()), &keyed, saved);
        assert_same_outcome(level, "backward", &result, &backward);
        assert_same(level, "dx", &fast.values(), &dx);
        let mut fast = x.clone();
        let result = rates_dropout_backward(fast.view_mut(), &keyed, saved);
        assert_same_outcome(level, "backward in place", &result, &backward);
        let expected = if result.is_ok() { dx.clone() } else { x.values() };
        assert_same(level, "dx in place", &fast.values(), &expected);
    });
    Ok(())
}
