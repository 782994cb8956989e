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
    file::{Picture, check_size},
    metadata::Metadata,
    orientation::Orientation,
    raster::{Plane, Raster, Samples, Window},
};

/// Bytes in which the end marker is looked for: some cameras append a little.
const TAIL: i64 = 4096;

/// Bytes of a file: it is decoded from memory.
const LARGEST: u64 = 1 << 30;

fn bytes(path: &Path, file: &mut BufReader<File>) -> Result<Vec<u8>, PictureError> {
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(PictureError::read(path))?;
    if bytes.len() as u64 > LARGEST {
        return Err(PictureError::damaged(path, format!("no JPEG has more than {LARGEST} bytes")));
    }
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
    if let Some((marker, bits)) = frame(&whole) {
        if let Some(kind) = unread_kind(marker) {
            return Err(PictureError::unsupported(path, kind));
        }
        if bits != 8 {
            return Err(PictureError::unsupported(path, format!("JPEG of {bits} bits")));
        }
    }
    let mut decoder = JpegDecoder::new(ZCursor::new(whole.as_slice()));
    decoder.decode_headers().map_err(|error| PictureError::damaged(path, format!("{error:?}")))?;
    let (Some((width, height)), Some(space)) = (decoder.dimensions(), decoder.input_colorspace()) else {
        return Err(PictureError::damaged(path, "it does not say its size"));
    };
    check_size(path, width as u64, height as u64)?;
    let channels = match space {
        ColorSpace::Luma => 1,
        ColorSpace::YCbCr | ColorSpace::RGB => 3,
        other => return Err(PictureError::unsupported(path, format!("JPEG in {other:?}"))),
    };
    let (width, height) = orientation(&decoder).size(width as u32, height as u32);
    Ok((Picture { format: PictureFormat::Jpeg, width, height, channels }, Metadata::default()))
}

/// Cameras note how they were held.
fn orientation(decoder: &JpegDecoder<ZCursor<&[u8]>>) -> Orientation {
    decoder.exif().map_or_else(Orientation::default, |exif| Orientation::of_exif(exif))
}

/// Kinds of JPEG that are told apart by the marker of their frame; no decoder here reads these.
fn unread_kind(marker: u8) -> Option<&'static str> {
    Some(match marker {
        0xc3 => "lossless JPEG",
        0xc5..=0xc7 => "hierarchical JPEG",
        0xc9..=0xcb | 0xcd..=0xcf => "JPEG with arithmetic coding",
        _ => return None,
    })
}

/// The marker of the frame, and the bits of its samples.
fn frame(bytes: &[u8]) -> Option<(u8, u8)> {
    let mut at = 2;
    loop {
        let [0xff, marker, high, low, rest @ ..] = bytes.get(at..)? else { return None };
        match marker {
            0xff => at += 1,
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                return Some((*marker, *rest.first()?));
            }
            _ => at += 2 + usize::from(u16::from_be_bytes([*high, *low])),
        }
    }
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
    let orientation = orientation(&decoder);
    // The size as it is stored: turning twice is no turn.
    let (width, height) = orientation.size(picture.width, picture.height);
    let window = Window::of_size(width, height);
    Ok(orientation.upright(Raster { display: window, data: window, planes, metadata }))
}
