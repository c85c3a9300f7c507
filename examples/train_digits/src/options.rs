//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;
use clap::error::ErrorKind;
use fused_dropout::nn::Granularity;
use fused_dropout::{Activation, Error};

/// Trains a network on handwritten digits without and with dropout, over several seeds, and
/// compares their errors.
///
/// Without options it trains 64-256-256-10 on 300 of the embedded optdigits and tests on the other
/// 1497. Standard output is the same for any number of threads.
#[derive(Parser)]
#[command(name = "train-digits", version)]
pub(crate) struct Options {
    /// Folder with train-images, train-labels, t10k-images and t10k-labels in idx format, plain or
    /// .gz, such as MNIST or Fashion-MNIST [default: the embedded optdigits]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data: Option<PathBuf>,

    /// Number of training examples: the first N of a folder [default: all], or N drawn for each
    /// seed from the embedded digits [default: 300]
    #[arg(long, value_name = "N", value_parser = positive::<usize>, allow_negative_numbers = true)]
    pub(crate) train: Option<usize>,

    /// Units of each hidden layer, separated by commas
    #[arg(
        long,
        value_name = "N,N,...",
        default_value = "256,256",
        value_delimiter = ',',
        value_parser = positive::<usize>,
        allow_negative_numbers = true
    )]
    pub(crate) layers: Vec<usize>,

    /// Activation of the hidden layers: identity, relu, leaky-relu, leaky-relu:SLOPE, sigmoid,
    /// tanh, gelu, gelu-tanh, silu or selu
    #[arg(long, value_name = "NAME", default_value = "relu")]
    pub(crate) activation: Named,

    /// Probability to drop an input
    #[arg(
        long,
        value_name = "P",
        default_value_t = 0.1,
        value_parser = rate,
        allow_negative_numbers = true
    )]
    pub(crate) input_rate: f64,

    /// Probability to drop a hidden unit
    #[arg(
        long,
        value_name = "P",
        default_value_t = 0.5,
        value_parser = rate,
        allow_negative_numbers = true
    )]
    pub(crate) hidden_rate: f64,

    /// What one decision of dropout of hidden units covers: element, unit (for the whole mini-batch,
    /// which then passes through a thinned network), unit-exact (the same, with a fixed number of
    /// units) or block (32 units for 16 examples); inputs are dropped by element
    #[arg(long, value_name = "NAME", default_value = "element", value_parser = granularity)]
    pub(crate) granularity: Granularity,

    /// Compare regularisers instead, each over all seeds: none, L2, L1, max-norm, dropout, dropout
    /// with max-norm, Gaussian dropout, unit dropout and block dropout, as table 9 of Srivastava et
    /// al. 2014 does
    #[arg(long, conflicts_with_all = ["granularity", "mc", "output"])]
    pub(crate) compare: bool,

    /// Scale weights at inference instead of activations in training
    #[arg(long)]
    pub(crate) classical: bool,

    /// Passes over the training examples
    #[arg(
        long,
        value_name = "N",
        default_value_t = 200,
        value_parser = positive::<u32>,
        allow_negative_numbers = true
    )]
    pub(crate) epochs: u32,

    /// Examples of one mini-batch
    #[arg(
        long,
        value_name = "N",
        default_value_t = 50,
        value_parser = positive::<usize>,
        allow_negative_numbers = true
    )]
    pub(crate) batch: usize,

    /// Learning rate of the first step; it falls linearly to 0
    #[arg(
        long,
        value_name = "RATE",
        default_value_t = 0.05,
        value_parser = learning_rate,
        allow_negative_numbers = true
    )]
    pub(crate) learning_rate: f32,

    /// Number of seeds: each trains one network without and one with dropout
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10,
        value_parser = positive::<u32>,
        allow_negative_numbers = true
    )]
    pub(crate) seeds: u32,

    /// Instead of the comparison, the test error of the network with dropout as the mean of 1, 2, 5, 10,
    /// ... up to N stochastic passes, against weight scaling
    #[arg(long, value_name = "N", value_parser = passes, allow_negative_numbers = true)]
    pub(crate) mc: Option<u32>,

    /// Train the network with dropout alone, and save it at the start and after each epoch; a run that is
    /// stopped goes on with --resume. Needs --seeds 1
    #[arg(long, value_name = "FILE", conflicts_with_all = ["compare", "mc"])]
    pub(crate) save: Option<PathBuf>,

    /// Go on from a file of --save to the last epoch, with the result of a run that was not stopped. The
    /// other options must be those of the first run; give --save again to save on. The picture shows the epochs
    /// from there on. Needs --seeds 1
    #[arg(long, value_name = "FILE", conflicts_with_all = ["compare", "mc"])]
    pub(crate) resume: Option<PathBuf>,

    /// Number of threads [default: one for each core]
    #[arg(long, value_name = "N", value_parser = threads, allow_negative_numbers = true)]
    pub(crate) threads: Option<usize>,

    /// Where to write the picture, as SVG; its folder must exist [default: target/train_digits.svg]
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// An activation, and the name it was asked for by.
#[derive(Clone)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) activation: Activation,
}

impl FromStr for Named {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Ok(Self { name: name.into(), activation: name.parse()? })
    }
}

/// Parses the arguments. The error is one line, or nothing when help or version was asked for and
/// has been printed.
pub(crate) fn parse() -> Result<Options, Option<String>> {
    Options::try_parse().map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that went away before the end of the help is no error.
            let _ = error.print();
            None
        }
        _ => Some(one_line(&error.render().to_string())),
    })
}

/// What clap says in several paragraphs, without the usage, in one line.
fn one_line(message: &str) -> String {
    message
        .trim_start_matches("error: ")
        .split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .collect::<Vec<_>>()
        .join("; ")
}

fn positive<T: FromStr + PartialOrd + From<u8>>(text: &str) -> Result<T, String> {
    match text.parse() {
        Ok(value) if value >= T::from(1) => Ok(value),
        _ => Err("expected a whole number, at least 1".into()),
    }
}

fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(value @ 1..=1024) => Ok(value),
        _ => Err("expected a whole number from 1 to 1024".into()),
    }
}

fn passes(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(value @ 1..=1_000_000) => Ok(value),
        _ => Err("expected a whole number of passes from 1 to 1000000".into()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("expected a probability to drop, from 0 to 1".into()),
    }
}

fn granularity(text: &str) -> Result<Granularity, String> {
    match text {
        "element" => Ok(Granularity::Element),
        "unit" => Ok(Granularity::Unit),
        "unit-exact" => Ok(Granularity::UnitExact),
        "block" => Ok(Granularity::BLOCK),
        _ => Err("expected element, unit, unit-exact or block".into()),
    }
}

fn learning_rate(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
        _ => Err("expected a finite number above 0".into()),
    }
}
