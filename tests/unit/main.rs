//! Unit dropout: which units are kept, and the thinned layer against the masked one, that of the
//! reference and that of the fast functions: the same bits, a zero's sign aside.

mod block_masks;
mod case;
#[path = "../common/mod.rs"]
mod common;
mod masked;
mod selection;

use case::{Case, Drop, Masking, cases, combinations, key, with_blocks};
use common::{bits, for_each_level, matrix, matrix_mut, numbers, sgd_step};
use fused_dropout::layer::{
    DenseArgs, DenseLayer, DenseUpdate, Gradients, KeptUnits, Parameters, Side, dense_backward,
    dense_forward, dense_update, gather_units, scatter_units,
};
use fused_dropout::update::SgdStep;
use fused_dropout::{Activation, Dropout, MaskSource, MatRef, Saved};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn thinned_equals_the_reference(case in cases((40, 100, 150))) {
        case.check(&[1, 2, 3, 8]);
    }

    #[test]
    fn combinations_equal_the_reference(case in combinations((40, 100, 150))) {
        case.check(&[1, 3]);
    }

    #[test]
    fn blocks_equal_the_reference(case in with_blocks((70, 100, 150))) {
        case.check(&[1, 3]);
    }
}

/// netlib's sizes in all combinations, then sizes around tiles and panels.
#[test]
fn small_sizes() {
    let sizes = [0, 1, 2, 3, 7, 31];
    let drops = [Drop::Exact(0.5), Drop::List, Drop::Elements(0.3), Drop::Bernoulli(0.5)];
    for (i, m) in sizes.into_iter().enumerate() {
        for (j, k) in sizes.into_iter().enumerate() {
            for (l, n) in sizes.into_iter().enumerate() {
                let turn = i + 2 * j + 3 * l;
                Case::new(m, k, n, drops[turn % 4], drops[(turn / 4 + i) % 4]).check(&[1]);
            }
        }
    }
    for n in [8, 15, 16, 17, 24, 32, 33, 47, 48, 64, 65, 97, 130] {
        let case = Case { limit: Some(1.5), ..Case::new(13, n, 2 * n, Drop::List, Drop::List) };
        case.check(&[1]);
        Case { transposed: (true, true), ..case }.check(&[1]);
    }
}

/// Several blocks of k, of rows and of columns; several tasks; a batch too large for a fused update.
#[test]
fn large_layers() {
    let (list, half) = (Drop::List, Drop::Exact(0.5));
    Case::new(30, 1300, 700, half, half).check(&[1, 2, 3, 8]);
    Case { transposed: (true, true), limit: Some(2.0), ..Case::new(150, 500, 900, list, half) }
        .check(&[1, 2, 3, 8]);
    Case::new(700, 300, 260, Drop::Elements(0.2), list).check(&[1, 3]);
    Case { limit: Some(2.0), ..Case::new(128, 800, 300, half, Drop::Elements(0.5)) }.check(&[1, 3]);
    Case::new(4100, 20, 30, half, list).check(&[1, 2]);
    Case { transposed: (true, false), ..Case::new(20, 300, 300, half, list) }.check(&[1, 2]);
}

/// Everything on a layer at once, by several tasks: fused updates, and those that are not.
#[test]
fn large_layers_with_everything() {
    for (batch, masking) in [(60, Masking::Given), (4100, Masking::Store)] {
        for output in [Drop::List, Drop::Elements(0.5)] {
            let case = Case {
                weight_rate: Some(0.4),
                residual: true,
                packed: true,
                overwrite: true,
                limit: Some(2.0),
                masking,
                ..Case::new(batch, 150, 170, Drop::Exact(0.5), output)
            };
            case.check(&[1, 3]);
            Case { transposed: (true, true), weight_rate: None, ..case }.check(&[3]);
        }
    }
}

/// What is dense is computed as the dense layer is; lists of all units make no difference.
#[test]
fn whole_sides_are_the_dense_layer() {
    let (batch, inputs, units) = (20, 50, 70);
    let (x, w) = (numbers(batch * inputs, 1), numbers(inputs * units, 2));
    let (x, w) = (matrix(&x, batch, inputs), matrix(&w, inputs, units));
    let bias = numbers(units, 3);
    let all = (KeptUnits::all(inputs).unwrap(), KeptUnits::all(units).unwrap());
    let dense = DenseLayer::new(Activation::Identity);
    let forward = |layer| {
        let mut y = vec![9.0; batch * units];
        let args = DenseArgs::new(layer, x, w).with_bias(&bias);
        let to = matrix_mut(&mut y, batch, units);
        dense_forward(&args, to, None, MaskSource::Key).unwrap();
        bits(&y)
    };
    for_each_level(|level| {
        let expected = forward(dense);
        for (input, output) in
            [(Side::Whole, Side::Whole), (Side::Units(&all.0), Side::Units(&all.1))]
        {
            let y = forward(dense.with_input(input).with_output(output));
            assert_eq!(y, expected, "{level}");
        }
    });
}

/// Removed weights are not looked at, whatever they are.
#[test]
fn removed_weights_do_not_matter() {
    let (batch, inputs, units) = (5, 40, 60);
    let kept = (Drop::List.kept(inputs, 1).unwrap(), Drop::List.kept(units, 2).unwrap());
    let (m, n) = (kept.0.len(), kept.1.len());
    let x = numbers(batch * m, 1);
    let clean = numbers(inputs * units, 2);
    let mut dirty = clean.clone();
    for (i, w) in dirty.iter_mut().enumerate() {
        let (r, c) = ((i / units) as u32, (i % units) as u32);
        if !(kept.0.indices().contains(&r) && kept.1.indices().contains(&c)) {
            *w = if i % 2 == 0 { f32::NAN } else { f32::INFINITY };
        }
    }
    let layer = DenseLayer::new(Activation::Identity).with_input(&kept.0).with_output(&kept.1);
    for_each_level(|level| {
        let [y, other] = [&clean, &dirty].map(|w| {
            let mut y = vec![9.0; batch * n];
            let (x, w) = (matrix(&x, batch, m), matrix(w, inputs, units));
            let (args, to) = (DenseArgs::new(layer, x, w), matrix_mut(&mut y, batch, n));
            dense_forward(&args, to, None, MaskSource::Key).unwrap();
            y
        });
        assert_eq!(bits(&y), bits(&other), "{level}");
    });
}

/// A layer of which nothing is kept has no output; the next one sees only its bias.
#[test]
fn nothing_kept() {
    let all = Dropout::new(1.0).unwrap().with_key(key(0));
    let none = KeptUnits::exact(4, &all).unwrap();
    assert!(none.is_empty() && none.scale() == 0.0);
    let (x, w, bias) = (numbers(6, 1), numbers(12, 2), numbers(3, 3));
    let identity = DenseLayer::new(Activation::Identity);
    for_each_level(|level| {
        let layer = identity.with_output(&none);
        let before = DenseArgs::new(layer, matrix(&x, 2, 3), matrix(&w, 3, 4));
        dense_forward(&before, matrix_mut(&mut [], 2, 0), None, MaskSource::Key).unwrap();
        let layer = identity.with_input(&none);
        let args = DenseArgs::new(layer, matrix(&[], 2, 0), matrix(&w, 4, 3)).with_bias(&bias);
        let mut y = [9.0; 6];
        dense_forward(&args, matrix_mut(&mut y, 2, 3), None, MaskSource::Key).unwrap();
        assert_eq!(y.to_vec(), [&bias[..], &bias].concat(), "{level}");
        let (mut w_now, mut bias_now) = (w.clone(), bias.clone());
        let update = DenseUpdate::new(layer, args.x, sgd_step(1.0, 0.0, 0.5, 0.5));
        let update = update.with_max_norm(0.1);
        let parameters = Parameters::new(matrix_mut(&mut w_now, 4, 3)).with_bias(&mut bias_now);
        let (dy, dx) = (matrix(&[1.0; 6], 2, 3), Some(matrix_mut(&mut [], 2, 0)));
        dense_update(&update, parameters, &Saved::Nothing, dy, dx, MaskSource::Key).unwrap();
        assert_eq!(w_now, w, "{level}");
        assert_eq!(bias_now, bias.iter().map(|b| b - 2.0).collect::<Vec<_>>(), "{level}");
    });
}

/// Outputs stay as they are when shapes disagree.
#[test]
fn refused_operations_write_nothing() {
    let kept = KeptUnits::from_indices(6, &[0, 2, 5], 2.0).unwrap();
    let other = KeptUnits::all(5).unwrap();
    let (w, x) = (numbers(24, 1), numbers(8, 2));
    let (w, x) = (matrix(&w, 4, 6), matrix(&x, 2, 4));
    let thinned = DenseLayer::new(Activation::Identity).with_output(&kept);
    let args = |layer| DenseArgs::new(layer, x, w);
    let far = Dropout::NONE.with_key(key(1).with_origin(u64::from(u32::MAX), 0));
    let mut leaky = thinned;
    leaky.activation = Activation::LeakyRelu { slope: f32::NAN };
    let calls: [(DenseArgs<'_>, usize); 6] = [
        (args(thinned), 6),
        (args(thinned.with_output(&other)), 5),
        (args(thinned.with_input(&kept)), 3),
        (args(thinned.with_input(far)), 3),
        (args(thinned).with_bias(&[1.0; 3]), 3),
        (args(leaky), 3),
    ];
    for (args, cols) in calls {
        let mut y = vec![9.0; 2 * cols];
        let to = matrix_mut(&mut y, 2, cols);
        let error = dense_forward(&args, to, None, MaskSource::Key).unwrap_err();
        assert!(!error.to_string().is_empty());
        let dy = vec![1.0; 2 * cols];
        let (mut dx, mut dw) = ([9.0; 8], [9.0; 12]);
        let gradients = Gradients::default()
            .with_dx(matrix_mut(&mut dx, 2, 4))
            .with_dw(matrix_mut(&mut dw, 4, 3));
        let (saved, dy) = (Saved::Nothing, MatRef::new(&dy, 2, cols).unwrap());
        dense_backward(&args, &saved, dy, gradients, MaskSource::Key).unwrap_err();
        assert!(y.iter().chain(&dx).chain(&dw).all(|v| *v == 9.0));
    }
    let mut y = [9.0; 8];
    gather_units(x, &kept, matrix_mut(&mut y, 2, 3)).unwrap_err();
    scatter_units(x, &kept, matrix_mut(&mut y, 2, 4)).unwrap_err();
    assert_eq!(y, [9.0; 8]);
    let mut gelu = thinned;
    gelu.activation = Activation::Gelu;
    let update = |layer, rate| DenseUpdate::new(layer, x, SgdStep::new(rate));
    for (update, cols) in [
        (update(thinned, f32::NAN), 3),
        (update(thinned, 1.0), 6),
        (update(thinned, 1.0).with_max_norm(0.0), 3),
        (update(gelu, 1.0), 3),
    ] {
        let mut w_now = numbers(24, 1);
        let parameters = Parameters::new(matrix_mut(&mut w_now, 4, 6));
        let dy = vec![1.0; 2 * cols];
        let (saved, dy) = (Saved::Nothing, matrix(&dy, 2, cols));
        dense_update(&update, parameters, &saved, dy, None, MaskSource::Key).unwrap_err();
        assert_eq!(w_now, numbers(24, 1));
    }
}
