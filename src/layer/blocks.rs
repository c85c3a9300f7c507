//! Which blocks of units are kept for which groups of examples.

use super::selection::{
    below, bernoulli_scales, exact_scales, generator, rounded_share, select, shuffle_first,
};
use crate::buffers;
use crate::error::{Error, Result};
use crate::gemm::BitMatrix;
use crate::mask::{KeyedDropout, Mask};

/// What one decision of block dropout covers, how blocks are selected, and which units are in a block.
///
/// ```
/// # use fused_dropout::layer::{BlockDeal, BlockSelection, BlockShape};
/// let shape = BlockShape::new(16, 32)?;
/// assert_eq!((shape.rows(), shape.units()), (16, 32));
/// assert_eq!((shape.selection, shape.deal), (BlockSelection::Exact, BlockDeal::Shifted));
/// # Ok::<(), fused_dropout::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct BlockShape {
    rows: usize,
    units: usize,
    /// How the kept blocks of a group are selected.
    pub selection: BlockSelection,
    /// Which units are in a block.
    pub deal: BlockDeal,
}

/// How the kept blocks of a group of examples are selected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BlockSelection {
    /// `floor((T · blocks + 2^31) / 2^32)` of them, each such set with the same probability. The scale is
    /// blocks / kept blocks.
    #[default]
    Exact,
    /// Each with the keep probability, independently. The scale is 2^32 / T.
    Bernoulli,
}

/// Which units are in a block. The place of a unit decides: place p is in block `p / units of a block`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BlockDeal {
    /// Consecutive units in each step, the same in all: a unit's place is its number.
    Fixed,
    /// Consecutive units, the first and the last counting as neighbours, from another one on in each
    /// step: unit u is in place `(u + shift) mod units`, with a shift drawn from 0 to units - 1.
    #[default]
    Shifted,
    /// Units are shuffled into places in each step. Blocks are not consecutive then, and nothing is
    /// gained: a layer takes more than ten times as long as one that computes every element. It is here to
    /// compare what networks learn.
    Permuted,
}

impl BlockShape {
    /// One decision for `rows` examples and `units` units; an exact number of blocks for each group of
    /// examples, which lie elsewhere in each step.
    ///
    /// # Errors
    ///
    /// When one of them is 0.
    pub fn new(rows: usize, units: usize) -> Result<Self> {
        for (name, value) in [("rows of a block", rows), ("units of a block", units)] {
            if value == 0 {
                return Err(Error::Parameter { name, value: 0.0, expected: "1 or more" });
            }
        }
        let (selection, deal) = (BlockSelection::default(), BlockDeal::default());
        Ok(Self { rows, units, selection, deal })
    }

    /// The same with another way to select blocks.
    pub fn with_selection(self, selection: BlockSelection) -> Self {
        Self { selection, ..self }
    }

    /// The same with another way to deal units to blocks.
    pub fn with_deal(self, deal: BlockDeal) -> Self {
        Self { deal, ..self }
    }

    /// Examples that one decision covers.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Units that one decision covers.
    pub fn units(&self) -> usize {
        self.units
    }
}

/// The blocks of a layer's units that are kept for each group of examples of a mini-batch, and the scale
/// of their outputs.
///
/// With a [`BlockShape`] of g rows and c units, the row r of the logical matrix (from the key's row0 on)
/// and the unit u in place p,
///
/// ```text
/// keep(r, u) = decision(r / g, p / c)
/// Bernoulli: decision(q, b) = the bit of the mask contract at row q and column b, in domain 1
/// exact:     of the blocks of group q, those that KeptUnits::exact selects of as many units, with
///            row q in both counters: [0, q, step, ...] and [1, q, step, ...]
/// shifted:   p = (u + below(units)) mod units, with the generator seeded by the counters [2, 0, step,
///            ...] and [3, 0, step, ...]
/// permuted:  p = the unit's place in a whole Fisher-Yates shuffle with that generator:
///            unit[0..units] = 0, 1, ...; for i in 0..units: swap unit[i] with unit[i + below(units - i)]
/// ```
///
/// The last group and the last block may be smaller. Where all blocks are kept, or none, nothing is
/// drawn. Unit dropout of a whole mini-batch is one group, and one unit a block.
///
/// ```
/// # use fused_dropout::layer::{BlockShape, KeptBlocks};
/// # use fused_dropout::{Dropout, Error, MaskKey};
/// let half = Dropout::new(0.5)?.with_key(MaskKey::new(42, 1, 0)?);
/// let kept = KeptBlocks::draw((32, 64), BlockShape::new(16, 16)?, &half)?;
/// assert_eq!((kept.groups(), kept.blocks(), kept.scale()), (2, 4, 2.0));
/// // Two of four blocks for each of two groups of 16 examples.
/// assert_eq!(kept.mask().count(), 2 * 2 * 16 * 16);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct KeptBlocks {
    shape: BlockShape,
    units: usize,
    /// Which blocks are kept, a row for each group.
    decisions: Mask,
    /// The same for each element.
    mask: Mask,
    scale: f64,
    unscale: f64,
    keep: f64,
    /// Where groups of rows start, and spans of units in one block, each list with its end.
    groups: Vec<u32>,
    spans: Vec<u32>,
    /// Which spans are kept of a group, and the other way round.
    by_group: BitMatrix,
    by_span: BitMatrix,
    /// The unit in each place, or the candidates of a selection; and the block of each unit.
    order: Vec<u32>,
    block_of: Vec<u32>,
}

impl KeptBlocks {
    /// Blocks of a matrix of `rows` x `units` elements, for the address and with the keep probability of
    /// `dropout`.
    ///
    /// # Errors
    ///
    /// When the key's origin is not in column 0, since blocks are those of a whole layer; when the rows
    /// go past what a mask can address; when there are more than 2^32 - 1 units, or no memory for them.
    pub fn draw(
        (rows, units): (usize, usize),
        shape: BlockShape,
        dropout: &KeyedDropout,
    ) -> Result<Self> {
        let mut kept = Self::empty(units, shape)?;
        kept.redraw(rows, dropout)?;
        Ok(kept)
    }

    /// No rows.
    pub(crate) fn empty(units: usize, shape: BlockShape) -> Result<Self> {
        Ok(Self {
            shape,
            units,
            decisions: Mask::new(0, units.div_ceil(shape.units))?,
            mask: Mask::new(0, units)?,
            scale: 1.0,
            unscale: 1.0,
            keep: 1.0,
            groups: Vec::new(),
            spans: Vec::new(),
            by_group: BitMatrix::default(),
            by_span: BitMatrix::default(),
            order: Vec::new(),
            block_of: Vec::new(),
        })
    }

    /// Draws anew, for so many rows.
    ///
    /// # Errors
    ///
    /// As for [`KeptBlocks::draw`]; where memory is short, these are blocks of no rows after it.
    pub fn redraw(&mut self, rows: usize, dropout: &KeyedDropout) -> Result<()> {
        let key = dropout.key();
        if key.col0() != 0 {
            return Err(Error::BlockOrigin { col0: key.col0() });
        }
        key.check(rows, self.units)?;
        let elements = |n: usize| if self.units == 0 { 0 } else { n };
        for (name, count) in [("number of units", self.units), ("number of rows", elements(rows))] {
            let (value, expected) = (count as f64, "at most 2^32 - 1");
            u32::try_from(count).map_err(|_| Error::Parameter { name, value, expected })?;
        }
        let drawn = self.draw_all(rows, dropout);
        if drawn.is_err() {
            // Lists that were drawn in part do not fit each other.
            *self = Self::empty(self.units, self.shape)?;
        }
        drawn
    }

    /// [`KeptBlocks::redraw`] for an address that has been checked.
    fn draw_all(&mut self, rows: usize, dropout: &KeyedDropout) -> Result<()> {
        self.cut_rows(rows, dropout.key().row0())?;
        self.decide(dropout)?;
        (self.scale, self.unscale, self.keep) = match self.shape.selection {
            BlockSelection::Exact => exact_scales(dropout.dropout(), self.blocks()),
            BlockSelection::Bernoulli => bernoulli_scales(dropout.dropout()),
        };
        self.deal(dropout)?;
        self.spread(rows)
    }

    /// Where groups start; the first is smaller where the origin is within one.
    fn cut_rows(&mut self, rows: usize, row0: u64) -> Result<()> {
        let g = self.shape.rows as u64;
        let first = (g - row0 % g).min(rows as u64) as usize;
        let count = if rows == 0 || self.units == 0 {
            0
        } else {
            1 + (rows - first).div_ceil(self.shape.rows)
        };
        buffers::reserve(&mut self.groups, count + 1)?;
        self.groups.clear();
        self.groups.push(0);
        let mut at = first;
        for _ in 0..count {
            self.groups.push(at as u32);
            at = at.saturating_add(self.shape.rows).min(rows);
        }
        Ok(())
    }

    /// Which blocks are kept of each group.
    fn decide(&mut self, dropout: &KeyedDropout) -> Result<()> {
        let (groups, blocks) = (self.groups.len() - 1, self.blocks());
        let key = dropout.key();
        let first = key.row0() / self.shape.rows as u64;
        self.decisions.resize(groups, blocks)?;
        if self.shape.selection == BlockSelection::Bernoulli {
            return self.decisions.fill(&dropout.with_key(key.blocks().with_origin(first, 0)));
        }
        let count = rounded_share(dropout.dropout(), blocks);
        self.decisions.clear();
        for group in 0..groups {
            number(&mut self.order, blocks)?;
            if count < blocks {
                // Rows are below 2^32, so groups are.
                select(&mut self.order, count, key, (first + group as u64) as u32);
            }
            for block in &self.order {
                self.decisions.set(group, *block as usize);
            }
        }
        Ok(())
    }

    /// The block of each unit, and spans of units in the same one.
    fn deal(&mut self, dropout: &KeyedDropout) -> Result<()> {
        let (units, c) = (self.units, self.shape.units);
        buffers::reserve(&mut self.block_of, units)?;
        self.block_of.clear();
        let drawn = dropout.drops() && dropout.dropout().threshold() > 0 && units > 1;
        let key = dropout.key();
        match self.shape.deal {
            BlockDeal::Shifted if drawn => {
                let shift = below(&mut generator(key, 0, 2), units as u64) as usize;
                let block = |unit: usize| ((unit + shift) % units / c) as u32;
                self.block_of.extend((0..units).map(block));
            }
            BlockDeal::Permuted if drawn => {
                number(&mut self.order, units)?;
                shuffle_first(&mut self.order, units, &mut generator(key, 0, 2));
                self.block_of.resize(units, 0);
                for (place, unit) in self.order.iter().enumerate() {
                    self.block_of[*unit as usize] = (place / c) as u32;
                }
            }
            _ => self.block_of.extend((0..units).map(|unit| (unit / c) as u32)),
        }
        let new = |pair: &[u32; 2]| pair[0] != pair[1];
        let spans = 1 + self.block_of.array_windows().filter(|pair| new(pair)).count();
        buffers::reserve(&mut self.spans, spans + 1)?;
        self.spans.clear();
        self.spans.push(0);
        for (unit, pair) in (1..).zip(self.block_of.array_windows()) {
            if new(pair) {
                self.spans.push(unit);
            }
        }
        if units > 0 {
            self.spans.push(units as u32);
        }
        Ok(())
    }

    /// The decisions as bits of spans and of elements.
    fn spread(&mut self, rows: usize) -> Result<()> {
        let (groups, spans) = (self.groups.len() - 1, self.spans.len() - 1);
        self.by_group.clear(groups, spans)?;
        self.by_span.clear(spans, groups)?;
        self.mask.resize(rows, self.units)?;
        self.mask.clear();
        for group in 0..groups {
            let (first, end) = (self.groups[group] as usize, self.groups[group + 1] as usize);
            for span in 0..spans {
                let (start, end) = (self.spans[span] as usize, self.spans[span + 1] as usize);
                let block = self.block_of[start] as usize;
                if self.decisions.get(group, block) == Some(true) {
                    self.by_group.set(group, span);
                    self.by_span.set(span, group);
                    self.mask.set_run(first, (start, end));
                }
            }
            self.mask.repeat_row(first, end);
        }
        Ok(())
    }

    /// What one decision covers.
    pub fn shape(&self) -> BlockShape {
        self.shape
    }

    /// Examples of the mini-batch.
    pub fn rows(&self) -> usize {
        self.mask.rows()
    }

    /// Units of the layer.
    pub fn units(&self) -> usize {
        self.units
    }

    /// Groups of examples.
    pub fn groups(&self) -> usize {
        self.decisions.rows()
    }

    /// Blocks of units.
    pub fn blocks(&self) -> usize {
        self.decisions.cols()
    }

    /// Which blocks are kept, a row for each group of examples.
    pub fn decisions(&self) -> &Mask {
        &self.decisions
    }

    /// Which elements are kept.
    pub fn mask(&self) -> &Mask {
        &self.mask
    }

    /// The factor of kept outputs in training.
    pub fn scale(&self) -> f32 {
        self.scale as f32
    }

    /// The same factor in f64.
    pub fn scale_f64(&self) -> f64 {
        self.scale
    }

    /// The share of the blocks that is kept: on average of a Bernoulli selection, else in fact. With
    /// classical scaling it is the factor of weights at inference.
    pub fn keep(&self) -> f64 {
        self.keep
    }

    /// What undoes the scale, so that an activation can be read back from its output.
    pub(crate) fn unscale(&self) -> f64 {
        self.unscale
    }

    /// Where groups of rows start, and the end.
    pub(super) fn group_starts(&self) -> &[u32] {
        &self.groups
    }

    /// Where spans of units in one block start, and the end.
    pub(super) fn span_starts(&self) -> &[u32] {
        &self.spans
    }

    /// The kept spans of each group.
    pub(super) fn by_group(&self) -> &BitMatrix {
        &self.by_group
    }

    /// The groups that keep each span.
    pub(super) fn by_span(&self) -> &BitMatrix {
        &self.by_span
    }
}

/// 0, 1, ... `count` - 1, which are below 2^32.
fn number(list: &mut Vec<u32>, count: usize) -> Result<()> {
    buffers::reserve(list, count)?;
    list.clear();
    list.extend((0..count).map(|i| i as u32));
    Ok(())
}
