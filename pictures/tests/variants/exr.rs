//! OpenEXR files, as OpenImageIO writes them, and, where it cannot, written byte by byte.

use std::{fs, path::Path};

use half::f16;

use super::scene::{HEIGHT, Truth, Variant, WIDTH, oiiotool, scene, with_float_tiff};

/// Kinds of samples, as the file has them.
const UINT: u32 = 0;
const HALF: u32 = 1;
const FLOAT: u32 = 2;

/// Uncompressed scan lines.
#[derive(Clone)]
struct Exr {
    /// Names, and which of the scene's channels they are.
    channels: Vec<(String, char)>,
    kind: u32,
    compression: u8,
    sampling: u32,
    deep: bool,
}

impl Exr {
    fn of(names: &[(&str, char)]) -> Self {
        let channels = names.iter().map(|(name, channel)| ((*name).to_owned(), *channel)).collect();
        Self { channels, kind: HALF, compression: 0, sampling: 1, deep: false }
    }

    fn write(&self, path: &Path) {
        let mut channels = self.channels.clone();
        channels.sort();
        let mut out = vec![0x76, 0x2f, 0x31, 0x01, 2, if self.deep { 8 } else { 0 }, 0, 0];
        let mut attribute = |name: &str, kind: &str, data: &[u8]| {
            out.extend(name.bytes().chain([0]).chain(kind.bytes()).chain([0]));
            out.extend((data.len() as u32).to_le_bytes());
            out.extend(data);
        };
        let mut list = Vec::new();
        for (name, _) in &channels {
            list.extend(name.bytes().chain([0]));
            list.extend(self.kind.to_le_bytes());
            list.extend([0; 4]);
            list.extend([self.sampling.to_le_bytes(), self.sampling.to_le_bytes()].concat());
        }
        list.push(0);
        let window: Vec<u8> =
            [0, 0, WIDTH as u32 - 1, HEIGHT as u32 - 1].iter().flat_map(|it| it.to_le_bytes()).collect();
        if self.deep {
            attribute("name", "string", b"deep");
            attribute("type", "string", b"deepscanline");
            attribute("version", "int", &1_u32.to_le_bytes());
            attribute("chunkCount", "int", &(HEIGHT as u32).to_le_bytes());
            attribute("maxSamplesPerPixel", "int", &1_u32.to_le_bytes());
        }
        attribute("channels", "chlist", &list);
        attribute("compression", "compression", &[self.compression]);
        attribute("dataWindow", "box2i", &window);
        attribute("displayWindow", "box2i", &window);
        attribute("lineOrder", "lineOrder", &[0]);
        attribute("pixelAspectRatio", "float", &1_f32.to_le_bytes());
        attribute("screenWindowCenter", "v2f", &[0; 8]);
        attribute("screenWindowWidth", "float", &1_f32.to_le_bytes());
        out.push(0);
        // What is compressed is not read; it has fewer blocks.
        let lines = if self.compression == 0 { 1 } else { HEIGHT };
        let blocks: Vec<Vec<u8>> = (0..HEIGHT).step_by(lines).map(|y| self.block(&channels, y)).collect();
        let mut at = out.len() + 8 * blocks.len();
        for block in &blocks {
            out.extend((at as u64).to_le_bytes());
            at += block.len();
        }
        out.extend(blocks.concat());
        fs::write(path, out).expect("written");
    }

    fn block(&self, channels: &[(String, char)], y: usize) -> Vec<u8> {
        let mut data = Vec::new();
        for (_, channel) in channels {
            for x in (0..WIDTH).step_by(self.sampling as usize) {
                let value = scene(*channel, x, y);
                match self.kind {
                    HALF => data.extend(f16::from_f64(value).to_le_bytes()),
                    FLOAT => data.extend((value as f32).to_le_bytes()),
                    _ => data.extend(((value * 255.0) as u32).to_le_bytes()),
                }
            }
        }
        if self.deep {
            // How many samples up to each pixel, and the samples, each with its size before it.
            let counts: Vec<u8> = (1..=WIDTH as u32).flat_map(u32::to_le_bytes).collect();
            let sizes = [counts.len(), data.len(), data.len()];
            let sizes: Vec<u8> = sizes.iter().flat_map(|size| (*size as u64).to_le_bytes()).collect();
            return [&(y as u32).to_le_bytes()[..], &sizes, &counts, &data].concat();
        }
        [&(y as u32).to_le_bytes()[..], &(data.len() as u32).to_le_bytes(), &data].concat()
    }
}

/// Half floats near 1, and what lossy kinds of compression leave.
const HALF_STEP: f64 = 1e-3;

fn by_oiio(name: String, truth: Truth, arguments: Vec<&'static str>) -> Variant {
    let channels = truth.channels;
    Variant::right("EXR", name, truth, move |path| {
        with_float_tiff(channels, path, |source| {
            let mut all = vec![source];
            all.extend(&arguments);
            let target = path.display().to_string();
            all.extend(["-o", &target]);
            oiiotool(&all);
        });
    })
}

pub(crate) fn all() -> Vec<Variant> {
    let mut all = Vec::new();
    for (compression, lossy, arguments) in [
        ("none", 0.0, &["--compression", "none"] as &'static [&'static str]),
        ("rle", 0.0, &["--compression", "rle"]),
        ("zips", 0.0, &["--compression", "zips"]),
        ("zip", 0.0, &["--compression", "zip"]),
        ("piz", 0.0, &["--compression", "piz"]),
        ("pxr24", 1e-4, &["--compression", "pxr24"]),
        ("b44", 0.15, &["--compression", "b44"]),
        ("b44a", 0.15, &["--compression", "b44a"]),
        ("dwaa", 0.05, &["--compression", "dwaa:10"]),
        ("dwab", 0.05, &["--compression", "dwab:10"]),
    ] {
        for kind in ["half", "float"] {
            let tolerance = if kind == "half" { HALF_STEP } else { 1e-6 };
            for tiled in [false, true] {
                let layout = if tiled { "tiles" } else { "lines" };
                let name = format!("{kind}, {compression}, {layout}");
                let truth = Truth::of("RGB", 0).within(tolerance + lossy);
                let mut all_arguments = vec!["-d", kind];
                all_arguments.extend(arguments);
                all_arguments.extend(if tiled { &["--tile", "16", "16"][..] } else { &[] });
                all.push(by_oiio(name, truth, all_arguments));
            }
        }
    }
    all.push(by_oiio("grey".to_owned(), Truth::of("Y", 0).within(HALF_STEP), vec!["-d", "half"]));
    let named = |names: &[(&str, char)], channels, tolerance| {
        let (exr, truth) = (Exr::of(names), Truth::of(channels, 0).within(tolerance));
        let list = names.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        Variant::right("EXR", format!("channels {list}"), truth, move |path| exr.write(path)).theirs(None)
    };
    for names in [
        &[("R", 'R'), ("G", 'G'), ("B", 'B')][..],
        &[("r", 'R'), ("g", 'G'), ("b", 'B')],
        &[("red", 'R'), ("green", 'G'), ("blue", 'B')],
        &[("Red", 'R'), ("Green", 'G'), ("Blue", 'B')],
        &[("LeR", 'R'), ("LeG", 'G'), ("LeB", 'B')],
        &[("beauty.R", 'R'), ("beauty.G", 'G'), ("beauty.B", 'B')],
        &[("beauty.r", 'R'), ("beauty.g", 'G'), ("beauty.b", 'B')],
        &[("beauty.red", 'R'), ("beauty.green", 'G'), ("beauty.blue", 'B')],
        &[("image_r", 'R'), ("image_g", 'G'), ("image_b", 'B')],
        &[("View.Combined.R", 'R'), ("View.Combined.G", 'G'), ("View.Combined.B", 'B')],
        &[("X", 'R'), ("Y", 'G'), ("Z", 'B')],
        &[("N.X", 'R'), ("N.Y", 'G'), ("N.Z", 'B')],
        &[("albedo.R", 'B'), ("albedo.G", 'R'), ("albedo.B", 'G'), ("R", 'R'), ("G", 'G'), ("B", 'B')],
        &[
            ("albedo.R", 'B'),
            ("albedo.G", 'R'),
            ("albedo.B", 'G'),
            ("beauty.R", 'R'),
            ("beauty.G", 'G'),
            ("beauty.B", 'B'),
        ],
        &[("R", 'R'), ("G", 'G'), ("B", 'B'), ("Z", 'Y'), ("mask", 'A')],
    ] {
        all.push(named(names, "RGB", HALF_STEP));
    }
    for names in [
        &[("R", 'R'), ("G", 'G'), ("B", 'B'), ("A", 'A')][..],
        &[("r", 'R'), ("g", 'G'), ("b", 'B'), ("a", 'A')],
        &[("beauty.red", 'R'), ("beauty.green", 'G'), ("beauty.blue", 'B'), ("beauty.alpha", 'A')],
    ] {
        all.push(named(names, "RGBA", HALF_STEP));
    }
    all.push(named(&[("Y", 'Y')], "Y", HALF_STEP));
    all.push(named(&[("Y", 'Y'), ("A", 'A')], "YA", HALF_STEP));
    for (name, names) in [
        ("R and G alone", &[("R", 'R'), ("G", 'G')][..]),
        ("R and A alone", &[("R", 'R'), ("A", 'A')]),
        ("two masks", &[("hair", 'R'), ("skin", 'G')]),
    ] {
        let exr = Exr::of(names);
        all.push(Variant::refused("EXR", name, "none of which", move |path| exr.write(path)));
    }
    let rgb = Exr::of(&[("R", 'R'), ("G", 'G'), ("B", 'B')]);
    for (name, word, exr) in [
        ("luma and chroma", "luma and chroma", Exr::of(&[("Y", 'Y'), ("RY", 'R'), ("BY", 'B')])),
        ("whole numbers", "whole numbers", Exr { kind: UINT, ..rgb.clone() }),
        ("subsampled colours", "subsampled", Exr { sampling: 2, ..Exr::of(&[("Y", 'Y')]) }),
        ("HTJ2K of 256 lines", "HTJ2K", Exr { compression: 10, ..rgb.clone() }),
        ("HTJ2K of 32 lines", "HTJ2K", Exr { compression: 11, ..rgb.clone() }),
    ] {
        all.push(Variant::refused("EXR", name, word, move |path| exr.write(path)));
    }
    let deep = Exr { deep: true, ..rgb.clone() };
    all.push(Variant::refused("EXR", "deep", "deep", move |path| deep.write(path)));
    all.push(
        Variant::right(
            "EXR",
            "depth in the first part, colours in the second",
            Truth::of("RGB", 0).within(HALF_STEP),
            |path| {
                let (depth, source) = (path.with_extension("depth.tif"), path.with_extension("source.tif"));
                super::tiff::Tiff { channels: "Y", bits: 32, kind: 3, ..super::tiff::Tiff::default() }
                    .write(&depth);
                super::tiff::Tiff { bits: 32, kind: 3, ..super::tiff::Tiff::default() }.write(&source);
                oiiotool(&[
                    &depth.display().to_string(),
                    "--chnames",
                    "Z",
                    "--attrib",
                    "oiio:subimagename",
                    "depth",
                    &source.display().to_string(),
                    "--attrib",
                    "oiio:subimagename",
                    "beauty",
                    "--siappend",
                    "-d",
                    "half",
                    "-o",
                    &path.display().to_string(),
                ]);
            },
        )
        .theirs(Some(&["--subimage", "1"])),
    );
    let turned = Exr { kind: FLOAT, ..rgb };
    all.push(Variant::right(
        "EXR",
        "float, written without any library",
        Truth::of("RGB", 0).within(1e-6),
        move |path| {
            turned.write(path);
        },
    ));
    all
}
