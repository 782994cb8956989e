//! What can be wrong with a picture file.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a picture cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} is no regular file")]
    NoFile { path: PathBuf },
    #[error("{path} is empty (0 bytes)")]
    Empty { path: PathBuf },
    #[error("{path} is no EXR, PNG, TIFF, JPEG or DPX file")]
    Unknown { path: PathBuf },
    #[error("{path} is cut off: its end is missing")]
    Truncated { path: PathBuf },
    #[error("{path} is damaged: {reason}")]
    Damaged { path: PathBuf, reason: String },
    #[error("{path} is a kind of picture that is not read here: {reason}")]
    Unsupported { path: PathBuf, reason: String },
    #[error("{path} has values that are no number (NaN): {count} of them, the first in channel {channel}")]
    NotANumber { path: PathBuf, count: u64, channel: String },
}

impl PictureError {
    /// Advice for whoever reads the error. Rendering again does not help for a format that is never read.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Unsupported { .. } | Self::Unknown { .. } => "write it in another format",
            _ => "render or copy it again",
        }
    }

    /// The same of a file that people know under another path.
    #[must_use]
    pub fn of(self, known: &Path) -> Self {
        let path = known.to_owned();
        match self {
            Self::Read { source, .. } => Self::Read { path, source },
            Self::Write { source, .. } => Self::Write { path, source },
            Self::NoFile { .. } => Self::NoFile { path },
            Self::Empty { .. } => Self::Empty { path },
            Self::Unknown { .. } => Self::Unknown { path },
            Self::Truncated { .. } => Self::Truncated { path },
            Self::Damaged { reason, .. } => Self::Damaged { path, reason },
            Self::Unsupported { reason, .. } => Self::Unsupported { path, reason },
            Self::NotANumber { count, channel, .. } => Self::NotANumber { path, count, channel },
        }
    }

    pub(crate) fn read(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        |source| match source.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated { path: path.to_owned() },
            _ => Self::Read { path: path.to_owned(), source },
        }
    }

    pub(crate) fn damaged(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self::Damaged { path: path.to_owned(), reason: reason.to_string() }
    }

    pub(crate) fn unsupported(path: &Path, reason: impl Into<String>) -> Self {
        Self::Unsupported { path: path.to_owned(), reason: reason.into() }
    }
}
