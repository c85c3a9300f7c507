//! The digits that the examples train on.
#![allow(dead_code, reason = "each test file uses a part of it")]

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// Pixels of an image.
pub(crate) const PIXELS: usize = 64;
/// Number of classes.
pub(crate) const CLASSES: usize = 10;

/// Images as rows of [`PIXELS`] numbers from 0 to 1, and their labels.
#[derive(Clone, Debug, Default)]
pub(crate) struct Digits {
    pub(crate) images: Vec<f32>,
    pub(crate) labels: Vec<u32>,
}

impl Digits {
    /// All 1,797.
    pub(crate) fn all() -> Self {
        let images = include_bytes!("../data/optdigits/digits-images-idx3-ubyte");
        let labels = include_bytes!("../data/optdigits/digits-labels-idx1-ubyte");
        // Magic number, number of images, rows and columns; magic number and number of labels.
        assert_eq!(images[..16], [0, 0, 8, 3, 0, 0, 7, 5, 0, 0, 0, 8, 0, 0, 0, 8]);
        assert_eq!(labels[..8], [0, 0, 8, 1, 0, 0, 7, 5]);
        let digits = Self {
            images: images[16..].iter().map(|&v| f32::from(v) / 16.0).collect(),
            labels: labels[8..].iter().map(|&l| l.into()).collect(),
        };
        assert_eq!((digits.images.len(), digits.labels.len()), (1797 * PIXELS, 1797));
        digits
    }

    /// Those with these numbers.
    pub(crate) fn pick(&self, numbers: &[usize]) -> Self {
        Self {
            images: numbers
                .iter()
                .flat_map(|&i| self.images[i * PIXELS..][..PIXELS].to_vec())
                .collect(),
            labels: numbers.iter().map(|&i| self.labels[i]).collect(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    pub(crate) fn x(&self) -> fused_dropout::MatRef<'_> {
        fused_dropout::MatRef::new(&self.images, self.len(), PIXELS).unwrap()
    }
}

/// The numbers below `count` in random order (Fisher and Yates).
pub(crate) fn shuffled(count: usize, random: &mut Xoshiro256PlusPlus) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, (random.next_u64() % (last as u64 + 1)) as usize);
    }
    order
}

/// A source of random numbers.
pub(crate) fn random(seed: u64) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(seed ^ 0xd161_7500)
}
