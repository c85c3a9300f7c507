//! Checkpoints of networks: [`Mlp::save`] and [`Mlp::load`], with the feature `safetensors`.
//!
//! A checkpoint holds everything that the steps to come depend on, so a network that is loaded goes on with
//! the bits of one that was never interrupted. Only the data, their order and the
//! [`Optimiser`](super::Optimiser) are the trainer's own.
//!
//! ```
//! # use fused_dropout::nn::{Mlp, MlpSpec, Optimiser};
//! # use fused_dropout::{MatRef, update::AdamStep};
//! let mut mlp = Mlp::new(&MlpSpec::new(&[2, 16, 2]).with_hidden_rate(0.5))?;
//! let (x, labels) = ([0.0, 1.0, 1.0, 0.0], [0, 1]);
//! let (x, adam) = (MatRef::new(&x, 2, 2)?, Optimiser::new(AdamStep::new(0.01)));
//! mlp.train_step(x, &labels, &adam)?;
//!
//! let path = std::env::temp_dir().join("fused-dropout-example.safetensors");
//! mlp.save(&path)?;
//! let mut loaded = Mlp::load(&path)?;
//! # std::fs::remove_file(&path).ok();
//! mlp.train_step(x, &labels, &adam)?;
//! loaded.train_step(x, &labels, &adam)?;
//! assert_eq!(mlp.layers()[0].weights(), loaded.layers()[0].weights());
//! # Ok::<(), fused_dropout::Error>(())
//! ```
//!
//! # The format
//!
//! A file of the format safetensors: the length of a header as a little-endian u64, the header as JSON, and
//! the numbers. All tensors are F32, little-endian, row after row. Layer `l`, counted from 0, has
//!
//! | tensor | shape | there |
//! |---|---|---|
//! | `layers.l.weight` | `[inputs, units]` | always |
//! | `layers.l.bias` | `[units]` | always |
//! | `layers.l.weight.velocity` | `[inputs, units]` | after steps with momentum |
//! | `layers.l.bias.velocity` | `[units]` | after steps with momentum |
//! | `layers.l.weight.first_moment`, `.second_moment` | `[inputs, units]` | after steps of Adam |
//! | `layers.l.bias.first_moment`, `.second_moment` | `[units]` | after steps of Adam |
//!
//! The metadata, a map of strings, has
//!
//! | key | value |
//! |---|---|
//! | `format` | `fused-dropout` ([`FORMAT`]) |
//! | `format_version` | `1` ([`FORMAT_VERSION`]) |
//! | `steps` | [`Mlp::steps`] |
//! | `moment_steps` | [`Mlp::moment_steps`] |
//! | `spec` | the [`MlpSpec`](super::MlpSpec) as JSON, as the feature `serde` makes it |
//! | `state` | what each layer keeps, as a JSON list of `none`, `velocity` and `moments` |
//!
//! Other keys are free for other programs, and ignored. The same network makes the same bytes.
//!
//! # What is refused
//!
//! Loading checks the spec as [`Mlp::new`] does, and that the file has all tensors of the spec and the state,
//! in their shapes, and no others. Nothing large is allocated before the sizes are known to be those of the
//! file. Numbers may be any floats, NaN included: it is the caller's network.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;

use self::header::{Header, Kind, Part};
use super::dense::{Dense, DenseState, Kept, Numbers, Values};
use super::mlp::Mlp;
use crate::buffers::reserve;
use crate::error::{Error, Result};

mod file;
mod header;

/// What the metadata of a checkpoint calls its format.
pub const FORMAT: &str = "fused-dropout";

/// The version of the format that is written; no newer one is read.
pub const FORMAT_VERSION: u32 = 1;

/// Floats that are converted at a time.
const CHUNK: usize = 4096;

impl Mlp {
    /// Writes a checkpoint, with the feature `safetensors`; its format is that of the module
    /// [`checkpoint`](self).
    ///
    /// The file is written under another name in the same folder (`.checkpoint-N.tmp`), synced, and renamed:
    /// whatever happens meanwhile, `path` names the old file or the new one, each whole. A symbolic link is
    /// replaced, not followed. A process that is killed meanwhile leaves the other name behind, which can be
    /// removed.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the file cannot be written, or the path names something other than a file;
    /// [`Error::Checkpoint`] when a number of the spec that no step uses is not finite, or the header would
    /// have more than 16 MiB. An old file is unchanged then, and nothing is left behind.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let header = header::write(self)?;
        file::replace(path.as_ref(), |file| self.write(&header, file))
    }

    /// Reads a checkpoint by [`Mlp::save`], with the feature `safetensors`.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the file cannot be read; [`Error::Checkpoint`] when it is no checkpoint, is
    /// of a newer version, ends early, or has tensors that do not fit its spec; those of
    /// [`Mlp::from_layers`] when there is no network of the spec; and when the memory cannot be had.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let failed = |error| file::error("load the checkpoint", path, &error);
        let mut file = File::open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        read(&mut file, len, &failed)
    }

    /// The bytes of a checkpoint, as [`Mlp::save`] writes them; with the feature `safetensors`.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`] as for [`Mlp::save`], and when the memory cannot be had.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let header = header::write(self)?;
        let numbers = self.layers.iter().flat_map(values);
        let len = numbers.fold(header.len(), |len, Values { weights, bias }| {
            len.saturating_add(size_of_val(weights)).saturating_add(size_of_val(bias))
        });
        let mut bytes = Vec::new();
        reserve(&mut bytes, len)?;
        let failed = |error| file::error("write a checkpoint to", Path::new("memory"), &error);
        self.write(&header, &mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    /// The network of a checkpoint's bytes; with the feature `safetensors`.
    ///
    /// # Errors
    ///
    /// As for [`Mlp::load`], without those of files.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let failed = |error| file::error("read a checkpoint from", Path::new("memory"), &error);
        read(&mut Cursor::new(bytes), bytes.len() as u64, &failed)
    }

    /// The header, then the numbers of each layer, in the order of the header's tensors.
    fn write(&self, header: &[u8], to: &mut impl Write) -> io::Result<()> {
        to.write_all(header)?;
        for Values { weights, bias } in self.layers.iter().flat_map(values) {
            write_numbers(to, weights)?;
            write_numbers(to, bias)?;
        }
        Ok(())
    }
}

/// The parameters of a layer, then each state of them.
fn values(layer: &Dense) -> impl Iterator<Item = Values<'_>> {
    let parameters = Values { weights: layer.weights(), bias: layer.bias() };
    let (first, second) = match layer.state() {
        DenseState::None => (None, None),
        DenseState::Velocity(velocity) => (Some(velocity), None),
        DenseState::Moments { first, second } => (Some(first), Some(second)),
    };
    [Some(parameters), first, second].into_iter().flatten()
}

fn write_numbers(to: &mut impl Write, numbers: &[f32]) -> io::Result<()> {
    let mut bytes = [0; 4 * CHUNK];
    for chunk in numbers.chunks(CHUNK) {
        for (bytes, number) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(chunk) {
            *bytes = number.to_le_bytes();
        }
        to.write_all(&bytes[..4 * chunk.len()])?;
    }
    Ok(())
}

/// The network of a checkpoint of `len` bytes; `failed` makes the error of a read that fails.
fn read(
    from: &mut (impl Read + Seek),
    len: u64,
    failed: &impl Fn(io::Error) -> Error,
) -> Result<Mlp> {
    let header = header::read(from, len, failed)?;
    let mut layers = Vec::new();
    reserve(&mut layers, header.states.len())?;
    for (l, kind) in header.states.iter().enumerate() {
        let mut numbers = |part| read_layer(from, &header, (l, part), failed);
        let parameters = numbers(Part::Parameters)?;
        let kept = match kind {
            Kind::None => Kept::Nothing,
            Kind::Velocity => Kept::Velocity(numbers(Part::Velocity)?),
            Kind::Moments => {
                Kept::Moments(numbers(Part::FirstMoment)?, numbers(Part::SecondMoment)?)
            }
        };
        let sizes = (header.spec.sizes[l], header.spec.sizes[l + 1]);
        layers.push(Dense::from_parts(sizes, parameters, kept));
    }
    let mut mlp = Mlp::from_layers(&header.spec, layers)?;
    mlp.set_steps(header.steps, header.moment_steps);
    Ok(mlp)
}

/// Weights and biases of a layer, or a state of both.
fn read_layer(
    from: &mut (impl Read + Seek),
    header: &Header,
    (l, part): (usize, Part),
    failed: &impl Fn(io::Error) -> Error,
) -> Result<Numbers> {
    let mut numbers = Numbers::default();
    let [weight, bias] = header::tensors(&header.spec.sizes, l, part);
    let room = [
        (weight, numbers.w.room(header.spec.sizes[l], header.spec.sizes[l + 1])?),
        (bias, numbers.b.room(1, header.spec.sizes[l + 1])?),
    ];
    for (tensor, room) in room {
        from.seek(SeekFrom::Start(header.start(&tensor)?)).map_err(failed)?;
        read_numbers(from, room).map_err(failed)?;
    }
    Ok(numbers)
}

fn read_numbers(from: &mut impl Read, numbers: &mut [f32]) -> io::Result<()> {
    let mut bytes = [0; 4 * CHUNK];
    for chunk in numbers.chunks_mut(CHUNK) {
        let bytes = &mut bytes[..4 * chunk.len()];
        from.read_exact(bytes)?;
        for (number, bytes) in chunk.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *number = f32::from_le_bytes(*bytes);
        }
    }
    Ok(())
}
