//! Gaussian dropout: every element times a normal number of mean 1, for trainers that want noise
//! of the variance of dropout without zeros.
//!
//! ```text
//! y = x · (1 + σ z),    σ = √(rate / (1 - rate)),    z standard normal
//! ```
//!
//! It has the mean and the variance of inverted dropout of the same rate (Srivastava et al. 2014,
//! section 10, whose p is the probability to keep). The gradient is multiplied by the same numbers,
//! which are made again.
//!
//! # The numbers
//!
//! As a mask bit, z is a function of (seed, layer, step, row, column) and of nothing else. With
//! `b = column / 128` and `i = column % 128`, a column's word is
//!
//! ```text
//! R(j) = philox4x32_10(counter = [b, row, step, layer << 7 | 3 << 5 | j], key = seed)
//! W(i) = R(i / 4)[i % 4]
//! ```
//!
//! and of each 32 columns i and i + 16 make their two numbers together, of A = W(i) and B = W(i + 16)
//! read as signed integers:
//!
//! ```text
//! v = (A + 1/2) / 2^32,    u = v < 0 ? -v : 1 - v,    r = √(-2 ln u), negative if B is
//! φ = π/4 · (4 B mod 2^32) / 2^31, the remainder read as signed
//! z(i), z(i + 16) = r cos φ, r sin φ       exchanged where bit 30 of B is set
//! ```
//!
//! This is the transform of Box and Muller (1958), with the circle in quarters. |z| is at most 6.77,
//! which is exceeded once in 10^11 draws. A computed z is within 5 units in the last place of this
//! formula, and has the same bits on every level with fused multiply-add.

use super::plain;
use crate::Level;
use crate::error::{Error, Result};
use crate::isa::{Isa, Kernel, load, store};
use crate::mask::{Dropout, KeyedDropout, MaskKey, MaskSource};
use crate::math::normal;
use crate::philox::LaneBlocks;
use crate::threads::{Grid, Part, for_each};
use crate::view::{InOut, MatMut, Source, Target};

/// Columns of a block: 32 counters of 4 words.
const BLOCK: usize = 128;
/// Columns of which each half makes its numbers with the other.
const GROUP: usize = 32;
/// Vectors of Philox blocks in flight, as many as for masks.
const VECTORS: usize = 2;
/// Lanes of the widest vector: what may be read past the last number of a block.
const WIDEST: usize = 16;
/// Elements worth a task: some 20 microseconds.
const TASK: usize = crate::threads::work::FUNCTION;

/// How strong the noise is.
///
/// ```
/// # use fused_dropout::elementwise::GaussianDropout;
/// assert_eq!(GaussianDropout::new(0.2)?.sigma(), 0.5);
/// # Ok::<(), fused_dropout::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct GaussianDropout {
    rate: f64,
    sigma: f64,
}

impl GaussianDropout {
    /// Noise of the variance that dropout of this rate has: `rate / (1 - rate)`.
    ///
    /// # Errors
    ///
    /// When `rate` is NaN, below 0 or above 1; and when it is 1, for which the variance is infinite.
    pub fn new(rate: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&rate) {
            return Err(Error::Rate { rate });
        }
        if rate == 1.0 {
            return Err(Error::Parameter {
                name: "the rate of Gaussian dropout",
                value: rate,
                expected: "below 1, where the variance is finite",
            });
        }
        Ok(Self { rate, sigma: (rate / (1.0 - rate)).sqrt() })
    }

    /// This dropout with the numbers of a key.
    pub const fn with_key(self, key: MaskKey) -> KeyedDropout<Self> {
        KeyedDropout::new(self, key)
    }

    /// The rate of the dropout with this variance, as it was given.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// The standard deviation of the factors, rounded once.
    pub fn sigma(&self) -> f32 {
        self.sigma as f32
    }

    /// The same in f64.
    pub fn sigma_f64(&self) -> f64 {
        self.sigma
    }
}

/// `y = x · (1 + σ z)`; at rate 0 the identity, for which no number is drawn.
///
/// x and y are [rows, cols]; row `r`, column `c` has the number of logical row `row0 + r` and column
/// `col0 + c` of the key. The factor is rounded once, and the product once.
///
/// ```
/// use fused_dropout::elementwise::{
///     GaussianDropout, gaussian_dropout_backward, gaussian_dropout_forward, standard_normal,
/// };
/// use fused_dropout::{MaskKey, MatMut};
///
/// let key = MaskKey::new(42, 1, 0)?;
/// let dropout = GaussianDropout::new(0.2)?.with_key(key);
/// let (x, mut y, mut dx, mut z) = ([2.0; 100], [0.0; 100], [2.0; 100], [0.0; 100]);
/// gaussian_dropout_forward((&x[..], &mut y[..]), &dropout)?;
/// gaussian_dropout_backward(&mut dx[..], &dropout)?;
/// assert_eq!(y, dx);
///
/// standard_normal(MatMut::row_vector(&mut z), &key)?;
/// for i in 0..100 {
///     assert!((y[i] - 2.0 * (1.0 + 0.5 * z[i])).abs() < 1e-6);
/// }
/// # Ok::<(), fused_dropout::Error>(())
/// ```
///
/// # Errors
///
/// When shapes differ, or the key's origin and the shape go past what a mask can address.
pub fn gaussian_dropout_forward<'a>(
    xy: impl Into<InOut<'a>>,
    dropout: &KeyedDropout<GaussianDropout>,
) -> Result<()> {
    run(xy.into(), ("x", "y"), dropout)
}

/// `dx = dy · (1 + σ z)`, with the numbers of forward made again: the gradient of
/// [`gaussian_dropout_forward`], of the same shapes.
///
/// # Errors
///
/// As for [`gaussian_dropout_forward`].
pub fn gaussian_dropout_backward<'a>(
    dy_dx: impl Into<InOut<'a>>,
    dropout: &KeyedDropout<GaussianDropout>,
) -> Result<()> {
    run(dy_dx.into(), ("dy", "dx"), dropout)
}

/// The standard normal numbers z of a key, for noise of another kind: z is [rows, cols].
///
/// # Errors
///
/// When the key's origin and the shape go past what a mask can address.
pub fn standard_normal(mut z: MatMut<'_>, key: &MaskKey) -> Result<()> {
    let (rows, cols) = (z.rows(), z.cols());
    key.noise().check(rows, cols)?;
    draw(Level::current()?, None, z.target(), (rows, cols), 0.0, &key.noise());
    Ok(())
}

fn run(
    mut xy: InOut<'_>,
    names: (&'static str, &'static str),
    dropout: &KeyedDropout<GaussianDropout>,
) -> Result<()> {
    let (key, sigma) = (&dropout.key().noise(), dropout.dropout().sigma());
    if dropout.dropout().sigma == 0.0 {
        return plain(&Dropout::NONE.with_key(*key), xy, names, MaskSource::Key);
    }
    let (rows, cols) = xy.check(names.0, names.1)?;
    key.check(rows, cols)?;
    let level = Level::current()?;
    let (x, y) = xy.pointers();
    draw(level, Some(x), y, (rows, cols), sigma, key);
    Ok(())
}

/// z, or with an input `x · (1 + σ z)`, with a key of noise that addresses the matrix.
fn draw(
    level: Level,
    x: Option<Source>,
    out: Target,
    (rows, cols): (usize, usize),
    sigma: f32,
    key: &MaskKey,
) {
    let grid = Grid::new(rows, cols, TASK, 1, BLOCK);
    for_each(grid.len(), |i| {
        // SAFETY: the views have this shape, and the parts of a grid are disjoint.
        level.vectorize(unsafe { Task::new(x, out, sigma, key, grid.part(i)) });
    });
}

/// One task's share: z, or with an input `x · (1 + σ z)`.
struct Task<'a> {
    x: Option<Source>,
    out: Target,
    sigma: f32,
    key: &'a MaskKey,
    part: Part,
}

impl<'a> Task<'a> {
    /// # Safety
    ///
    /// Until the kernel has run, the part lies in both matrices, and nobody else accesses it in `out`.
    unsafe fn new(
        x: Option<Source>,
        out: Target,
        sigma: f32,
        key: &'a MaskKey,
        part: Part,
    ) -> Self {
        Self { x, out, sigma, key, part }
    }
}

/// The words and the numbers of a block, and a piece of a view that is not stored by rows.
struct Buffers {
    words: [u32; BLOCK],
    z: [f32; BLOCK + WIDEST],
    gathered: [f32; BLOCK],
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Part { row, rows, col, cols } = self.part;
        let key = self.key;
        let lanes = LaneBlocks::new(isa, key.philox_key(), key.step(), key.last_word());
        let z = [0.0; BLOCK + WIDEST];
        let mut buffers = Buffers { words: [0; BLOCK], z, gathered: [0.0; BLOCK] };
        for r in row..row + rows {
            let mut c = col;
            while c < col + cols {
                let column = key.col0() + c as u64;
                let offset = (column % BLOCK as u64) as usize;
                let n = (BLOCK - offset).min(col + cols - c);
                let shared = lanes.share(
                    isa,
                    isa.splat_u64(column / BLOCK as u64),
                    isa.splat_u64(key.row0() + r as u64),
                );
                let planes = planes_of(offset, n, VECTORS * I::WIDE);
                for first in planes.step_by(VECTORS * I::WIDE) {
                    let mut numbers = [isa.splat_u64(0); VECTORS];
                    for (v, number) in numbers.iter_mut().enumerate() {
                        *number = isa.iota_u64((first + v * I::WIDE) as u64);
                    }
                    let words = lanes.planes(isa, &[shared; VECTORS], &numbers);
                    for (v, [low, high]) in words.into_iter().enumerate() {
                        let at = &mut buffers.words[4 * (first + v * I::WIDE)..][..4 * I::WIDE];
                        // SAFETY: the slice has 4 * WIDE words.
                        unsafe { isa.store_zipped(at.as_mut_ptr(), low, high) };
                    }
                }
                normals(isa, offset, n, &mut buffers);
                // SAFETY: the columns lie in the matrices and are this task's alone.
                unsafe { self.apply(isa, r, c, offset, n, &mut buffers) };
                c += n;
            }
        }
    }
}

/// The planes that columns `offset..offset + n` of a block need, in whole groups, from a multiple of
/// `step` (which divides 32) on.
#[inline(always)]
fn planes_of(offset: usize, n: usize, step: usize) -> std::ops::Range<usize> {
    let first = offset / GROUP * (GROUP / 4);
    first / step * step..(offset + n).div_ceil(GROUP) * (GROUP / 4)
}

/// Turns the words of the groups that hold columns `offset..offset + n` into numbers.
#[inline(always)]
fn normals<I: Isa>(isa: I, offset: usize, n: usize, buffers: &mut Buffers) {
    const HALF: usize = GROUP / 2;
    for group in offset / GROUP..(offset + n).div_ceil(GROUP) {
        let words = &buffers.words[group * GROUP..][..GROUP];
        let z = &mut buffers.z[group * GROUP..][..GROUP];
        for i in (0..HALF).step_by(I::LANES) {
            // SAFETY: LANES divides HALF, so all vectors lie in their half of the group; any bits
            // are a float.
            unsafe {
                let a = isa.as_bits(isa.load(words.as_ptr().add(i).cast()));
                let b = isa.as_bits(isa.load(words.as_ptr().add(HALF + i).cast()));
                let (z0, z1) = normal::pair(isa, a, b);
                isa.store(z.as_mut_ptr().add(i), z0);
                isa.store(z.as_mut_ptr().add(HALF + i), z1);
            }
        }
    }
}

impl Task<'_> {
    /// The output of `n` columns from `col` on, the first of which is column `offset` of its block.
    ///
    /// # Safety
    ///
    /// The columns lie in the matrices and are this task's alone; `offset + n` is at most `BLOCK`.
    #[inline(always)]
    unsafe fn apply<I: Isa>(
        &self,
        isa: I,
        row: usize,
        col: usize,
        offset: usize,
        n: usize,
        buffers: &mut Buffers,
    ) {
        let by_rows = self.out.col_step == 1 && self.x.is_none_or(|x| x.col_step == 1);
        let (one, sigma) = (isa.splat(1.0), isa.splat(self.sigma));
        // SAFETY: the caller's promise; a vector at `offset + i` ends before BLOCK + WIDEST.
        unsafe {
            let mut out = self.out.at(row, col);
            let mut x = self.x.map(|x| x.at(row, col));
            if !by_rows {
                out = buffers.gathered.as_mut_ptr();
                if let Some(source) = self.x {
                    source.gather_row(row, col, &mut buffers.gathered[..n]);
                    x = Some(out);
                }
            }
            for i in (0..n).step_by(I::LANES) {
                let lanes = I::LANES.min(n - i);
                let z = isa.load(buffers.z.as_ptr().add(offset + i));
                let value = match x {
                    Some(x) => isa.mul(load(isa, x.add(i), lanes), isa.mul_add(sigma, z, one)),
                    None => z,
                };
                store(isa, out.add(i), lanes, value);
            }
            if !by_rows {
                self.out.scatter_row(row, col, &buffers.gathered[..n]);
            }
        }
    }
}
