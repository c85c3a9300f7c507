//! What several predictions of the same examples say together.

use super::mlp::EVALUATION_ROWS;
use super::room;
use crate::buffers::AlignedBuffer;
use crate::error::{Error, Result, check_shape};
use crate::mask::{KeyedDropout, MaskSource};
use crate::softmax::{SoftmaxDropout, check_labels, softmax_dropout_forward};
use crate::view::MatRef;

/// How the predictions of several members become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Combination {
    /// The class with the largest mean probability; of equals the first.
    #[default]
    Average,
    /// The class that is the most probable one for most members; of equals the one with the largest
    /// mean probability, and of equals again the first. A member's vote is its largest logit, the first
    /// of equals.
    MajorityVote,
}

/// The class probabilities of several members for the same examples, as sums: of the stochastic passes
/// of one network ([`Mlp::predict_monte_carlo`](super::Mlp::predict_monte_carlo)), of several networks,
/// or of passes of several networks.
///
/// With the probabilities p(t) = softmax(logits of member t), n members, and one example's classes c,
///
/// ```text
/// mean                 m = 1/n · sum over t of p(t)
/// variance             1/n · sum over t of p(t)² - m²
/// entropy              H(m),   H(q) = -sum over c of q(c) · ln q(c),   in nats
/// mutual information   H(m) - 1/n · sum over t of H(p(t))
/// ```
///
/// The entropy says how uncertain a prediction is; the mutual information, how much of that is the
/// members' disagreement (Gal and Ghahramani 2016, "Dropout as a Bayesian approximation"; Houlsby et al.
/// 2011 for the last line, known as BALD).
///
/// Probabilities are floats, sums are f64 in the order in which members are added. It takes
/// 24 · classes + 8 bytes an example, whatever the number of members.
///
/// Two networks, combined:
///
/// ```
/// use fused_dropout::nn::{Combination, Mlp, MlpSpec, Prediction};
/// use fused_dropout::{MatMut, MatRef};
///
/// let x = MatRef::new(&[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 2, 3)?;
/// let mut prediction = Prediction::new(2, 4)?;
/// for seed in [1, 2] {
///     let mlp = Mlp::new(&MlpSpec::new(&[3, 8, 4]).with_seed(seed))?;
///     let mut logits = [0.0; 2 * 4];
///     mlp.predict(x, MatMut::new(&mut logits, 2, 4)?)?;
///     prediction.add(MatRef::new(&logits, 2, 4)?)?;
/// }
/// let classes = prediction.labels(Combination::MajorityVote);
/// assert_eq!((classes.len(), prediction.members()), (2, 2));
/// # Ok::<(), fused_dropout::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    classes: usize,
    members: usize,
    /// For each example and class: the sums of the probabilities and of their squares, and the votes.
    sums: Vec<f64>,
    squares: Vec<f64>,
    votes: Vec<u64>,
    /// For each example: the sum of the members' entropies.
    entropies: Vec<f64>,
}

impl Prediction {
    /// Of no member yet.
    ///
    /// # Errors
    ///
    /// When there are no classes, or the size overflows.
    pub fn new(examples: usize, classes: usize) -> Result<Self> {
        if classes == 0 {
            return Err(Error::Parameter {
                name: "number of classes",
                value: 0.0,
                expected: "1 or more",
            });
        }
        let len = examples.checked_mul(classes).filter(|n| *n <= isize::MAX as usize / 8);
        let len = len.ok_or(Error::Overflow { rows: examples, stride: classes })?;
        let (sums, squares, votes) = (zeros(len)?, zeros(len)?, zeros(len)?);
        Ok(Self { classes, members: 0, sums, squares, votes, entropies: zeros(examples)? })
    }

    /// Adds a member: its logits of all examples, [examples, classes].
    ///
    /// # Errors
    ///
    /// When the shape is another one.
    pub fn add(&mut self, logits: MatRef<'_>) -> Result<()> {
        self.check((logits.rows(), logits.cols()))?;
        let mut buffer = AlignedBuffer::default();
        for row in (0..logits.rows()).step_by(EVALUATION_ROWS) {
            let rows = EVALUATION_ROWS.min(logits.rows() - row);
            self.add_rows(row, logits.rows_from(row, rows)?, &mut buffer)?;
        }
        self.add_members(1);
        Ok(())
    }

    /// `Ok` when logits of this shape, rows and columns, are of these examples and classes.
    pub(super) fn check(&self, (rows, cols): (usize, usize)) -> Result<()> {
        let own = ("the prediction", self.examples(), self.classes);
        check_shape(("the logits", rows, cols), own)
    }

    /// Adds one member's logits of the examples from `first` on; `buffer` is for the probabilities.
    pub(super) fn add_rows(
        &mut self,
        first: usize,
        logits: MatRef<'_>,
        buffer: &mut AlignedBuffer,
    ) -> Result<()> {
        let (rows, classes) = (logits.rows(), self.classes);
        let softmax = SoftmaxDropout::new(KeyedDropout::NONE);
        let p = room(buffer, rows, classes)?;
        softmax_dropout_forward(&softmax, (logits, p), None, MaskSource::Key)?;
        for (r, p) in buffer.chunks_exact(classes).take(rows).enumerate() {
            let z = |c| f64::from(logits.at(r, c));
            let best = largest(classes, z);
            let at = (first + r) * classes;
            let sums = self.sums[at..].iter_mut().zip(&mut self.squares[at..]);
            let (mut distance, mut sum_is_nan) = (0.0, false);
            for (c, (p, (sum, square))) in p.iter().zip(sums).enumerate() {
                let p = f64::from(*p);
                *sum += p;
                sum_is_nan |= p.is_nan();
                *square += p * p;
                // Where p is 0, the logit may be infinite.
                distance += if p == 0.0 { 0.0 } else { p * (z(c) - z(best)) };
            }
            // Logits that are NaN vote for no class, and their sums say so.
            if !sum_is_nan {
                self.votes[at + best] += 1;
            }
            // H(p) = ln(sum of e) - sum of p · (z - max z), and p(best) = 1 / sum of e: one logarithm.
            // It is 0 only if all logits are -infinity.
            let p_best = f64::from(p[best]);
            let entropy = if p_best == 0.0 { 0.0 } else { -libm::log(p_best) - distance };
            self.entropies[first + r] += entropy;
        }
        Ok(())
    }

    /// Counts members of which all rows have been added.
    pub(super) fn add_members(&mut self, members: usize) {
        self.members += members;
    }

    /// Number of examples.
    pub fn examples(&self) -> usize {
        self.entropies.len()
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// How many members were added.
    pub fn members(&self) -> usize {
        self.members
    }

    /// The mean probabilities, row after row of [examples, classes]; 0 without members.
    pub fn mean(&self) -> Vec<f64> {
        self.sums.iter().map(|sum| sum / self.count()).collect()
    }

    /// The variances of the probabilities over the members, row after row of [examples, classes]; 0 for
    /// one member.
    pub fn variance(&self) -> Vec<f64> {
        let of = |(sum, square): (&f64, &f64)| {
            let mean = sum / self.count();
            at_least_0(square / self.count() - mean * mean)
        };
        self.sums.iter().zip(&self.squares).map(of).collect()
    }

    /// How many members vote for each class, row after row of [examples, classes].
    pub fn votes(&self) -> &[u64] {
        &self.votes
    }

    /// The entropy of each example's mean probabilities, 0 to ln(classes).
    pub fn entropy(&self) -> Vec<f64> {
        let term = |sum: &f64| {
            let p = sum / self.count();
            if p == 0.0 { 0.0 } else { -p * libm::log(p) }
        };
        let rows = self.sums.chunks_exact(self.classes);
        rows.map(|row| at_least_0(row.iter().map(term).sum())).collect()
    }

    /// The mutual information of each example's class and the member that is asked: the part of the
    /// entropy that is disagreement; 0 where all members say the same.
    pub fn mutual_information(&self) -> Vec<f64> {
        let pairs = self.entropy().into_iter().zip(&self.entropies);
        pairs.map(|(entropy, sum)| at_least_0(entropy - sum / self.count())).collect()
    }

    /// The class of each example; `None` where its probabilities are NaN.
    pub fn labels(&self, how: Combination) -> Vec<Option<u32>> {
        let rows = self.sums.chunks_exact(self.classes).zip(self.votes.chunks_exact(self.classes));
        let label = |(sums, votes): (&[f64], &[u64])| {
            if sums.iter().any(|sum| sum.is_nan()) {
                return None;
            }
            Some(match how {
                Combination::Average => largest(self.classes, |c| sums[c]) as u32,
                Combination::MajorityVote => largest(self.classes, |c| (votes[c], sums[c])) as u32,
            })
        };
        rows.map(label).collect()
    }

    /// Examples whose class is not their label's, or that have none.
    ///
    /// # Errors
    ///
    /// When there is not a label for each example, or one names no class.
    pub fn errors(&self, labels: &[u32], how: Combination) -> Result<usize> {
        check_labels(labels, ("examples of the prediction", self.examples()), self.classes)?;
        let pairs = self.labels(how).into_iter().zip(labels);
        Ok(pairs.filter(|(class, label)| *class != Some(**label)).count())
    }

    /// What sums are divided by.
    fn count(&self) -> f64 {
        self.members.max(1) as f64
    }
}

/// `len` zeros, if there is memory for them.
fn zeros<T: Clone + Default>(len: usize) -> Result<Vec<T>> {
    let mut numbers = Vec::new();
    let memory = Error::Memory { bytes: len.saturating_mul(size_of::<T>()) };
    numbers.try_reserve_exact(len).map_err(|_| memory)?;
    numbers.resize(len, T::default());
    Ok(numbers)
}

/// The first of the largest of `n` values.
fn largest<T: PartialOrd>(n: usize, value: impl Fn(usize) -> T) -> usize {
    (1..n).fold(0, |best, i| if value(best) < value(i) { i } else { best })
}

/// What rounding has put below 0 is 0; NaN stays.
fn at_least_0(x: f64) -> f64 {
    if x < 0.0 { 0.0 } else { x }
}
