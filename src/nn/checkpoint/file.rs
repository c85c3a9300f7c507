//! Files that are replaced as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Names that are tried for a temporary file: one for each writer at work in the folder, and for each that
/// was stopped before it could remove its own.
const NAMES: u32 = 1000;

/// The error of an operation on a file.
pub(super) fn error(action: &'static str, path: &Path, error: &io::Error) -> Error {
    Error::File { action, path: path.display().to_string(), reason: error.to_string() }
}

/// Replaces a file by one that `write` has written, at once and for good: it is written under another name,
/// synced, and renamed. After an error the old file is as it was.
pub(super) fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let failed = |error| self::error("save a checkpoint as", path, &error);
    if path.file_name().is_none() {
        return Err(failed(io::Error::new(ErrorKind::InvalidInput, "the path names no file")));
    }
    // A device or a pipe would be replaced by a file as well.
    if fs::metadata(path).is_ok_and(|old| !old.is_file()) {
        return Err(failed(io::Error::new(ErrorKind::AlreadyExists, "it exists and is no file")));
    }
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let (temporary, mut file) = Temporary::create(folder).map_err(failed)?;
    write(&mut file).and_then(|()| file.sync_all()).map_err(failed)?;
    drop(file);
    temporary.rename(path).map_err(failed)?;
    // The new name is synced too, where folders can be: the file itself is in place either way.
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// A file that is removed unless it is renamed.
struct Temporary {
    path: PathBuf,
    renamed: bool,
}

impl Temporary {
    /// A new file in the folder, of a name that nobody else has.
    fn create(folder: &Path) -> io::Result<(Self, File)> {
        let mut last = io::Error::from(ErrorKind::AlreadyExists);
        for n in 0..NAMES {
            let path = folder.join(format!(".checkpoint-{n}.tmp"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((Self { path, renamed: false }, file)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    fn rename(mut self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            // What cannot be removed either is left; the error that led here is what counts.
            let _ = fs::remove_file(&self.path);
        }
    }
}
