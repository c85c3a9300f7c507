//! Every kernel on buffers that end where an inaccessible page starts, or start where one ends: an
//! access outside kills the process. The results are those on ordinary memory.
#![cfg(unix)]

mod common;

use common::{ACTIVATIONS, bits, for_each_level, numbers, sgd_step};
use fused_dropout::elementwise::{
    AlphaDropout, BiasActivationDropout, BroadcastDropout, GaussianDropout, alpha_dropout_backward,
    alpha_dropout_forward, bias_activation_dropout_backward, bias_activation_dropout_forward,
    broadcast_dropout_forward, dropout_forward, gaussian_dropout_forward, rates_dropout_forward,
    standard_normal,
};
use fused_dropout::layer::{
    BlockShape, DenseArgs, DenseLayer, DenseUpdate, Gradients, KeptBlocks, KeptUnits, Parameters,
    dense_backward, dense_forward, dense_update, gather_units,
};
use fused_dropout::loss::{
    CrossEntropy, Huber, MeanSquaredError, cross_entropy, huber, mean_squared_error,
};
use fused_dropout::mask::{BroadcastShape, Rates};
use fused_dropout::softmax::{
    SoftmaxDropout, softmax_cross_entropy, softmax_dropout_backward, softmax_dropout_forward,
};
use fused_dropout::update::{AdamStep, apply, global_norm, max_norm};
use fused_dropout::{
    Activation, Dropout, KeyedDropout, Mask, MaskKey, MaskSource, MatMut, MatRef, Saved,
};

/// Floats between two inaccessible pages, at the end or at the start of what lies between.
struct Guarded {
    pages: *mut libc::c_void,
    bytes: usize,
    data: *mut f32,
    len: usize,
}

/// Where the floats touch an inaccessible page.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Start,
    End,
}

impl Guarded {
    fn new(values: &[f32], at: At) -> Self {
        let len = values.len();
        // SAFETY: an anonymous mapping of its own, of which the first and last page are locked; the
        // floats lie between them and are initialised.
        unsafe {
            let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
            let inner = (len * 4).next_multiple_of(page);
            let bytes = inner + 2 * page;
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let pages = libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0);
            assert_ne!(pages, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(pages, page, libc::PROT_NONE), 0);
            assert_eq!(libc::mprotect(pages.byte_add(page + inner), page, libc::PROT_NONE), 0);
            let first = match at {
                At::Start => page,
                At::End => page + inner - len * 4,
            };
            let data = pages.byte_add(first).cast::<f32>();
            data.copy_from_nonoverlapping(values.as_ptr(), len);
            Self { pages, bytes, data, len }
        }
    }

    fn get(&self) -> &[f32] {
        // SAFETY: `len` initialised floats, borrowed as long as the result.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }

    fn get_mut(&mut self) -> &mut [f32] {
        // SAFETY: `len` initialised floats, exclusively borrowed as long as the result.
        unsafe { std::slice::from_raw_parts_mut(self.data, self.len) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own.
        unsafe { libc::munmap(self.pages, self.bytes) };
    }
}

/// Where a run of the operations has its numbers.
trait Memory {
    fn with(&mut self, values: Vec<f32>) -> usize;
    fn all(&mut self) -> Vec<&mut [f32]>;
}

impl Memory for Vec<Vec<f32>> {
    fn with(&mut self, values: Vec<f32>) -> usize {
        self.push(values);
        self.len() - 1
    }
    fn all(&mut self) -> Vec<&mut [f32]> {
        self.iter_mut().map(|v| &mut v[..]).collect()
    }
}

struct Pages(At, Vec<Guarded>);

impl Memory for Pages {
    fn with(&mut self, values: Vec<f32>) -> usize {
        self.1.push(Guarded::new(&values, self.0));
        self.1.len() - 1
    }
    fn all(&mut self) -> Vec<&mut [f32]> {
        self.1.iter_mut().map(Guarded::get_mut).collect()
    }
}

/// Runs `operation` on buffers with these contents, in ordinary memory and between guards, on every
/// level, and compares all bits.
fn check(buffers: &[Vec<f32>], what: &str, operation: impl Fn(&mut [&mut [f32]])) {
    fn run(
        mut memory: impl Memory,
        buffers: &[Vec<f32>],
        operation: &impl Fn(&mut [&mut [f32]]),
    ) -> Vec<Vec<u32>> {
        for values in buffers {
            memory.with(values.clone());
        }
        operation(&mut memory.all());
        memory.all().into_iter().map(|v| bits(v)).collect()
    }
    for_each_level(|level| {
        let expected = run(Vec::new(), buffers, &operation);
        for at in [At::Start, At::End] {
            let guarded = run(Pages(at, Vec::new()), buffers, &operation);
            assert!(guarded == expected, "{what} on {level}, guarded at {at:?}");
        }
    });
}

/// A matrix whose last row ends where its buffer ends.
#[derive(Clone, Copy, Debug)]
struct Layout {
    rows: usize,
    cols: usize,
    stride: usize,
    transposed: bool,
}

impl Layout {
    fn new(rows: usize, cols: usize, extra: usize, transposed: bool) -> Self {
        Self { rows, cols, stride: if transposed { rows } else { cols } + extra, transposed }
    }

    fn lines(self) -> (usize, usize) {
        if self.transposed { (self.cols, self.rows) } else { (self.rows, self.cols) }
    }

    fn numbers(self, seed: u64) -> Vec<f32> {
        let (lines, line) = self.lines();
        numbers(if lines * line == 0 { 0 } else { (lines - 1) * self.stride + line }, seed)
    }

    fn view(self, data: &[f32]) -> MatRef<'_> {
        let (lines, line) = self.lines();
        let view = MatRef::with_stride(data, lines, line, self.stride).unwrap();
        if self.transposed { view.t() } else { view }
    }

    fn view_mut(self, data: &mut [f32]) -> MatMut<'_> {
        let (lines, line) = self.lines();
        let view = MatMut::with_stride(data, lines, line, self.stride).unwrap();
        if self.transposed { view.t() } else { view }
    }
}

fn key() -> MaskKey {
    MaskKey::new(4, 1, 9).unwrap().with_origin(3, 77)
}

fn dropout(rate: f64) -> KeyedDropout {
    Dropout::new(rate).unwrap().with_key(key())
}

/// Plain, padded and transposed.
const LAYOUTS: [(usize, bool); 4] = [(0, false), (3, false), (0, true), (1, true)];

#[test]
fn the_guard_is_a_guard() {
    let guarded = Guarded::new(&[1.0, 2.0, 3.0], At::End);
    assert_eq!(guarded.get(), [1.0, 2.0, 3.0]);
    for (at, offset) in [(At::End, 3), (At::Start, -1)] {
        let guarded = Guarded::new(&[1.0, 2.0, 3.0], at);
        // SAFETY: the child does nothing but read a byte, which ends it, or leave; the parent waits.
        unsafe {
            let child = libc::fork();
            assert!(child >= 0);
            if child == 0 {
                std::hint::black_box(guarded.data.wrapping_offset(offset).read_volatile());
                libc::_exit(0);
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &mut status, 0), child);
            // A sanitizer turns the signal into an exit code.
            let left = libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0;
            assert!(!left, "a read outside must end the process: {at:?}");
        }
    }
}

#[test]
fn elementwise() {
    let widths = [0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65, 100, 127, 129, 257];
    for (i, cols) in widths.into_iter().enumerate() {
        for (rows, (extra, transposed)) in [1, 3].into_iter().flat_map(|r| LAYOUTS.map(|l| (r, l)))
        {
            let activation = ACTIVATIONS[(i + rows + extra) % 9];
            let m = Layout::new(rows, cols, extra, transposed);
            let buffers =
                [m.numbers(1), m.numbers(2), m.numbers(3), numbers(cols, 4), numbers(cols, 5)];
            check(&buffers, &format!("{activation} of {m:?}"), |buffers| {
                let [x, second, out, bias, db] = buffers else { panic!() };
                let mut mask = Mask::new(rows, cols).unwrap();
                let dy = m.view(second);
                let args = BiasActivationDropout::new(activation, dropout(0.3)).with_bias(bias);
                let args = args.with_residual(dy);
                let (xy, key) = ((m.view(x), m.view_mut(out)), MaskSource::Key);
                bias_activation_dropout_forward(&args, xy, key).unwrap();
                let saved = Saved::PreActivation(m.view(out));
                let (dy_dz, key) = ((dy, m.view_mut(x)), MaskSource::Key);
                bias_activation_dropout_backward(&args, &saved, dy_dz, Some(db), key).unwrap();
                bias_activation_dropout_forward(&args, m.view_mut(out), &mut mask).unwrap();
                let saved = Saved::PreActivation(m.view(out));
                let dy_dz = (dy, m.view_mut(x));
                bias_activation_dropout_backward(&args, &saved, dy_dz, None, &mask).unwrap();
            });
        }
    }
    // More than a tile and more than a task.
    for (rows, cols) in [(1, 4099), (2, 8200), (1, 140_001), (260, 33)] {
        let m = Layout::new(rows, cols, 0, false);
        check(&[m.numbers(1), m.numbers(2)], &format!("dropout of {m:?}"), |buffers| {
            let [x, y] = buffers else { panic!() };
            let xy = (m.view(x), m.view_mut(y));
            dropout_forward(xy, &dropout(0.5), MaskSource::Key).unwrap();
        });
    }
}

/// Forward and backward of one dense layer, and with weights that are dropped the update too, all
/// matrices in one layout.
fn dense(
    sizes: (usize, usize, usize),
    layout: (usize, bool),
    activation: Activation,
    rates: [Option<f64>; 2],
) {
    dense_of_blocks(sizes, layout, activation, rates, None);
}

/// The same, or with blocks of a shape dropped on both sides, and the update too.
fn dense_of_blocks(
    sizes: (usize, usize, usize),
    (extra, transposed): (usize, bool),
    activation: Activation,
    [input_rate, weight_rate]: [Option<f64>; 2],
    blocks: Option<BlockShape>,
) {
    let (batch, inputs, units) = sizes;
    let layout = |rows, cols| Layout::new(rows, cols, extra, transposed);
    let (x, w, y) = (layout(batch, inputs), layout(inputs, units), layout(batch, units));
    let buffers = [
        x.numbers(1),
        w.numbers(2),
        numbers(units, 3),
        y.numbers(4),
        y.numbers(5),
        y.numbers(6),
        x.numbers(7),
        w.numbers(8),
        numbers(units, 9),
    ];
    let what = format!(
        "{sizes:?}, {activation}, {extra} extra, transposed: {transposed}, {input_rate:?}, \
         {weight_rate:?}, {blocks:?}"
    );
    let kept = blocks.map(|shape| {
        [inputs, units].map(|n| KeptBlocks::draw((batch, n), shape, &dropout_of_blocks()).unwrap())
    });
    check(&buffers, &what, |buffers| {
        let [x_data, w_data, bias, y_data, z_data, dy, dx, dw, db] = buffers else { panic!() };
        let mut layer = DenseLayer::new(activation).with_output(dropout(0.4));
        if let Some(rate) = input_rate {
            layer = layer.with_input(dropout(rate));
        }
        if let Some(rate) = weight_rate {
            layer = layer.with_weight_dropout(dropout(rate));
        }
        if let Some([input, output]) = &kept {
            layer = layer.with_input(input).with_output(output);
        }
        let args = DenseArgs::new(layer, x.view(x_data), w.view(w_data)).with_bias(bias);
        let (y_to, z_to) = (y.view_mut(y_data), Some(y.view_mut(z_data)));
        dense_forward(&args, y_to, z_to, MaskSource::Key).unwrap();
        let saved = Saved::PreActivation(y.view(z_data));
        let gradients =
            Gradients::default().with_dx(x.view_mut(dx)).with_dw(w.view_mut(dw)).with_db(db);
        dense_backward(&args, &saved, y.view(dy), gradients, MaskSource::Key).unwrap();
        if weight_rate.is_none() && kept.is_none() {
            return;
        }
        let update = DenseUpdate::new(layer, x.view(x_data), sgd_step(0.1, 0.0, 0.01, 0.0));
        let parameters = Parameters::new(w.view_mut(w_data));
        let (dy, dx) = (y.view_mut(dy), Some(x.view_mut(dx)));
        dense_update(&update, parameters, &saved, dy, dx, MaskSource::Key).unwrap();
    });
}

#[test]
fn shared_decisions_and_rates_of_rows_and_columns() {
    for n in [1, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 79, 100, 129, 4099] {
        for shared in [[false, true], [true, false], [true, true]] {
            let shape = BroadcastShape::new(&[3, n], &shared).unwrap();
            let args = BroadcastDropout::new(shape, dropout(0.3));
            let buffers = [numbers(3 * n, 1), numbers(3 * n, 2)];
            check(&buffers, &format!("{shape:?}"), |buffers| {
                let [x, y] = buffers else { panic!() };
                broadcast_dropout_forward(&args, (&**x, &mut **y), MaskSource::Key).unwrap();
                broadcast_dropout_forward(&args, &mut **x, MaskSource::Key).unwrap();
            });
        }
        for (rows, (extra, transposed)) in [1, 9].into_iter().flat_map(|r| LAYOUTS.map(|l| (r, l)))
        {
            let m = Layout::new(rows, n, extra, transposed);
            check(&[m.numbers(1), m.numbers(2)], &format!("rates of {m:?}"), |buffers| {
                let [x, y] = buffers else { panic!() };
                for rates in [Rates::per_row(&vec![0.4; rows]), Rates::per_column(&vec![0.4; n])] {
                    let rates = rates.unwrap();
                    let (xy, mask) = ((m.view(x), m.view_mut(y)), MaskSource::Key);
                    rates_dropout_forward(xy, &rates.with_key(key()), mask).unwrap();
                }
            });
        }
    }
}

/// netlib's sizes in all combinations, then sizes around tiles and panels.
#[test]
fn dense_layers() {
    let sizes = [0, 1, 2, 3, 7, 31];
    for (i, m) in sizes.into_iter().enumerate() {
        for (j, k) in sizes.into_iter().enumerate() {
            for (l, n) in sizes.into_iter().enumerate() {
                let turn = i + 2 * j + 3 * l;
                dense(
                    (m, k, n),
                    LAYOUTS[turn % 4],
                    ACTIVATIONS[turn % 9],
                    [[None; 2], [Some(0.3), None], [None, Some(0.3)]][turn % 3],
                );
                dense((m, k, n), (0, false), Activation::Relu, [None; 2]);
            }
        }
    }
    for m in [1, 4, 5, 6, 8, 11, 12, 13, 24, 25] {
        for n in [8, 15, 16, 17, 32, 33, 64, 65, 97, 130] {
            dense((m, 9, n), LAYOUTS[(m + n) % 4], Activation::Silu, [Some(0.3), None]);
            dense((m, 9, n), LAYOUTS[(m + n) / 2 % 4], Activation::Relu, [None, Some(0.3)]);
            dense((m, 16, n), (0, false), Activation::Identity, [None; 2]);
        }
    }
}

fn dropout_of_blocks() -> KeyedDropout {
    Dropout::new(0.5).unwrap().with_key(key().with_origin(3, 0))
}

/// Blocks that fill vectors and blocks that do not, at both ends of layers that they do not fill.
#[test]
fn layers_of_blocks() {
    for (i, (g, c)) in
        [(1, 1), (4, 3), (10, 8), (16, 16), (16, 17), (32, 32)].into_iter().enumerate()
    {
        let shape = BlockShape::new(g, c).unwrap();
        for (m, k, n) in [(1, 5, 7), (17, 33, 31), (40, 50, 97), (33, 129, 64)] {
            let layout = LAYOUTS[(i + m) % 4];
            let activation = ACTIVATIONS[(i + n) % 9];
            dense_of_blocks((m, k, n), layout, activation, [None; 2], Some(shape));
            dense_of_blocks(
                (m, k, n),
                (0, false),
                Activation::Relu,
                [None, Some(0.3)],
                Some(shape),
            );
        }
    }
}

/// Several blocks of k, of rows and of columns; several tasks.
#[test]
fn large_dense_layers() {
    for layout in LAYOUTS {
        dense((13, 1203, 70), layout, Activation::Gelu, [Some(0.2); 2]);
        dense((259, 401, 45), layout, Activation::Relu, [None; 2]);
        dense((3, 129, 1041), layout, Activation::Tanh, [Some(0.2), None]);
        dense((3, 41, 1041), layout, Activation::Tanh, [None, Some(0.2)]);
    }
}

#[test]
fn updates_and_loss() {
    let step = sgd_step(0.1, 0.9, 0.01, 0.02);
    for cols in [1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 65, 100] {
        for (rows, (extra, transposed)) in [1, 3].into_iter().flat_map(|r| LAYOUTS.map(|l| (r, l)))
        {
            let m = Layout::new(rows, cols, extra, transposed);
            let buffers = [m.numbers(1), m.numbers(2), m.numbers(3), m.numbers(4)];
            check(&buffers, &format!("{m:?}"), |buffers| {
                let [w, dw, velocity, gradient] = buffers else { panic!() };
                apply(m.view_mut(w), m.view(dw), Some(m.view_mut(velocity)), step).unwrap();
                apply(m.view_mut(w), m.view(dw), None, step).unwrap();
                let moments = (m.view_mut(velocity), m.view_mut(gradient));
                apply(m.view_mut(w), m.view(dw), moments, AdamStep::new(0.01)).unwrap();
                global_norm(&[m.view(dw)]).unwrap();
                max_norm(m.view_mut(w), 0.8).unwrap();
                let labels: Vec<u32> = (0..rows as u32).map(|r| r % cols as u32).collect();
                let to = Some(m.view_mut(gradient));
                let loss = softmax_cross_entropy(m.view(dw), &labels, to).unwrap();
                assert_eq!(softmax_cross_entropy(m.view(dw), &labels, None), Ok(loss));
                let smoothed = CrossEntropy::new(&labels).with_label_smoothing(0.1).unwrap();
                cross_entropy(&smoothed, m.view(dw), Some(m.view_mut(gradient))).unwrap();
                let squared = MeanSquaredError::new(m.view(w));
                mean_squared_error(&squared, m.view(dw), Some(m.view_mut(gradient))).unwrap();
                let huber_args = Huber::new(m.view(w), 0.5).unwrap();
                huber(&huber_args, m.view(dw), Some(m.view_mut(gradient))).unwrap();
            });
        }
    }
}

#[test]
fn noise() {
    let widths = [1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65, 100, 127, 129, 257, 4099];
    for (cols, rows) in widths.into_iter().flat_map(|cols| [(cols, 1), (cols, 3)]) {
        for (extra, transposed) in LAYOUTS {
            let m = Layout::new(rows, cols, extra, transposed);
            let buffers = [m.numbers(1), m.numbers(2), m.numbers(3), m.numbers(4)];
            check(&buffers, &format!("noise of {m:?}"), |buffers| {
                let [x, y, p, dx] = buffers else { panic!() };
                let gaussian = GaussianDropout::new(0.3).unwrap();
                gaussian_dropout_forward((m.view(x), m.view_mut(y)), &gaussian.with_key(key()))
                    .unwrap();
                gaussian_dropout_forward(m.view_mut(x), &gaussian.with_key(key())).unwrap();
                standard_normal(m.view_mut(dx), &key()).unwrap();
                let alpha = AlphaDropout::new(0.3).unwrap();
                let units = key().with_origin(0, 77).units();
                for key in [&key(), &units] {
                    let (xy, mask) = ((m.view(x), m.view_mut(y)), MaskSource::Key);
                    alpha_dropout_forward(xy, &alpha.with_key(*key), mask).unwrap();
                    let (dy_dx, mask) = ((m.view(y), m.view_mut(dx)), MaskSource::Key);
                    alpha_dropout_backward(dy_dx, &alpha.with_key(*key), mask).unwrap();
                }
                for causal in [None, Some(2)] {
                    let mut args = SoftmaxDropout::new(dropout(0.3));
                    args.causal = causal;
                    let (xy, mask) = ((m.view(x), m.view_mut(y)), MaskSource::Key);
                    softmax_dropout_forward(&args, xy, None, mask).unwrap();
                    let (xy, mask) = ((m.view(x), m.view_mut(y)), MaskSource::Key);
                    softmax_dropout_forward(&args, xy, Some(m.view_mut(p)), mask).unwrap();
                    let (dy_dx, mask) = ((m.view(x), m.view_mut(dx)), MaskSource::Key);
                    softmax_dropout_backward(&args, m.view(p), dy_dx, mask).unwrap();
                    let (dy_dx, mask) = (m.view_mut(x), MaskSource::Key);
                    softmax_dropout_backward(&args, m.view(p), dy_dx, mask).unwrap();
                }
            });
        }
    }
}

/// Forward and update of a thinned layer: gathers from the first to the last kept column, and no
/// further.
#[test]
fn thinned_layers() {
    let sizes = [1, 3, 8, 16, 17, 31, 33, 64, 70, 150];
    for (turn, (k, n)) in sizes.into_iter().flat_map(|k| sizes.map(|n| (k, n))).enumerate() {
        let (extra, transposed) = LAYOUTS[turn % 4];
        let list = |units: usize, first: usize| -> Vec<u32> {
            // Both ends are kept, or neither is.
            (first..units - first.min(units - 1)).step_by(2).map(|u| u as u32).collect()
        };
        let kept = |units| KeptUnits::from_indices(units, &list(units, turn % 2), 2.0).unwrap();
        let (inputs, units) = (kept(k), kept(n));
        let w = Layout::new(k, n, extra, transposed);
        let x = Layout::new(5, inputs.len(), extra, transposed);
        let y = Layout::new(5, units.len(), extra, transposed);
        let whole = Layout::new(5, k, extra, false);
        let buffers = [
            w.numbers(1),
            w.numbers(2),
            numbers(n, 3),
            x.numbers(4),
            y.numbers(5),
            y.numbers(6),
            x.numbers(7),
            whole.numbers(8),
        ];
        let what = format!("{k} inputs, {n} units, {extra} extra, transposed: {transposed}");
        check(&buffers, &what, |buffers| {
            let [w_data, v_data, bias, x_data, y_data, dy, dx, input] = buffers else { panic!() };
            gather_units(whole.view(input), &inputs, x.view_mut(x_data)).unwrap();
            let layer =
                DenseLayer::new(Activation::Identity).with_input(&inputs).with_output(&units);
            let args = DenseArgs::new(layer, x.view(x_data), w.view(w_data)).with_bias(bias);
            dense_forward(&args, y.view_mut(y_data), None, MaskSource::Key).unwrap();
            let layer = DenseLayer::new(Activation::Relu).with_input(&inputs).with_output(&units);
            let update = DenseUpdate::new(layer, x.view(x_data), sgd_step(0.1, 0.9, 0.01, 0.02));
            let update = update.with_max_norm(0.8);
            let parameters = Parameters::new(w.view_mut(w_data))
                .with_w_state(w.view_mut(v_data))
                .with_bias(bias);
            let saved = Saved::Output(y.view(y_data));
            let (dy, dx) = (y.view(dy), Some(x.view_mut(dx)));
            dense_update(&update, parameters, &saved, dy, dx, MaskSource::Key).unwrap();
        });
    }
}
