//! One picture file: its kind, and whether it is whole.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// Size and kind of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picture {
    pub width: u32,
    pub height: u32,
    pub channels: u8,
    /// Bits of a channel: 8 or 16 (fewer count as 8).
    pub bits: u8,
}

/// Why a picture cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is empty (0 bytes)")]
    Empty { path: PathBuf },
    #[error("{path} is no PNG file")]
    NotPng { path: PathBuf },
    #[error("{path} is cut off: its end is missing")]
    Truncated { path: PathBuf },
    #[error("{path} is damaged: {reason}")]
    Damaged { path: PathBuf, reason: String },
}

const SIGNATURE: &[u8; 8] = b"\x89PNG\r\n\x1a\n";

/// Length, type and checksum of the chunk that ends every PNG.
const END: &[u8; 12] = b"\0\0\0\0IEND\xae\x42\x60\x82";

/// Looks at head and tail of a PNG: cheap enough for every frame of a clip, and finds every file that a
/// copy or a render has not finished.
pub fn inspect(path: &Path) -> Result<Picture, PictureError> {
    let read = |source| PictureError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(read)?;
    let length = file.metadata().map_err(read)?.len();
    if length == 0 {
        return Err(PictureError::Empty { path: path.to_owned() });
    }
    let mut head = [0; 33];
    let got = read_up_to(&mut file, &mut head).map_err(read)?;
    if !head[..got].starts_with(&SIGNATURE[..got.min(8)]) {
        return Err(PictureError::NotPng { path: path.to_owned() });
    }
    if got < head.len() || length < (head.len() + END.len()) as u64 {
        return Err(PictureError::Truncated { path: path.to_owned() });
    }
    if &head[12..16] != b"IHDR" {
        return Err(PictureError::NotPng { path: path.to_owned() });
    }
    let mut tail = [0; 12];
    file.seek(SeekFrom::End(-12)).map_err(read)?;
    file.read_exact(&mut tail).map_err(read)?;
    if &tail != END {
        return Err(PictureError::Truncated { path: path.to_owned() });
    }
    let number = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let channels = match head[25] {
        0 => 1,
        4 => 2,
        6 => 4,
        // True colour, and palettes, which stand for it.
        _ => 3,
    };
    let bits = if head[24] == 16 { 16 } else { 8 };
    Ok(Picture { width: number(16), height: number(20), channels, bits })
}

/// Decodes the whole picture, checksums included.
pub fn decode(path: &Path) -> Result<Picture, PictureError> {
    let picture = inspect(path)?;
    let file = File::open(path).map_err(|source| PictureError::Read { path: path.to_owned(), source })?;
    let damaged = |error: png::DecodingError| PictureError::Damaged {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let mut reader = png::Decoder::new(BufReader::new(file)).read_info().map_err(damaged)?;
    while reader.next_row().map_err(damaged)?.is_some() {}
    reader.finish().map_err(damaged)?;
    Ok(picture)
}

fn read_up_to(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read(&mut buffer[got..])? {
            0 => break,
            more => got += more,
        }
    }
    Ok(got)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(bits: png::BitDepth) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 7, 5);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(bits);
        let width = if bits == png::BitDepth::Sixteen { 2 } else { 1 };
        let mut writer = encoder.write_header().expect("header");
        writer.write_image_data(&vec![77; 7 * 5 * 3 * width]).expect("data");
        writer.finish().expect("end");
        bytes
    }

    #[test]
    fn a_whole_png_is_told_from_a_cut_or_damaged_one() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("p.png");
        let whole = png(png::BitDepth::Sixteen);
        std::fs::write(&path, &whole).expect("write");
        let picture = decode(&path).expect("whole");
        assert_eq!(picture, Picture { width: 7, height: 5, channels: 3, bits: 16 });
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).expect("write");
            assert!(inspect(&path).is_err(), "cut at {cut} of {}", whole.len());
        }
        let mut flipped = whole.clone();
        flipped[50] ^= 0xff;
        std::fs::write(&path, &flipped).expect("write");
        assert!(matches!(decode(&path), Err(PictureError::Damaged { .. })));
        std::fs::write(&path, b"GIF89a and more than thirty-three bytes of it, surely").expect("write");
        assert!(matches!(inspect(&path), Err(PictureError::NotPng { .. })));
    }
}
