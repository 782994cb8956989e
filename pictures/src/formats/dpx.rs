//! DPX (SMPTE ST 268), read only: RGB and RGBA of 8, 10, 12 and 16 bits, uncompressed, 10 and 12 bits padded to
//! words (method A or B). Samples are widened to 16 bits by repeating their high bits, so that white stays white.

use std::{
    fs::File,
    io::{BufReader, Read, Seek as _, SeekFrom},
    path::Path,
};

use hearth_workflows::format::PictureFormat;

use crate::{
    error::PictureError,
    file::{Picture, check_size},
    metadata::{Metadata, Rate, TimeCode},
    orientation::Orientation,
    raster::{Plane, Raster, Samples, Window},
};

/// Generic, film and television headers, and the first of them alone.
const HEADER: usize = 2048;
const GENERIC: usize = 1664;

/// Where the film header ends.
const FILM: usize = 1920;

/// Where the header that a field stands in ends.
fn section_end(field: usize) -> u64 {
    if field < FILM { FILM as u64 } else { HEADER as u64 }
}

struct Header {
    /// As it is stored.
    picture: Picture,
    /// Only mirrored or flipped, so that it has the same size.
    orientation: Orientation,
    metadata: Metadata,
    big_endian: bool,
    offset: u64,
    bits: u8,
    packing: u16,
    /// Bytes of a row, padding included.
    stride: usize,
}

impl Header {
    fn read(path: &Path, file: &mut BufReader<File>) -> Result<Self, PictureError> {
        let mut bytes = Vec::with_capacity(HEADER);
        (&mut *file).take(HEADER as u64).read_to_end(&mut bytes).map_err(PictureError::read(path))?;
        if bytes.len() < GENERIC {
            return Err(PictureError::Truncated { path: path.to_owned() });
        }
        bytes.resize(HEADER, 0xff);
        let big_endian = bytes.starts_with(b"SDPX");
        let four = |at: usize| {
            let four = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
            if big_endian { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) }
        };
        let two = |at: usize| {
            let two = [bytes[at], bytes[at + 1]];
            if big_endian { u16::from_be_bytes(two) } else { u16::from_le_bytes(two) }
        };
        let (width, height) = (four(772), four(776));
        let (descriptor, bits, packing, encoding) = (bytes[800], bytes[803], two(804), two(806));
        let channels = match descriptor {
            50 => 3,
            51 => 4,
            6 => 1,
            other => {
                return Err(PictureError::unsupported(path, format!("DPX of element kind {other}")));
            }
        };
        let orientation = match two(768) {
            0 | u16::MAX => Orientation::default(),
            // Lines of pixels: to the right or left, up or down, then columns of them.
            1 => Orientation::of_tag(2),
            2 => Orientation::of_tag(4),
            3 => Orientation::of_tag(3),
            other => {
                return Err(PictureError::unsupported(path, format!("DPX stored in columns ({other})")));
            }
        };
        if four(780) == 1 {
            return Err(PictureError::unsupported(path, "DPX of numbers with a sign"));
        }
        let packed = matches!(bits, 10 | 12) && packing == 0;
        if encoding != 0 || packed || !matches!(bits, 8 | 10 | 12 | 16) || two(770) != 1 {
            let what = "DPX that is run-length encoded, packed across words, of several elements, or of other than 8, 10, 12 or 16 bits";
            return Err(PictureError::unsupported(path, what));
        }
        check_size(path, u64::from(width), u64::from(height))?;
        let samples = width as usize * channels as usize;
        let stride = match bits {
            8 => samples.next_multiple_of(4),
            // Three samples in a word of 32 bits.
            10 => samples.div_ceil(3) * 4,
            _ => (2 * samples).next_multiple_of(4),
        };
        let element = four(808);
        let offset = u64::from(if element == 0 || element == u32::MAX { four(4) } else { element });
        if offset < GENERIC as u64 {
            return Err(PictureError::damaged(path, "its pixels begin within its header"));
        }
        let padding = four(812);
        let padding = if padding == u32::MAX { 0 } else { padding as usize };
        let plain = if bits == 8 { samples } else { 2 * samples };
        let rows = |stride: usize| offset + stride as u64 * u64::from(height);
        let length = file.get_ref().metadata().map_err(PictureError::read(path))?.len();
        // Rows end at a word of 32 bits; some programs, OpenImageIO among them, write them without that.
        let is_unpadded = bits != 10 && padding == 0 && length == rows(plain) && length < rows(stride);
        let stride = if is_unpadded { plain } else { stride + padding };
        if length < rows(stride) {
            return Err(PictureError::Truncated { path: path.to_owned() });
        }
        // Some begin their pixels where others have headers for film and television: what would be read there is
        // pixels.
        let known = |at: usize| {
            let is_there = at < GENERIC || four(28) != 0 && (at as u64) < offset && section_end(at) <= offset;
            Some(four(at)).filter(|word| *word != u32::MAX && is_there)
        };
        let rate = |at| known(at).and_then(|word| Rate::from_float(f32::from_bits(word)));
        let metadata = Metadata {
            time_code: known(1920).and_then(TimeCode::from_bcd),
            frame_rate: rate(1940).or_else(|| rate(1724)),
            pixel_aspect: match (known(1628), known(1632)) {
                (Some(across @ 1..), Some(down @ 1..)) => Some(across as f32 / down as f32),
                _ => None,
            },
        };
        let picture = Picture { format: PictureFormat::Dpx, width, height, channels };
        Ok(Self { picture, orientation, metadata, big_endian, offset, bits, packing, stride })
    }
}

pub(crate) fn look(path: &Path, file: &mut BufReader<File>) -> Result<(Picture, Metadata), PictureError> {
    let header = Header::read(path, file)?;
    Ok((header.picture, header.metadata))
}

pub(crate) fn read(path: &Path, file: &mut BufReader<File>) -> Result<Raster, PictureError> {
    let header = Header::read(path, file)?;
    file.seek(SeekFrom::Start(header.offset)).map_err(PictureError::read(path))?;
    let names: &[&str] = match header.picture.channels {
        1 => &["Y"],
        3 => &["R", "G", "B"],
        _ => &["R", "G", "B", "A"],
    };
    let window = Window::of_size(header.picture.width, header.picture.height);
    let mut planes = vec![Vec::with_capacity(window.pixels()); names.len()];
    let mut row = vec![0; header.stride];
    let mut samples = Vec::with_capacity(header.stride);
    for _ in 0..header.picture.height {
        file.read_exact(&mut row).map_err(PictureError::read(path))?;
        samples.clear();
        unpack(&header, &row, &mut samples);
        let pixels = samples.chunks_exact(names.len()).take(header.picture.width as usize);
        for pixel in pixels {
            planes.iter_mut().zip(pixel).for_each(|(plane, sample)| plane.push(*sample));
        }
    }
    let planes = names
        .iter()
        .zip(planes)
        .map(|(name, samples)| Plane { name: (*name).to_owned(), samples: Samples::U16(samples) })
        .collect();
    Ok(header.orientation.upright(Raster {
        display: window,
        data: window,
        planes,
        metadata: header.metadata,
    }))
}

/// The samples of a row, widened to 16 bits.
fn unpack(header: &Header, row: &[u8], samples: &mut Vec<u16>) {
    let two = |pair: &[u8]| {
        let pair = [pair[0], pair[1]];
        if header.big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) }
    };
    match header.bits {
        8 => samples.extend(row.iter().map(|sample| u16::from(*sample) * 257)),
        10 => samples.extend(row.chunks_exact(4).flat_map(|word| {
            let word = [word[0], word[1], word[2], word[3]];
            let word = if header.big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) };
            // Method A pads the low end of the word, method B the high end.
            let word = if header.packing == 1 { word >> 2 } else { word };
            // Of one channel the first sample lies lowest, of several highest (ST 268, annex C).
            let shifts = if header.picture.channels == 1 { [0, 10, 20] } else { [20, 10, 0] };
            shifts.map(|shift| {
                let sample = (word >> shift & 0x3ff) as u16;
                sample << 6 | sample >> 4
            })
        })),
        12 => samples.extend(row.chunks_exact(2).map(|pair| {
            let sample = if header.packing == 1 { two(pair) >> 4 } else { two(pair) & 0xfff };
            sample << 4 | sample >> 8
        })),
        _ => samples.extend(row.chunks_exact(2).map(two)),
    }
}
