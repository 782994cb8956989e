//! PNG, 8 and 16 bits.

use std::{
    fs::File,
    io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write as _},
    path::Path,
};

use hearth_workflows::format::PictureFormat;

use crate::{
    error::PictureError,
    file::{Picture, check_size},
    metadata::Metadata,
    orientation::Orientation,
    raster::{Plane, Raster, Samples, Window},
};

/// Length, type and checksum of the chunk that ends every PNG.
const END: &[u8; 12] = b"\0\0\0\0IEND\xae\x42\x60\x82";

/// Bytes of signature and header.
const HEADER: i64 = 33;

pub(crate) fn look(path: &Path, file: &mut BufReader<File>) -> Result<(Picture, Metadata), PictureError> {
    let mut head = [0; 33];
    file.read_exact(&mut head).map_err(PictureError::read(path))?;
    if &head[12..16] != b"IHDR" {
        return Err(PictureError::damaged(path, "its header is missing"));
    }
    let mut tail = [0; 12];
    let end = file.get_ref().metadata().map_err(PictureError::read(path))?.len();
    if end < (head.len() + tail.len()) as u64 {
        return Err(PictureError::Truncated { path: path.to_owned() });
    }
    // Before the end is looked at: what has been read of the file serves for it, too.
    let said = said(path, file);
    file.seek(SeekFrom::End(-12)).map_err(PictureError::read(path))?;
    file.read_exact(&mut tail).map_err(PictureError::read(path))?;
    if &tail != END {
        return Err(PictureError::Truncated { path: path.to_owned() });
    }
    let number = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let said = said?;
    check_size(path, u64::from(number(16)), u64::from(number(20)))?;
    let channels = match (head[25], said.transparent) {
        (0, false) => 1,
        (0, true) | (4, _) => 2,
        // True colour, and palettes, which stand for it.
        (2 | 3, false) => 3,
        _ => 4,
    };
    let format = if head[24] == 16 { PictureFormat::Png16 } else { PictureFormat::Png8 };
    let (width, height) = said.orientation.size(number(16), number(20));
    Ok((Picture { format, width, height, channels }, Metadata::default()))
}

/// The statements of a PNG before its pixels.
#[derive(Debug, Default)]
struct Said {
    /// One colour, or some of the palette's, are not opaque.
    transparent: bool,
    orientation: Orientation,
}

/// Chunks before the pixels: a profile, or thousands of them by mistake.
const MOST_CHUNKS: usize = 1_000;

/// Longest EXIF data that is read.
const MOST_EXIF: u64 = 1 << 16;

/// Reads the chunks between the header, behind which `file` stands, and the pixels. Refuses what codes colours in a way
/// that no colour space here has. `gAMA` is left alone: tools write it without a thought, and whoever submits says what the numbers mean.
fn said(path: &Path, file: &mut BufReader<File>) -> Result<Said, PictureError> {
    let read = PictureError::read(path);
    let mut said = Said::default();
    for _ in 0..MOST_CHUNKS {
        let mut head = [0; 8];
        file.read_exact(&mut head).map_err(&read)?;
        let length = u64::from(u32::from_be_bytes([head[0], head[1], head[2], head[3]]));
        let mut data = Vec::new();
        match &head[4..] {
            b"IDAT" | b"IEND" => break,
            b"tRNS" => said.transparent = true,
            b"cICP" if length == 4 => {
                (&mut *file).take(4).read_to_end(&mut data).map_err(&read)?;
            }
            b"eXIf" if length <= MOST_EXIF => {
                (&mut *file).take(length).read_to_end(&mut data).map_err(&read)?;
                said.orientation = Orientation::of_exif(&data);
            }
            _ => {}
        }
        if let (b"cICP", [primaries, transfer, _, full_range]) = (&head[4..], data.as_slice()) {
            let usual = *primaries == 1 && matches!(transfer, 1 | 6 | 13) && *full_range == 1;
            if !usual {
                return Err(PictureError::unsupported(
                    path,
                    format!(
                        "PNG whose colours are coded otherwise (cICP primaries {primaries}, transfer {transfer}, such as HDR has)"
                    ),
                ));
            }
        }
        // Behind the chunk and its checksum.
        let rest = length + 4 - data.len() as u64;
        file.seek_relative(i64::try_from(rest).unwrap_or(i64::MAX)).map_err(&read)?;
    }
    Ok(said)
}

/// Decodes row by row, checksums included.
pub(crate) fn check(path: &Path, file: BufReader<File>) -> Result<(), PictureError> {
    let damaged = |error: png::DecodingError| PictureError::damaged(path, error);
    let mut reader = png::Decoder::new(file).read_info().map_err(damaged)?;
    check_size(path, u64::from(reader.info().width), u64::from(reader.info().height))?;
    while reader.next_row().map_err(damaged)?.is_some() {}
    reader.finish().map_err(damaged)
}

pub(crate) fn read(path: &Path, mut file: BufReader<File>) -> Result<Raster, PictureError> {
    file.seek_relative(HEADER).map_err(PictureError::read(path))?;
    let orientation = said(path, &mut file)?.orientation;
    file.rewind().map_err(PictureError::read(path))?;
    let damaged = |error: png::DecodingError| PictureError::damaged(path, error);
    let mut decoder = png::Decoder::new(file);
    // Palettes and fewer than 8 bits become what they stand for.
    decoder.set_transformations(png::Transformations::EXPAND);
    let mut reader = decoder.read_info().map_err(damaged)?;
    check_size(path, u64::from(reader.info().width), u64::from(reader.info().height))?;
    let (colour, depth) = reader.output_color_type();
    let window = Window::of_size(reader.info().width, reader.info().height);
    let names: &[&str] = match colour {
        png::ColorType::Grayscale => &["Y"],
        png::ColorType::GrayscaleAlpha => &["Y", "A"],
        png::ColorType::Rgba => &["R", "G", "B", "A"],
        png::ColorType::Rgb | png::ColorType::Indexed => &["R", "G", "B"],
    };
    let wide = depth == png::BitDepth::Sixteen;
    let mut planes: Vec<Plane> = names
        .iter()
        .map(|name| {
            let room = Vec::with_capacity(window.pixels());
            let samples = if wide { Samples::U16(room) } else { Samples::U8(Vec::new()) };
            Plane { name: (*name).to_owned(), samples }
        })
        .collect();
    if reader.info().interlaced {
        // Its rows come in seven passes: only the whole frame has them in order.
        let size = reader.output_buffer_size();
        let size = size.ok_or_else(|| PictureError::damaged(path, "it is too large"))?;
        let mut frame = vec![0; size];
        let info = reader.next_frame(&mut frame).map_err(damaged)?;
        frame.chunks_exact(info.line_size).take(info.height as usize).for_each(|row| {
            take_row(row, &mut planes);
        });
    } else {
        while let Some(row) = reader.next_row().map_err(damaged)? {
            take_row(row.data(), &mut planes);
        }
    }
    reader.finish().map_err(damaged)?;
    let picture = Raster { display: window, data: window, planes, metadata: Metadata::default() };
    Ok(orientation.upright(picture))
}

/// Appends the samples of a row to their planes.
fn take_row(row: &[u8], planes: &mut [Plane]) {
    let channels = planes.len();
    for (channel, plane) in planes.iter_mut().enumerate() {
        match &mut plane.samples {
            Samples::U16(samples) => samples.extend(
                row.chunks_exact(2 * channels)
                    .map(|pixel| u16::from_be_bytes([pixel[2 * channel], pixel[2 * channel + 1]])),
            ),
            Samples::U8(samples) => samples.extend(row.iter().skip(channel).step_by(channels)),
            Samples::F16(_) | Samples::F32(_) => {}
        }
    }
}

pub(crate) fn write(path: &Path, raster: &Raster) -> Result<(), PictureError> {
    let failed = |error: png::EncodingError| match error {
        png::EncodingError::IoError(source) => PictureError::Write { path: path.to_owned(), source },
        other => PictureError::unsupported(path, other.to_string()),
    };
    let io = |source| PictureError::Write { path: path.to_owned(), source };
    let planes = raster.colour_planes();
    let colour = match planes.len() {
        1 => png::ColorType::Grayscale,
        2 => png::ColorType::GrayscaleAlpha,
        3 => png::ColorType::Rgb,
        _ => png::ColorType::Rgba,
    };
    let wide = matches!(planes.first().map(|plane| &plane.samples), Some(Samples::U16(_)));
    let file = BufWriter::new(crate::file::create(path).map_err(io)?);
    let (width, height) = (raster.data.width, raster.data.height);
    let mut encoder = png::Encoder::new(file, width, height);
    encoder.set_color(colour);
    encoder.set_depth(if wide { png::BitDepth::Sixteen } else { png::BitDepth::Eight });
    // Staged and thrown away, or on its way to storage: time counts more than the last tenth of its size.
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header().map_err(failed)?;
    let bytes = if wide { 2 } else { 1 };
    let width = width as usize;
    let mut row = vec![0; width * planes.len() * bytes];
    let mut stream = writer.stream_writer().map_err(failed)?;
    for line in 0..height as usize {
        let at = line * width;
        for (channel, plane) in planes.iter().enumerate() {
            let places = row.chunks_exact_mut(planes.len() * bytes);
            match &plane.samples {
                Samples::U8(samples) => {
                    for (place, sample) in places.zip(&samples[at..at + width]) {
                        place[channel] = *sample;
                    }
                }
                Samples::U16(samples) => {
                    for (place, sample) in places.zip(&samples[at..at + width]) {
                        place[2 * channel..2 * channel + 2].copy_from_slice(&sample.to_be_bytes());
                    }
                }
                Samples::F16(_) | Samples::F32(_) => {
                    return Err(PictureError::unsupported(path, "PNG holds no floats"));
                }
            }
        }
        stream.write_all(&row).map_err(io)?;
    }
    stream.finish().map_err(failed)?;
    writer.finish().map_err(failed)
}
