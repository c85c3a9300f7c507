//! The images and labels to train and test with: the embedded digits, or a folder of idx files.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use rand_xoshiro::Xoshiro256PlusPlus;

use crate::idx::{self, Idx};
use crate::train::shuffle;

/// Number of classes: the digits, or the ten articles of Fashion-MNIST.
pub(crate) const CLASSES: usize = 10;

/// How many of the embedded digits are for training: few, so that there is something to overfit.
const EMBEDDED_TRAIN: usize = 300;

const EMBEDDED_IMAGES: &[u8] =
    include_bytes!("../../../tests/data/optdigits/digits-images-idx3-ubyte");
const EMBEDDED_LABELS: &[u8] =
    include_bytes!("../../../tests/data/optdigits/digits-labels-idx1-ubyte");

/// Labelled images; a row of `images` has `pixels` values from 0 to 1.
#[derive(Clone)]
pub(crate) struct Examples {
    pub(crate) pixels: usize,
    pub(crate) images: Vec<f32>,
    pub(crate) labels: Vec<u32>,
}

/// What one run trains on and what it is tested on.
pub(crate) struct Split<'a> {
    pub(crate) train: Cow<'a, Examples>,
    pub(crate) test: Cow<'a, Examples>,
}

impl Split<'_> {
    /// The training examples alone, a third of them, drawn at random, in the place of the test examples.
    pub(crate) fn held_out(&self, rng: &mut Xoshiro256PlusPlus) -> Split<'static> {
        let mut order: Vec<usize> = (0..self.train.labels.len()).collect();
        shuffle(&mut order, rng);
        let (test, train) = order.split_at(order.len() / 3);
        let pick = |positions: &[usize]| Cow::Owned(self.train.pick(positions));
        Split { train: pick(train), test: pick(test) }
    }
}

/// Everything that was loaded.
pub(crate) struct Data {
    /// What it is and where it comes from.
    pub(crate) name: String,
    /// Height and width of an image.
    pub(crate) shape: [usize; 2],
    /// Number of training examples, at least 1.
    pub(crate) train: usize,
    /// Number of test examples, at least 1.
    pub(crate) test: usize,
    source: Source,
}

enum Source {
    /// One set, which each seed splits anew.
    Embedded(Examples),
    /// The two sets that the folder has.
    Folder { train: Examples, test: Examples },
}

impl Data {
    /// Loads a folder, or the embedded digits if there is none; `train` limits the training set.
    pub(crate) fn load(folder: Option<&Path>, train: Option<usize>) -> Result<Self, String> {
        match folder {
            Some(folder) => Self::folder(folder, train),
            None => Self::embedded(train.unwrap_or(EMBEDDED_TRAIN)),
        }
    }

    fn embedded(train: usize) -> Result<Self, String> {
        let images = idx::parse("embedded images", EMBEDDED_IMAGES, 3)?;
        let labels = idx::parse("embedded labels", EMBEDDED_LABELS, 1)?;
        let (shape, count) = check(&images, "embedded images", &labels, "embedded labels")?;
        if train >= count {
            return Err(format!(
                "--train is {train}, but there are {count} embedded digits \
                 and at least 1 is for the test"
            ));
        }
        let white = white(&images);
        let all = Examples::new(&images, &labels, count, white);
        let name = "optdigits, embedded".into();
        Ok(Self { name, shape, train, test: count - train, source: Source::Embedded(all) })
    }

    fn folder(folder: &Path, train: Option<usize>) -> Result<Self, String> {
        if !folder.is_dir() {
            let what = if folder.exists() { "is not a folder" } else { "there is no such folder" };
            return Err(format!("{}: {what}", folder.display()));
        }
        let (train_images, train_images_name) = read(folder, "train-images", 3)?;
        let (train_labels, train_labels_name) = read(folder, "train-labels", 1)?;
        let (test_images, test_images_name) = read(folder, "t10k-images", 3)?;
        let (test_labels, test_labels_name) = read(folder, "t10k-labels", 1)?;
        let (shape, available) =
            check(&train_images, &train_images_name, &train_labels, &train_labels_name)?;
        let (test_shape, test) =
            check(&test_images, &test_images_name, &test_labels, &test_labels_name)?;
        if shape != test_shape {
            return Err(format!(
                "{train_images_name} has images of {} x {}, but {test_images_name} of {} x {}",
                shape[0], shape[1], test_shape[0], test_shape[1]
            ));
        }
        let train = train.unwrap_or(available);
        if train > available {
            return Err(format!(
                "--train is {train}, but {train_images_name} has {available} images"
            ));
        }
        let white = white(&train_images);
        let source = Source::Folder {
            train: Examples::new(&train_images, &train_labels, train, white),
            test: Examples::new(&test_images, &test_labels, test, white),
        };
        Ok(Self { name: folder.display().to_string(), shape, train, test, source })
    }

    /// Pixels of an image: the inputs of the network.
    pub(crate) fn pixels(&self) -> usize {
        self.shape[0] * self.shape[1]
    }

    /// Whether training and test images are a random split of images by the same writers.
    pub(crate) fn shares_writers(&self) -> bool {
        matches!(self.source, Source::Embedded(_))
    }

    /// The training and test sets of one seed, whose generator is `rng`.
    pub(crate) fn split(&self, rng: &mut Xoshiro256PlusPlus) -> Split<'_> {
        match &self.source {
            Source::Embedded(all) => {
                let mut order: Vec<usize> = (0..all.labels.len()).collect();
                shuffle(&mut order, rng);
                let (train, test) = order.split_at(self.train);
                Split { train: Cow::Owned(all.pick(train)), test: Cow::Owned(all.pick(test)) }
            }
            Source::Folder { train, test } => {
                Split { train: Cow::Borrowed(train), test: Cow::Borrowed(test) }
            }
        }
    }
}

impl Examples {
    /// The first `count` examples, with pixels divided by `white`.
    fn new(images: &Idx, labels: &Idx, count: usize, white: f32) -> Self {
        let pixels = images.dimensions[1] * images.dimensions[2];
        Self {
            pixels,
            images: images.values[..count * pixels].iter().map(|&v| f32::from(v) / white).collect(),
            labels: labels.values[..count].iter().map(|&label| u32::from(label)).collect(),
        }
    }

    /// The examples at these positions.
    fn pick(&self, positions: &[usize]) -> Self {
        let mut picked = Self { pixels: self.pixels, images: Vec::new(), labels: Vec::new() };
        self.gather(positions, &mut picked.images, &mut picked.labels);
        picked
    }

    /// Replaces the contents of `images` and `labels` by the examples at these positions.
    pub(crate) fn gather(&self, positions: &[usize], images: &mut Vec<f32>, labels: &mut Vec<u32>) {
        images.clear();
        labels.clear();
        for &position in positions {
            images.extend_from_slice(&self.images[position * self.pixels..][..self.pixels]);
            labels.push(self.labels[position]);
        }
    }
}

/// The largest pixel value, which becomes 1: 16 for optdigits, 255 for MNIST.
fn white(images: &Idx) -> f32 {
    f32::from(images.values.iter().copied().max().unwrap_or(0).max(1))
}

/// Reads the file of this name under any of the endings that are in use, gzipped or plain.
fn read(folder: &Path, name: &str, dimensions: u8) -> Result<(Idx, String), String> {
    let usual = format!("{name}-idx{dimensions}-ubyte");
    let dotted = format!("{name}.idx{dimensions}-ubyte");
    let candidates: [PathBuf; 6] = [
        folder.join(&usual),
        folder.join(format!("{usual}.gz")),
        folder.join(&dotted),
        folder.join(format!("{dotted}.gz")),
        folder.join(name),
        folder.join(format!("{name}.gz")),
    ];
    let Some(path) = candidates.iter().find(|path| path.exists()) else {
        return Err(format!("{}: has neither {usual} nor {usual}.gz", folder.display()));
    };
    Ok((idx::read(path, dimensions)?, path.display().to_string()))
}

/// The shape of an image and the number of examples of images and labels that belong together.
fn check(
    images: &Idx,
    images_name: &str,
    labels: &Idx,
    labels_name: &str,
) -> Result<([usize; 2], usize), String> {
    let (count, height, width) = (images.dimensions[0], images.dimensions[1], images.dimensions[2]);
    if images.values.is_empty() {
        return Err(format!(
            "{images_name}: has {count} images of {height} x {width} pixels, \
             expected at least one pixel"
        ));
    }
    if count != labels.values.len() {
        return Err(format!(
            "{images_name} has {count} images, but {labels_name} has {} labels",
            labels.values.len()
        ));
    }
    let wrong = labels.values.iter().position(|&label| usize::from(label) >= CLASSES);
    if let Some(index) = wrong {
        return Err(format!(
            "{labels_name}: label {index} (counted from 0) is {}, expected 0 to {}",
            labels.values[index],
            CLASSES - 1
        ));
    }
    Ok(([height, width], count))
}
