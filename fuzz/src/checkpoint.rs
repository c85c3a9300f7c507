//! Checkpoints: any bytes, and a valid one with changes.

use arbitrary::{Result, Unstructured};
use fused_dropout::nn::{Mlp, MlpSpec, Optimiser};
use fused_dropout::update::{AdamStep, SgdStep};
use fused_dropout::{MatMut, MatRef};

/// Numbers of a network that is also trained and asked; a larger one is only read.
const MOST: usize = 1 << 12;

/// Reads a checkpoint of the bytes, and one that they change.
pub fn checkpoint(data: &[u8]) {
    check(data);
    let _ = changed(&mut Unstructured::new(data));
}

/// A valid checkpoint with bytes replaced, cut out and doubled.
fn changed(u: &mut Unstructured<'_>) -> Result<()> {
    let optimiser = match u.int_in_range(0..=2u8)? {
        0 => Optimiser::new(SgdStep::new(0.1)),
        1 => Optimiser::new(SgdStep::new(0.1).with_momentum(0.5)),
        _ => Optimiser::new(AdamStep::new(0.1)),
    };
    let mut mlp = Mlp::new(&MlpSpec::new(&[2, 3, 2]).with_hidden_rate(0.5)).expect("a network");
    let x = MatRef::new(&[0.5, -1.0], 1, 2).expect("a row");
    mlp.train_step(x, &[1], &optimiser).expect("a step");
    let mut bytes = mlp.to_bytes().expect("few bytes");
    check(&bytes);
    for _ in 0..u.int_in_range(1..=4u8)? {
        let at = u.choose_index(bytes.len())?;
        match u.int_in_range(0..=5u8)? {
            0 => drop(bytes.remove(at)),
            1 => bytes.insert(at, bytes[at]),
            2 => bytes.truncate(at + 1),
            3 => bytes[at] ^= 1 << u.int_in_range(0..=7u8)?,
            4 => bytes[at] = *u.choose(b"0123456789[]{}\",:.-eE")?,
            _ => bytes[at] = u.arbitrary()?,
        }
        check(&bytes);
    }
    Ok(())
}

/// What is read is a network: it is written and read again with the same bytes, predicts and trains.
fn check(bytes: &[u8]) {
    let Ok(mut mlp) = Mlp::from_bytes(bytes) else { return };
    let again = mlp.to_bytes().expect("what was read can be written");
    let copy = Mlp::from_bytes(&again).expect("what was written can be read");
    assert_eq!(copy.to_bytes().as_ref(), Ok(&again));
    assert!(again.len() <= 2 * bytes.len() + 4096, "{} bytes of {}", again.len(), bytes.len());
    let sizes = mlp.spec().sizes.clone();
    assert_eq!(mlp.layers().len() + 1, sizes.len());
    for (layer, size) in mlp.layers().iter().zip(sizes.windows(2)) {
        assert_eq!((layer.inputs(), layer.units()), (size[0], size[1]));
        assert_eq!((layer.weights().len(), layer.bias().len()), (size[0] * size[1], size[1]));
    }
    if again.len() > 4 * MOST {
        return;
    }
    let (inputs, classes) = (sizes[0], sizes[sizes.len() - 1]);
    let (x, mut y) = (vec![0.5; inputs], vec![0.0; classes]);
    let x = MatRef::new(&x, 1, inputs).expect("a row");
    mlp.predict(x, MatMut::row_vector(&mut y)).expect("shapes fit");
    // A loss that is not finite, or no step left, is an error.
    let _ = mlp.train_step(x, &[0], &Optimiser::new(AdamStep::new(0.1)));
}
