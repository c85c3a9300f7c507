//! Reads idx files, the format of MNIST: a magic number, the dimensions, then one byte a value.
//!
//! ```text
//! 0x00 0x00 0x08 D    8: unsigned bytes; D: number of dimensions (1 for labels, 3 for images)
//! D x u32             the dimensions, big end first
//! bytes               as many as the product of the dimensions
//! ```

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

/// An idx file of unsigned bytes: `values.len()` is the product of `dimensions`.
pub(crate) struct Idx {
    pub(crate) dimensions: Vec<usize>,
    pub(crate) values: Vec<u8>,
}

/// Reads a file, gzipped or plain. Its first bytes tell which: an idx file starts with two zeros.
pub(crate) fn read(path: &Path, dimensions: u8) -> Result<Idx, String> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| format!("{name}: {error}"))?;
    let mut file = BufReader::new(file);
    let start = file.fill_buf().map_err(|error| format!("{name}: {error}"))?;
    if start.starts_with(&[0x1f, 0x8b]) {
        parse(&name, MultiGzDecoder::new(file), dimensions)
    } else {
        parse(&name, file, dimensions)
    }
}

/// Parses an idx file; `name` is what errors call it.
///
/// Memory grows with the bytes that are there, never with what the header claims, and what goes
/// on after the declared end is not read.
pub(crate) fn parse(name: &str, mut source: impl Read, dimensions: u8) -> Result<Idx, String> {
    let header_len = 4 + 4 * u64::from(dimensions);
    let header = read_at_most(name, &mut source, header_len)?;
    let expected = 0x0800 | u32::from(dimensions);
    let mut words = header.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    match words.next() {
        Some(magic) if magic != expected => {
            return Err(format!(
                "{name}: the magic number is {magic:#010x}, expected {expected:#010x} \
                 (idx, unsigned bytes, dimensions: {dimensions})"
            ));
        }
        _ if (header.len() as u64) < header_len => {
            return Err(format!(
                "{name}: ends after {} bytes, expected an idx header of {header_len}",
                header.len()
            ));
        }
        _ => {}
    }
    let sizes: Vec<u32> = words.collect();
    let shape = sizes.iter().map(u32::to_string).collect::<Vec<_>>().join(" x ");
    let declared = sizes
        .iter()
        .try_fold(1_u64, |product, &size| product.checked_mul(u64::from(size)))
        .filter(|&count| count < isize::MAX as u64)
        .ok_or_else(|| format!("{name}: the header declares {shape} values: more than memory"))?;

    // One byte more than declared, if there is one, shows that the file goes on.
    let values = read_at_most(name, &mut source, declared + 1)?;
    let found = values.len() as u64;
    if found != declared {
        let found = if found < declared { found.to_string() } else { "more".into() };
        return Err(format!(
            "{name}: the header declares {shape} = {declared} values, but the file has {found}"
        ));
    }
    Ok(Idx { dimensions: sizes.into_iter().map(|size| size as usize).collect(), values })
}

fn read_at_most(name: &str, source: &mut impl Read, limit: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    source
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("{name}: cannot be read: {error}"))?;
    Ok(bytes)
}
