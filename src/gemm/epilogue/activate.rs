//! The epilogue of a forward product: activation and dropout.

use super::{Ends, Epilogue, InMemory, InRegisters, Place};
use crate::activation::{Activation, Function, WithFunction};
use crate::error::Result;
use crate::isa::{Isa, load, store};
use crate::view::{Source, Target};

/// `z = sum, y = [residual +] (keep ? act(z) · scale : 0)`, storing z on request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Activate {
    pub(crate) activation: Activation,
    pub(crate) scale: f32,
    pub(crate) y: Target,
    /// Where z goes, if it is saved.
    pub(crate) z: Option<Target>,
    /// What is added to y.
    pub(crate) residual: Option<Source>,
}

impl Activate {
    /// Whether elements that are kept stay what they are, where sums are in `sums`.
    pub(in crate::gemm) fn is_identity(&self, sums: Target) -> bool {
        matches!(self.activation, Activation::Identity)
            && self.scale == 1.0
            && self.z.is_none()
            && self.residual.is_none()
            && self.y.source().same_as(sums.source())
    }
}

/// [`Activate`] with its activation as a type.
#[derive(Clone, Copy)]
struct Activated<F> {
    f: F,
    scale: f32,
    y: Target,
    z: Option<Target>,
    residual: Option<Source>,
}

impl<F: Function> Epilogue for Activated<F> {
    const MASKED: bool = true;
    const LONG: bool = F::LONG;
    const SHORT: bool = !F::LONG;

    #[inline(always)]
    unsafe fn finish<I: Isa, const V: usize>(
        self,
        isa: I,
        place: Place,
        sums: [I::F32; V],
        keep: I::Word,
    ) {
        for (v, sum) in sums.into_iter().enumerate() {
            let (row, (col, n)) = (place.row, place.vector::<I, V>(isa, v));
            let kept = isa.lanes(keep, v * I::LANES);
            let y = isa.keep(kept, isa.mul(self.f.value(isa, sum), isa.splat(self.scale)));
            // SAFETY: the caller's promise.
            unsafe {
                if let Some(z) = self.z {
                    store(isa, z.in_row(row, col, n), n, sum);
                }
                let y = match self.residual {
                    Some(residual) => isa.add(load(isa, residual.in_row(row, col, n), n), y),
                    None => y,
                };
                store(isa, self.y.in_row(row, col, n), n, y);
            }
        }
    }
}

/// Calls `work` with the ends of a product with this epilogue, for tiles of `MR` or `MR1` rows and `NV`
/// vectors.
#[inline(always)]
pub(in crate::gemm) fn with_activation<
    I: Isa,
    const MR: usize,
    const MR1: usize,
    const NV: usize,
>(
    epilogue: Activate,
    work: impl FnOnce(Ends<'_, I>) -> Result<()>,
) -> Result<()> {
    epilogue.activation.with(WithEnds::<_, I, MR, MR1, NV> {
        epilogue,
        work,
        isa: std::marker::PhantomData,
    })
}

struct WithEnds<W, I, const MR: usize, const MR1: usize, const NV: usize> {
    epilogue: Activate,
    work: W,
    isa: std::marker::PhantomData<I>,
}

impl<W, I, const MR: usize, const MR1: usize, const NV: usize> WithFunction
    for WithEnds<W, I, MR, MR1, NV>
where
    W: FnOnce(Ends<'_, I>) -> Result<()>,
    I: Isa,
{
    type Output = Result<()>;

    #[inline(always)]
    fn call<F: Function>(self, f: F) -> Result<()> {
        let Activate { scale, y, z, residual, .. } = self.epilogue;
        let epilogue = Activated { f, scale, y, z, residual };
        let memory = InMemory(epilogue);
        if F::LONG || !Ends::<I>::HAS_REGISTER_TILES {
            (self.work)(Ends { memory: Some(&memory), registers: None })
        } else {
            let registers = InRegisters::<_, MR, MR1, NV>(epilogue);
            (self.work)(Ends { memory: Some(&memory), registers: Some(&registers) })
        }
    }
}
