//! No operation allocates once its buffers have grown: neither a training step nor the functions it
//! is made of, also with outputs by columns and with batches so large that dW is made in memory. What
//! a call returns (a new mask, a packed weight) is allocated, and so is everything after
//! `release_buffers`. A binary of its own, since it replaces the allocator.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use common::{for_each_level, matrix, matrix_mut, numbers};
use fused_dropout::elementwise::{
    AlphaDropout, BiasActivationDropout, BroadcastDropout, GaussianDropout, alpha_dropout_backward,
    alpha_dropout_forward, bias_activation_dropout_backward, bias_activation_dropout_forward,
    broadcast_dropout_backward, broadcast_dropout_forward, dropout_forward,
    gaussian_dropout_backward, gaussian_dropout_forward, rates_dropout_backward,
    rates_dropout_forward, standard_normal,
};
use fused_dropout::layer::{
    DenseArgs, DenseLayer, DenseUpdate, Gradients, Parameters, dense_backward, dense_forward,
    dense_update,
};
use fused_dropout::loss::{CrossEntropy, Huber, Objective};
use fused_dropout::mask::{BroadcastShape, Rates};
use fused_dropout::nn::{Granularity, Mlp, MlpSpec, Noise, Optimiser, StepRate};
use fused_dropout::softmax::{
    SoftmaxDropout, softmax_cross_entropy, softmax_dropout_backward, softmax_dropout_forward,
};
use fused_dropout::update::{AdamStep, SgdStep, apply, max_norm};
use fused_dropout::{Activation, Dropout, Level, Mask, MaskKey, MaskSource, Saved};

/// The system's allocator; while [`COUNTING`], it counts what all threads ask for.
struct Counting;

static COUNTING: AtomicBool = AtomicBool::new(false);
static CALLS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator unchanged; `realloc` and `alloc_zeroed`
// are made of these two.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTING.load(Ordering::Relaxed) {
            CALLS.fetch_add(1, Ordering::Relaxed);
            BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test counts at a time: another one's allocations would be counted too.
static ALONE: Mutex<()> = Mutex::new(());

/// Calls `f` some times, so that every thread has had its turn and every buffer has grown, then
/// asserts that more calls do not allocate.
#[track_caller]
fn assert_no_allocation(what: &str, mut f: impl FnMut()) {
    const CALLS_TO_COUNT: usize = 10;
    // Which thread takes which task is chance; a thread's buffers grow with its first. So a count of
    // zero has to come up within some rounds, and a call that allocates each time never does.
    let mut seen = Vec::new();
    for _ in 0..40 {
        for _ in 0..CALLS_TO_COUNT {
            f();
        }
        CALLS.store(0, Ordering::Relaxed);
        BYTES.store(0, Ordering::Relaxed);
        COUNTING.store(true, Ordering::Relaxed);
        for _ in 0..CALLS_TO_COUNT {
            f();
        }
        COUNTING.store(false, Ordering::Relaxed);
        seen.push((CALLS.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed)));
        if seen.last() == Some(&(0, 0)) {
            return;
        }
    }
    panic!("{what}: {CALLS_TO_COUNT} calls allocate (times, bytes) {seen:?}");
}

/// Runs `f` in pools of one and of two threads, on every level, alone.
fn everywhere(f: impl Fn(&str) + Sync) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            for_each_level(|level: Level| f(&format!("on {level}, {threads} threads")));
        });
    }
}

#[test]
fn allocations_are_counted() {
    everywhere(|_| {
        let caught = std::panic::catch_unwind(|| {
            assert_no_allocation("planted", || drop(std::hint::black_box(vec![1u8; 10])));
        });
        let text = *caught.unwrap_err().downcast::<String>().unwrap();
        assert!(text.contains("planted") && text.contains("(10, 100)"), "{text}");
    });
}

#[test]
fn training_steps() {
    let (x, labels) = (numbers(100 * 300, 1), (0..100).map(|i| i % 10).collect::<Vec<u32>>());
    everywhere(|place| {
        let constant = StepRate::default();
        for (activation, granularity, noise, schedule) in [
            (Activation::Relu, vec![], Noise::Dropout, constant),
            (Activation::Gelu, vec![], Noise::Dropout, constant),
            (Activation::Identity, vec![], Noise::Dropout, constant),
            (Activation::Relu, vec![Granularity::UnitExact; 3], Noise::Dropout, constant),
            (
                Activation::Gelu,
                vec![Granularity::Element, Granularity::UnitExact],
                Noise::Dropout,
                constant,
            ),
            (Activation::Relu, vec![Granularity::BLOCK; 3], Noise::Dropout, constant),
            (Activation::Relu, vec![], Noise::Gaussian, StepRate::Drawn),
        ] {
            let mut spec = MlpSpec::new(&[300, 200, 150, 10])
                .with_activation(activation)
                .with_input_rate(0.2)
                .with_hidden_rate(0.5)
                .with_noise(noise)
                .with_schedule(schedule);
            spec.granularity = granularity.clone();
            let sgd = Optimiser::new(SgdStep::new(0.01).with_momentum(0.9)).with_max_norm(2.0);
            let adam = Optimiser::new(AdamStep::new(0.01).with_weight_decay(0.1));
            let mut mlp = Mlp::new(&spec).unwrap();
            for optimiser in [sgd, adam, adam.with_clip_norm(1.0)] {
                let noise = format!("{activation}, {granularity:?}, {noise:?}");
                let what = format!("train_step by {optimiser:?} with {noise} {place}");
                assert_no_allocation(&what, || {
                    let x = matrix(&x, 100, 300);
                    mlp.train_step(x, &labels, &optimiser).unwrap();
                    // A smaller batch needs no other buffers.
                    let x = x.rows_from(0, 30).unwrap();
                    mlp.train_step(x, &labels[..30], &optimiser).unwrap();
                });
            }
            let mut logits = vec![0.0; 1000];
            assert_no_allocation(&format!("inference with {activation} {place}"), || {
                mlp.predict(matrix(&x, 100, 300), matrix_mut(&mut logits, 100, 10)).unwrap();
                mlp.evaluate(matrix(&x, 100, 300), &labels).unwrap();
            });
        }
    });
}

#[test]
fn dense_layers() {
    // A few rows; one block; several tasks with several blocks.
    for (batch, inputs, units) in [(2, 50, 70), (20, 30, 40), (300, 500, 260)] {
        let (x, w) = (numbers(batch * inputs, 1), numbers(inputs * units, 2));
        let (bias, dy) = (numbers(units, 3), numbers(batch * units, 4));
        everywhere(|place| {
            let key = MaskKey::new(1, 2, 3).unwrap();
            let layer = DenseLayer::new(Activation::Silu)
                .with_output(Dropout::new(0.4).unwrap().with_key(key))
                .with_input(Dropout::new(0.1).unwrap().with_key(key));
            let (x, w_view) = (matrix(&x, batch, inputs), matrix(&w, inputs, units));
            let args = DenseArgs::new(layer, x, w_view).with_bias(&bias);
            let (mut y, mut z) = (vec![0.0; batch * units], vec![0.0; batch * units]);
            let mut mask = Mask::new(batch, units).unwrap();
            let (mut dx, mut dw) = (vec![0.0; batch * inputs], vec![0.0; inputs * units]);
            let mut db = vec![0.0; units];
            let what = format!("a dense layer {batch} x {inputs} x {units} {place}");
            assert_no_allocation(&what, || {
                let to = matrix_mut(&mut y, batch, units);
                let z_to = Some(matrix_mut(&mut z, batch, units));
                dense_forward(&args, to, z_to, Some(&mut mask)).unwrap();
                let saved = Saved::PreActivation(matrix(&z, batch, units));
                let gradients = Gradients::default()
                    .with_dx(matrix_mut(&mut dx, batch, inputs))
                    .with_dw(matrix_mut(&mut dw, inputs, units))
                    .with_db(&mut db);
                dense_backward(&args, &saved, matrix(&dy, batch, units), gradients, &mask).unwrap();
            });
            // Dropped weights, as they are and as a transposed view; then their update.
            let by_columns = matrix(&w, units, inputs).t();
            let mut w_new = w.clone();
            assert_no_allocation(&format!("{what}, weights dropped"), || {
                for w in [args.w, by_columns] {
                    let half = Dropout::new(0.5).unwrap().with_key(key);
                    let layer = layer.with_weight_dropout(half);
                    let args = DenseArgs::new(layer, x, w).with_bias(&bias);
                    let to = matrix_mut(&mut y, batch, units);
                    let z_to = Some(matrix_mut(&mut z, batch, units));
                    dense_forward(&args, to, z_to, MaskSource::Key).unwrap();
                    let saved = Saved::PreActivation(matrix(&z, batch, units));
                    let gradients = Gradients::default()
                        .with_dx(matrix_mut(&mut dx, batch, inputs))
                        .with_dw(matrix_mut(&mut dw, inputs, units))
                        .with_db(&mut db);
                    let dy = matrix(&dy, batch, units);
                    dense_backward(&args, &saved, dy, gradients, MaskSource::Key).unwrap();
                    let update = DenseUpdate::new(layer, x, SgdStep::new(1e-3));
                    let parameters = Parameters::new(matrix_mut(&mut w_new, inputs, units));
                    let dx = Some(matrix_mut(&mut dx, batch, inputs));
                    dense_update(&update, parameters, &saved, dy, dx, MaskSource::Key).unwrap();
                }
            });
        });
    }
}

/// Outputs, residuals and gradients by columns, and a batch whose gradient of the weights is made in
/// memory.
#[test]
fn dense_layers_by_columns_and_of_large_batches() {
    for (batch, inputs, units) in [(40, 30, 50), (4100, 5, 17)] {
        let (x, w) = (numbers(batch * inputs, 1), numbers(inputs * units, 2));
        let dy = numbers(batch * units, 4);
        everywhere(|place| {
            let key = MaskKey::new(1, 2, 3).unwrap();
            let layer = DenseLayer::new(Activation::Silu)
                .with_output(Dropout::new(0.4).unwrap().with_key(key));
            let x = matrix(&x, batch, inputs);
            let args = DenseArgs::new(layer, x, matrix(&w, inputs, units))
                .with_residual(matrix(&dy, units, batch).t());
            let (mut y, mut z) = (vec![0.0; batch * units], vec![0.0; batch * units]);
            let (mut dx, mut w_new) = (vec![0.0; batch * inputs], w.clone());
            let mut velocity = vec![0.0; inputs * units];
            let what = format!("a dense layer by columns {batch} x {inputs} x {units} {place}");
            assert_no_allocation(&what, || {
                let to = matrix_mut(&mut y, units, batch).t();
                let z_to = Some(matrix_mut(&mut z, units, batch).t());
                dense_forward(&args, to, z_to, MaskSource::Key).unwrap();
                let step = SgdStep::new(1e-3).with_momentum(0.9);
                let update = DenseUpdate::new(layer, x, step).with_max_norm(1.0);
                // Weights by rows, their velocities by columns.
                let parameters = Parameters::new(matrix_mut(&mut w_new, inputs, units))
                    .with_w_state(matrix_mut(&mut velocity, units, inputs).t());
                let saved = Saved::PreActivation(matrix(&z, units, batch).t());
                let dx = Some(matrix_mut(&mut dx, inputs, batch).t());
                let dy = matrix(&dy, batch, units);
                dense_update(&update, parameters, &saved, dy, dx, MaskSource::Key).unwrap();
            });
        });
    }
}

#[test]
fn elementwise_operations_loss_and_updates() {
    for (rows, cols) in [(3, 50), (700, 600)] {
        let (x, bias) = (numbers(rows * cols, 1), numbers(cols, 2));
        let labels: Vec<u32> = (0..rows as u32).map(|r| r % cols as u32).collect();
        everywhere(|place| {
            let dropout = Dropout::new(0.4).unwrap().with_key(MaskKey::new(1, 2, 3).unwrap());
            let args = BiasActivationDropout::new(Activation::Tanh, dropout).with_bias(&bias);
            let with_residual = args.with_residual(matrix(&x, rows, cols));
            let step = SgdStep::new(0.1).with_momentum(0.9);
            let mut mask = Mask::new(rows, cols).unwrap();
            let (mut y, mut dz, mut db) = (x.clone(), x.clone(), bias.clone());
            let x = matrix(&x, rows, cols);
            assert_no_allocation(&format!("{rows} x {cols} {place}"), || {
                mask.fill(&dropout).unwrap();
                let to = matrix_mut(&mut y, rows, cols);
                dropout_forward((x, to), &dropout, MaskSource::Key).unwrap();
                let to = matrix_mut(&mut y, rows, cols);
                bias_activation_dropout_forward(&with_residual, (x, to), &mut mask).unwrap();
                let to = matrix_mut(&mut dz, rows, cols);
                let saved = Saved::PreActivation(x);
                bias_activation_dropout_backward(&args, &saved, (x, to), Some(&mut db), &mask)
                    .unwrap();
                let to = matrix_mut(&mut dz, rows, cols);
                softmax_cross_entropy(x, &labels, Some(to)).unwrap();
                let smoothed = CrossEntropy::new(&labels).with_label_smoothing(0.1).unwrap();
                smoothed.evaluate(x, matrix_mut(&mut dz, rows, cols)).unwrap();
                let huber = Huber::new(x, 0.5).unwrap();
                huber.evaluate(x, matrix_mut(&mut dz, rows, cols)).unwrap();
                let velocity = Some(matrix_mut(&mut dz, rows, cols));
                apply(matrix_mut(&mut y, rows, cols), x, velocity, step).unwrap();
                max_norm(matrix_mut(&mut y, rows, cols), 1.0).unwrap();
            });
        });
    }
}

#[test]
fn shared_decisions_and_rates_of_rows_and_columns() {
    let dims = [70, 60, 100];
    let (rows, cols) = (70, 6000);
    let x = numbers(rows * cols, 1);
    let shapes = [
        BroadcastShape::channels_first(&dims).unwrap(),
        BroadcastShape::channels_last(&dims).unwrap(),
        BroadcastShape::per_sample(&dims).unwrap(),
    ];
    let rates = [Rates::per_row(&[0.3; 70]).unwrap(), Rates::per_column(&[0.3; 6000]).unwrap()];
    everywhere(|place| {
        let key = MaskKey::new(1, 2, 3).unwrap();
        let dropout = Dropout::new(0.4).unwrap().with_key(key);
        let (mut y, mut mask) = (x.clone(), Mask::new(70, 1).unwrap());
        assert_no_allocation(&format!("shared decisions {place}"), || {
            for shape in shapes {
                let args = BroadcastDropout::new(shape, dropout);
                broadcast_dropout_forward(&args, (&x[..], &mut y[..]), MaskSource::Key).unwrap();
            }
            let args = BroadcastDropout::new(shapes[2], dropout);
            broadcast_dropout_forward(&args, (&x[..], &mut y[..]), &mut mask).unwrap();
            broadcast_dropout_forward(&args, (&x[..], &mut y[..]), &mask).unwrap();
            broadcast_dropout_backward(&args, (&x[..], &mut y[..]), &mask).unwrap();
            broadcast_dropout_forward(&args, &mut y[..], MaskSource::Key).unwrap();
            broadcast_dropout_backward(&args, &mut y[..], MaskSource::Key).unwrap();
        });
        assert_no_allocation(&format!("rates {place}"), || {
            for rates in &rates {
                let (x, y) = (matrix(&x, rows, cols), matrix_mut(&mut y, rows, cols));
                rates_dropout_forward((x, y), &rates.with_key(key), MaskSource::Key).unwrap();
            }
            for rates in &rates {
                let (x, y) = (matrix(&x, rows, cols), matrix_mut(&mut y, rows, cols));
                rates_dropout_backward((x, y), &rates.with_key(key), MaskSource::Key).unwrap();
            }
        });
    });
}

#[test]
fn noise() {
    for (rows, cols) in [(3, 50), (300, 500)] {
        let x = numbers(rows * cols, 1);
        everywhere(|place| {
            let key = MaskKey::new(1, 2, 3).unwrap();
            let (gaussian, alpha) =
                (GaussianDropout::new(0.3).unwrap(), AlphaDropout::new(0.3).unwrap());
            let (mut y, mut p) = (x.clone(), x.clone());
            let (mut mask, mut features) =
                (Mask::new(rows, cols).unwrap(), Mask::new(1, cols).unwrap());
            let x = matrix(&x, rows, cols);
            assert_no_allocation(&format!("Gaussian dropout, {rows} x {cols} {place}"), || {
                let to = matrix_mut(&mut y, rows, cols);
                gaussian_dropout_forward((x, to), &gaussian.with_key(key)).unwrap();
                let to = matrix_mut(&mut y, rows, cols);
                gaussian_dropout_backward(to, &gaussian.with_key(key)).unwrap();
                standard_normal(matrix_mut(&mut p, rows, cols), &key).unwrap();
            });
            let units = key.units();
            assert_no_allocation(&format!("alpha dropout, {rows} x {cols} {place}"), || {
                for (key, mask) in [(&key, &mut mask), (&units, &mut features)] {
                    let keyed = alpha.with_key(*key);
                    let to = matrix_mut(&mut y, rows, cols);
                    alpha_dropout_forward((x, to), &keyed, MaskSource::Key).unwrap();
                    let to = matrix_mut(&mut y, rows, cols);
                    alpha_dropout_forward((x, to), &keyed, &mut *mask).unwrap();
                    let to = matrix_mut(&mut y, rows, cols);
                    alpha_dropout_forward((x, to), &keyed, &*mask).unwrap();
                    for mask in [None, Some(&*mask)] {
                        let to = matrix_mut(&mut y, rows, cols);
                        alpha_dropout_backward((x, to), &keyed, mask).unwrap();
                    }
                }
            });
            assert_no_allocation(&format!("softmax, {rows} x {cols} {place}"), || {
                let dropout = Dropout::new(0.1).unwrap().with_key(key);
                for causal in [None, Some(3)] {
                    let mut args = SoftmaxDropout::new(dropout);
                    args.causal = causal;
                    let to = matrix_mut(&mut y, rows, cols);
                    let p_to = Some(matrix_mut(&mut p, rows, cols));
                    softmax_dropout_forward(&args, (x, to), p_to, &mut mask).unwrap();
                    let (p, to) = (matrix(&p, rows, cols), matrix_mut(&mut y, rows, cols));
                    softmax_dropout_backward(&args, p, (x, to), &mask).unwrap();
                    let to = matrix_mut(&mut y, cols, rows).t();
                    softmax_dropout_forward(&args, (x, to), None, &mask).unwrap();
                    let to = matrix_mut(&mut y, cols, rows).t();
                    softmax_dropout_backward(&args, p, (x, to), MaskSource::Key).unwrap();
                }
            });
        });
    }
}
