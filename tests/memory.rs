//! The memory that a training step and a layer's passes take at most is what they say. A binary of
//! its own, since it replaces the allocator.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::executors::{Hostile, Pool};
use common::{ACTIVATIONS, for_each_level, matrix, matrix_mut, numbers, with_threads};
use fused_dropout::layer::{DenseArgs, DenseLayer, Gradients, dense_backward, dense_forward};
use fused_dropout::nn::{Mlp, MlpSpec, Noise, Optimiser, Prediction};
use fused_dropout::update::SgdStep;
use fused_dropout::{
    Activation, Dropout, Error, Executor, Mask, MaskKey, MaskSource, Saved, release_buffers,
    testing,
};

/// The system's allocator, which counts the bytes in use and the most there have been.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator unchanged; `realloc` and `alloc_zeroed`
// are made of these two.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let before = IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        PEAK.fetch_max(before + layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test counts at a time: another one's allocations would be counted too.
static ALONE: Mutex<()> = Mutex::new(());

/// What a thread's packed panels take at most: far less than a matrix of the tests below.
const PANELS: usize = 3 << 20;

/// Bytes at the peak of `f` beyond those in use before it.
fn peak_of(f: impl FnOnce()) -> usize {
    let before = IN_USE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    f();
    PEAK.load(Ordering::Relaxed) - before
}

/// Runs `f` on every level in new pools of one and of two threads, whose buffers are empty.
fn everywhere(f: impl Fn(&str, usize) + Sync) {
    for_each_level(|level| {
        for threads in [1, 2] {
            let place = format!("on {level}, {threads} threads");
            let before = IN_USE.load(Ordering::Relaxed);
            with_threads(threads, || {
                testing::at_level(level, || f(&place, threads * PANELS)).unwrap()
            });
            await_the_end_of_threads(before);
        }
    });
}

/// Waits until a pool's threads have freed what they held, which they do after the pool is gone.
fn await_the_end_of_threads(before: usize) {
    let slack = 1 << 18;
    for _ in 0..10_000 {
        if IN_USE.load(Ordering::Relaxed) <= before + slack {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("threads hold memory 10 seconds after their pool's end");
}

#[track_caller]
fn assert_between(what: &str, bytes: usize, least: usize, most: usize) {
    let right = (least..=most).contains(&bytes);
    assert!(right, "{what}: {bytes} bytes, not from {least} to {most}");
}

#[test]
fn a_training_step_takes_what_it_says() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    const BATCH: usize = 500;
    let (x, labels) = (numbers(BATCH * 20, 1), vec![3; BATCH]);
    // A whole matrix of the widest layer would be seen.
    let matrix_bytes = BATCH * 4000 * 4;
    for (activation, noise) in [
        (Activation::Relu, Noise::Dropout),
        (Activation::Tanh, Noise::Dropout),
        (Activation::Gelu, Noise::Dropout),
        (Activation::Relu, Noise::Gaussian),
    ] {
        everywhere(|place, panels| {
            let spec = MlpSpec::new(&[20, 4000, 100, 10])
                .with_activation(activation)
                .with_input_rate(0.2)
                .with_hidden_rate(0.5)
                .with_noise(noise);
            let mut mlp = Mlp::new(&spec).unwrap();
            let said = mlp.step_size_in_bytes(BATCH).unwrap();
            let z = if activation == Activation::Gelu { BATCH * 4100 * 4 } else { 0 };
            let noisy = if noise == Noise::Gaussian { BATCH * 4120 * 4 } else { 0 };
            assert_eq!(said, BATCH * 4110 * 4 + z + noisy + 2 * matrix_bytes);
            let peak = peak_of(|| {
                for _ in 0..2 {
                    mlp.train_step(
                        matrix(&x, BATCH, 20),
                        &labels,
                        &Optimiser::new(SgdStep::new(0.01)),
                    )
                    .unwrap();
                }
            });
            let what = format!("steps with {activation}, {noise:?} {place}");
            assert_between(&what, peak, said - matrix_bytes, said + panels);
        });
    }
}

/// Weights once more, and three matrices of at most 512 rows, for any number of passes and rows.
#[test]
fn monte_carlo_passes_take_what_they_say() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mlp = Mlp::new(&MlpSpec::new(&[20, 4000, 100, 10]).with_hidden_rate(0.5)).unwrap();
    let (matrix_bytes, weights) = (512 * 4000 * 4, (4000 * 128 + 100 * 32) * 4);
    for (rows, passes) in [(40, 60), (600, 5)] {
        let x = numbers(rows * 20, 1);
        everywhere(|place, panels| {
            let mut prediction = Prediction::new(rows, 10).unwrap();
            let peak = peak_of(|| {
                let x = matrix(&x, rows, 20);
                mlp.predict_monte_carlo(x, 0..passes, &mut prediction).unwrap();
            });
            let what = format!("{passes} passes over {rows} rows {place}");
            // Less than a whole stack: passes do not fill it exactly.
            let (least, most) = (matrix_bytes / 2, weights + 3 * matrix_bytes + panels);
            assert_between(&what, peak, least, most);
        });
    }
}

/// The peak of forward and backward is what is saved, dz, the output if it is not saved, and panels.
#[test]
fn forward_and_backward_take_what_is_saved() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    const BATCH: usize = 2500;
    const INPUTS: usize = 12;
    const UNITS: usize = 900;
    let (x, w) = (numbers(BATCH * INPUTS, 1), numbers(INPUTS * UNITS, 2));
    let output = BATCH * UNITS * 4;
    let (dy, key) = (vec![1.0; BATCH * UNITS], MaskKey::new(1, 2, 3).unwrap());
    let (mut dx, mut dw, mut db) =
        (vec![0.0; BATCH * INPUTS], vec![0.0; INPUTS * UNITS], vec![0.0; UNITS]);
    let gradients = Mutex::new((&mut dx, &mut dw, &mut db));
    for activation in [Activation::Identity, Activation::Relu, Activation::Tanh, Activation::Silu] {
        for stored in [false, true] {
            everywhere(|place, panels| {
                let mut gradients = gradients.lock().unwrap();
                let (dx, dw, db) = &mut *gradients;
                let layer = DenseLayer::new(activation)
                    .with_output(Dropout::new(0.4).unwrap().with_key(key));
                let (x, w) = (matrix(&x, BATCH, INPUTS), matrix(&w, INPUTS, UNITS));
                let args = DenseArgs::new(layer, x, w);
                let needs_z = activation == Activation::Silu;
                let said = Saved::<f32>::size_for(activation, BATCH, UNITS, stored).unwrap();
                let mut saved_bytes = 0;
                let peak = peak_of(|| {
                    let mut y = vec![0.0; BATCH * UNITS];
                    let mut z = if needs_z { vec![0.0; BATCH * UNITS] } else { Vec::new() };
                    let mut mask = stored.then(|| Mask::new(BATCH, UNITS).unwrap());
                    let z_to = needs_z.then(|| matrix_mut(&mut z, BATCH, UNITS));
                    let y_to = matrix_mut(&mut y, BATCH, UNITS);
                    dense_forward(&args, y_to, z_to, mask.as_mut()).unwrap();
                    // The output is saved by some activations only, and goes else.
                    let y = Some(y).filter(|_| activation != Activation::Identity && !needs_z);
                    let saved = match &y {
                        Some(y) => Saved::Output(matrix(y, BATCH, UNITS)),
                        None if needs_z => Saved::PreActivation(matrix(&z, BATCH, UNITS)),
                        None => Saved::Nothing,
                    };
                    let mask_bytes = mask.as_ref().map_or(0, Mask::size_in_bytes);
                    saved_bytes = saved.size_in_bytes() + mask_bytes;
                    let gradients = Gradients::default()
                        .with_dx(matrix_mut(dx, BATCH, INPUTS))
                        .with_dw(matrix_mut(dw, INPUTS, UNITS))
                        .with_db(db);
                    let dy = matrix(&dy, BATCH, UNITS);
                    dense_backward(&args, &saved, dy, gradients, mask.as_ref()).unwrap();
                });
                let what = format!("{activation}, stored mask {stored}, {place}");
                assert_eq!(saved_bytes, said, "{what}");
                // Forward has the output, backward dz: one of them beside what is saved, or none
                // beside a saved output.
                assert_between(&what, peak, said, said + output + panels);
            });
        }
    }
}

/// Buffers belong to the threads that run tasks: they go with threads that end, and those of threads that
/// stay are freed on request.
#[test]
fn buffers_of_an_executor_are_freed() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (x, w) = (numbers(300 * 1000, 1), numbers(1000 * 600, 2));
    let mut y = vec![0.0; 300 * 600];
    let mut forward = || {
        let layer = DenseLayer::new(Activation::Relu);
        let args = DenseArgs::new(layer, matrix(&x, 300, 1000), matrix(&w, 1000, 600));
        dense_forward(&args, matrix_mut(&mut y, 300, 600), None, MaskSource::Key).unwrap();
    };
    for hostile in [true, false] {
        let executor = match hostile {
            true => Executor::custom(Hostile::new(3)),
            false => Executor::custom(Pool::new(3)),
        };
        // What is found out once, and what the threads themselves take.
        executor.run(&mut forward);
        executor.run(release_buffers);
        let before = IN_USE.load(Ordering::Relaxed);
        for _ in 0..Hostile::MOODS {
            executor.run(&mut forward);
        }
        if !hostile {
            let kept = IN_USE.load(Ordering::Relaxed) - before;
            // One thread may have run all tasks: each packs at least 100 rows of x.
            assert!(kept >= 4 * 100 * 1000, "threads keep panels, {kept} bytes");
            executor.run(release_buffers);
        } else {
            // Those of this thread alone.
            Executor::calling_thread().run(release_buffers);
        }
        await_the_end_of_threads(before);
    }
}

#[test]
fn sizes_are_counted_and_checked() {
    for activation in ACTIVATIONS {
        let value = if activation == Activation::Identity { 0 } else { 1 };
        let size = |stored| Saved::<f32>::size_for(activation, 7, 33, stored);
        assert_eq!(size(false), Ok(7 * 33 * 4 * value));
        assert_eq!(size(true), Ok(7 * 33 * 4 * value + Mask::new(7, 33).unwrap().size_in_bytes()));
        let in_f64 = Saved::<f64>::size_for(activation, 7, 33, false);
        assert_eq!(in_f64, Ok(7 * 33 * 8 * value));
        assert_eq!(Saved::<f32>::size_for(activation, 0, 5, true), Ok(0));
        let overflow = Saved::<f32>::size_for(activation, usize::MAX, 1 << 40, true);
        assert_eq!(overflow, Err(Error::Overflow { rows: usize::MAX, stride: 1 << 40 }));
    }
    let mlp = Mlp::new(&MlpSpec::new(&[3, 5, 2])).unwrap();
    assert_eq!(mlp.step_size_in_bytes(10), Ok(4 * 10 * (5 + 2 + 2 * 5)));
    assert!(matches!(mlp.step_size_in_bytes(usize::MAX / 16), Err(Error::Overflow { .. })));
}
