//! Stochastic gradient descent with momentum, and the penalties L2 and L1.

use crate::error::{Error, Result};
use crate::isa::Isa;

/// The numbers of one update.
///
/// ```text
/// g = dw + weight_decay · w + l1 · sign(w)
/// v = momentum · v + g          (where there is a velocity; else v = g)
/// w = w - learning_rate · v
/// ```
///
/// each product a fused multiply-add with what is left of it, the L1 term a sum of its own. This is
/// the form of Sutskever et al. 2013 ("On the importance of initialization and momentum in deep
/// learning") with the learning rate outside the velocity. With Nesterov's momentum (the same paper,
/// section 2) the weight follows the velocity that comes after the next step's decay:
///
/// ```text
/// w = w - learning_rate · (momentum · v + g)
/// ```
///
/// g is a subgradient of `loss + weight_decay / 2 · |w|² + l1 · |w|₁` with `sign(0) = 0`. Both
/// penalties are part of the gradient, so momentum gathers them like any other part; without
/// momentum they take `learning_rate · weight_decay · w` and `learning_rate · l1 · sign(w)` off w.
/// A subgradient step passes 0 rather than stopping there: weights come near 0, not exactly to it.
/// Where `l1` is 0 the term is left out.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
#[must_use]
pub struct SgdStep {
    /// The step along the velocity.
    pub learning_rate: f32,
    /// What is left of the last velocity.
    pub momentum: f32,
    /// The L2 penalty's factor.
    pub weight_decay: f32,
    /// The L1 penalty's factor.
    pub l1: f32,
    /// Whether momentum is Nesterov's; it needs a velocity.
    pub nesterov: bool,
}

impl SgdStep {
    /// This learning rate, no momentum and no penalties.
    pub const fn new(learning_rate: f32) -> Self {
        Self { learning_rate, momentum: 0.0, weight_decay: 0.0, l1: 0.0, nesterov: false }
    }

    /// The same with this share of the last velocity left.
    pub const fn with_momentum(self, momentum: f32) -> Self {
        Self { momentum, ..self }
    }

    /// The same with this factor of the L2 penalty.
    pub const fn with_weight_decay(self, weight_decay: f32) -> Self {
        Self { weight_decay, ..self }
    }

    /// The same with this factor of the L1 penalty.
    pub const fn with_l1(self, l1: f32) -> Self {
        Self { l1, ..self }
    }

    /// The same with Nesterov's momentum.
    pub const fn with_nesterov(self) -> Self {
        Self { nesterov: true, ..self }
    }

    /// The step of the biases of a layer, which are not penalised.
    pub(super) fn without_penalties(&self) -> Self {
        Self { weight_decay: 0.0, l1: 0.0, ..*self }
    }

    /// `Ok` when all numbers are finite and not negative.
    pub(crate) fn check(&self) -> Result<()> {
        let numbers = [
            ("learning_rate", self.learning_rate),
            ("momentum", self.momentum),
            ("weight_decay", self.weight_decay),
            ("l1", self.l1),
        ];
        for (name, value) in numbers {
            if !(value.is_finite() && value >= 0.0) {
                let expected = "finite and not negative";
                return Err(Error::Parameter { name, value: value.into(), expected });
            }
        }
        Ok(())
    }
}

impl SgdStep {
    /// The new weight and velocity.
    #[inline(always)]
    pub(super) fn vector<I: Isa>(
        &self,
        isa: I,
        w: I::F32,
        dw: I::F32,
        velocity: Option<I::F32>,
    ) -> (I::F32, I::F32) {
        let mut g = isa.mul_add(isa.splat(self.weight_decay), w, dw);
        if self.l1 != 0.0 {
            let zero = isa.le(isa.abs(w), isa.splat(0.0));
            g = isa.add(g, isa.zero_where(zero, isa.with_sign_of(isa.splat(self.l1), w)));
        }
        let v = match velocity {
            Some(velocity) => isa.mul_add(isa.splat(self.momentum), velocity, g),
            None => g,
        };
        let along = match velocity {
            Some(_) if self.nesterov => isa.mul_add(isa.splat(self.momentum), v, g),
            _ => v,
        };
        (isa.neg_mul_add(isa.splat(self.learning_rate), along, w), v)
    }
}
