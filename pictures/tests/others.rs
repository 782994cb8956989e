//! What other programs write is read here, and what is written here others read: OpenImageIO and ffmpeg.

#![allow(clippy::float_cmp, reason = "equal to the bit is what is meant")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use hearth_pictures::{
    Alpha, Converter, Effort, Metadata, OnTheWay, PictureError, Plane, Raster, Samples, ViewStep, Window,
    inspect, look, read, verify, write,
};
use hearth_workflows::{
    View,
    format::{ColourSpace, Encoding, PictureFormat},
};

/// Runs a program; its text.
fn run(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed for this test (tests/run installs it): {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(done.status.success(), "{program} {arguments:?}: {}{}", text(&done.stdout), text(&done.stderr));
    text(&done.stdout)
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("tempdir"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

/// Numbers of a plane.
fn numbers(raster: &Raster, name: &str) -> Vec<f32> {
    match &raster.plane(name).unwrap_or_else(|| panic!("channel {name}")).samples {
        Samples::U8(samples) => samples.iter().map(|sample| f32::from(*sample) / 255.0).collect(),
        Samples::U16(samples) => samples.iter().map(|sample| f32::from(*sample) / 65535.0).collect(),
        Samples::F16(samples) => samples.iter().map(|sample| sample.to_f32()).collect(),
        Samples::F32(samples) => samples.clone(),
    }
}

fn furthest(a: &Raster, b: &Raster, names: &[&str]) -> f32 {
    let pairs = names.iter().flat_map(|name| {
        let (a, b) = (numbers(a, name), numbers(b, name));
        assert_eq!(a.len(), b.len(), "{name}");
        a.into_iter().zip(b)
    });
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

const RGB: [&str; 3] = ["R", "G", "B"];
const RGBA: [&str; 4] = ["R", "G", "B", "A"];

/// A picture with ramps, noise, and values below 0 and above 1.
fn made_by_oiio(folder: &Folder, channels: &str) -> String {
    let file = folder.text("made.exr");
    let ramp = "fill:topleft=-0.1,0,0,0:topright=1.5,0.2,0,1:bottomleft=0,1,0.5,0.5:bottomright=0.1,0.3,3,1";
    let arguments = [
        "--pattern",
        ramp,
        "61x47",
        "4",
        "--noise:type=gaussian:mean=0:stddev=0.01:seed=3",
        "--ch",
        channels,
        "-d",
        "half",
        "-o",
        &file,
    ];
    run("oiiotool", &arguments);
    file
}

#[test]
fn every_format_that_openimageio_writes_is_read_to_the_bit() {
    let folder = Folder::new();
    let made = made_by_oiio(&folder, "R,G,B,A");
    let reference = read(Path::new(&made)).expect("half EXR");
    assert_eq!(inspect(Path::new(&made)).expect("kind").format, PictureFormat::ExrHalf);
    assert!(numbers(&reference, "R").iter().any(|number| *number > 1.0), "floats above 1 survive");
    for compression in ["none", "rle", "zips", "zip", "piz"] {
        for kind in ["half", "float"] {
            for tiles in [&[][..], &["--tile", "16", "16"]] {
                let file = folder.text(&format!("{compression}-{kind}-{}.exr", tiles.len()));
                let mut arguments = vec![made.as_str()];
                arguments.extend(tiles);
                arguments.extend(["--compression", compression, "-d", kind, "-o", &file]);
                run("oiiotool", &arguments);
                let found = read(Path::new(&file)).unwrap_or_else(|error| panic!("{file}: {error:?}"));
                assert_eq!(furthest(&found, &reference, &RGBA), 0.0, "{file}");
                verify(Path::new(&file)).expect("whole");
            }
        }
    }
    // Float TIFF holds the same numbers; the integer ones the nearest.
    for (kind, format, step) in [
        ("float", PictureFormat::TiffFloat, 0.0),
        ("uint16", PictureFormat::Tiff16, 0.5 / 65535.0),
        ("uint8", PictureFormat::Tiff8, 0.5 / 255.0),
    ] {
        for compression in ["none", "lzw", "zip"] {
            let file = folder.text(&format!("{kind}-{compression}.tif"));
            let arguments = [
                &made,
                "--ch",
                "R,G,B",
                "--clamp:min=0:max=1",
                "--compression",
                compression,
                "-d",
                kind,
                "-o",
                &file,
            ];
            run("oiiotool", &arguments);
            let picture = verify(Path::new(&file)).unwrap_or_else(|error| panic!("{file}: {error:?}"));
            assert_eq!((picture.format, picture.width, picture.height), (format, 61, 47), "{file}");
            let found = read(Path::new(&file)).expect("read");
            let clamped = folder.text("clamped.exr");
            run("oiiotool", &[&made, "--clamp:min=0:max=1", "-d", "float", "-o", &clamped]);
            let clamped = read(Path::new(&clamped)).expect("read");
            let off = furthest(&found, &clamped, &RGB);
            assert!(off <= step * 1.01, "{file} is {off} off");
        }
    }
}

#[test]
fn what_is_written_here_openimageio_reads_to_the_bit() {
    let folder = Folder::new();
    let made = made_by_oiio(&folder, "R,G,B,A");
    let picture = read(Path::new(&made)).expect("read");
    let from = Encoding { format: PictureFormat::ExrHalf, colour: ColourSpace::Data };
    for format in [
        PictureFormat::ExrHalf,
        PictureFormat::ExrFloat,
        PictureFormat::Tiff8,
        PictureFormat::Tiff16,
        PictureFormat::TiffFloat,
        PictureFormat::Png8,
        PictureFormat::Png16,
    ] {
        let converted = match Converter::new(from, Encoding { format, colour: ColourSpace::Data }) {
            Some(converter) => converter.convert(&picture),
            None => picture.clone(),
        };
        let ours = folder.path(&format!("ours-{format}.{}", format.extension()));
        write(&ours, &converted, format, Effort::Small).expect("written");
        assert_eq!(inspect(&ours).expect("kind").format, format);
        assert_eq!(read(&ours).expect("read").planes, converted.planes, "{format}: read back as written");
        // OpenImageIO reads it and writes it as floats, which are read here again.
        let back = folder.text("back.tif");
        run(
            "oiiotool",
            &[
                "--iconfig",
                "oiio:UnassociatedAlpha",
                "1",
                &ours.display().to_string(),
                // With alpha it would be multiplied by it.
                "--ch",
                "R,G,B",
                "-d",
                "float",
                "-o",
                &back,
            ],
        );
        let back = read(Path::new(&back)).expect("read");
        assert!(furthest(&back, &converted, &RGB) <= 1e-7, "{format}");
    }
}

#[test]
fn windows_layers_and_metadata_of_an_exr_are_understood() {
    let folder = Folder::new();
    let file = folder.text("window.exr");
    run(
        "oiiotool",
        &[
            "--pattern",
            "constant:color=0.25,0.5,2",
            "40x30",
            "3",
            "--origin",
            "+10-5",
            "--fullsize",
            "64x48+0+0",
            "--attrib:type=timecode",
            "smpte:TimeCode",
            "01:02:03:04",
            "--attrib:type=rational",
            "framesPerSecond",
            "24000/1001",
            "--attrib:type=float",
            "PixelAspectRatio",
            "2",
            "-d",
            "half",
            "-o",
            &file,
        ],
    );
    let (picture, metadata) = look(Path::new(&file)).expect("header");
    assert_eq!((picture.width, picture.height, picture.channels), (64, 48, 3));
    assert_eq!(metadata.time_code.expect("a time code").to_string(), "01:02:03:04");
    let rate = metadata.frame_rate.expect("a rate");
    assert_eq!((rate.numerator, rate.denominator), (24_000, 1001));
    assert_eq!(metadata.pixel_aspect, Some(2.0));

    // On its way to a format without windows, the rest of the display window is black.
    let raster = read(Path::new(&file)).expect("read");
    assert_eq!(raster.data, Window { x: 10, y: -5, width: 40, height: 30 });
    let from = Encoding { format: PictureFormat::ExrHalf, colour: ColourSpace::Linear };
    let to = Encoding { format: PictureFormat::TiffFloat, colour: ColourSpace::Linear };
    let full = Converter::new(from, to).expect("something to do").convert(&raster);
    let green = numbers(&full, "G");
    let at = |x: usize, y: usize| green[y * 64 + x];
    assert_eq!((full.data.width, full.data.height), (64, 48));
    assert_eq!([at(9, 0), at(10, 0), at(49, 24), at(50, 0), at(20, 25)], [0.0, 0.5, 0.5, 0.0, 0.0]);

    // What is carried over is written, and OpenImageIO finds it.
    let ours = folder.path("ours.exr");
    write(&ours, &raster, PictureFormat::ExrHalf, Effort::Small).expect("written");
    let said = run("oiiotool", &["--info", "-v", &ours.display().to_string()]);
    for expected in ["01:02:03:04", "24000/1001", "PixelAspectRatio: 2", "64 x   48", "origin: x=10, y=-5"] {
        let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(plain(&said).contains(&plain(expected)), "{expected} in\n{said}");
    }
    assert_eq!(look(&ours).expect("header").1, metadata);

    // Two parts, the first of them depth: the picture is the one with colours.
    let layers = folder.text("layers.exr");
    run(
        "oiiotool",
        &[
            "--pattern",
            "constant:color=7",
            "16x8",
            "1",
            "--chnames",
            "Z",
            "--attrib",
            "oiio:subimagename",
            "depth",
            "--pattern",
            "constant:color=0.1,0.2,0.3,1",
            "16x8",
            "4",
            "--attrib",
            "oiio:subimagename",
            "beauty",
            "--siappend",
            "-d",
            "half",
            "-o",
            &layers,
        ],
    );
    let raster = read(Path::new(&layers)).expect("read");
    assert_eq!(raster.planes.iter().map(|plane| plane.name.as_str()).collect::<Vec<_>>(), RGBA);
    assert!((numbers(&raster, "G")[0] - 0.2).abs() < 1e-3);
    verify(Path::new(&layers)).expect("whole");
}

#[test]
fn jpeg_and_dpx_are_read_as_others_read_them() {
    let folder = Folder::new();
    let source = [
        "-hide_banner",
        "-loglevel",
        "error",
        "-y",
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=128x64:rate=24:duration=1,format=rgb24,crop=97:55",
    ];
    for (name, pixels, back, step) in [
        ("ten.dpx", "gbrp10be", "rgb48be", 1.0 / 1024.0),
        ("twelve.dpx", "gbrp12be", "rgb48be", 1.0 / 4096.0),
        ("sixteen.dpx", "rgb48be", "rgb48be", 0.0),
        ("eight.dpx", "rgb24", "rgb24", 0.0),
    ] {
        let file = folder.text(name);
        let mut arguments = source.to_vec();
        arguments.extend(["-frames:v", "1", "-pix_fmt", pixels, &file]);
        run("ffmpeg", &arguments);
        let picture = verify(Path::new(&file)).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!((picture.format, picture.width, picture.height), (PictureFormat::Dpx, 97, 55));
        let ours = read(Path::new(&file)).expect("read");
        // What ffmpeg reads from its own file, in that file's steps.
        let theirs = folder.text("theirs.png");
        run("ffmpeg", &["-hide_banner", "-loglevel", "error", "-y", "-i", &file, "-pix_fmt", back, &theirs]);
        let off = furthest(&ours, &read(Path::new(&theirs)).expect("read"), &RGB);
        assert!(off <= step, "{name} is {off} off");
    }
    // Ten bits as OpenImageIO writes and reads them, to the bit.
    let (file, theirs) = (folder.text("theirs.dpx"), folder.text("theirs.tif"));
    run("oiiotool", &[&made_by_oiio(&folder, "R,G,B"), "--clamp:min=0:max=1", "-d", "uint10", "-o", &file]);
    run("oiiotool", &[&file, "-d", "uint16", "-o", &theirs]);
    let (ours, theirs) = (read(Path::new(&file)).expect("read"), read(Path::new(&theirs)).expect("read"));
    assert_eq!(furthest(&ours, &theirs, &RGB), 0.0);

    let file = folder.text("picture.jpg");
    run(
        "oiiotool",
        &[
            "--pattern",
            "fill:top=0.1,0.5,0.9:bottom=0.8,0.2,0.3",
            "97x55",
            "3",
            "-d",
            "uint8",
            "--quality",
            "90",
            "-o",
            &file,
        ],
    );
    assert_eq!(verify(Path::new(&file)).expect("whole").format, PictureFormat::Jpeg);
    let theirs = folder.text("theirs.tif");
    run("oiiotool", &[&file, "-d", "uint8", "-o", &theirs]);
    let (ours, theirs) = (read(Path::new(&file)).expect("read"), read(Path::new(&theirs)).expect("read"));
    // Decoders may differ in the last digit.
    assert!(furthest(&ours, &theirs, &RGB) <= 2.5 / 255.0);
}

#[test]
fn colours_are_converted_as_openimageio_does_it() {
    let folder = Folder::new();
    let made = made_by_oiio(&folder, "R,G,B");
    let picture = read(Path::new(&made)).expect("read");
    let from = Encoding { format: PictureFormat::ExrHalf, colour: ColourSpace::Linear };
    let to = Encoding { format: PictureFormat::Png16, colour: ColourSpace::Srgb };
    let ours = Converter::new(from, to).expect("something to do").convert(&picture);
    let theirs = folder.text("theirs.png");
    run(
        "oiiotool",
        &[&made, "--clamp:min=0:max=1", "--colorconvert", "linear", "sRGB", "-d", "uint16", "-o", &theirs],
    );
    let theirs = read(Path::new(&theirs)).expect("read");
    // Their curve is an approximation.
    assert!(furthest(&ours, &theirs, &RGB) <= 4.0 / 65535.0);

    // There and back is exact: 16 bits through float, 8 bits through half.
    let png = |format| Encoding { format, colour: ColourSpace::Srgb };
    for (small, big) in [
        (PictureFormat::Png16, PictureFormat::ExrFloat),
        (PictureFormat::Png8, PictureFormat::ExrHalf),
        (PictureFormat::Tiff16, PictureFormat::TiffFloat),
    ] {
        for colour in [ColourSpace::Linear, ColourSpace::Acescg, ColourSpace::Acescct, ColourSpace::Rec709] {
            let wide = Encoding { format: big, colour };
            // Half floats of a log curve are too coarse for that.
            if big == PictureFormat::ExrHalf && colour != ColourSpace::Linear {
                continue;
            }
            let len = if small == PictureFormat::Png8 { 256 } else { 65_536 };
            let all = |channel: usize| {
                let places = (0..len).map(move |place| (place * (channel * 2 + 1)) % len);
                if len == 256 {
                    Samples::U8(places.map(|place| place as u8).collect())
                } else {
                    Samples::U16(places.map(|place| place as u16).collect())
                }
            };
            let planes = RGB
                .iter()
                .enumerate()
                .map(|(channel, name)| Plane { name: (*name).to_owned(), samples: all(channel) });
            let window = Window::of_size(256, len as u32 / 256);
            let every = Raster {
                display: window,
                data: window,
                planes: planes.collect(),
                metadata: Metadata::default(),
            };
            let there = Converter::new(png(small), wide).expect("something to do").convert(&every);
            let back = Converter::new(wide, png(small)).expect("something to do").convert(&there);
            assert_eq!(back.planes, every.planes, "{small} through {big} in {colour}");
        }
    }
}

#[test]
fn premultiplied_alpha_is_respected() {
    let window = Window::of_size(2, 1);
    let plane = |name: &str, samples: [f32; 2]| Plane {
        name: name.to_owned(),
        samples: Samples::F32(samples.to_vec()),
    };
    let planes =
        vec![plane("R", [0.25, 0.0]), plane("G", [0.5, 0.0]), plane("B", [0.0, 0.0]), plane("A", [0.5, 0.0])];
    let picture = Raster { display: window, data: window, planes, metadata: Metadata::default() };
    let exr = Encoding { format: PictureFormat::ExrFloat, colour: ColourSpace::Linear };
    let tiff = Encoding { format: PictureFormat::TiffFloat, colour: ColourSpace::Srgb };
    let straight = Converter::new(exr, tiff).expect("something to do").convert(&picture);
    // 0.25 of light behind half a pixel is 0.5 of light.
    assert!((numbers(&straight, "R")[0] - 0.735_36).abs() < 1e-4);
    assert_eq!(numbers(&straight, "A"), [0.5, 0.0]);
    let back = Converter::new(tiff, exr).expect("something to do").convert(&straight);
    assert!(furthest(&back, &picture, &RGBA) < 1e-6);
}

/// A view transform is gone on light that is not multiplied by alpha, and both ways.
#[test]
fn a_view_is_had_back_behind_alpha_and_other_primaries() {
    let window = Window::of_size(3, 1);
    let plane = |name: &str, samples: [f32; 3]| Plane {
        name: name.to_owned(),
        samples: Samples::F32(samples.to_vec()),
    };
    let planes = vec![
        plane("R", [6.0, 0.5, 0.09]),
        plane("G", [4.0, 0.5, 0.09]),
        plane("B", [5.0, 0.5, 0.09]),
        plane("A", [0.5, 1.0, 0.5]),
    ];
    let picture = Raster { display: window, data: window, planes, metadata: Metadata::default() };
    let view: View = "white=16".parse().expect("a view");
    let there = OnTheWay { view: Some(ViewStep::To(view)), cut: true, ..OnTheWay::default() };
    let back = OnTheWay { view: Some(ViewStep::From(view)), ..OnTheWay::default() };
    for colour in [ColourSpace::Linear, ColourSpace::Acescg] {
        let light = Encoding { format: PictureFormat::ExrFloat, colour };
        for shown in [
            Encoding { format: PictureFormat::ExrFloat, colour: ColourSpace::Srgb },
            Encoding { format: PictureFormat::TiffFloat, colour: ColourSpace::Srgb },
        ] {
            let made = Converter::with(light, shown, there).expect("something to do").convert(&picture);
            let (red, alpha) = (numbers(&made, "R"), numbers(&made, "A"));
            let most = if shown.format.is_exr() { alpha[0] } else { 1.0 };
            assert!(red[0] > 0.0 && red[0] <= most, "{red:?} behind {alpha:?}");
            let made = Converter::with(shown, light, back).expect("something to do").convert(&made);
            assert!(furthest(&made, &picture, &RGBA) < 1e-3, "{shown} {colour}");
        }
    }
    // Nothing to convert, and something to cut; data is left alone.
    let srgb = Encoding { format: PictureFormat::ExrFloat, colour: ColourSpace::Srgb };
    let cut = OnTheWay { cut: true, ..OnTheWay::default() };
    let made = Converter::with(srgb, srgb, cut).expect("something to do").convert(&picture);
    assert_eq!(numbers(&made, "R"), [0.5, 0.5, 0.09]);
    let data = Encoding { format: PictureFormat::ExrFloat, colour: ColourSpace::Data };
    let made = Converter::with(data, data, cut).expect("something to do").convert(&picture);
    assert_eq!(numbers(&made, "R"), [0.5, 0.5, 0.09]);
    // For nodes that read the colours alone.
    let straight = OnTheWay { alpha: Alpha::Straight, ..OnTheWay::default() };
    let made = Converter::with(srgb, srgb, straight).expect("something to do").convert(&picture);
    assert_eq!((numbers(&made, "R"), numbers(&made, "A")), (vec![12.0, 0.5, 0.18], vec![0.5, 1.0, 0.5]));
}

#[test]
fn whatever_is_cut_off_or_no_number_is_found() {
    let folder = Folder::new();
    let made = made_by_oiio(&folder, "R,G,B");
    let mut files = vec![made.clone()];
    for (name, arguments) in [
        ("zip.exr", &["--compression", "zip"][..]),
        ("tiled.exr", &["--tile", "16", "16"]),
        ("p.png", &["-d", "uint16"]),
        ("t.tif", &["-d", "uint16"]),
        ("j.jpg", &["-d", "uint8"]),
        ("d.dpx", &["-d", "uint10"]),
    ] {
        let file = folder.text(name);
        let mut all = vec![made.as_str()];
        all.extend(arguments);
        all.extend(["-o", &file]);
        run("oiiotool", &all);
        files.push(file);
    }
    for file in files {
        let whole = fs::read(&file).expect("read");
        verify(Path::new(&file)).unwrap_or_else(|error| panic!("{file}: {error:?}"));
        let cut = folder.path("cut");
        for part in (0..97).map(|part| whole.len() * part / 97) {
            fs::write(&cut, &whole[..part]).expect("written");
            let found = verify(&cut);
            assert!(found.is_err(), "{file} cut at {part} of {}: {found:?}", whole.len());
        }
    }
    for kind in ["half", "float"] {
        let file = folder.text("nan.exr");
        run("oiiotool", &["--pattern", "constant:color=nan,1,1", "8x8", "3", "-d", kind, "-o", &file]);
        match verify(Path::new(&file)) {
            Err(PictureError::NotANumber { count: 64, channel, .. }) => assert_eq!(channel, "R"),
            other => panic!("{other:?}"),
        }
    }
    let other = folder.path("other.txt");
    fs::write(&other, "no picture at all").expect("written");
    assert!(matches!(inspect(&other), Err(PictureError::Unknown { .. })));
    fs::write(&other, "").expect("written");
    assert!(matches!(inspect(&other), Err(PictureError::Empty { .. })));
}
