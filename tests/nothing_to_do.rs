//! Calls on matrices without elements, however long their other side is: they check their arguments, ask
//! for no memory, and write nothing but sums of nothing.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use fused_dropout::elementwise::*;
use fused_dropout::loss::*;
use fused_dropout::mask::{BroadcastShape, Rates};
use fused_dropout::softmax::*;
use fused_dropout::{Activation, Dropout, Error, Mask, MaskKey, MaskSource, MatMut, MatRef, Saved};

thread_local! {
    /// Calls of the allocator by this thread.
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: all calls go to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `f`, which must ask for no memory.
#[track_caller]
fn without_memory(what: &str, f: impl FnOnce() -> Result<(), Error>) {
    let before = CALLS.get();
    let result = f();
    let calls = CALLS.get() - before;
    assert_eq!((result, calls), (Ok(()), 0), "{what}");
}

const ROWS: usize = 1 << 32;
const COLS: usize = 1 << 38;

fn view(rows: usize, cols: usize) -> MatRef<'static> {
    MatRef::new(&[], rows, cols).unwrap()
}

fn view_mut(rows: usize, cols: usize) -> MatMut<'static> {
    MatMut::new(&mut [], rows, cols).unwrap()
}

fn key() -> MaskKey {
    MaskKey::new(1, 2, 3).unwrap()
}

#[test]
fn empty_matrices_cost_nothing() {
    let dropout = Dropout::new(0.3).unwrap().with_key(key());
    // What is found out once in a process: the level, the sizes of the caches.
    dropout_forward(&mut [1.0; 3][..], &dropout, MaskSource::Key).unwrap();
    let gaussian = GaussianDropout::new(0.3).unwrap();
    let alpha = AlphaDropout::new(0.3).unwrap();
    let args = BiasActivationDropout::new(Activation::Tanh, dropout);
    let softmax = SoftmaxDropout::new(dropout);
    for (rows, cols) in [(0, COLS), (ROWS, 0), (0, 0)] {
        let (x, y) = (|| view(rows, cols), || view_mut(rows, cols));
        let xy = || (x(), y());
        without_memory("dropout", || dropout_forward(xy(), &dropout, MaskSource::Key));
        without_memory("its gradient", || dropout_backward(y(), &dropout, MaskSource::Key));
        without_memory("activation", || {
            bias_activation_dropout_forward(&args, xy(), MaskSource::Key)
        });
        without_memory("its gradient", || {
            let saved = Saved::Output(x());
            bias_activation_dropout_backward(&args, &saved, xy(), None, MaskSource::Key)
        });
        without_memory("gaussian", || gaussian_dropout_forward(xy(), &gaussian.with_key(key())));
        without_memory("its gradient", || {
            gaussian_dropout_backward(y(), &gaussian.with_key(key()))
        });
        without_memory("normal numbers", || standard_normal(y(), &key()));
        for key in [key(), key().units()] {
            without_memory("alpha", || {
                alpha_dropout_forward(xy(), &alpha.with_key(key), MaskSource::Key)
            });
            without_memory("its gradient", || {
                alpha_dropout_backward(y(), &alpha.with_key(key), MaskSource::Key)
            });
        }
        without_memory("softmax", || {
            softmax_dropout_forward(&softmax, xy(), Some(y()), MaskSource::Key)
        });
        without_memory("its gradient", || {
            softmax_dropout_backward(&softmax, x(), y(), MaskSource::Key)
        });
        let transposed = || (view(cols, rows).t(), view_mut(cols, rows).t());
        without_memory("softmax, transposed", || {
            softmax_dropout_forward(&softmax, transposed(), None, MaskSource::Key)
        });
    }
    without_memory("loss", || softmax_cross_entropy(view(0, COLS), &[], None).map(|_| ()));
    for (rows, cols) in [(0, COLS), (ROWS, 0), (0, 0)] {
        let (outputs, targets) = (view(rows, cols), view(rows, cols));
        without_memory("squares", || {
            MeanSquaredError::new(targets).evaluate(outputs, view_mut(rows, cols)).map(|_| ())
        });
        without_memory("Huber's loss", || {
            Huber::new(targets, 1.0)?.evaluate(outputs, view_mut(rows, cols)).map(|_| ())
        });
    }
}

#[test]
fn shared_decisions_and_rates_cost_nothing() {
    let dropout = Dropout::new(0.3).unwrap().with_key(key());
    dropout_forward(&mut [1.0; 3][..], &dropout, MaskSource::Key).unwrap();
    for shared in [[true, false], [false, true], [true, true], [false, false]] {
        let shape = BroadcastShape::new(&[0, 1 << 38], &shared).unwrap();
        let args = BroadcastDropout::new(shape, dropout);
        without_memory("broadcast", || {
            broadcast_dropout_forward(&args, &mut [][..], MaskSource::Key)
        });
        without_memory("its gradient", || {
            broadcast_dropout_backward(&args, view_mut(0, 7), MaskSource::Key)
        });
    }
    // A column that is not the first of a block would need thresholds of its own.
    let key = key().with_origin(0, 5);
    let (columns, rows) =
        (Rates::per_column(&[0.5; 999]).unwrap(), Rates::per_row(&[0.5; 999]).unwrap());
    for (rates, shape) in [(&columns, (0, 999)), (&rows, (999, 0))] {
        let xy = || (view(shape.0, shape.1), view_mut(shape.0, shape.1));
        without_memory("rates", || {
            rates_dropout_forward(xy(), &rates.with_key(key), MaskSource::Key)
        });
        without_memory("its gradient", || {
            rates_dropout_backward(xy().1, &rates.with_key(key), MaskSource::Key)
        });
    }
}

/// A mask of units has elements where the tensor has none, and is stored all the same.
#[test]
fn masks_of_units_are_stored_all_the_same() {
    let units = Dropout::new(0.3).unwrap().with_key(key().units());
    let alpha = AlphaDropout::new(0.3).unwrap();
    let mut mask = Mask::new(1, 50).unwrap();
    alpha_dropout_forward(view_mut(0, 50), &alpha.with_key(*units.key()), &mut mask).unwrap();
    assert_eq!(mask, fused_dropout::Mask::generate(1, 50, &units).unwrap());
}

/// What is wrong is refused though there is nothing to do; sums of nothing are 0.
#[test]
fn arguments_are_checked_and_sums_are_zero() {
    let dropout = Dropout::new(0.3).unwrap().with_key(key());
    let far = dropout.with_key(key().with_origin(0, (1 << 39) - 1));
    let error = dropout_forward(view_mut(0, 2), &far, MaskSource::Key);
    assert!(matches!(error, Err(Error::Address { .. })), "{error:?}");
    let error = dropout_forward((view(0, 2), view_mut(0, 3)), &dropout, MaskSource::Key);
    assert!(matches!(error, Err(Error::Shape { .. })), "{error:?}");
    let mut db = [9.0; 4];
    let args = BiasActivationDropout::new(Activation::Relu, dropout);
    let saved = Saved::Output(view(0, 4));
    bias_activation_dropout_backward(&args, &saved, view_mut(0, 4), Some(&mut db), MaskSource::Key)
        .unwrap();
    assert_eq!(db, [0.0; 4]);
}
