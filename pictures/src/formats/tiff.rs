//! TIFF: 8 and 16 bits and float, grey and RGB, with and without alpha.

use std::{
    fs::File,
    io::{BufReader, BufWriter},
    path::Path,
};

use hearth_workflows::format::PictureFormat;
use tiff::{
    TiffError,
    decoder::{ChunkType, Decoder, DecodingResult, Limits},
    encoder::{
        TiffEncoder, TiffValue,
        colortype::{
            ColorType, Gray8, Gray16, Gray32Float, RGB8, RGB16, RGB32Float, RGBA8, RGBA16, RGBA32Float,
        },
    },
    tags::Tag,
};

use crate::{
    error::PictureError,
    file::{Picture, check_size},
    metadata::Metadata,
    orientation::Orientation,
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

/// A TIFF whose header has been read: only what is read right gets here.
struct Opened {
    decoder: Reader,
    /// As it is looked at.
    picture: Picture,
    orientation: Orientation,
    planar: bool,
    /// Colour is multiplied by alpha, other than usual for TIFF.
    associated: bool,
    /// Width and height as stored, before orientation.
    stored: (u32, u32),
}

/// Values of the compression tag that are read, of those that are not, their names.
fn compression(value: u32) -> Result<(), String> {
    let name = match value {
        1 | 5 | 8 | 32_946 | 32_773 => return Ok(()),
        2..=4 => "CCITT fax",
        6 => "old JPEG",
        7 => "JPEG",
        34_712 => "JPEG 2000",
        34_887 => "LERC",
        34_925 => "LZMA",
        50_000 => "ZSTD",
        50_001 => "WebP",
        other => return Err(format!("TIFF of compression {other}")),
    };
    Err(format!("TIFF compressed as {name}; write it uncompressed, or with LZW or ZIP"))
}

fn open(path: &Path, file: BufReader<File>) -> Result<Opened, PictureError> {
    let wrong = wrong(path);
    let unsupported = |what: String| Err(PictureError::unsupported(path, what));
    let mut decoder = Decoder::new(file).map_err(&wrong)?.with_limits(Limits::unlimited());
    // A thumbnail may come first.
    while number(&mut decoder, Tag::NewSubfileType).unwrap_or(0) & 1 == 1 && decoder.more_images() {
        decoder.next_image().map_err(&wrong)?;
    }
    let stored = decoder.dimensions().map_err(&wrong)?;
    let (width, height) = stored;
    check_size(path, u64::from(width), u64::from(height))?;
    if let Err(what) = compression(number(&mut decoder, Tag::Compression).unwrap_or(1)) {
        return unsupported(what);
    }
    match number(&mut decoder, Tag::PhotometricInterpretation) {
        Some(0..=2) => {}
        Some(3) => return unsupported("TIFF with a palette".to_owned()),
        Some(5) => return unsupported("TIFF in CMYK".to_owned()),
        Some(6) => return unsupported("TIFF in YCbCr".to_owned()),
        Some(8..=10) => return unsupported("TIFF in L*a*b*".to_owned()),
        other => return unsupported(format!("TIFF of photometric interpretation {other:?}")),
    }
    let numbers = |decoder: &mut Reader, tag| {
        decoder.find_tag_unsigned_vec::<u32>(tag).ok().flatten().unwrap_or_default()
    };
    let bits = numbers(&mut decoder, Tag::BitsPerSample);
    let kinds = numbers(&mut decoder, Tag::SampleFormat);
    if kinds.windows(2).any(|pair| pair[0] != pair[1]) {
        return unsupported("TIFF whose channels are of several kinds".to_owned());
    }
    let (bits, kind) = (bits.first().copied().unwrap_or(1), kinds.first().copied().unwrap_or(1));
    let format = match (bits, kind) {
        (8, 1 | 4) => PictureFormat::Tiff8,
        (16, 1 | 4) => PictureFormat::Tiff16,
        (16 | 32, 3) => PictureFormat::TiffFloat,
        (bits, 2) => return unsupported(format!("TIFF of {bits} bits with a sign")),
        (bits, 3) => return unsupported(format!("TIFF of {bits}-bit floats")),
        (bits, 5 | 6) => return unsupported(format!("TIFF of {bits}-bit complex numbers")),
        (bits, _) => return unsupported(format!("TIFF of {bits} bits")),
    };
    if let (Some(width), Some(height)) =
        (number(&mut decoder, Tag::TileWidth), number(&mut decoder, Tag::TileLength))
    {
        // A tile is decoded whole, whatever of it lies in the picture.
        check_size(path, u64::from(width), u64::from(height))?;
    }
    if let Some(side) = [Tag::TileWidth, Tag::TileLength]
        .into_iter()
        .find_map(|tag| number(&mut decoder, tag).filter(|side| side % 16 != 0))
    {
        return unsupported(format!("TIFF with tiles of {side} pixels, which is no multiple of 16"));
    }
    if number(&mut decoder, Tag::FillOrder) == Some(2) {
        return unsupported("TIFF whose bits are in reverse order".to_owned());
    }
    let channels = match decoder.colortype().map_err(&wrong)? {
        tiff::ColorType::Gray(_) => 1,
        tiff::ColorType::RGB(_) => 3,
        tiff::ColorType::RGBA(_) => 4,
        tiff::ColorType::GrayA(_) | tiff::ColorType::Multiband { num_samples: 2, .. } => 2,
        tiff::ColorType::Multiband { num_samples, .. } => {
            return unsupported(format!("TIFF of {num_samples} channels"));
        }
        other => return unsupported(format!("TIFF of kind {other:?}")),
    };
    // The crate leaves out what it takes for no colour.
    let samples = number(&mut decoder, Tag::SamplesPerPixel).unwrap_or(1);
    if samples != u32::from(channels) {
        return unsupported(format!("TIFF of {samples} channels"));
    }
    let extra = numbers(&mut decoder, EXTRA_SAMPLES).first().copied();
    let inverted = number(&mut decoder, Tag::PhotometricInterpretation) == Some(0);
    if channels == 2 && (inverted || !matches!(extra, Some(1 | 2))) {
        return unsupported("TIFF of two channels of which none is alpha".to_owned());
    }
    let planar = number(&mut decoder, Tag::PlanarConfiguration) == Some(2) && channels > 1;
    let orientation = Orientation::of_tag(number(&mut decoder, Tag::Orientation).unwrap_or(1));
    let (width, height) = orientation.size(width, height);
    Ok(Opened {
        decoder,
        picture: Picture { format, width, height, channels },
        orientation,
        planar,
        associated: extra == Some(1) && matches!(channels, 2 | 4),
        stored,
    })
}

/// Not among the crate's named tags.
const EXTRA_SAMPLES: Tag = Tag::Unknown(338);

fn number(decoder: &mut Reader, tag: Tag) -> Option<u32> {
    decoder.find_tag_unsigned::<u32>(tag).ok().flatten()
}

pub(crate) fn look(path: &Path, file: BufReader<File>) -> Result<(Picture, Metadata), PictureError> {
    let length = file.get_ref().metadata().map_err(PictureError::read(path))?.len();
    let Opened { mut decoder, picture, .. } = open(path, file)?;
    let is_lzw = number(&mut decoder, Tag::Compression) == Some(5);
    // The pixels lie where these say, all of them inside the file.
    for (offsets, counts) in
        [(Tag::StripOffsets, Tag::StripByteCounts), (Tag::TileOffsets, Tag::TileByteCounts)]
    {
        let mut numbers = |tag| decoder.find_tag_unsigned_vec::<u64>(tag).ok().flatten().unwrap_or_default();
        let (offsets, counts) = (numbers(offsets), numbers(counts));
        if offsets.iter().zip(&counts).any(|(offset, count)| offset.saturating_add(*count) > length) {
            return Err(PictureError::Truncated { path: path.to_owned() });
        }
        let Some(first) = offsets.first().filter(|_| is_lzw) else { continue };
        // A clear code whose bits come in the other order, as before TIFF 6.0.
        decoder.goto_offset_u64(*first).map_err(PictureError::read(path))?;
        let start = [decoder.read_byte(), decoder.read_byte()];
        if matches!(start, [Ok(0), Ok(second)] if second & 1 == 1) {
            return Err(PictureError::unsupported(path, "TIFF compressed as LZW was before TIFF 6.0"));
        }
    }
    Ok((picture, Metadata::default()))
}

/// Decodes strip by strip.
pub(crate) fn check(path: &Path, file: BufReader<File>) -> Result<(), PictureError> {
    let Opened { mut decoder, .. } = open(path, file)?;
    let chunks = match decoder.get_chunk_type() {
        ChunkType::Strip => decoder.strip_count(),
        ChunkType::Tile => decoder.tile_count(),
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
    let Opened { mut decoder, picture, orientation, planar, associated, stored } = open(path, file)?;
    let names: &[&str] = match picture.channels {
        1 => &["Y"],
        2 => &["Y", "A"],
        3 => &["R", "G", "B"],
        _ => &["R", "G", "B", "A"],
    };
    let pixels = stored.0 as usize * stored.1 as usize;
    let all = if planar && decoder.get_chunk_type() == ChunkType::Tile {
        planar_tiles(path, &mut decoder, (stored.0 as usize, stored.1 as usize), names.len())?
    } else {
        // Not `read_image`, which reads the first plane only.
        let mut all = DecodingResult::U8(Vec::new());
        decoder.read_image_to_buffer(&mut all).map_err(wrong(path))?;
        all
    };
    let layout = Layout { channels: names.len(), pixels, planar };
    let planes = names
        .iter()
        .enumerate()
        .map(|(channel, name)| {
            let samples = match &all {
                DecodingResult::U8(all) => Samples::U8(layout.plane(all, channel)?),
                DecodingResult::U16(all) => Samples::U16(layout.plane(all, channel)?),
                DecodingResult::F16(all) => Samples::F16(layout.plane(all, channel)?),
                DecodingResult::F32(all) => Samples::F32(layout.plane(all, channel)?),
                _ => return None,
            };
            Some(Plane { name: (*name).to_owned(), samples })
        })
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| PictureError::damaged(path, "it has fewer samples than its size asks for"))?;
    let window = Window::of_size(stored.0, stored.1);
    let mut raster = Raster { display: window, data: window, planes, metadata: Metadata::default() };
    if associated {
        raster.divide_by_alpha();
    }
    Ok(orientation.upright(raster))
}

/// Plane after plane, put together tile by tile: the crate panics when it is to do that itself (0.11.3).
fn planar_tiles(
    path: &Path,
    decoder: &mut Reader,
    (width, height): (usize, usize),
    planes: usize,
) -> Result<DecodingResult, PictureError> {
    let (tile_width, tile_height) = decoder.chunk_dimensions();
    let (tile_width, tile_height) = (tile_width as usize, tile_height as usize);
    let (across, down) = (width.div_ceil(tile_width), height.div_ceil(tile_height));
    let mut all: Option<DecodingResult> = None;
    for chunk in 0..across * down * planes {
        let tile = decoder.read_chunk(chunk as u32).map_err(wrong(path))?;
        let (plane, at) = (chunk / (across * down), chunk % (across * down));
        let (x, y) = (at % across * tile_width, at / across * tile_height);
        let place =
            Place { from: plane * width * height + y * width + x, columns: tile_width.min(width - x), width };
        let room = width * height * planes;
        let whole = all.get_or_insert_with(|| match &tile {
            DecodingResult::U16(_) => DecodingResult::U16(vec![0; room]),
            DecodingResult::F16(_) => DecodingResult::F16(vec![half::f16::ZERO; room]),
            DecodingResult::F32(_) => DecodingResult::F32(vec![0.0; room]),
            _ => DecodingResult::U8(vec![0; room]),
        });
        match (whole, &tile) {
            (DecodingResult::U8(whole), DecodingResult::U8(tile)) => place.fill(whole, tile),
            (DecodingResult::U16(whole), DecodingResult::U16(tile)) => place.fill(whole, tile),
            (DecodingResult::F16(whole), DecodingResult::F16(tile)) => place.fill(whole, tile),
            (DecodingResult::F32(whole), DecodingResult::F32(tile)) => place.fill(whole, tile),
            _ => return Err(PictureError::damaged(path, "its tiles are of several kinds")),
        }
    }
    all.ok_or_else(|| PictureError::damaged(path, "it has no tiles"))
}

/// Where the rows of a tile belong; what reaches over the edge is left out of it by then.
struct Place {
    from: usize,
    columns: usize,
    width: usize,
}

impl Place {
    fn fill<T: Copy>(&self, whole: &mut [T], tile: &[T]) {
        for (row, samples) in tile.chunks_exact(self.columns).enumerate() {
            if let Some(place) =
                whole.get_mut(self.from + row * self.width..).and_then(|it| it.get_mut(..self.columns))
            {
                place.copy_from_slice(samples);
            }
        }
    }
}

/// How the samples of a decoded picture lie.
struct Layout {
    channels: usize,
    pixels: usize,
    planar: bool,
}

impl Layout {
    /// `None` when there are too few of them.
    fn plane<T: Copy>(&self, all: &[T], channel: usize) -> Option<Vec<T>> {
        if all.len() < self.pixels * self.channels {
            return None;
        }
        Some(if self.planar {
            all[channel * self.pixels..][..self.pixels].to_vec()
        } else {
            all.iter().skip(channel).step_by(self.channels).copied().collect()
        })
    }
}

fn interleave<T: Copy>(planes: &[&[T]]) -> Vec<T> {
    let len = planes.first().map_or(0, |plane| plane.len());
    (0..len).flat_map(|at| planes.iter().map(move |plane| plane[at])).collect()
}

pub(crate) fn write(path: &Path, raster: &Raster) -> Result<(), PictureError> {
    let io = |source| PictureError::Write { path: path.to_owned(), source };
    let file = BufWriter::new(crate::file::create(path).map_err(io)?);
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
