//! The error of a product against f64, on every level.
//!
//! One chain of k fused multiply-adds, started from the bias:
//!
//! ```text
//! |z - exact| <= (k + 2) · 1.06 · 2^-24 · (sum |x||w| + |b|)        always
//! |z - exact| <= 6 · sqrt(k) · 2^-24 · (sum |x||w| + |b|)           for 999 elements of 1000
//! ```
//!
//! Where a level rounds the product before it is added, there are two roundings a term, so both
//! bounds are doubled.

mod common;

use common::{for_each_level, matrix, matrix_mut};
use fused_dropout::layer::{DenseArgs, DenseLayer, Gradients, dense_backward, dense_forward};
use fused_dropout::{MaskSource, Saved, reference};
use proptest::prelude::*;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

const UNIT: f64 = 1.0 / 16_777_216.0;

/// How numbers are distributed: evenly, all positive, or over many orders of magnitude.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Even,
    Positive,
    Wide,
}

fn values(len: usize, kind: Kind, random: &mut Xoshiro256PlusPlus) -> Vec<f32> {
    let mut uniform = || (random.next_u64() >> 40) as f32 / 16_777_216.0;
    let mut value = || {
        let x = 2.0 * uniform() - 1.0;
        match kind {
            Kind::Even => x,
            Kind::Positive => x.abs(),
            Kind::Wide => x * (40.0 * uniform() - 20.0).exp2(),
        }
    };
    (0..len).map(|_| value()).collect()
}

/// The errors of z = x · W + b, each over `2^-24 · (sum |x||w| + |b|)`, and whether those of x · W as
/// a gradient (dx = dz · Wᵀ with W read in transposed order) are within the bound too.
fn check((batch, inputs, units): (usize, usize, usize), kind: Kind, seed: u64) {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let x = values(batch * inputs, kind, &mut random);
    let w = values(inputs * units, kind, &mut random);
    let b = values(units, kind, &mut random);

    let wide = |v: &[f32]| v.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    let size = |v: &[f32]| v.iter().map(|x| f64::from(x.abs())).collect::<Vec<f64>>();
    let product = |x: &[f64], w: &[f64], b: &[f64]| {
        let view = |data, rows, cols| fused_dropout::MatRef::new(data, rows, cols).unwrap();
        let args =
            DenseArgs::new(DenseLayer::default(), view(x, batch, inputs), view(w, inputs, units));
        let mut z = vec![0.0; batch * units];
        let to = fused_dropout::MatMut::new(&mut z, batch, units).unwrap();
        reference::dense_forward(&args.with_bias(b), to, None, MaskSource::Key).unwrap();
        z
    };
    let exact = product(&wide(&x), &wide(&w), &wide(&b));
    let sizes = product(&size(&x), &size(&w), &size(&b));
    let no_bias = vec![0.0; units];
    let exact_dx = product(&wide(&x), &wide(&w), &no_bias);
    let sizes_dx = product(&size(&x), &size(&w), &no_bias);

    let k = inputs as f64;
    for_each_level(|level| {
        let roundings = if level.has_fma() { 1.0 } else { 2.0 };
        let judge = |fast: &[f32], exact: &[f64], sizes: &[f64], what: &str| {
            let mut errors: Vec<f64> = (0..fast.len())
                .map(|i| match (f64::from(fast[i]) - exact[i]).abs() {
                    0.0 => 0.0,
                    // Below 2^-126 floats are 2^-149 apart.
                    error => (error - k * 2f64.powi(-149)) / (UNIT * sizes[i]),
                })
                .collect();
            errors.sort_by(f64::total_cmp);
            let place = format!("{what} on {level}, {batch} x {inputs} x {units}, {kind:?}");
            let largest = errors.last().copied().unwrap_or(0.0);
            let most = roundings * 1.06 * (k + 2.0);
            assert!(largest <= most, "{place}: the largest error is {largest}, allowed {most}");
            if errors.len() >= 2000 {
                let usual = errors[errors.len() * 999 / 1000];
                let allowed = roundings * 6.0 * k.max(1.0).sqrt();
                assert!(
                    usual <= allowed,
                    "{place}: 999 of 1000 are below {usual}, allowed {allowed}"
                );
            }
        };
        let mut z = vec![9.0; batch * units];
        let args = DenseArgs::new(
            DenseLayer::default(),
            matrix(&x, batch, inputs),
            matrix(&w, inputs, units),
        );
        let forward = args.with_bias(&b);
        dense_forward(&forward, matrix_mut(&mut z, batch, units), None, MaskSource::Key).unwrap();
        judge(&z, &exact, &sizes, "z");

        // The same product as the gradient of a layer whose weights are Wᵀ.
        let mut dx = vec![9.0; batch * units];
        let unused = vec![0.0; batch * units];
        let layer =
            DenseArgs::new(DenseLayer::default(), matrix(&unused, batch, units), args.w.t());
        let gradients = Gradients::default().with_dx(matrix_mut(&mut dx, batch, units));
        dense_backward(&layer, &Saved::Nothing, args.x, gradients, MaskSource::Key).unwrap();
        judge(&dx, &exact_dx, &sizes_dx, "dx");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn errors_are_within_the_bound(
        sizes in (1usize..=20, 0usize..=200, 1usize..=40),
        kind in prop_oneof![Just(Kind::Even), Just(Kind::Positive), Just(Kind::Wide)],
        seed: u64,
    ) {
        check(sizes, kind, seed);
    }
}

/// Enough elements for a percentile; long chains, over several blocks of k.
#[test]
fn usual_errors_grow_with_the_root_of_k() {
    for kind in [Kind::Even, Kind::Positive, Kind::Wide] {
        for (i, k) in [1, 2, 10, 100, 1000, 3000].into_iter().enumerate() {
            check((64, k, 80), kind, i as u64);
        }
    }
}

/// A sum that cancels but for its last bits: the bound is on the terms, not on the result.
#[test]
fn cancellation() {
    let (x, w) = ([1.0e8f32, 1.0, -1.0e8], [1.0f32, 0.5, 1.0]);
    for_each_level(|level| {
        let mut z = [9.0];
        let args = DenseArgs::new(DenseLayer::default(), matrix(&x, 1, 3), matrix(&w, 3, 1));
        dense_forward(&args, matrix_mut(&mut z, 1, 1), None, MaskSource::Key).unwrap();
        // 1e8 + 0.5 rounds to 1e8.
        assert_eq!(z, [0.0], "{level}");
        // One rounding: (1 + e)^2 - (1 + 2e) = e^2 exactly, with e = 2^-12 · 1.5.
        let e = 1.5 / 4096.0;
        let (x, w) = ([-1.0, 1.0 + e], [1.0 + 2.0 * e, 1.0 + e]);
        let args = DenseArgs::new(DenseLayer::default(), matrix(&x, 1, 2), matrix(&w, 2, 1));
        dense_forward(&args, matrix_mut(&mut z, 1, 1), None, MaskSource::Key).unwrap();
        if level.has_fma() {
            assert_eq!(z, [e * e], "{level}");
        }
    });
}
