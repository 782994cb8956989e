//! TIFF files, written tag by tag.

use std::{collections::BTreeMap, fs, path::Path};

use half::f16;

use super::{
    png::{push_bits, stored_zlib},
    scene::{Truth, Variant, oiiotool, scene, step, stored, upright, with_float_tiff},
};

#[derive(Clone)]
pub(crate) struct Tiff {
    pub(crate) channels: &'static str,
    pub(crate) big_endian: bool,
    pub(crate) big: bool,
    pub(crate) bits: u16,
    /// 1: whole numbers, 2: with a sign, 3: floats.
    pub(crate) kind: u16,
    pub(crate) compression: u16,
    pub(crate) predictor: u16,
    pub(crate) planar: bool,
    /// Pixels of a tile's side; `None`: strips.
    pub(crate) tile: Option<usize>,
    pub(crate) rows_per_strip: usize,
    pub(crate) associated: bool,
    pub(crate) inverted: bool,
    pub(crate) orientation: u16,
    /// A small picture comes first.
    pub(crate) thumbnail: bool,
    /// Tags that say something else.
    pub(crate) tags: Vec<(u16, Vec<u64>)>,
}

impl Default for Tiff {
    fn default() -> Self {
        Self {
            channels: "RGB",
            big_endian: false,
            big: false,
            bits: 8,
            kind: 1,
            compression: 1,
            predictor: 1,
            planar: false,
            tile: None,
            rows_per_strip: 5,
            associated: false,
            inverted: false,
            orientation: 1,
            thumbnail: false,
            tags: Vec::new(),
        }
    }
}

/// LZW without a single repetition: codes of nine bits, cleared before they would need ten.
fn lzw(bytes: &[u8], reversed: bool) -> Vec<u8> {
    let clear_and =
        bytes.chunks(250).flat_map(|some| [256].into_iter().chain(some.iter().map(|it| u32::from(*it))));
    let codes: Vec<u32> = clear_and.chain([257]).collect();
    let (mut out, mut used) = (Vec::new(), 0_usize);
    for code in codes {
        if reversed {
            for bit in 0..9 {
                if used.is_multiple_of(8) {
                    out.push(0);
                }
                *out.last_mut().expect("a byte") |= ((code >> bit & 1) as u8) << (used % 8);
                used += 1;
            }
        } else {
            push_bits(&mut out, &mut used, code, 9);
        }
    }
    out
}

fn pack_bits(bytes: &[u8]) -> Vec<u8> {
    bytes
        .chunks(128)
        .flat_map(|some| [some.len() as u8 - 1].into_iter().chain(some.iter().copied()))
        .collect()
}

impl Tiff {
    fn value(&self, channel: char, x: usize, y: usize) -> f64 {
        let (x, y) = upright(self.orientation, x, y);
        let value = scene(channel, x, y);
        match channel {
            'R' | 'G' | 'B' | 'Y' if self.associated => value * scene('A', x, y),
            'Y' if self.inverted => 1.0 - value,
            _ => value,
        }
    }

    /// A row of one chunk: samples of `channels` from `x` on.
    fn row(&self, channels: &str, x: usize, width: usize, y: usize) -> Vec<u8> {
        let (stored_width, stored_height) = stored(self.orientation);
        let bytes = |little: &[u8]| -> Vec<u8> {
            if self.big_endian { little.iter().rev().copied().collect() } else { little.to_vec() }
        };
        let (mut row, mut used) = (Vec::new(), 0);
        let mut before: Vec<u32> = vec![0; channels.len()];
        for x in x..x + width {
            for (index, channel) in channels.chars().enumerate() {
                // Tiles reach over the edge.
                let is_in = x < stored_width && y < stored_height;
                let value = if is_in { self.value(channel, x, y) } else { 0.0 };
                match (self.kind, self.bits) {
                    (3, 16) => row.extend(bytes(&f16::from_f64(value).to_le_bytes())),
                    (3, 32) => row.extend(bytes(&(value as f32).to_le_bytes())),
                    (3, _) => row.extend(bytes(&value.to_le_bytes())),
                    (_, bits @ 1..=16) => {
                        let most = (1_u32 << bits) - 1;
                        let sample = step(value, most);
                        let kept = if self.predictor == 2 {
                            sample.wrapping_sub(before[index]) & most
                        } else {
                            sample
                        };
                        before[index] = sample;
                        match bits {
                            8 => row.push(kept as u8),
                            16 => row.extend(bytes(&(kept as u16).to_le_bytes())),
                            _ => push_bits(&mut row, &mut used, kept, usize::from(bits)),
                        }
                    }
                    _ => row.extend(bytes(&step(value, u32::MAX).to_le_bytes())),
                }
            }
        }
        row
    }

    fn chunks(&self) -> Vec<Vec<u8>> {
        let (width, height) = stored(self.orientation);
        let planes: Vec<String> = if self.planar {
            self.channels.chars().map(String::from).collect()
        } else {
            vec![self.channels.to_owned()]
        };
        let mut all = Vec::new();
        for plane in &planes {
            if let Some(side) = self.tile {
                for y in (0..height).step_by(side) {
                    for x in (0..width).step_by(side) {
                        all.push((y..y + side).flat_map(|y| self.row(plane, x, side, y)).collect());
                    }
                }
            } else {
                for y in (0..height).step_by(self.rows_per_strip) {
                    let rows = y..(y + self.rows_per_strip).min(height);
                    all.push(rows.flat_map(|y| self.row(plane, 0, width, y)).collect());
                }
            }
        }
        all.into_iter()
            .map(|chunk: Vec<u8>| match self.compression {
                5 => lzw(&chunk, false),
                8 | 32_946 => stored_zlib(&chunk),
                32_773 => pack_bits(&chunk),
                _ => chunk,
            })
            .collect()
    }

    pub(crate) fn write(&self, path: &Path) {
        self.write_chunks(path, &self.chunks());
    }

    fn write_chunks(&self, path: &Path, chunks: &[Vec<u8>]) {
        let mut out = self.number(if self.big_endian { 0x4d4d } else { 0x4949 }, 2);
        if self.big {
            out.extend([self.number(43, 2), self.number(8, 2), self.number(0, 2)].concat());
        } else {
            out.extend(self.number(42, 2));
        }
        let wide = if self.big { 8 } else { 4 };
        let first = out.len();
        out.extend(self.number(0, wide));
        let mut link = first;
        if self.thumbnail {
            let small = [
                (254, vec![1]),
                (256, vec![1]),
                (257, vec![1]),
                (258, vec![8]),
                (262, vec![1]),
                (277, vec![1]),
            ];
            let strips = [vec![7_u8]];
            link = self.directory(&mut out, link, small.into_iter().collect(), &strips);
        }
        let (width, height) = stored(self.orientation);
        let count = self.channels.len();
        let has_alpha = self.channels.contains('A');
        let photometric = if self.channels.contains('R') { 2 } else { u64::from(!self.inverted) };
        let mut tags: BTreeMap<u16, Vec<u64>> = [
            (256, vec![width as u64]),
            (257, vec![height as u64]),
            (258, vec![u64::from(self.bits); count]),
            (259, vec![u64::from(self.compression)]),
            (262, vec![photometric]),
            (274, vec![u64::from(self.orientation)]),
            (277, vec![count as u64]),
            (284, vec![if self.planar { 2 } else { 1 }]),
            (339, vec![u64::from(self.kind); count]),
        ]
        .into();
        if self.predictor != 1 {
            tags.insert(317, vec![u64::from(self.predictor)]);
        }
        if has_alpha {
            tags.insert(338, vec![if self.associated { 1 } else { 2 }]);
        }
        if let Some(side) = self.tile {
            tags.extend([(322, vec![side as u64]), (323, vec![side as u64])]);
        } else {
            tags.insert(278, vec![self.rows_per_strip as u64]);
        }
        tags.extend(self.tags.iter().cloned());
        self.directory(&mut out, link, tags, chunks);
        fs::write(path, out).expect("written");
    }

    fn number(&self, value: u64, bytes: usize) -> Vec<u8> {
        let mut all = value.to_le_bytes()[..bytes].to_vec();
        if self.big_endian {
            all.reverse();
        }
        all
    }

    /// Appends pixels and tags, and has `link` point to them; where the next such link belongs.
    fn directory(
        &self,
        out: &mut Vec<u8>,
        link: usize,
        mut tags: BTreeMap<u16, Vec<u64>>,
        chunks: &[Vec<u8>],
    ) -> usize {
        let offsets = chunks.iter().map(|chunk| {
            let at = out.len() as u64;
            out.extend(chunk);
            if out.len() % 2 == 1 {
                out.push(0);
            }
            at
        });
        let offsets: Vec<u64> = offsets.collect();
        let counts = chunks.iter().map(|chunk| chunk.len() as u64).collect();
        let (at, lengths) = if self.tile.is_some() { (324, 325) } else { (273, 279) };
        tags.extend([(at, offsets), (lengths, counts)]);
        let wide = if self.big { 8 } else { 4 };
        let mut entries = self.number(tags.len() as u64, if self.big { 8 } else { 2 });
        for (tag, values) in tags {
            let (code, size) = if matches!(tag, 273 | 279 | 324 | 325) { (4, 4) } else { (3, 2) };
            let mut data: Vec<u8> = values.iter().flat_map(|value| self.number(*value, size)).collect();
            if data.len() > wide {
                let at = out.len() as u64;
                out.extend(&data);
                data = self.number(at, wide);
            }
            data.resize(wide, 0);
            entries.extend([self.number(u64::from(tag), 2), self.number(code, 2)].concat());
            entries.extend([self.number(values.len() as u64, wide), data].concat());
        }
        let at = self.number(out.len() as u64, wide);
        out[link..link + wide].copy_from_slice(&at);
        out.extend(entries);
        let next = out.len();
        out.extend(self.number(0, wide));
        next
    }
}

/// The truth in the precision of the file's samples.
fn truth(tiff: &Tiff) -> Truth {
    match (tiff.kind, tiff.bits) {
        (3, 16) => Truth::of(tiff.channels, 0).within(1e-3),
        (3, _) => Truth::of(tiff.channels, 0).within(1e-6),
        (_, bits) => {
            let most = (1 << bits) - 1;
            let truth = Truth::of(tiff.channels, most);
            // Twice rounded, and divided by a half at least.
            if tiff.associated { truth.within(2.5 / f64::from(most)) } else { truth }
        }
    }
}

fn kind_name(tiff: &Tiff) -> String {
    if tiff.kind == 3 { format!("{}-bit floats", tiff.bits) } else { format!("{} bits", tiff.bits) }
}

fn refused() -> Vec<Variant> {
    let mut all = Vec::new();
    let mut add = |name: &str, word: &'static str, tiff: Tiff| {
        all.push(Variant::refused("TIFF", name, word, move |path| tiff.write(path)));
    };
    for (bits, word) in
        [(1, "1 bits"), (2, "2 bits"), (4, "4 bits"), (10, "10 bits"), (12, "12 bits"), (14, "14 bits")]
    {
        add(&format!("grey, {bits} bits"), word, Tiff { channels: "Y", bits, ..Tiff::default() });
    }
    add("RGB, 12 bits", "12 bits", Tiff { bits: 12, ..Tiff::default() });
    add("RGB, 32 bits", "32 bits", Tiff { bits: 32, ..Tiff::default() });
    add("RGB, 64-bit floats", "64-bit floats", Tiff { bits: 64, kind: 3, ..Tiff::default() });
    for bits in [8, 16] {
        add(
            &format!("RGB, {bits} bits with a sign"),
            "with a sign",
            Tiff { bits, kind: 2, ..Tiff::default() },
        );
    }
    let says = |tags: &[(u16, u64)]| Tiff {
        tags: tags.iter().map(|(tag, value)| (*tag, vec![*value])).collect(),
        ..Tiff::default()
    };
    let complex = Tiff { bits: 64, tags: vec![(339, vec![6; 3])], ..Tiff::default() };
    add("complex numbers", "complex", complex);
    add("palette", "palette", Tiff { channels: "Y", ..says(&[(262, 3)]) });
    add("transparency mask", "photometric interpretation", Tiff { channels: "Y", ..says(&[(262, 4)]) });
    add("CMYK", "CMYK", Tiff { channels: "RGBA", ..says(&[(262, 5)]) });
    add("YCbCr", "YCbCr", says(&[(262, 6)]));
    add("CIE L*a*b*", "L*a*b*", says(&[(262, 8)]));
    add("ICC L*a*b*", "L*a*b*", says(&[(262, 9)]));
    add("LogL", "photometric interpretation", Tiff { channels: "Y", ..says(&[(262, 32_844)]) });
    add("LogLuv", "photometric interpretation", says(&[(262, 32_845)]));
    add(
        "colour filter array",
        "photometric interpretation",
        Tiff { channels: "Y", ..says(&[(262, 32_803)]) },
    );
    for (name, value, word) in [
        ("CCITT RLE", 2, "CCITT"),
        ("CCITT group 3", 3, "CCITT"),
        ("CCITT group 4", 4, "CCITT"),
        ("old JPEG", 6, "JPEG"),
        ("JPEG", 7, "JPEG"),
        ("JPEG 2000", 34_712, "JPEG 2000"),
        ("LERC", 34_887, "LERC"),
        ("LZMA", 34_925, "LZMA"),
        ("ZSTD", 50_000, "ZSTD"),
        ("WebP", 50_001, "WebP"),
        ("an unknown number", 60_000, "60000"),
    ] {
        add(&format!("compressed as {name}"), word, says(&[(259, value)]));
    }
    add("bits in reverse order", "reverse", says(&[(266, 2)]));
    add(
        "channels of several bits",
        "inconsistent bits per sample",
        Tiff { tags: vec![(258, vec![8, 16, 8])], ..Tiff::default() },
    );
    add(
        "five channels",
        "5 channels",
        Tiff { channels: "RGBRG", tags: vec![(338, vec![0, 0])], ..Tiff::default() },
    );
    add(
        "grey and something that is no alpha",
        "none is alpha",
        Tiff { channels: "YA", tags: vec![(338, vec![0])], ..Tiff::default() },
    );
    let odd = Tiff { tile: Some(24), ..Tiff::default() };
    add("tiles of 24 pixels", "no multiple of 16", odd);
    all.push(Variant::refused("TIFF", "compressed as LZW was before TIFF 6.0", "before TIFF 6.0", |path| {
        let plain = Tiff::default();
        let chunks: Vec<Vec<u8>> = plain.chunks().iter().map(|chunk| lzw(chunk, true)).collect();
        Tiff { compression: 5, ..plain }.write_chunks(path, &chunks);
    }));
    all
}

pub(crate) fn all() -> Vec<Variant> {
    let mut all = Vec::new();
    let mut add = |name: String, theirs: Option<&'static [&'static str]>, tiff: Tiff| {
        let variant = Variant::right("TIFF", name, truth(&tiff), move |path| tiff.write(path));
        all.push(variant.theirs(theirs));
    };
    let plain = |bits, kind| Tiff { bits, kind, ..Tiff::default() };
    let kinds = [plain(8, 1), plain(16, 1), plain(16, 3), plain(32, 3)];
    for tiff in &kinds {
        let kind = kind_name(tiff);
        for (channels, name) in [("Y", "grey"), ("YA", "grey and alpha"), ("RGB", "RGB"), ("RGBA", "RGBA")] {
            add(format!("{name}, {kind}"), Some(&[]), Tiff { channels, ..tiff.clone() });
        }
        add(format!("RGB, {kind}, big-endian"), Some(&[]), Tiff { big_endian: true, ..tiff.clone() });
        add(format!("RGB, {kind}, planar"), Some(&[]), Tiff { planar: true, ..tiff.clone() });
        add(
            format!("RGBA, {kind}, planar, big-endian"),
            Some(&[]),
            Tiff { channels: "RGBA", planar: true, big_endian: true, ..tiff.clone() },
        );
        add(format!("RGB, {kind}, tiles"), Some(&[]), Tiff { tile: Some(16), ..tiff.clone() });
        add(
            format!("RGBA, {kind}, planar tiles"),
            Some(&[]),
            Tiff { channels: "RGBA", planar: true, tile: Some(16), ..tiff.clone() },
        );
        add(
            format!("RGBA, {kind}, alpha multiplied into the colours"),
            Some(&["--unpremult"]),
            Tiff { channels: "RGBA", associated: true, ..tiff.clone() },
        );
        for (name, compression) in
            [("packed bits", 32_773), ("LZW", 5), ("ZIP", 8), ("ZIP as Adobe had it", 32_946)]
        {
            add(format!("RGB, {kind}, {name}"), Some(&[]), Tiff { compression, ..tiff.clone() });
        }
    }
    for tiff in &kinds[..2] {
        let kind = kind_name(tiff);
        for (name, compression) in [("LZW", 5), ("ZIP", 8)] {
            add(
                format!("RGB, {kind}, {name} of differences"),
                Some(&[]),
                Tiff { compression, predictor: 2, ..tiff.clone() },
            );
        }
        add(
            format!("RGBA, {kind}, LZW of differences, planar tiles"),
            Some(&[]),
            Tiff {
                channels: "RGBA",
                compression: 5,
                predictor: 2,
                planar: true,
                tile: Some(16),
                ..tiff.clone()
            },
        );
        add(
            format!("grey, {kind}, white is 0"),
            // It forgets that of 16 bits.
            if tiff.bits == 8 { Some(&[]) } else { None },
            Tiff { channels: "Y", inverted: true, ..tiff.clone() },
        );
        add(
            format!("grey and alpha, {kind}, alpha multiplied into the grey"),
            Some(&["--unpremult"]),
            Tiff { channels: "YA", associated: true, ..tiff.clone() },
        );
        add(format!("RGB, {kind}, BigTIFF"), Some(&[]), Tiff { big: true, ..tiff.clone() });
        add(
            format!("RGB, {kind}, BigTIFF, big-endian"),
            Some(&[]),
            Tiff { big: true, big_endian: true, ..tiff.clone() },
        );
    }
    for orientation in 2..=8 {
        add(
            format!("turned or mirrored (orientation {orientation})"),
            // It takes the two that are turned and mirrored for one another.
            if matches!(orientation, 5 | 7) { None } else { Some(&[]) },
            Tiff { orientation, ..Tiff::default() },
        );
    }
    add(
        "turned, planar tiles (orientation 6)".to_owned(),
        Some(&[]),
        Tiff { orientation: 6, planar: true, tile: Some(16), ..Tiff::default() },
    );
    add("a thumbnail comes first".to_owned(), None, Tiff { thumbnail: true, ..Tiff::default() });
    add("one row in a strip".to_owned(), Some(&[]), Tiff { rows_per_strip: 1, ..Tiff::default() });
    add("all rows in one strip".to_owned(), Some(&[]), Tiff { rows_per_strip: 1000, ..Tiff::default() });
    for (name, compression) in [("LZW", "lzw"), ("ZIP", "zip")] {
        let name = format!("RGB, 32-bit floats, {name} of differences, as OpenImageIO writes it");
        all.push(Variant::right("TIFF", name, Truth::of("RGB", 0).within(1e-6), move |path| {
            with_float_tiff("RGB", path, |source| {
                oiiotool(&[
                    source,
                    "--compression",
                    compression,
                    "-d",
                    "float",
                    "-o",
                    &path.display().to_string(),
                ]);
            });
        }));
    }
    all.extend(refused());
    all
}
