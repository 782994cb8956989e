//! TIFF: 8 and 16 bits and float, grey and RGB, with and without alpha.

use std::{
    fs::File,
    io::{BufReader, BufWriter},
    path::Path,
};

use hearth_workflows::format::PictureFormat;
use tiff::{
    TiffError,
    decoder::{Decoder, DecodingResult, Limits},
    encoder::{
        TiffEncoder, TiffValue,
        colortype::{
            ColorType, Gray8, Gray16, Gray32Float, RGB8, RGB16, RGB32Float, RGBA8, RGBA16, RGBA32Float,
        },
    },
};

use crate::{
    error::PictureError,
    file::Picture,
    metadata::Metadata,
    raster::{Plane, Raster, Samples, Window},
};

fn wrong(path: &Path) -> impl Fn(TiffError) -> PictureError + '_ {
    |error| match error {
        TiffError::IoError(source) => PictureError::read(path)(source),
        TiffError::UnsupportedError(what) => PictureError::unsupported(path, what.to_string()),
        other => PictureError::damaged(path, other),
    }
}

type Reader = Decoder<BufReader<File>>;

fn open(path: &Path, file: BufReader<File>) -> Result<(Reader, Picture), PictureError> {
    let mut decoder = Decoder::new(file).map_err(wrong(path))?.with_limits(Limits::unlimited());
    let (width, height) = decoder.dimensions().map_err(wrong(path))?;
    if width == 0 || height == 0 || u64::from(width) * u64::from(height) > 1 << 31 {
        return Err(PictureError::damaged(path, format!("it says it is {width}x{height}")));
    }
    let colour = decoder.colortype().map_err(wrong(path))?;
    let (channels, bits) = match colour {
        tiff::ColorType::Gray(bits) => (1, bits),
        tiff::ColorType::GrayA(bits) => (2, bits),
        tiff::ColorType::RGB(bits) => (3, bits),
        tiff::ColorType::RGBA(bits) => (4, bits),
        other => return Err(PictureError::unsupported(path, format!("TIFF of kind {other:?}"))),
    };
    let format = match bits {
        8 => PictureFormat::Tiff8,
        16 if !is_float(&mut decoder) => PictureFormat::Tiff16,
        32 if is_float(&mut decoder) => PictureFormat::TiffFloat,
        16 => PictureFormat::TiffFloat,
        other => return Err(PictureError::unsupported(path, format!("TIFF of {other} bits"))),
    };
    Ok((decoder, Picture { format, width, height, channels }))
}

fn is_float(decoder: &mut Reader) -> bool {
    let formats = decoder.find_tag_unsigned_vec::<u16>(tiff::tags::Tag::SampleFormat);
    formats.ok().flatten().is_some_and(|formats| formats.first() == Some(&3))
}

pub(crate) fn look(path: &Path, file: BufReader<File>) -> Result<(Picture, Metadata), PictureError> {
    let length = file.get_ref().metadata().map_err(PictureError::read(path))?.len();
    let (mut decoder, picture) = open(path, file)?;
    // The pixels lie where these say, all of them inside the file.
    for (offsets, counts) in [
        (tiff::tags::Tag::StripOffsets, tiff::tags::Tag::StripByteCounts),
        (tiff::tags::Tag::TileOffsets, tiff::tags::Tag::TileByteCounts),
    ] {
        let mut numbers = |tag| decoder.find_tag_unsigned_vec::<u64>(tag).ok().flatten().unwrap_or_default();
        let (offsets, counts) = (numbers(offsets), numbers(counts));
        if offsets.iter().zip(&counts).any(|(offset, count)| offset.saturating_add(*count) > length) {
            return Err(PictureError::Truncated { path: path.to_owned() });
        }
    }
    Ok((picture, Metadata::default()))
}

/// Decodes strip by strip.
pub(crate) fn check(path: &Path, file: BufReader<File>) -> Result<(), PictureError> {
    let (mut decoder, _) = open(path, file)?;
    let chunks = match decoder.get_chunk_type() {
        tiff::decoder::ChunkType::Strip => decoder.strip_count(),
        tiff::decoder::ChunkType::Tile => decoder.tile_count(),
    };
    let mut nan = 0;
    for chunk in 0..chunks.map_err(wrong(path))? {
        if let DecodingResult::F32(samples) = decoder.read_chunk(chunk).map_err(wrong(path))? {
            nan += samples.iter().filter(|sample| sample.is_nan()).count() as u64;
        }
    }
    match nan {
        0 => Ok(()),
        count => Err(PictureError::NotANumber {
            path: path.to_owned(),
            count,
            channel: "of the picture".to_owned(),
        }),
    }
}

pub(crate) fn read(path: &Path, file: BufReader<File>) -> Result<Raster, PictureError> {
    let (mut decoder, picture) = open(path, file)?;
    let names: &[&str] = match picture.channels {
        1 => &["Y"],
        2 => &["Y", "A"],
        3 => &["R", "G", "B"],
        _ => &["R", "G", "B", "A"],
    };
    let interleaved = decoder.read_image().map_err(wrong(path))?;
    let plane = |channel: usize| -> Option<Samples> {
        fn every<T: Copy>(all: &[T], channel: usize, channels: usize) -> Vec<T> {
            all.iter().skip(channel).step_by(channels).copied().collect()
        }
        match &interleaved {
            DecodingResult::U8(all) => Some(Samples::U8(every(all, channel, names.len()))),
            DecodingResult::U16(all) => Some(Samples::U16(every(all, channel, names.len()))),
            DecodingResult::F16(all) => Some(Samples::F16(every(all, channel, names.len()))),
            DecodingResult::F32(all) => Some(Samples::F32(every(all, channel, names.len()))),
            _ => None,
        }
    };
    let planes = names
        .iter()
        .enumerate()
        .map(|(channel, name)| Some(Plane { name: (*name).to_owned(), samples: plane(channel)? }))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| PictureError::unsupported(path, "TIFF of other than 8, 16 or 32 bits"))?;
    let window = Window::of_size(picture.width, picture.height);
    Ok(Raster { display: window, data: window, planes, metadata: Metadata::default() })
}

fn interleave<T: Copy>(planes: &[&[T]]) -> Vec<T> {
    let len = planes.first().map_or(0, |plane| plane.len());
    (0..len).flat_map(|at| planes.iter().map(move |plane| plane[at])).collect()
}

pub(crate) fn write(path: &Path, raster: &Raster) -> Result<(), PictureError> {
    let io = |source| PictureError::Write { path: path.to_owned(), source };
    let file = BufWriter::new(File::create(path).map_err(io)?);
    let failed = |error: TiffError| match error {
        TiffError::IoError(source) => PictureError::Write { path: path.to_owned(), source },
        other => PictureError::unsupported(path, other.to_string()),
    };
    let mut encoder = TiffEncoder::new(file)
        .map_err(failed)?
        .with_compression(tiff::encoder::Compression::Lzw)
        .with_predictor(tiff::tags::Predictor::None);
    let planes = raster.colour_planes();
    let (width, height) = (raster.data.width, raster.data.height);
    let size = (width, height);
    match planes.first().map(|plane| &plane.samples) {
        Some(Samples::U8(_)) => {
            let samples =
                all(&planes, |samples| if let Samples::U8(samples) = samples { samples } else { &[] });
            write_planes::<Gray8, RGB8, RGBA8, _>(&mut encoder, size, &samples)
        }
        Some(Samples::U16(_)) => {
            let samples =
                all(&planes, |samples| if let Samples::U16(samples) = samples { samples } else { &[] });
            write_planes::<Gray16, RGB16, RGBA16, _>(&mut encoder, size, &samples)
        }
        Some(Samples::F32(_)) => {
            let samples =
                all(&planes, |samples| if let Samples::F32(samples) = samples { samples } else { &[] });
            write_planes::<Gray32Float, RGB32Float, RGBA32Float, _>(&mut encoder, size, &samples)
        }
        Some(Samples::F16(_)) | None => {
            return Err(PictureError::unsupported(path, "TIFF is written with 8 or 16 bits or as float"));
        }
    }
    .map_err(failed)
}

/// The samples of every plane, which are all of one kind.
fn all<'a, T>(planes: &[&'a Plane], of: fn(&'a Samples) -> &'a [T]) -> Vec<&'a [T]> {
    planes.iter().map(|plane| of(&plane.samples)).collect()
}

/// Writes one, three or four planes as the colour type for their number. Grey has no alpha in this encoder.
fn write_planes<Grey, Rgb, Rgba, T>(
    encoder: &mut TiffEncoder<BufWriter<File>>,
    (width, height): (u32, u32),
    planes: &[&[T]],
) -> Result<(), TiffError>
where
    T: Copy,
    [T]: TiffValue,
    Grey: ColorType<Inner = T>,
    Rgb: ColorType<Inner = T>,
    Rgba: ColorType<Inner = T>,
{
    match planes {
        [grey] | [grey, _] => encoder.write_image::<Grey>(width, height, grey),
        [_, _, _] => encoder.write_image::<Rgb>(width, height, &interleave(planes)),
        _ => encoder.write_image::<Rgba>(width, height, &interleave(planes)),
    }
}
