//! Going wrong on demand: `POST /simulator/faults {"fault": "hang"}`, or `--fault hang`.
//!
//! Each fault strikes one prompt, in the order given.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::nodes::{Data, NodeError};

/// What goes wrong with one prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Nothing: lets a prompt pass, to aim at a later one.
    None,
    /// `POST /prompt` answers 500.
    Refuse,
    /// The reply to `POST /prompt` comes seconds after the prompt was queued.
    SlowReply,
    /// Runs ten times slower.
    Slow,
    /// Starts and never goes on; an interrupt ends it.
    Hang,
    /// Runs out of GPU memory.
    OutOfMemory,
    /// A node raises an exception.
    Error,
    /// The process ends, in the middle of the prompt.
    Die,
    /// The worker thread ends: HTTP lives on, nothing runs any more.
    WorkerDeath,
    /// Every socket is closed, in the middle of the prompt.
    DropSockets,
    /// The middle one of the saved pictures is cut in half.
    TruncateOutput,
    /// The middle one of the saved pictures is gone, though history names it.
    LoseOutput,
    /// The middle one of the saved pictures has no bytes.
    EmptyOutput,
    /// The middle one of the saved pictures is half as large.
    ShrinkOutput,
    /// The middle one of the saved pictures is grey.
    GreyOutput,
    /// The middle one of the saved pictures is NaN all over; for float EXR.
    NanOutput,
    /// Every one of the saved pictures is half as large.
    ShrinkAllOutput,
}

/// Pictures that no node can work on raise an exception: those whose first pixel is the poison.
pub(crate) fn taste<'d>(
    poison: Option<[u8; 3]>,
    mut linked: impl Iterator<Item = &'d Data>,
) -> Result<(), NodeError> {
    let Some(poison) = poison else { return Ok(()) };
    let poisoned = |data: &&Data| match data {
        Data::Image(batch) => batch.iter().any(|frame| frame.to_rgb8().starts_with(&poison)),
        _ => false,
    };
    match linked.find(poisoned) {
        Some(_) => Err(NodeError::raised("RuntimeError", "a picture of the batch is poisoned")),
        None => Ok(()),
    }
}

impl Fault {
    /// What it does to the pictures that a node has saved.
    pub(crate) fn strike(self, written: &[PathBuf]) -> io::Result<()> {
        let Some(path) = written.get(written.len() / 2) else { return Ok(()) };
        match self {
            Self::TruncateOutput => fs::read(path).and_then(|b| fs::write(path, &b[..b.len() / 2])),
            Self::LoseOutput => fs::remove_file(path),
            Self::EmptyOutput => fs::write(path, b""),
            Self::ShrinkOutput => spoil(path, |picture| halved(&picture)),
            Self::ShrinkAllOutput => {
                written.iter().try_for_each(|path| spoil(path, |picture| halved(&picture)))
            }
            Self::GreyOutput => spoil(path, |picture| picture.into_luma8().into()),
            Self::NanOutput => spoil(path, |picture| {
                let mut picture = picture.into_rgb32f();
                picture.iter_mut().for_each(|value| *value = f32::NAN);
                picture.into()
            }),
            _ => Ok(()),
        }
    }
}

/// Makes another picture of a saved one, in the same kind of file.
fn spoil(path: &Path, change: impl FnOnce(image::DynamicImage) -> image::DynamicImage) -> io::Result<()> {
    let picture = image::open(path).map_err(io::Error::other)?;
    change(picture).save(path).map_err(io::Error::other)
}

fn halved(picture: &image::DynamicImage) -> image::DynamicImage {
    picture.resize_exact(picture.width() / 2, picture.height() / 2, image::imageops::FilterType::Nearest)
}
