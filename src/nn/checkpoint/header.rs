//! The header of a checkpoint: what is written, and what is checked before any number is read.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::de::DeserializeOwned;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::{FORMAT, FORMAT_VERSION};
use crate::buffers::zeros;
use crate::error::{Error, Result};
use crate::nn::dense::{Dense, DenseState};
use crate::nn::mlp::Mlp;
use crate::nn::spec::MlpSpec;

/// The longest header in bytes: of a network of more than ten thousand layers. What a parser makes of it
/// takes several times as much.
const LONGEST: u64 = 1 << 24;

/// Bytes of the header's length.
const LENGTH: u64 = 8;

/// What is checked of a file. All tensors of the spec and the states are in it.
pub(super) struct Header {
    pub(super) steps: u32,
    pub(super) moment_steps: u32,
    pub(super) spec: MlpSpec,
    /// What each layer keeps.
    pub(super) states: Vec<Kind>,
    tensors: Metadata,
    /// Bytes before the first number.
    len: u64,
}

/// What updates keep of a layer.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    None,
    Velocity,
    Moments,
}

/// The parameters of a layer, or a state of them.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Parameters,
    Velocity,
    FirstMoment,
    SecondMoment,
}

/// A tensor that a checkpoint has.
pub(super) struct Tensor {
    name: String,
    shape: Vec<usize>,
}

impl Kind {
    fn of(layer: &Dense) -> Self {
        match layer.state() {
            DenseState::None => Kind::None,
            DenseState::Velocity(_) => Kind::Velocity,
            DenseState::Moments { .. } => Kind::Moments,
        }
    }

    /// What is stored of a layer, in this order.
    fn parts(self) -> &'static [Part] {
        match self {
            Kind::None => &[Part::Parameters],
            Kind::Velocity => &[Part::Parameters, Part::Velocity],
            Kind::Moments => &[Part::Parameters, Part::FirstMoment, Part::SecondMoment],
        }
    }
}

/// The tensors of weights and biases of layer `l`.
pub(super) fn tensors(sizes: &[usize], l: usize, part: Part) -> [Tensor; 2] {
    let suffix = match part {
        Part::Parameters => "",
        Part::Velocity => ".velocity",
        Part::FirstMoment => ".first_moment",
        Part::SecondMoment => ".second_moment",
    };
    let (inputs, units) = (sizes[l], sizes[l + 1]);
    [("weight", vec![inputs, units]), ("bias", vec![units])]
        .map(|(of, shape)| Tensor { name: format!("layers.{l}.{of}{suffix}"), shape })
}

/// All tensors, in the order of a checkpoint that is written.
fn all_tensors(sizes: &[usize], states: &[Kind]) -> impl Iterator<Item = Tensor> {
    states.iter().enumerate().flat_map(move |(l, kind)| {
        kind.parts().iter().flat_map(move |part| tensors(sizes, l, *part))
    })
}

/// The start of a network's checkpoint, up to the first number.
pub(super) fn write(mlp: &Mlp) -> Result<Vec<u8>> {
    let states: Vec<Kind> = mlp.layers.iter().map(Kind::of).collect();
    let spec = to_json("spec", &mlp.spec)?;
    // JSON has no NaN, which may stand where a network of the spec has no use for a number.
    if serde_json::from_str(&spec).ok().as_ref() != Some(&mlp.spec) {
        return Err(refusal("spec", quoted(&spec), "of finite numbers"));
    }
    let metadata = BTreeMap::from([
        ("format", FORMAT.to_owned()),
        ("format_version", FORMAT_VERSION.to_string()),
        ("steps", mlp.steps.to_string()),
        ("moment_steps", mlp.moment_steps.to_string()),
        ("spec", spec),
        ("state", to_json("state", &states)?),
    ]);
    let mut end = 0;
    let tensors = all_tensors(&mlp.spec.sizes, &states).map(|Tensor { name, shape }| {
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        (name, TensorInfo { dtype: Dtype::F32, shape, data_offsets: (start, end) })
    });
    let entries = Entries { metadata, tensors: tensors.collect() };
    let mut header = to_json("header", &entries)?.into_bytes();
    // Numbers start at a multiple of 8, as the format wants it.
    header.resize(header.len().next_multiple_of(LENGTH as usize), b' ');
    let len = header.len() as u64;
    if len > LONGEST {
        let expected = format!("of at most {LONGEST} bytes");
        return Err(refusal("header", format!("of {len} bytes"), expected));
    }
    Ok([&len.to_le_bytes()[..], &header].concat())
}

/// The entries of a header, in the order of the numbers, so that a network has one header.
struct Entries {
    metadata: BTreeMap<&'static str, String>,
    tensors: Vec<(String, TensorInfo)>,
}

impl Serialize for Entries {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1 + self.tensors.len()))?;
        map.serialize_entry("__metadata__", &self.metadata)?;
        for (name, info) in &self.tensors {
            map.serialize_entry(name, info)?;
        }
        map.end()
    }
}

/// Reads and checks the header of a file of `len` bytes.
pub(super) fn read(
    from: &mut impl Read,
    len: u64,
    failed: &impl Fn(io::Error) -> Error,
) -> Result<Header> {
    if len < LENGTH {
        return Err(refusal("length", bytes(len), "8 bytes or more: it starts with a number"));
    }
    let mut length = [0; LENGTH as usize];
    from.read_exact(&mut length).map_err(failed)?;
    let header = u64::from_le_bytes(length);
    let most = LONGEST.min(len - LENGTH);
    if header > most {
        let expected = format!("at most {most} bytes, of a file of {len}");
        return Err(refusal("header length", bytes(header), expected));
    }
    // It is not longer than `LONGEST`.
    let mut json = zeros(header as usize)?;
    from.read_exact(&mut json).map_err(failed)?;
    let tensors: Metadata = serde_json::from_slice(&json).map_err(|error| {
        refusal("header", format!("broken ({error})"), "that of a safetensors file")
    })?;
    drop(json);
    let start = LENGTH + header;
    let expected = start.saturating_add(tensors.data_len() as u64);
    if len != expected {
        let expected = format!("{}, as its header says", bytes(expected));
        return Err(refusal("length", bytes(len), expected));
    }
    Header::new(tensors, start)
}

impl Header {
    /// What the metadata says, and whether the tensors are those that it asks for.
    fn new(tensors: Metadata, len: u64) -> Result<Self> {
        let metadata = |key: &str| -> Result<&str> {
            let value = tensors.metadata().as_ref().and_then(|metadata| metadata.get(key));
            value.map(String::as_str).ok_or_else(|| refusal(key, "missing", "in the metadata"))
        };
        let format = metadata("format")?;
        if format != FORMAT {
            return Err(refusal("format", quoted(format), format!("{FORMAT:?}")));
        }
        let version = metadata("format_version")?;
        if version != FORMAT_VERSION.to_string() {
            let expected =
                format!("\"{FORMAT_VERSION}\", the one that this version of fused-dropout reads");
            return Err(refusal("format_version", quoted(version), expected));
        }
        let number = |key: &str| {
            let text = metadata(key)?;
            text.parse().map_err(|_| refusal(key, quoted(text), "a number from 0 to 2^32 - 1"))
        };
        let (steps, moment_steps) = (number("steps")?, number("moment_steps")?);
        let spec: MlpSpec = from_json("spec", metadata("spec")?)?;
        spec.check()?;
        let states: Vec<Kind> = from_json("state", metadata("state")?)?;
        let layers = spec.sizes.len() - 1;
        if states.len() != layers {
            let found = format!("that of {} layers", states.len());
            return Err(refusal("state", found, format!("that of the {layers} of its spec")));
        }
        let header = Self { steps, moment_steps, spec, states, tensors, len };
        header.check_tensors()?;
        Ok(header)
    }

    /// `Ok` when the file has the tensors of its spec, and no others. They are made one at a time: the spec
    /// may claim layers that the file has not.
    fn check_tensors(&self) -> Result<()> {
        let expected = || all_tensors(&self.spec.sizes, &self.states);
        let mut count = 0;
        for tensor in expected() {
            self.find(&tensor)?;
            count += 1;
        }
        let names = self.tensors.offset_keys();
        if names.len() == count {
            return Ok(());
        }
        let expected: HashSet<String> = expected().map(|tensor| tensor.name).collect();
        let surplus = names.iter().find(|name| !expected.contains(*name));
        let surplus = surplus.map_or("", String::as_str);
        let found = self.tensors.info(surplus).map_or(String::new(), in_words);
        let expected = "absent: its spec and state have no such tensor";
        Err(refusal(&format!("tensor {}", quoted(surplus)), found, expected))
    }

    /// The tensor in the file, of the shape that it must have.
    fn find(&self, tensor: &Tensor) -> Result<&TensorInfo> {
        let Tensor { name, shape } = tensor;
        let refuse = |found| {
            refusal(
                &format!("tensor {name:?}"),
                found,
                format!("F32 of {shape:?}, as its spec says"),
            )
        };
        match self.tensors.info(name) {
            Some(info) if info.dtype == Dtype::F32 && info.shape == *shape => Ok(info),
            Some(info) => Err(refuse(in_words(info))),
            None => Err(refuse("missing".to_owned())),
        }
    }

    /// Where the numbers of a tensor start in the file.
    pub(super) fn start(&self, tensor: &Tensor) -> Result<u64> {
        Ok(self.len + self.find(tensor)?.data_offsets.0 as u64)
    }
}

fn to_json(what: &str, value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|error| refusal(what, format!("refused ({error})"), "writable as JSON"))
}

fn from_json<T: DeserializeOwned>(what: &str, json: &str) -> Result<T> {
    serde_json::from_str(json).map_err(|error| {
        refusal(what, quoted(json), format!("of this version of fused-dropout: {error}"))
    })
}

fn refusal(what: &str, found: impl Into<String>, expected: impl Into<String>) -> Error {
    Error::Checkpoint { what: what.to_owned(), found: found.into(), expected: expected.into() }
}

fn bytes(count: u64) -> String {
    format!("{count} bytes")
}

/// Text of a file in quotes, not longer than a line.
fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

fn in_words(info: &TensorInfo) -> String {
    // As many dimensions as are needed to see that they are others.
    let shape = &info.shape[..info.shape.len().min(4)];
    format!("{} of {shape:?}", info.dtype)
}
