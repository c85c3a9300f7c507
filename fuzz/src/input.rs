//! Arguments made of bytes.

use arbitrary::{Result, Unstructured};
use fused_dropout::{Activation, Dropout, Mask, MaskKey, MaskSource, MatMut, MatRef, Scaling};

/// What padding holds. No operation may write it, and reading it would turn a result into NaN.
const PADDING: u32 = 0x7fa5_5a5a;

/// A size from 0 to `most`, the small ones more often.
pub(crate) fn size(u: &mut Unstructured<'_>, most: usize) -> Result<usize> {
    let most = if u.ratio(1, 2)? { most.min(9) } else { most };
    u.int_in_range(0..=most)
}

/// A dropout, or the rate that must be refused.
pub(crate) fn dropout(u: &mut Unstructured<'_>) -> Result<Dropout> {
    let tiny = 2f64.powi(-32);
    let rate = match u.int_in_range(0..=9u8)? {
        0 => 0.0,
        1 => 1.0,
        2 => tiny,
        3 => 1.0 - tiny,
        4 => 0.25,
        5 => 0.1,
        6 => f64::from(u.arbitrary::<u32>()?) * tiny,
        7 => f64::from_bits(u.arbitrary()?),
        _ => 0.5,
    };
    let scaling = if u.ratio(1, 8)? { Scaling::Classical } else { Scaling::Inverted };
    let valid = (0.0..=1.0).contains(&rate);
    match Dropout::with_scaling(rate, scaling) {
        Ok(dropout) => {
            assert!(valid, "rate {rate} was accepted");
            Ok(dropout)
        }
        Err(_) => {
            assert!(!valid, "rate {rate} was refused");
            Ok(Dropout::NONE)
        }
    }
}

/// A key whose origin is small, anywhere, or around the last row and column there are.
pub(crate) fn key(u: &mut Unstructured<'_>) -> Result<MaskKey> {
    let layer = u.int_in_range(0..=1 << 25)?;
    let key = MaskKey::new(u.arbitrary()?, layer, u.arbitrary()?);
    assert_eq!(key.is_ok(), layer < 1 << 25, "layer {layer}");
    let key = key.unwrap_or(MaskKey::new(0, 0, 0).expect("layer 0 is valid"));
    let mut origin = |limit: u64| {
        Ok::<u64, arbitrary::Error>(match u.int_in_range(0..=3u8)? {
            0 => 0,
            1 => u.int_in_range(0..=300)?,
            2 => limit.saturating_sub(u.int_in_range(0..=700)?),
            _ => u.int_in_range(0..=limit)?,
        })
    };
    let (rows, cols) = (origin(1 << 32)?, origin(1 << 39)?);
    let key = key.with_origin(rows, cols);
    Ok(if u.ratio(1, 8)? { key.units() } else { key })
}

/// Any activation, with slopes that must be refused among them.
pub(crate) fn activation(u: &mut Unstructured<'_>) -> Result<Activation> {
    Ok(match u.int_in_range(0..=8u8)? {
        0 => Activation::Identity,
        1 => Activation::Relu,
        2 if u.ratio(1, 4)? => Activation::LeakyRelu { slope: u.arbitrary()? },
        2 => Activation::LeakyRelu { slope: 0.25 },
        3 => Activation::Sigmoid,
        4 => Activation::Tanh,
        5 => Activation::Gelu,
        6 => Activation::GeluTanh,
        7 => Activation::Selu,
        _ => Activation::Silu,
    })
}

/// Numbers: of moderate size, whole, any bits at all, or special ones.
pub(crate) fn numbers(u: &mut Unstructured<'_>, len: usize) -> Result<Vec<f32>> {
    const SPECIAL: [f32; 10] = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN_POSITIVE,
        1e-45,
        0.0,
        -0.0,
        1.0,
        -1.0,
    ];
    let kind = u.int_in_range(0..=3u8)?;
    let mut state = u64::from(u.arbitrary::<u32>()?);
    let mut next = move || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 32) as u32
    };
    Ok((0..len)
        .map(|_| match kind {
            0 => (next() >> 8) as f32 / (1 << 22) as f32 - 2.0,
            1 => (next() % 17) as f32 - 8.0,
            2 => f32::from_bits(next()),
            _ => SPECIAL[next() as usize % SPECIAL.len()],
        })
        .collect())
}

/// How a matrix lies in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    extra: usize,
    transposed: bool,
}

impl Layout {
    pub(crate) fn new(u: &mut Unstructured<'_>) -> Result<Self> {
        Ok(Self { extra: u.int_in_range(0..=3)?, transposed: u.ratio(1, 4)? })
    }
}

/// A matrix whose buffer ends with its last element.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    data: Vec<f32>,
    rows: usize,
    cols: usize,
    layout: Layout,
}

impl Matrix {
    pub(crate) fn new(values: &[f32], rows: usize, cols: usize, layout: Layout) -> Self {
        assert_eq!(values.len(), rows * cols);
        let mut matrix = Self { data: Vec::new(), rows, cols, layout };
        let (lines, line) = matrix.lines();
        let len = if line == 0 {
            0
        } else {
            (lines * (line + layout.extra)).saturating_sub(layout.extra)
        };
        matrix.data = vec![f32::from_bits(PADDING); len];
        for (i, value) in values.iter().enumerate() {
            matrix.view_mut().set(i / cols, i % cols, *value).expect("an element of the matrix");
        }
        matrix
    }

    /// A matrix of random numbers.
    pub(crate) fn random(
        u: &mut Unstructured<'_>,
        rows: usize,
        cols: usize,
        layout: Layout,
    ) -> Result<Self> {
        Ok(Self::new(&numbers(u, rows * cols)?, rows, cols, layout))
    }

    /// Contiguous stretches, and their length.
    fn lines(&self) -> (usize, usize) {
        if self.layout.transposed { (self.cols, self.rows) } else { (self.rows, self.cols) }
    }

    pub(crate) fn view(&self) -> MatRef<'_> {
        let (lines, line) = self.lines();
        let view = MatRef::with_stride(&self.data, lines, line, line + self.layout.extra);
        let view = view.expect("the buffer holds the matrix");
        if self.layout.transposed { view.t() } else { view }
    }

    pub(crate) fn view_mut(&mut self) -> MatMut<'_> {
        let (lines, line) = self.lines();
        let view = MatMut::with_stride(&mut self.data, lines, line, line + self.layout.extra);
        let view = view.expect("the buffer holds the matrix");
        if self.layout.transposed { view.t() } else { view }
    }

    /// The elements, row after row, once the padding has been found untouched.
    pub(crate) fn values(&self) -> Vec<f32> {
        let (_, line) = self.lines();
        let stride = line + self.layout.extra;
        for (i, x) in self.data.iter().enumerate() {
            let padding = i % stride >= line;
            assert!(!padding || x.to_bits() == PADDING, "padding was written");
        }
        let view = self.view();
        (0..self.rows * self.cols)
            .map(|i| view.get(i / self.cols, i % self.cols).expect("an element of the matrix"))
            .collect()
    }
}

/// Where a pass gets its mask from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Masking {
    Key,
    Store,
    Given,
}

impl Masking {
    pub(crate) fn new(u: &mut Unstructured<'_>) -> Result<Self> {
        Ok(match u.int_in_range(0..=2u8)? {
            0 => Self::Key,
            1 => Self::Store,
            _ => Self::Given,
        })
    }

    /// The argument for it: the mask that is given, or the one to store in.
    pub(crate) fn of<'m>(self, given: &'m Mask, stored: &'m mut Mask) -> MaskSource<'m> {
        match self {
            Self::Key => MaskSource::Key,
            Self::Store => MaskSource::Store(stored),
            Self::Given => MaskSource::Given(given),
        }
    }

    /// What a backward pass is given.
    pub(crate) fn saved(self, mask: &Mask) -> Option<&Mask> {
        match self {
            Self::Key => None,
            Self::Store | Self::Given => Some(mask),
        }
    }
}

/// A mask of any bits; sometimes it has a row too many.
pub(crate) fn mask(u: &mut Unstructured<'_>, rows: usize, cols: usize) -> Result<Mask> {
    let rows = rows + usize::from(u.ratio(1, 32)?);
    let keep: Vec<bool> = numbers(u, rows * cols)?.iter().map(|x| *x > 0.0).collect();
    let mask = Mask::from_bools(rows, cols, &keep).expect("a truth value for each bit");
    assert_eq!(mask.to_bools(), Ok(keep));
    Ok(mask)
}
