//! OpenEXR through the `exr` crate: every compression it reads, several layers, any data window. No deep data.

use std::{
    fs::File,
    io::{BufReader, BufWriter, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use exr::{
    block::{self, reader::ChunksReader as _},
    compression::Compression,
    image::{AnyChannel, AnyChannels, Encoding, FlatSamples, Image, Layer},
    math::Vec2,
    meta::{
        MetaData,
        attribute::{IntegerBounds, SampleType, TimeCode as ExrTimeCode},
        header::{Header, ImageAttributes, LayerAttributes},
    },
    prelude::{ReadChannels as _, ReadLayers as _, Text, WritableImage as _, f16},
};
use hearth_workflows::format::PictureFormat;

use crate::{
    error::PictureError,
    file::{Effort, Picture},
    metadata::{Metadata, Rate, TimeCode},
    raster::{Plane, Raster, Samples, Window},
};

fn wrong(path: &Path, error: exr::error::Error) -> PictureError {
    match error {
        exr::error::Error::NotSupported(what) => PictureError::unsupported(path, what.to_string()),
        exr::error::Error::Io(source) => PictureError::read(path)(source),
        exr::error::Error::Aborted => PictureError::damaged(path, "reading it was given up"),
        exr::error::Error::Invalid(what) => PictureError::damaged(path, what),
    }
}

pub(crate) fn look(path: &Path, file: &mut BufReader<File>) -> Result<(Picture, Metadata), PictureError> {
    let meta = MetaData::read_from_buffered(&mut *file, false).map_err(|error| wrong(path, error))?;
    check_end(path, file, &meta)?;
    let shown = shown(path, &meta.headers)?;
    let Header { shared_attributes: shared, own_attributes: own, .. } = &meta.headers[shown.header];
    let Vec2(width, height) = shared.display_window.size;
    let picture = Picture {
        format: shown.format,
        width: width as u32,
        height: height as u32,
        channels: shown.channels.len() as u8,
    };
    Ok((picture, metadata(shared, own)))
}

/// The blocks' offsets follow the header. A writer fills them in at its end, and a copy that was cut off ends
/// before the last block does.
fn check_end(path: &Path, file: &mut BufReader<File>, meta: &MetaData) -> Result<(), PictureError> {
    let read = PictureError::read(path);
    let truncated = || PictureError::Truncated { path: path.to_owned() };
    let several = meta.headers.len() > 1;
    let end = file.get_ref().metadata().map_err(&read)?.len();
    let mut last = 0;
    let mut last_header = &meta.headers[0];
    for header in &meta.headers {
        for _ in 0..header.chunk_count {
            let mut offset = [0; 8];
            file.read_exact(&mut offset).map_err(&read)?;
            let offset = u64::from_le_bytes(offset);
            if offset == 0 {
                return Err(truncated());
            }
            if offset > last {
                (last, last_header) = (offset, header);
            }
        }
    }
    // Part number (if there are several), then a line number or four tile coordinates, then the size.
    let place = if last_header.blocks.has_tiles() { 16 } else { 4 };
    let before = place + if several { 4 } else { 0 };
    let mut size = [0; 4];
    file.seek(SeekFrom::Start(last + before)).map_err(&read)?;
    file.read_exact(&mut size).map_err(&read)?;
    let size = u64::from(u32::from_le_bytes(size));
    if last + before + 4 + size > end { Err(truncated()) } else { Ok(()) }
}

/// Which channels of which layer are the picture.
struct Shown {
    header: usize,
    /// Index in the layer's list, and plain name (`R` for `beauty.R`).
    channels: Vec<(usize, String)>,
    format: PictureFormat,
}

/// The first layer with red, green and blue, or with grey; else the first layer's first group of channels.
fn shown(path: &Path, headers: &[Header]) -> Result<Shown, PictureError> {
    let flat: Vec<(usize, &Header)> = headers.iter().enumerate().filter(|(_, header)| !header.deep).collect();
    let Some((first, _)) = flat.first() else {
        return Err(PictureError::unsupported(path, "deep EXR"));
    };
    let pick = |wanted: &[&str]| {
        flat.iter().find_map(|(index, header)| {
            let names: Vec<String> =
                header.channels.list.iter().map(|channel| channel.name.to_string()).collect();
            // Without a layer in front of the name, or all of one layer.
            let prefixes = names.iter().map(|name| name.rsplit_once('.').map_or("", |(layer, _)| layer));
            let mut prefixes: Vec<&str> = prefixes.collect();
            prefixes.sort_by_key(|prefix| !prefix.is_empty());
            prefixes.dedup();
            prefixes.into_iter().find_map(|prefix| {
                let place = |plain: &str| {
                    let full = if prefix.is_empty() { plain.to_owned() } else { format!("{prefix}.{plain}") };
                    names.iter().position(|name| *name == full)
                };
                let mut found = wanted
                    .iter()
                    .map(|plain| place(plain).map(|place| (place, (*plain).to_owned())))
                    .collect::<Option<Vec<_>>>()?;
                found.extend(place("A").map(|place| (place, "A".to_owned())));
                Some((*index, found))
            })
        })
    };
    let (header, channels) = pick(&["R", "G", "B"]).or_else(|| pick(&["Y"])).unwrap_or_else(|| {
        let list = &headers[*first].channels.list;
        let named = list.iter().enumerate().map(|(place, channel)| (place, channel.name.to_string()));
        (*first, named.take(4).collect())
    });
    let types = channels.iter().map(|(place, _)| headers[header].channels.list[*place].sample_type);
    let half = types.into_iter().all(|kind| kind == SampleType::F16);
    let format = if half { PictureFormat::ExrHalf } else { PictureFormat::ExrFloat };
    Ok(Shown { header, channels, format })
}

fn metadata(shared: &ImageAttributes, own: &LayerAttributes) -> Metadata {
    Metadata {
        time_code: shared.time_code.map(|code| TimeCode {
            hours: code.hours,
            minutes: code.minutes,
            seconds: code.seconds,
            frame: code.frame,
            drop_frame: code.drop_frame,
        }),
        frame_rate: own
            .frames_per_second
            .and_then(|(numerator, denominator)| {
                Some(Rate { numerator: numerator.try_into().ok()?, denominator })
            })
            .filter(|rate| rate.numerator > 0 && rate.denominator > 0),
        pixel_aspect: Some(shared.pixel_aspect).filter(|aspect| (aspect - 1.0).abs() > f32::EPSILON),
    }
}

/// Decodes block by block, every layer; finds values that are no number.
pub(crate) fn check(path: &Path, file: BufReader<File>) -> Result<(), PictureError> {
    let wrong = |error| wrong(path, error);
    let reader = block::read(file, false).map_err(wrong)?;
    let headers = reader.headers().to_vec();
    let mut nan: (u64, String) = (0, String::new());
    let mut blocks = reader.all_chunks(false).map_err(wrong)?.sequential_decompressor(false);
    while let Some(block) = blocks.decompress_next_block() {
        let block = block.map_err(wrong)?;
        let header = &headers[block.index.layer];
        for line in block.lines(&header.channels) {
            let channel = &header.channels.list[line.location.channel];
            let bytes = line.value;
            let found = match channel.sample_type {
                // Exponent all ones, and something behind it; samples lie in the machine's own byte order.
                SampleType::F16 => bytes
                    .chunks_exact(2)
                    .filter(|pair| u16::from_ne_bytes([pair[0], pair[1]]) & 0x7fff > 0x7c00)
                    .count(),
                SampleType::F32 => bytes
                    .chunks_exact(4)
                    .filter(|four| f32::from_ne_bytes([four[0], four[1], four[2], four[3]]).is_nan())
                    .count(),
                SampleType::U32 => 0,
            };
            if found > 0 && nan.0 == 0 {
                nan.1 = channel.name.to_string();
            }
            nan.0 += found as u64;
        }
    }
    match nan {
        (0, _) => Ok(()),
        (count, channel) => Err(PictureError::NotANumber { path: path.to_owned(), count, channel }),
    }
}

pub(crate) fn read(path: &Path, mut file: BufReader<File>) -> Result<Raster, PictureError> {
    let wrong = |error| wrong(path, error);
    let meta = MetaData::read_from_buffered(&mut file, false).map_err(wrong)?;
    let shown = shown(path, &meta.headers)?;
    file.rewind().map_err(PictureError::read(path))?;
    let image = exr::prelude::read()
        .no_deep_data()
        .largest_resolution_level()
        .all_channels()
        .all_layers()
        .all_attributes()
        .non_parallel()
        .from_buffered(file)
        .map_err(wrong)?;
    let window = |bounds: IntegerBounds| Window {
        x: bounds.position.0,
        y: bounds.position.1,
        width: bounds.size.0 as u32,
        height: bounds.size.1 as u32,
    };
    let Some(layer) = image.layer_data.into_iter().nth(shown.header) else {
        return Err(PictureError::damaged(path, "a layer is missing"));
    };
    let metadata = metadata(&image.attributes, &layer.attributes);
    let data = window(IntegerBounds::new(layer.attributes.layer_position, layer.size));
    let mut channels: Vec<Option<AnyChannel<FlatSamples>>> =
        layer.channel_data.list.into_iter().map(Some).collect();
    let mut planes = Vec::new();
    for (place, name) in shown.channels {
        let Some(channel) = channels.get_mut(place).and_then(Option::take) else { continue };
        if channel.sampling != Vec2(1, 1) {
            return Err(PictureError::unsupported(path, "EXR with subsampled channels"));
        }
        let samples = match channel.sample_data {
            FlatSamples::F16(samples) if shown.format == PictureFormat::ExrHalf => Samples::F16(samples),
            FlatSamples::F16(samples) => Samples::F32(samples.into_iter().map(f16::to_f32).collect()),
            FlatSamples::F32(samples) => Samples::F32(samples),
            FlatSamples::U32(samples) => {
                Samples::F32(samples.into_iter().map(|sample| sample as f32).collect())
            }
        };
        planes.push(Plane { name, samples });
    }
    Ok(Raster { display: window(image.attributes.display_window), data, planes, metadata })
}

pub(crate) fn write(path: &Path, raster: &Raster, effort: Effort) -> Result<(), PictureError> {
    let io = |source| PictureError::Write { path: path.to_owned(), source };
    let bounds = |window: Window| {
        IntegerBounds::new((window.x, window.y), (window.width as usize, window.height as usize))
    };
    let mut list = Vec::new();
    for plane in &raster.planes {
        let samples = match &plane.samples {
            Samples::F16(samples) => FlatSamples::F16(samples.clone()),
            Samples::F32(samples) => FlatSamples::F32(samples.clone()),
            Samples::U8(_) | Samples::U16(_) => {
                return Err(PictureError::unsupported(path, "EXR is written with half floats or floats"));
            }
        };
        list.push(AnyChannel::new(Text::from(plane.name.as_str()), samples));
    }
    let mut attributes =
        LayerAttributes { layer_position: bounds(raster.data).position, ..Default::default() };
    if let Some(Rate { numerator, denominator }) = raster.metadata.frame_rate
        && let Ok(numerator) = numerator.try_into()
    {
        attributes.frames_per_second = Some((numerator, denominator));
    }
    let size = bounds(raster.data).size;
    let channels = AnyChannels::sort(list.into());
    let compression = match effort {
        Effort::Fast => Compression::RLE,
        // What every program reads fast. PIZ is smaller where there is grain, and three times as slow to read.
        Effort::Small => Compression::ZIP16,
    };
    let encoding = Encoding { compression, ..Encoding::default() };
    let layer = Layer::new(size, attributes, encoding, channels);
    let mut image_attributes = ImageAttributes::new(bounds(raster.display));
    image_attributes.pixel_aspect = raster.metadata.pixel_aspect.unwrap_or(1.0);
    image_attributes.time_code = raster.metadata.time_code.map(|code| ExrTimeCode {
        hours: code.hours,
        minutes: code.minutes,
        seconds: code.seconds,
        frame: code.frame,
        drop_frame: code.drop_frame,
        color_frame: false,
        field_phase: false,
        binary_group_flags: [false; 3],
        binary_groups: [0; 8],
    });
    let image = Image::new(image_attributes, layer);
    let file = BufWriter::new(File::create(path).map_err(io)?);
    image.write().non_parallel().to_buffered(file).map_err(|error| match error {
        exr::error::Error::Io(source) => io(source),
        other => PictureError::unsupported(path, other.to_string()),
    })
}
