//! Adam, and AdamW, whose weight decay is no part of the gradient.

use crate::error::{Error, Result};
use crate::isa::Isa;

/// The numbers of one update by Adam (Kingma and Ba 2015, "Adam: a method for stochastic optimization",
/// algorithm 1) or AdamW (Loshchilov and Hutter 2019, "Decoupled weight decay regularization",
/// algorithm 2).
///
/// ```text
/// g = dw, or dw + weight_decay · w where the decay is not decoupled
/// m = beta1 · m + (1 - beta1) · g
/// v = beta2 · v + ((1 - beta2) · g) · g
/// d = sqrt(v) · (1 / sqrt(1 - beta2^step)) + epsilon
/// w = decay · w - (learning_rate / (1 - beta1^step)) · (m / d)
///     decay = 1 - learning_rate · weight_decay where it is decoupled, else 1
/// ```
///
/// Each sum of a product is a fused multiply-add; the factors of one element are made in f64 and rounded
/// once. So a step has the same bits on all levels with fused multiply-add, in the epilogue of a product
/// and by [`apply`](super::apply).
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
#[must_use]
pub struct AdamStep {
    /// The step's length, about.
    pub learning_rate: f32,
    /// What is left of the first moment m, the mean of gradients.
    pub beta1: f64,
    /// What is left of the second moment v, the mean of squared gradients.
    pub beta2: f64,
    /// What is added to the root of v.
    pub epsilon: f32,
    /// The factor of the L2 penalty or, decoupled, what the weight loses by step and learning rate.
    pub weight_decay: f32,
    /// Whether the decay acts on the weight alone (AdamW), not through the moments.
    pub decoupled: bool,
    /// Which step this is, the first being 1: the moments begin at 0, and are corrected for that.
    pub step: u32,
}

impl AdamStep {
    /// Adam with this learning rate, betas of 0.9 and 0.999, and an epsilon of 1e-8, as the paper
    /// suggests; no weight decay; the first step.
    pub const fn new(learning_rate: f32) -> Self {
        Self {
            learning_rate,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            decoupled: true,
            step: 1,
        }
    }

    /// The same with this learning rate.
    pub const fn with_learning_rate(self, learning_rate: f32) -> Self {
        Self { learning_rate, ..self }
    }

    /// The same with other betas.
    pub const fn with_betas(self, beta1: f64, beta2: f64) -> Self {
        Self { beta1, beta2, ..self }
    }

    /// The same with another epsilon.
    pub const fn with_epsilon(self, epsilon: f32) -> Self {
        Self { epsilon, ..self }
    }

    /// The same with decoupled weight decay: AdamW.
    pub const fn with_weight_decay(self, weight_decay: f32) -> Self {
        Self { weight_decay, decoupled: true, ..self }
    }

    /// The same with an L2 penalty as a part of the gradient: Adam as it was before AdamW.
    pub const fn with_l2(self, weight_decay: f32) -> Self {
        Self { weight_decay, decoupled: false, ..self }
    }

    /// The same as step number `step`, of which the first is 1.
    pub const fn at_step(self, step: u32) -> Self {
        Self { step, ..self }
    }

    /// The step of the biases of a layer, which do not decay.
    pub(super) fn without_penalties(&self) -> Self {
        Self { weight_decay: 0.0, ..*self }
    }

    /// `Ok` when each number is in its range.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |name, value, expected| Err(Error::Parameter { name, value, expected });
        for (name, value) in [
            ("learning_rate", self.learning_rate),
            ("epsilon", self.epsilon),
            ("weight_decay", self.weight_decay),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return refuse(name, value.into(), "finite and not negative");
            }
        }
        for (name, value) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&value) {
                return refuse(name, value, "at least 0 and below 1");
            }
        }
        match self.step {
            0 => refuse("step", 0.0, "1 or more: the moments begin at 0"),
            _ => Ok(()),
        }
    }

    /// The factors of an element's update.
    pub(crate) fn numbers(&self) -> Numbers<f64> {
        let (rate, decay) = (f64::from(self.learning_rate), f64::from(self.weight_decay));
        let gathered = |beta: f64| 1.0 - libm::pow(beta, self.step.into());
        let (l2, decay) = if self.decoupled { (0.0, 1.0 - rate * decay) } else { (decay, 1.0) };
        Numbers {
            l2,
            decay,
            beta1: self.beta1,
            new1: 1.0 - self.beta1,
            beta2: self.beta2,
            new2: 1.0 - self.beta2,
            root: 1.0 / libm::sqrt(gathered(self.beta2)),
            epsilon: self.epsilon.into(),
            rate: rate / gathered(self.beta1),
        }
    }
}

/// The factors of an element's update.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers<T> {
    /// Of w in g.
    pub(crate) l2: T,
    /// Of w in the new w.
    pub(crate) decay: T,
    /// Of m and g in the new m.
    pub(crate) beta1: T,
    pub(crate) new1: T,
    /// Of v and g² in the new v.
    pub(crate) beta2: T,
    pub(crate) new2: T,
    /// Of the root of v.
    pub(crate) root: T,
    pub(crate) epsilon: T,
    /// Of m / d.
    pub(crate) rate: T,
}

impl Numbers<f64> {
    /// The same numbers in another type.
    pub(crate) fn map<T>(&self, f: impl Fn(f64) -> T) -> Numbers<T> {
        Numbers {
            l2: f(self.l2),
            decay: f(self.decay),
            beta1: f(self.beta1),
            new1: f(self.new1),
            beta2: f(self.beta2),
            new2: f(self.new2),
            root: f(self.root),
            epsilon: f(self.epsilon),
            rate: f(self.rate),
        }
    }
}

impl Numbers<f32> {
    /// The new weight and moments.
    #[inline(always)]
    pub(super) fn vector<I: Isa>(
        &self,
        isa: I,
        w: I::F32,
        dw: I::F32,
        (m, v): (I::F32, I::F32),
    ) -> (I::F32, I::F32, I::F32) {
        let g = isa.mul_add(isa.splat(self.l2), w, dw);
        let m = isa.mul_add(isa.splat(self.beta1), m, isa.mul(isa.splat(self.new1), g));
        let square = isa.mul(isa.mul(isa.splat(self.new2), g), g);
        let v = isa.mul_add(isa.splat(self.beta2), v, square);
        let d = isa.mul_add(isa.sqrt(v), isa.splat(self.root), isa.splat(self.epsilon));
        let w = isa.mul(isa.splat(self.decay), w);
        (isa.neg_mul_add(isa.splat(self.rate), isa.div(m, d), w), m, v)
    }
}
