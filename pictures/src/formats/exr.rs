//! OpenEXR through the `exr` crate: every compression it reads, several layers, any data window. No deep data.

use std::{
    fs::File,
    io::{BufReader, BufWriter, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use exr::{
    block::{self, UncompressedBlock, reader::ChunksReader as _, writer::ChunksWriter as _},
    compression::Compression,
    math::Vec2,
    meta::{
        BlockDescription, MetaData,
        attribute::{
            ChannelDescription, IntegerBounds, LineOrder, SampleType, Text, TimeCode as ExrTimeCode,
        },
        header::{Header, ImageAttributes, LayerAttributes},
    },
    prelude::f16,
};
use hearth_workflows::format::PictureFormat;

use crate::{
    error::PictureError,
    file::{Effort, Picture, check_size},
    formats::exr_channels::shown,
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

/// Whether every layer, and every tile of it, has a size that memory may be made for.
fn check_sizes(path: &Path, headers: &[Header]) -> Result<(), PictureError> {
    for header in headers {
        let tile = match header.blocks {
            BlockDescription::Tiles(tiles) => Some(tiles.tile_size),
            BlockDescription::ScanLines => None,
        };
        let window = header.shared_attributes.display_window.size;
        for Vec2(width, height) in [Some(header.layer_size), Some(window), tile].into_iter().flatten() {
            check_size(path, width as u64, height as u64)?;
        }
    }
    Ok(())
}

pub(crate) fn look(path: &Path, file: &mut BufReader<File>) -> Result<(Picture, Metadata), PictureError> {
    let meta = MetaData::read_from_buffered(&mut *file, false).map_err(|error| wrong(path, error))?;
    check_sizes(path, &meta.headers)?;
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
    check_sizes(path, &headers)?;
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

/// Reads the blocks of the shown layer straight into planes: the crate's own reader of whole images takes twice as
/// long.
pub(crate) fn read(path: &Path, file: BufReader<File>) -> Result<Raster, PictureError> {
    let wrong = |error| wrong(path, error);
    let reader = block::read(file, false).map_err(wrong)?;
    check_sizes(path, reader.headers())?;
    let shown = shown(path, reader.headers())?;
    let header = reader.headers()[shown.header].clone();
    let window = |bounds: IntegerBounds| Window {
        x: bounds.position.0,
        y: bounds.position.1,
        width: bounds.size.0 as u32,
        height: bounds.size.1 as u32,
    };
    let data = window(IntegerBounds::new(header.own_attributes.layer_position, header.layer_size));
    // For every channel of the layer, its plane and the kind of its samples.
    let mut places = vec![None; header.channels.list.len()];
    let mut planes = Vec::new();
    for (plane, (place, name)) in shown.channels.into_iter().enumerate() {
        let channel = &header.channels.list[place];
        places[place] = Some((plane, channel.sample_type));
        let samples = match shown.format {
            PictureFormat::ExrHalf => Samples::F16(vec![f16::ZERO; data.pixels()]),
            _ => Samples::F32(vec![0.0; data.pixels()]),
        };
        planes.push(Plane { name, samples });
    }
    let full_size = |block: &block::BlockIndex| block.layer == shown.header && block.level == Vec2(0, 0);
    let mut blocks = reader
        .filter_chunks(false, |_, _, block| full_size(&block))
        .map_err(wrong)?
        .sequential_decompressor(false);
    while let Some(block) = blocks.decompress_next_block() {
        let block = block.map_err(wrong)?;
        for line in block.lines(&header.channels) {
            let Some((plane, kind)) = places[line.location.channel] else { continue };
            let Vec2(x, y) = line.location.position;
            let at = y * data.width as usize + x;
            fill(&mut planes[plane].samples, at..at + line.location.sample_count, line.value, kind);
        }
    }
    let metadata = metadata(&header.shared_attributes, &header.own_attributes);
    Ok(Raster { display: window(header.shared_attributes.display_window), data, planes, metadata })
}

/// Copies a line's samples, which lie in the machine's own byte order.
fn fill(samples: &mut Samples, at: std::ops::Range<usize>, bytes: &[u8], kind: SampleType) {
    let halves = bytes.chunks_exact(2).map(|pair| f16::from_bits(u16::from_ne_bytes([pair[0], pair[1]])));
    let words = bytes.chunks_exact(4).map(|four| [four[0], four[1], four[2], four[3]]);
    match (samples, kind) {
        (Samples::F16(to), SampleType::F16) => {
            to[at].iter_mut().zip(halves).for_each(|(to, sample)| *to = sample);
        }
        (Samples::F32(to), SampleType::F16) => {
            to[at].iter_mut().zip(halves).for_each(|(to, sample)| *to = sample.to_f32());
        }
        (Samples::F32(to), SampleType::F32) => {
            to[at].iter_mut().zip(words).for_each(|(to, word)| *to = f32::from_ne_bytes(word));
        }
        (Samples::F32(to), SampleType::U32) => {
            to[at].iter_mut().zip(words).for_each(|(to, word)| *to = u32::from_ne_bytes(word) as f32);
        }
        // Planes of half floats are made only where all channels are, and of integers never.
        (Samples::F16(_) | Samples::U8(_) | Samples::U16(_), _) => {}
    }
}

pub(crate) fn write(path: &Path, raster: &Raster, effort: Effort) -> Result<(), PictureError> {
    let io = |source| PictureError::Write { path: path.to_owned(), source };
    let bounds = |window: Window| {
        IntegerBounds::new((window.x, window.y), (window.width as usize, window.height as usize))
    };
    // A file lists its channels by name.
    let mut planes: Vec<&Plane> = raster.planes.iter().collect();
    planes.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    let mut channels = Vec::new();
    for plane in &planes {
        let kind = match &plane.samples {
            Samples::F16(_) => SampleType::F16,
            Samples::F32(_) => SampleType::F32,
            Samples::U8(_) | Samples::U16(_) => {
                return Err(PictureError::unsupported(path, "EXR is written with half floats or floats"));
            }
        };
        channels.push(ChannelDescription::named(plane.name.as_str(), kind));
    }
    let mut attributes =
        LayerAttributes { layer_position: bounds(raster.data).position, ..Default::default() };
    if let Some(Rate { numerator, denominator }) = raster.metadata.frame_rate
        && let Ok(numerator) = numerator.try_into()
    {
        attributes.frames_per_second = Some((numerator, denominator));
    }
    let mut shared = ImageAttributes::new(bounds(raster.display));
    shared.pixel_aspect = raster.metadata.pixel_aspect.unwrap_or(1.0);
    shared.time_code = raster.metadata.time_code.map(|code| ExrTimeCode {
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
    let compression = match effort {
        Effort::Fast => Compression::Uncompressed,
        // What every program reads fast. PIZ is smaller where there is grain, and three times as slow to read.
        Effort::Small => Compression::ZIP16,
    };
    let size = bounds(raster.data).size;
    let mut header = Header::new(Text::from(""), size, channels.into())
        .with_encoding(compression, BlockDescription::ScanLines, LineOrder::Increasing)
        .with_attributes(attributes);
    header.shared_attributes = shared;
    let file = BufWriter::with_capacity(1 << 20, crate::file::create(path).map_err(io)?);
    let written = block::write(file, vec![header].into(), true, |meta, chunks| {
        let indices: Vec<_> = block::enumerate_ordered_header_block_indices(&meta.headers).collect();
        let mut compressor = chunks.sequential_blocks_compressor(&meta);
        for (number, index) in indices {
            let mut data =
                Vec::with_capacity(index.pixel_size.area() * meta.headers[0].channels.bytes_per_pixel);
            for line in 0..index.pixel_size.height() {
                let row = (index.pixel_position.y() + line) * size.width();
                for plane in &planes {
                    match &plane.samples {
                        Samples::F16(samples) => {
                            let row = samples[row..row + size.width()].iter();
                            data.extend(row.flat_map(|sample| sample.to_bits().to_ne_bytes()));
                        }
                        Samples::F32(samples) => {
                            let row = samples[row..row + size.width()].iter();
                            data.extend(row.flat_map(|sample| sample.to_ne_bytes()));
                        }
                        // Refused above.
                        Samples::U8(_) | Samples::U16(_) => {}
                    }
                }
            }
            compressor.compress_block(number, UncompressedBlock { index, data })?;
        }
        Ok(())
    });
    written.map_err(|error| match error {
        exr::error::Error::Io(source) => io(source),
        other => PictureError::unsupported(path, other.to_string()),
    })
}
