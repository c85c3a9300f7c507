//! One task's block of C: which epilogue it has, as a type. The loop nest, with pseudo code, is in
//! [`nest`](super::nest).

use super::epilogue::{Activate, End, Ends, Epilogue, InMemory, Pipelined, with_activation};
use super::nest::Nest;
use super::spans::{Pattern, SpanNest};
use super::{Product, ProductArgs};
use crate::error::Result;
use crate::isa::{Isa, Kernel, TileKernel};
use crate::threads::Part;

/// A block of the output.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    product: &'a ProductArgs,
    pattern: Option<&'a Pattern<'a>>,
    part: Part,
}

impl<'a> Block<'a> {
    /// # Safety
    ///
    /// What `Product::new` was promised of the product; the part lies in C, its columns begin at a
    /// multiple of 32 and end at one or with C, and no other task has any of it.
    pub(super) unsafe fn new(product: &'a Product<'a>, part: Part) -> Self {
        Self { product: &product.args, pattern: product.pattern.as_ref(), part }
    }
}

impl Kernel for Block<'_> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Result<()> {
        isa.tile(self)
    }
}

impl TileKernel for Block<'_> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Isa, const MR: usize, const MR1: usize, const NV: usize>(self, isa: I) -> Result<()> {
        let activate = |epilogue: Activate| {
            with_activation::<I, MR, MR1, NV>(epilogue, |ends| self.run_nest(isa, ends))
        };
        match self.product.end {
            End::Store(_) => self.run_nest(isa, Ends { memory: None, registers: None }),
            End::Mask(end) => activate(end.into()),
            End::Activate(end) => activate(end),
            End::Update(end) => self.update::<I, _, MR, MR1, NV>(isa, end),
            End::MaskedUpdate(end) => self.update::<I, _, MR, MR1, NV>(isa, end),
            End::GatheredUpdate(end) => self.update::<I, _, MR, MR1, NV>(isa, end),
        }
    }
}

impl Block<'_> {
    /// Runs the nest for an update of weights.
    #[inline(always)]
    fn update<I: Isa, E: Epilogue, const MR: usize, const MR1: usize, const NV: usize>(
        self,
        isa: I,
        end: E,
    ) -> Result<()> {
        let memory = InMemory(end);
        if Ends::<I>::HAS_REGISTER_TILES {
            let registers = Pipelined::<E, MR, MR1, NV>(end);
            self.run_nest(isa, Ends { memory: Some(&memory), registers: Some(&registers) })
        } else {
            self.run_nest(isa, Ends { memory: Some(&memory), registers: None })
        }
    }

    #[inline(always)]
    fn run_nest<I: Isa>(self, isa: I, ends: Ends<'_, I>) -> Result<()> {
        let Self { product, pattern, part } = self;
        match pattern {
            None => Nest { isa, product, part, ends }.run(),
            Some(pattern) => SpanNest { isa, product, pattern, part, ends }.run(),
        }
    }
}
