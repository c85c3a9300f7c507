//! Softmax with dropout against the reference.

use arbitrary::{Result, Unstructured};
use fused_dropout::reference;
use fused_dropout::softmax::{SoftmaxDropout, softmax_dropout_backward, softmax_dropout_forward};

use crate::input::{self, Layout, Masking, Matrix, dropout, key, size};
use crate::{assert_same, assert_same_outcome, for_each_level};

/// Runs softmax and dropout over rows of scores, forward and backward, on every level.
pub fn softmax(data: &[u8]) {
    let _ = run(&mut Unstructured::new(data));
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let (rows, cols) = match u.int_in_range(0..=2u8)? {
        0 => (size(u, 40)?, size(u, 150)?),
        1 => (size(u, 2)?, size(u, 9000)?),
        _ => (size(u, 600)?, size(u, 9)?),
    };
    let causal = match u.int_in_range(0..=3u8)? {
        0 => Some(u.int_in_range(0..=cols)?),
        1 => Some(u.arbitrary()?),
        _ => None,
    };
    let mut args = SoftmaxDropout::new(dropout(u)?.with_key(key(u)?));
    args.causal = causal;
    let layouts = [Layout::new(u)?, Layout::new(u)?, Layout::new(u)?];
    let x = Matrix::random(u, rows, cols, layouts[0])?;
    let dy = Matrix::random(u, rows, cols, layouts[1])?;
    let masking = Masking::new(u)?;
    let given = input::mask(u, rows, cols)?;
    let wants_p: bool = u.arbitrary()?;
    let blank = Matrix::new(&vec![9.0; rows * cols], rows, cols, layouts[2]);

    let (mut y, mut p, mut expected_mask) = (blank.clone(), blank.clone(), given.clone());
    let to = masking.of(&given, &mut expected_mask);
    let p_to = Some(p.view_mut());
    let forward = reference::softmax_dropout_forward(&args, (x.view(), y.view_mut()), p_to, to);
    let saved = masking.saved(&expected_mask);
    let mut dx = blank.clone();
    let backward =
        reference::softmax_dropout_backward(&args, p.view(), (dy.view(), dx.view_mut()), saved);
    let (y, dx) = (y.values(), dx.values());

    for_each_level(|level| {
        let (mut fast, mut fast_p, mut mask) = (blank.clone(), blank.clone(), given.clone());
        let to = masking.of(&given, &mut mask);
        let p_to = wants_p.then(|| fast_p.view_mut());
        let result = softmax_dropout_forward(&args, (x.view(), fast.view_mut()), p_to, to);
        assert_same_outcome(level, "forward", &result, &forward);
        assert_same(level, "y", &fast.values(), &y);
        if wants_p {
            assert_same(level, "probabilities", &fast_p.values(), &p.values());
        }
        if result.is_ok() {
            assert_eq!(mask, expected_mask, "{level}: the mask");
        } else {
            let values = [fast.values(), fast_p.values()].concat();
            assert!(values.iter().all(|y| *y == 9.0) && mask == given, "{level}: touched");
        }
        let (mut fast, mut mask) = (x.clone(), given.clone());
        let to = masking.of(&given, &mut mask);
        let result = softmax_dropout_forward(&args, fast.view_mut(), None, to);
        assert_same_outcome(level, "forward in place", &result, &forward);
        let expected = if result.is_ok() { y.clone() } else { x.values() };
        assert_same(level, "y in place", &fast.values(), &expected);
        let mut fast = blank.clone();
        let (p_view, to) = (p.view(), fast.view_mut());
        let result = softmax_dropout_backward(&args, p_view, (dy.view(), to), saved);
        assert_same_outcome(level, "backward", &result, &backward);
        assert_same(level, "dx", &fast.values(), &dx);
        let mut fast = dy.clone();
        let result = softmax_dropout_backward(&args, p_view, fast.view_mut(), saved);
        assert_same_outcome(level, "backward in place", &result, &backward);
        let expected = if result.is_ok() { dx.clone() } else { dy.values() };
        assert_same(level, "dx in place", &fast.values(), &expected);
    });
    Ok(())
}
