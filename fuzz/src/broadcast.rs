//! Dropout whose decisions are shared along axes, against the reference.

use arbitrary::{Result, Unstructured};
use fused_dropout::elementwise::{
    BroadcastDropout, broadcast_dropout_backward, broadcast_dropout_forward,
};
use fused_dropout::mask::BroadcastShape;
use fused_dropout::{Mask, reference};

use crate::input::{self, Masking, dropout, key, numbers, size};
use crate::{assert_same, assert_same_outcome, for_each_level};

/// Most elements of a tensor.
const MOST: usize = 6000;

/// Runs dropout over tensors of any shape, forward and backward, on every level.
pub fn broadcast(data: &[u8]) {
    let _ = run(&mut Unstructured::new(data));
}

/// A shape; `None` where the arguments had to be refused.
fn shape(u: &mut Unstructured<'_>) -> Result<Option<BroadcastShape>> {
    let axes = if u.ratio(1, 16)? { u.int_in_range(0..=7)? } else { u.int_in_range(1..=5)? };
    let (mut dims, mut shared, mut len) = (Vec::new(), Vec::new(), 1);
    for _ in 0..axes {
        let dim = size(u, MOST / len)?;
        len *= dim.max(1);
        dims.push(dim);
        shared.push(u.arbitrary()?);
    }
    if u.ratio(1, 32)? {
        shared.push(true);
    }
    let shape = BroadcastShape::new(&dims, &shared);
    let valid = (1..=5).contains(&axes) && shared.len() == axes;
    assert_eq!(shape.is_ok(), valid, "{dims:?}, {shared:?}");
    if let Ok(shape) = &shape {
        let noise = dims.iter().zip(&shared).map(|(n, shared)| if *shared { 1 } else { *n });
        let noise: Vec<usize> = noise.collect();
        let other = BroadcastShape::from_noise_shape(&dims, &noise).expect("a noise shape");
        assert_eq!(shape.mask_shape(), other.mask_shape(), "{dims:?}, {noise:?}");
    }
    Ok(shape.ok())
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let Some(shape) = shape(u)? else { return Ok(()) };
    let args = BroadcastDropout::new(shape, dropout(u)?.with_key(key(u)?));
    // Sometimes an element too many.
    let wrong = usize::from(u.ratio(1, 32)?);
    let x = numbers(u, shape.len() + wrong)?;
    let (rows, cols) = shape.mask_shape();
    let masking = Masking::new(u)?;
    let given = input::mask(u, rows, cols)?;
    let blank = vec![9.0; shape.len()];

    let mut expected = blank.clone();
    let mut expected_mask = given.clone();
    let to = masking.of(&given, &mut expected_mask);
    let outcome = reference::broadcast_dropout_forward(&args, (&x[..], &mut expected[..]), to);
    let saved = masking.saved(&expected_mask);
    let mut expected_dx = blank.clone();
    let backward =
        reference::broadcast_dropout_backward(&args, (&x[..], &mut expected_dx[..]), saved);

    for_each_level(|level| {
        let (mut y, mut mask) = (blank.clone(), given.clone());
        let result =
            broadcast_dropout_forward(&args, (&x[..], &mut y[..]), masking.of(&given, &mut mask));
        assert_same_outcome(level, "forward", &result, &outcome);
        assert_same(level, "y", &y, &expected);
        if result.is_ok() {
            assert_eq!(mask, expected_mask, "{level}: the mask");
            assert_zeros(&args, &mask, masking, &y);
        } else {
            assert!(y == blank && mask == given, "{level}: touched");
        }
        let (mut y, mut mask) = (x.clone(), given.clone());
        let to = masking.of(&given, &mut mask);
        let result = broadcast_dropout_forward(&args, &mut y[..], to);
        if outcome.is_ok() {
            assert_same_outcome(level, "forward in place", &result, &outcome);
            assert_same(level, "y in place", &y, &expected);
        } else {
            assert!(result.is_err(), "{level}: in place");
            assert_same(level, "y in place", &y, &x);
        }
        let mut dx = blank.clone();
        let result = broadcast_dropout_backward(&args, (&x[..], &mut dx[..]), saved);
        assert_same_outcome(level, "backward", &result, &backward);
        assert_same(level, "dx", &dx, &expected_dx);
        let mut dx = x.clone();
        let result = broadcast_dropout_backward(&args, &mut dx[..], saved);
        assert_eq!(result.is_ok(), backward.is_ok(), "{level}: backward in place");
        assert_same(level, "dx in place", &dx, if result.is_ok() { &expected_dx } else { &x });
    });
    Ok(())
}

/// What the mask drops is +0.0 on every level.
fn assert_zeros(args: &BroadcastDropout, mask: &Mask, masking: Masking, y: &[f32]) {
    if matches!(masking, Masking::Key) {
        return;
    }
    let dims = args.shape.dims();
    for (i, y) in y.iter().enumerate() {
        let mut indices = dims.to_vec();
        let mut rest = i;
        for index in indices.iter_mut().rev() {
            (*index, rest) = (rest % *index, rest / *index);
        }
        let (row, col) = args.shape.mask_index(&indices).expect("an element of the tensor");
        assert!(mask.get(row, col) == Some(true) || y.to_bits() == 0, "dropped {i} is {y:?}");
    }
}
