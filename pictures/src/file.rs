//! A picture file, whatever its kind.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read as _, Seek as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use hearth_workflows::format::PictureFormat;
use rustix::fs::OFlags;

use crate::{
    error::PictureError,
    formats::{dpx, exr, jpeg, png, tiff},
    metadata::Metadata,
    raster::Raster,
};

/// Size and kind of a picture. The frames of one clip are alike ([`Picture::is_like`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picture {
    pub format: PictureFormat,
    /// Of the display window.
    pub width: u32,
    pub height: u32,
    pub channels: u8,
}

impl Picture {
    /// Whether both can be frames of one clip. Tools that write the smallest file for each frame save one without
    /// colour, a black one say, as grey: that is a frame of a colour clip all the same. An EXR has the channels
    /// that it was given.
    pub fn is_like(&self, other: &Self) -> bool {
        let in_colour = |picture: &Self| match picture.channels {
            channels @ (1 | 2) if !picture.format.is_exr() => channels + 2,
            channels => channels,
        };
        in_colour(self) == in_colour(other) && Self { channels: 0, ..*self } == Self { channels: 0, ..*other }
    }
}

impl std::fmt::Display for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}, {} with {} channels", self.width, self.height, self.format.name(), self.channels)
    }
}

/// Pixels of a picture, such as 16,384 by 16,384. A header says any size in a few bytes, and memory is made for it.
const MOST_PIXELS: u64 = 1 << 28;

/// Pixels of a side: rows are read one at a time.
const LONGEST_SIDE: u64 = 1 << 20;

/// Bytes of a file that is read.
const LARGEST_FILE: u64 = 8 << 30;

/// Refuses a picture that no camera, scanner or renderer makes, before anything is made for it.
pub(crate) fn check_size(path: &Path, width: u64, height: u64) -> Result<(), PictureError> {
    let is_picture = (1..=LONGEST_SIDE).contains(&width)
        && (1..=LONGEST_SIDE).contains(&height)
        && width * height <= MOST_PIXELS;
    if is_picture {
        return Ok(());
    }
    let reason = format!("it says it is {width}x{height}, and more than {MOST_PIXELS} pixels are not read");
    Err(PictureError::damaged(path, reason))
}

/// What the first bytes of a file say about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Exr,
    Png,
    Tiff,
    Jpeg,
    Dpx,
}

/// Opens a file that must not wait for anybody: opening a pipe would, for somebody who writes to it.
fn unread(path: &Path) -> Result<File, PictureError> {
    let nonblocking = OFlags::NONBLOCK.bits() as i32;
    let opened = File::options().read(true).custom_flags(nonblocking).open(path);
    opened.map_err(|source| PictureError::Read { path: path.to_owned(), source })
}

/// Opens a picture file at its start.
pub(crate) fn open(path: &Path) -> Result<(BufReader<File>, Kind), PictureError> {
    begin(unread(path)?, path)
}

/// Begins with a picture file at its start.
fn begin(mut file: File, path: &Path) -> Result<(BufReader<File>, Kind), PictureError> {
    let read = |source| PictureError::Read { path: path.to_owned(), source };
    let metadata = file.metadata().map_err(read)?;
    if !metadata.is_file() {
        return Err(PictureError::NoFile { path: path.to_owned() });
    }
    if metadata.len() > LARGEST_FILE {
        return Err(PictureError::damaged(path, format!("no picture has {} bytes", metadata.len())));
    }
    let mut head = Vec::with_capacity(8);
    (&mut file).take(8).read_to_end(&mut head).map_err(read)?;
    file.rewind().map_err(read)?;
    if head.is_empty() {
        return Err(PictureError::Empty { path: path.to_owned() });
    }
    let kind = [
        (&b"\x76\x2f\x31\x01"[..], Kind::Exr),
        (b"\x89PNG\r\n\x1a\n", Kind::Png),
        (b"II\x2a\0", Kind::Tiff),
        (b"MM\0\x2a", Kind::Tiff),
        // BigTIFF.
        (b"II\x2b\0", Kind::Tiff),
        (b"MM\0\x2b", Kind::Tiff),
        (b"\xff\xd8\xff", Kind::Jpeg),
        (b"SDPX", Kind::Dpx),
        (b"XPDS", Kind::Dpx),
    ]
    .into_iter()
    .find(|(signature, _)| head.starts_with(signature) || signature.starts_with(&head))
    .map(|(_, kind)| kind);
    match kind {
        Some(_) if head.len() < 8 => Err(PictureError::Truncated { path: path.to_owned() }),
        Some(kind) => Ok((BufReader::new(file), kind)),
        None => Err(PictureError::Unknown { path: path.to_owned() }),
    }
}

/// Looks at head and tail of a file: cheap enough for every frame of a clip, and finds every file that a copy
/// or a render has not finished.
pub fn inspect(path: &Path) -> Result<Picture, PictureError> {
    Ok(look(path)?.0)
}

/// Size, kind and metadata, without the pixels.
pub fn look(path: &Path) -> Result<(Picture, Metadata), PictureError> {
    look_at(unread(path)?, path)
}

/// The same of a file that is open, without waiting for anybody, and known to people by `path`.
pub fn look_at(file: File, path: &Path) -> Result<(Picture, Metadata), PictureError> {
    let (mut file, kind) = begin(file, path)?;
    match kind {
        Kind::Exr => exr::look(path, &mut file),
        Kind::Png => png::look(path, &mut file),
        Kind::Tiff => tiff::look(path, file),
        Kind::Jpeg => jpeg::look(path, &mut file),
        Kind::Dpx => dpx::look(path, &mut file),
    }
}

/// All pixels. An EXR of several layers gives those of the one that is shown.
pub fn read(path: &Path) -> Result<Raster, PictureError> {
    let (mut file, kind) = open(path)?;
    match kind {
        Kind::Exr => exr::read(path, file),
        Kind::Png => png::read(path, file),
        Kind::Tiff => tiff::read(path, file),
        Kind::Jpeg => jpeg::read(path, &mut file),
        Kind::Dpx => dpx::read(path, &mut file),
    }
}

/// A new file. What lies under its name is removed, and never written into: it may be a link, or another name of a file
/// that must stay as it is.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::create_new(path)
}

/// How much time a file is worth. No pixel depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Somebody waits for it: EXR as it is.
    Fast,
    /// Many of it are kept: EXR by deflate, half the size or less at a fifth of the speed.
    Small,
}

/// Writes `raster`, whose samples must be those of `format`.
pub fn write(
    path: &Path,
    raster: &Raster,
    format: PictureFormat,
    effort: Effort,
) -> Result<(), PictureError> {
    match format {
        PictureFormat::ExrHalf | PictureFormat::ExrFloat => exr::write(path, raster, effort),
        PictureFormat::Png8 | PictureFormat::Png16 => png::write(path, raster),
        PictureFormat::Tiff8 | PictureFormat::Tiff16 | PictureFormat::TiffFloat => tiff::write(path, raster),
        PictureFormat::Jpeg | PictureFormat::Dpx => {
            Err(PictureError::unsupported(path, format!("{} is read, but not written", format.name())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_belongs_to_a_colour_clip_and_alpha_or_another_size_does_not() {
        let picture = |channels, format, width| Picture { format, width, height: 16, channels };
        let colour = picture(3, PictureFormat::Png8, 24);
        assert!(picture(1, PictureFormat::Png8, 24).is_like(&colour));
        assert!(picture(2, PictureFormat::Png8, 24).is_like(&picture(4, PictureFormat::Png8, 24)));
        for other in [
            picture(4, PictureFormat::Png8, 24),
            picture(2, PictureFormat::Png8, 24),
            picture(1, PictureFormat::Png16, 24),
            picture(3, PictureFormat::Png8, 25),
        ] {
            assert!(!other.is_like(&colour) && !colour.is_like(&other), "{other}");
        }
        // An EXR of one channel is a depth, or a mask.
        assert!(!picture(1, PictureFormat::ExrHalf, 24).is_like(&picture(3, PictureFormat::ExrHalf, 24)));
    }
}
