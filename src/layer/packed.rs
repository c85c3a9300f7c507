//! Weights packed once, for callers whose weights do not change between passes.

use super::DenseLayer;
use super::product::{prepack, weights};
use crate::Level;
use crate::buffers::AlignedBuffer;
use crate::error::{Error, Result, check_shape};
use crate::gather::IndexBuffers;
use crate::gemm::{Operand, PackedPanels};
use crate::mask::KeyedDropout;
use crate::view::{MatRef, Source};

/// A layer's weights in the order in which a product reads them: [`DenseArgs::with_packed`].
///
/// Packing is a pass over the weights that every pass over the layer makes. Keep them packed for
/// inference, or for many small batches between two updates. Passes over packed weights run on the
/// level that these were packed for, and return the same bits.
///
/// ```
/// # use fused_dropout::layer::{DenseArgs, DenseLayer, PackedWeight, dense_forward};
/// # use fused_dropout::{Activation, Error, MaskSource, MatMut, MatRef};
/// let (x, mut y) = ([1.0, 2.0], [0.0; 2]);
/// let w = MatRef::new(&[1.0, 0.0, 0.5, -1.0], 2, 2)?;
/// let packed = PackedWeight::new(w)?;
/// let args = DenseArgs::new(DenseLayer::new(Activation::Relu), MatRef::new(&x, 1, 2)?, w);
/// dense_forward(&args.with_packed(&packed), MatMut::new(&mut y, 1, 2)?, None, MaskSource::Key)?;
/// assert_eq!(y, [2.0, 0.0]);
/// # Ok::<(), Error>(())
/// ```
///
/// [`DenseArgs::with_packed`]: super::DenseArgs::with_packed
#[must_use]
pub struct PackedWeight {
    panels: PackedPanels,
    use_: Use,
    inputs: usize,
    units: usize,
    weight_dropout: KeyedDropout,
    kept_inputs: Option<Vec<u32>>,
    kept_units: Option<Vec<u32>>,
}

/// The product that reads the panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// x · W.
    Forward,
    /// dz · Wᵀ.
    InputGradient,
}

impl Use {
    fn name(self) -> &'static str {
        match self {
            Use::Forward => "the forward pass",
            Use::InputGradient => "the gradient of the input",
        }
    }
}

impl PackedWeight {
    /// Packs `w` [inputs, units] for the forward pass of a layer that drops no weights, inputs or units
    /// as a whole.
    ///
    /// # Errors
    ///
    /// When the memory cannot be had, or the level is not available.
    pub fn new(w: MatRef<'_>) -> Result<Self> {
        Self::for_layer(&DenseLayer::default(), w)
    }

    /// Packs for the forward pass of this layer: with its dropout of weights, and of the kept inputs and
    /// units only.
    ///
    /// ```
    /// # use fused_dropout::layer::{DenseArgs, DenseLayer, PackedWeight, dense_forward};
    /// # use fused_dropout::{Activation, Dropout, Error, MaskKey, MaskSource, MatMut, MatRef};
    /// let dropped = Dropout::new(0.5)?.with_key(MaskKey::new(42, 1, 0)?);
    /// let layer = DenseLayer::new(Activation::Relu).with_weight_dropout(dropped);
    /// let (x, w) = (MatRef::new(&[1.0, 2.0], 1, 2)?, MatRef::new(&[1.0, 0.0, 0.5, -1.0], 2, 2)?);
    /// let packed = PackedWeight::for_layer(&layer, w)?;
    ///
    /// let args = DenseArgs::new(layer, x, w);
    /// let (mut y, mut from_packed) = ([9.0; 2], [7.0; 2]);
    /// dense_forward(&args, MatMut::new(&mut y, 1, 2)?, None, MaskSource::Key)?;
    /// let to = MatMut::new(&mut from_packed, 1, 2)?;
    /// dense_forward(&args.with_packed(&packed), to, None, MaskSource::Key)?;
    /// assert_eq!(from_packed, y);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new), and when the layer does not fit the weights.
    pub fn for_layer(layer: &DenseLayer<'_>, w: MatRef<'_>) -> Result<Self> {
        Self::pack(layer, w, Use::Forward)
    }

    /// Packs for the gradient of this layer's input: for backward and update.
    ///
    /// ```
    /// # use fused_dropout::layer::{DenseArgs, DenseLayer, Gradients, PackedWeight, dense_backward};
    /// # use fused_dropout::{Activation, Error, MaskSource, MatMut, MatRef, Saved};
    /// let (layer, x) = (DenseLayer::new(Activation::Identity), MatRef::new(&[1.0, 2.0], 1, 2)?);
    /// let w = MatRef::new(&[1.0, 0.0, 0.5, -1.0], 2, 2)?;
    /// let packed = PackedWeight::for_input_gradient(&layer, w)?;
    ///
    /// let (mut dx, dy) = ([9.0; 2], MatRef::new(&[1.0, 1.0], 1, 2)?);
    /// let args = DenseArgs::new(layer, x, w).with_packed(&packed);
    /// let gradients = Gradients::default().with_dx(MatMut::new(&mut dx, 1, 2)?);
    /// dense_backward(&args, &Saved::Nothing, dy, gradients, MaskSource::Key)?;
    /// assert_eq!(dx, [1.0, -0.5]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`for_layer`](Self::for_layer).
    pub fn for_input_gradient(layer: &DenseLayer<'_>, w: MatRef<'_>) -> Result<Self> {
        Self::pack(layer, w, Use::InputGradient)
    }

    fn pack(layer: &DenseLayer<'_>, w: MatRef<'_>, use_: Use) -> Result<Self> {
        if layer.input.blocks().or(layer.output.blocks()).is_some() {
            return Err(Error::PackedBlocks);
        }
        // A batch of one row: keys are checked with that of each pass.
        let inputs = layer.input.width(1, ("rows of W", w.rows()))?;
        let units = layer.output.width(1, ("columns of W", w.cols()))?;
        layer.check_weight_dropout(&w)?;
        let level = Level::current()?;
        let (mut index, mut masked) = (IndexBuffers::default(), AlignedBuffer::default());
        let b = weights(layer, w, level, &mut index, &mut masked)?;
        let panels = match use_ {
            Use::Forward => prepack(level, b, inputs, units)?,
            Use::InputGradient => prepack(level, b.t(), units, inputs)?,
        };
        Ok(Self {
            panels,
            use_,
            inputs: w.rows(),
            units: w.cols(),
            weight_dropout: layer.weight_dropout,
            kept_inputs: layer.input.list().map(<[u32]>::to_vec),
            kept_units: layer.output.list().map(<[u32]>::to_vec),
        })
    }

    /// Rows of the weights.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Columns of the weights.
    pub fn units(&self) -> usize {
        self.units
    }

    /// The level the weights were packed for.
    pub fn level(&self) -> Level {
        self.panels.level()
    }

    /// The panels as a factor, in the order in which they were packed; `w` is not read.
    pub(super) fn operand(&self, w: Source) -> Operand {
        self.panels.operand(w)
    }

    /// The level, if the forward pass of this layer reads what was packed.
    pub(super) fn check(&self, layer: &DenseLayer<'_>, w: &MatRef<'_>) -> Result<Level> {
        self.check_use(layer, w, Use::Forward)
    }

    /// The level, if the gradient of this layer's input reads what was packed.
    pub(super) fn check_input_gradient(
        &self,
        layer: &DenseLayer<'_>,
        w: &MatRef<'_>,
    ) -> Result<Level> {
        self.check_use(layer, w, Use::InputGradient)
    }

    fn check_use(&self, layer: &DenseLayer<'_>, w: &MatRef<'_>, used: Use) -> Result<Level> {
        if layer.input.blocks().or(layer.output.blocks()).is_some() {
            return Err(Error::PackedBlocks);
        }
        check_shape(("the packed weights", self.inputs, self.units), w.named("W"))?;
        if self.use_ != used {
            return Err(Error::PackedFor { packed: self.use_.name(), used: used.name() });
        }
        let drops = |dropout: &KeyedDropout| Some(*dropout).filter(KeyedDropout::drops);
        if drops(&self.weight_dropout) != drops(&layer.weight_dropout) {
            let text = |dropout| format!("{:?}", drops(dropout));
            return Err(Error::PackedDropout {
                packed: text(&self.weight_dropout),
                arguments: text(&layer.weight_dropout),
            });
        }
        for (name, packed, list) in [
            ("kept inputs", &self.kept_inputs, layer.input.list()),
            ("kept units", &self.kept_units, layer.output.list()),
        ] {
            if packed.as_deref() != list {
                return Err(Error::PackedUnits { name });
            }
        }
        Ok(self.level())
    }
}

impl std::fmt::Debug for PackedWeight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { inputs, units, use_, .. } = self;
        let level = self.level();
        write!(
            f,
            "PackedWeight {{ inputs: {inputs}, units: {units}, use: {use_:?}, level: {level} }}"
        )
    }
}
