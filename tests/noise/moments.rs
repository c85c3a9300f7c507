//! Moments over 2^24 draws with fixed seeds, within 6.5 standard deviations of theory.

use super::common::{matrix, matrix_mut};
use super::key;
use fused_dropout::elementwise::{
    AlphaDropout, GaussianDropout, alpha_dropout_forward, gaussian_dropout_forward, standard_normal,
};
use fused_dropout::softmax::{SoftmaxDropout, softmax_dropout_forward};
use fused_dropout::{Dropout, MaskKey, MaskSource};

const ROWS: usize = 1 << 12;
const COLS: usize = 1 << 12;
const DRAWS: f64 = (ROWS * COLS) as f64;
const SIGMAS: f64 = 6.5;

fn normals(key: &MaskKey) -> Vec<f32> {
    let mut z = vec![0.0; ROWS * COLS];
    standard_normal(matrix_mut(&mut z, ROWS, COLS), key).unwrap();
    z
}

/// Asserts that the mean of `values`, which should be `mean` with `variance` for each draw, is.
#[track_caller]
fn assert_mean(what: &str, values: impl Iterator<Item = f64>, mean: f64, variance: f64) {
    let (mut sum, mut count) = (0.0, 0.0);
    for value in values {
        sum += value;
        count += 1.0;
    }
    assert!(count >= DRAWS / 2.0, "{what}: too few draws");
    let sigmas = (sum / count - mean) / (variance / count).sqrt();
    println!("{what}: {sigmas:.2} standard deviations off");
    assert!(sigmas.abs() <= SIGMAS, "{what}: {sigmas:.2} standard deviations off");
}

/// E z^(2k) = 1 · 3 · 5 ... (2k - 1).
fn even_moment(k: i32) -> f64 {
    (0..k).map(|i| f64::from(2 * i + 1)).product()
}

#[test]
fn normal_numbers_have_the_moments_of_the_normal_distribution() {
    let z = normals(&key(11, (0, 0)));
    let doubles = || z.iter().map(|z| f64::from(*z));
    for k in 1..=8 {
        let mean = if k % 2 == 0 { even_moment(k / 2) } else { 0.0 };
        let variance = even_moment(k) - mean * mean;
        assert_mean(&format!("z^{k}"), doubles().map(|z| z.powi(k)), mean, variance);
    }
}

/// Neighbours, the two numbers of a pair, blocks and rows, keys of neighbouring layers and steps, and
/// the squares of a pair, which share a radius.
#[test]
fn normal_numbers_are_independent() {
    let z = normals(&key(12, (0, 0)));
    for distance in [1, 4, 16, 32, 128, COLS] {
        let pairs = || z.iter().zip(&z[distance..]).map(|(a, b)| f64::from(*a) * f64::from(*b));
        assert_mean(&format!("product at distance {distance}"), pairs(), 0.0, 1.0);
        let squares = pairs().map(|product| product * product);
        assert_mean(&format!("squares at distance {distance}"), squares, 1.0, 8.0);
    }
    let next_layer = MaskKey::new(12, 6, 9).unwrap();
    let next_step = MaskKey::new(12, 5, 10).unwrap();
    let next_seed = MaskKey::new(13, 5, 9).unwrap();
    for other in [next_layer, next_step, next_seed] {
        let other = normals(&other);
        let pairs = z.iter().zip(&other).map(|(a, b)| f64::from(*a) * f64::from(*b));
        assert_mean("product with another key", pairs, 0.0, 1.0);
    }
}

/// Counts in cells of width 1/8, and in the tails.
#[test]
fn normal_numbers_have_the_normal_distribution() {
    let z = normals(&key(13, (0, 0)));
    const CELLS: usize = 80;
    let edge = |cell: usize| cell as f64 / 8.0 - CELLS as f64 / 16.0;
    let above = |x: f64| 0.5 * libm::erfc(x / std::f64::consts::SQRT_2);
    let probability = |cell: usize| match cell.max(CELLS - 1 - cell) {
        // The outermost cells are the tails beyond.
        cell if cell == CELLS - 1 => above(edge(cell)),
        cell => above(edge(cell)) - above(edge(cell + 1)),
    };
    let mut counts = [0u32; CELLS];
    for z in &z {
        let cell = f64::from(*z) * 8.0 + CELLS as f64 / 2.0;
        counts[(cell.floor().max(0.0) as usize).min(CELLS - 1)] += 1;
    }
    for (cell, count) in counts.into_iter().enumerate() {
        let expected = DRAWS * probability(cell);
        let sigmas = (f64::from(count) - expected) / expected.sqrt();
        // Where a few are expected, a count has a longer tail than a normal number.
        let allowed = SIGMAS + 4.0 / expected.sqrt();
        assert!(sigmas.abs() <= allowed, "cell {cell}: {count}, not {expected}");
    }
    let largest = z.iter().fold(0.0, |most, z| z.abs().max(most));
    assert!((4.9..6.8).contains(&largest), "{largest}");
}

#[test]
fn gaussian_dropout_has_the_mean_and_variance_of_dropout() {
    let ones = vec![1.0; ROWS * COLS];
    let mut y = vec![0.0; ROWS * COLS];
    for rate in [0.1, 0.5, 0.8] {
        let dropout = GaussianDropout::new(rate).unwrap();
        let to = matrix_mut(&mut y, ROWS, COLS);
        gaussian_dropout_forward(
            (matrix(&ones, ROWS, COLS), to),
            &dropout.with_key(key(14, (0, 0))),
        )
        .unwrap();
        let variance = rate / (1.0 - rate);
        let doubles = || y.iter().map(|y| f64::from(*y));
        assert_mean("mean", doubles(), 1.0, variance);
        let squares = doubles().map(|y| (y - 1.0) * (y - 1.0));
        assert_mean("variance", squares, variance, 2.0 * variance * variance);
    }
}

/// Of standard normal inputs; by elements, and by features with a row of 2^24 of them.
#[test]
fn alpha_dropout_keeps_mean_and_variance() {
    let x = normals(&key(15, (0, 0)));
    let mut y = vec![0.0; ROWS * COLS];
    for rate in [0.05, 0.1, 0.5] {
        let dropout = AlphaDropout::new(rate).unwrap();
        let (a, b, c) = (dropout.scale(), dropout.shift(), dropout.dropped());
        let q = dropout.dropout().keep();
        let fourth =
            q * (3.0 * a.powi(4) + 6.0 * a * a * b * b + b.powi(4)) + (1.0 - q) * c.powi(4);
        for (rows, key) in [(ROWS, key(16, (0, 0))), (1, key(16, (0, 0)).units())] {
            let cols = ROWS * COLS / rows;
            let to = matrix_mut(&mut y, rows, cols);
            alpha_dropout_forward(
                (matrix(&x, rows, cols), to),
                &dropout.with_key(key),
                MaskSource::Key,
            )
            .unwrap();
            let doubles = || y.iter().map(|y| f64::from(*y));
            assert_mean("mean", doubles(), 0.0, 1.0);
            assert_mean("variance", doubles().map(|y| y * y), 1.0, fourth - 1.0);
        }
    }
}

/// Of equal scores: the mean of a weight is its probability.
#[test]
fn softmax_dropout_keeps_the_mean() {
    for rate in [0.1, 0.5] {
        let dropout = Dropout::new(rate).unwrap();
        let args = SoftmaxDropout::new(dropout.with_key(key(17, (0, 0))));
        let mut y = vec![0.5; ROWS * COLS];
        let to = matrix_mut(&mut y, ROWS, COLS);
        softmax_dropout_forward(&args, to, None, MaskSource::Key).unwrap();
        let weights = || y.iter().map(|y| f64::from(*y) * COLS as f64);
        let variance = 1.0 / dropout.keep() - 1.0;
        assert_mean("mean", weights(), 1.0, variance);
        let squares = weights().map(|y| y * y);
        let fourth = dropout.keep().powi(-3);
        let mean = 1.0 / dropout.keep();
        assert_mean("mean square", squares, mean, fourth - mean * mean);
    }
}
