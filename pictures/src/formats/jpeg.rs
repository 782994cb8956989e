//! JPEG, read only.

use std::{
    fs::File,
    io::{BufReader, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use hearth_workflows::format::PictureFormat;
use zune_jpeg::{
    JpegDecoder,
    zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions},
};

use crate::{
    error::PictureError,
    file::Picture,
    metadata::Metadata,
    raster::{Plane, Raster, Samples, Window},
};

/// Bytes in which the end marker is looked for: some cameras append a little.
const TAIL: i64 = 4096;

fn bytes(path: &Path, file: &mut BufReader<File>) -> Result<Vec<u8>, PictureError> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(PictureError::read(path))?;
    Ok(bytes)
}

pub(crate) fn look(path: &Path, file: &mut BufReader<File>) -> Result<(Picture, Metadata), PictureError> {
    let length = file.get_ref().metadata().map_err(PictureError::read(path))?.len() as i64;
    file.seek(SeekFrom::End(-length.min(TAIL))).map_err(PictureError::read(path))?;
    let tail = bytes(path, file)?;
    if !tail.windows(2).any(|pair| pair == [0xff, 0xd9]) {
        return Err(PictureError::Truncated { path: path.to_owned() });
    }
    file.rewind().map_err(PictureError::read(path))?;
    let whole = bytes(path, file)?;
    let mut decoder = JpegDecoder::new(ZCursor::new(whole.as_slice()));
    decoder.decode_headers().map_err(|error| PictureError::damaged(path, format!("{error:?}")))?;
    let (Some((width, height)), Some(space)) = (decoder.dimensions(), decoder.input_colorspace()) else {
        return Err(PictureError::damaged(path, "it does not say its size"));
    };
    let channels = if space == ColorSpace::Luma { 1 } else { 3 };
    let picture =
        Picture { format: PictureFormat::Jpeg, width: width as u32, height: height as u32, channels };
    Ok((picture, Metadata::default()))
}

pub(crate) fn read(path: &Path, file: &mut BufReader<File>) -> Result<Raster, PictureError> {
    let (picture, metadata) = look(path, file)?;
    file.rewind().map_err(PictureError::read(path))?;
    let whole = bytes(path, file)?;
    let (space, names): (_, &[&str]) =
        if picture.channels == 1 { (ColorSpace::Luma, &["Y"]) } else { (ColorSpace::RGB, &["R", "G", "B"]) };
    let options = DecoderOptions::default().jpeg_set_out_colorspace(space).set_strict_mode(true);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(whole.as_slice()), options);
    let pixels = decoder.decode().map_err(|error| PictureError::damaged(path, format!("{error:?}")))?;
    let planes = names
        .iter()
        .enumerate()
        .map(|(channel, name)| Plane {
            name: (*name).to_owned(),
            samples: Samples::U8(pixels.iter().skip(channel).step_by(names.len()).copied().collect()),
        })
        .collect();
    let window = Window::of_size(picture.width, picture.height);
    Ok(Raster { display: window, data: window, planes, metadata })
}
