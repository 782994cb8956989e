//! Whether a picture is whole, to the last pixel, in little memory.

use std::{fs::File, io::BufReader, path::Path};

use crate::{
    error::PictureError,
    file::{Kind, Picture, inspect, open},
    formats::{exr, jpeg, png, tiff},
};

/// Decodes the whole picture, checksums included where it has some, and finds values that are no number.
pub fn verify(path: &Path) -> Result<Picture, PictureError> {
    let picture = inspect(path)?;
    let (mut file, kind): (BufReader<File>, Kind) = open(path)?;
    match kind {
        Kind::Exr => exr::check(path, file)?,
        Kind::Png => png::check(path, file)?,
        Kind::Tiff => tiff::check(path, file)?,
        Kind::Jpeg => drop(jpeg::read(path, &mut file)?),
        // Nothing in it is coded; its length was compared with its size.
        Kind::Dpx => {}
    }
    Ok(picture)
}
