//! Float pictures in, float pictures out, and nobody finds the cut: real farms, real files.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use hearth_client::v1::{self, FailureKind, JobState, NodeState};
use hearth_pictures::{Raster, Rate, Samples, look, read};
use hearth_simulator::{Config, Fault};
use hearth_storage::manifest::{SequenceManifest, TimesManifest};
use hearth_tests::{
    clips,
    farm::{Farm, Setup, request, source},
};
use hearth_workflows::{Frame, View};

/// The mean over `radius` neighbours on each side; EXR in, EXR out.
fn temporal_mean(radius: u32, split: &str) -> v1::submit_job_request::Workflow {
    let manifest = format!(
        r#"
        [workflow]
        title = "Temporal mean"
        purpose = "Test"
        [clip]
        node = "1"
        load = "frames"
        formats = ["exr-half", "exr-float"]
        colour = "linear"
        [split]
        {split}
        [[pass]]
        name = "beauty"
        node = "3"
        save = "frames"
        format = "exr-float"
        "#
    );
    let graph = format!(
        r#"{{
        "1": {{ "class_type": "LoadEXRFrames", "inputs":
            {{ "filepath": "x", "tonemap": "linear", "start_frame": 0, "end_frame": 0 }} }},
        "2": {{ "class_type": "SimulatorTemporalMean", "inputs": {{ "image": ["1", 0], "radius": {radius} }} }},
        "3": {{ "class_type": "SaveEXRFrames", "inputs": {{ "images": ["2", 0], "filepath": "x", "tonemap": "linear",
            "start_frame": 0, "overwrite": true, "save_workflow": "none" }} }}
        }}"#
    );
    source("temporal-mean", &manifest, &graph)
}

const INTERPOLATE: &str = r#"
[workflow]
title = "Frames between frames"
purpose = "Test"
[clip]
node = "1"
load = "frames"
formats = ["exr-half"]
[split]
kind = "interpolate"
factor = "factor"
sets = ["2.multiplier"]
[parameters.factor]
type = "choice"
default = "2"
choices = ["2", "2.5", "4", "5"]
[[pass]]
name = "beauty"
node = "3"
save = "frames"
format = "exr-float"
"#;

const INTERPOLATE_GRAPH: &str = r#"{
"1": { "class_type": "LoadEXRFrames", "inputs": { "filepath": "x", "tonemap": "linear", "start_frame": 0, "end_frame": 0 } },
"2": { "class_type": "RIFE VFI", "inputs": { "ckpt_name": "rife49.pth", "frames": ["1", 0],
    "clear_cache_after_n_frames": 10, "multiplier": 2, "fast_mode": true, "ensemble": true, "scale_factor": 1.0,
    "dtype": "float32", "torch_compile": false, "batch_size": 1 } },
"3": { "class_type": "SaveEXRFrames", "inputs": { "images": ["2", 0], "filepath": "x", "tonemap": "linear",
    "start_frame": 0, "overwrite": true, "save_workflow": "none" } }
}"#;

fn exr_request(output: &str, workflow: v1::submit_job_request::Workflow, chunk: u32) -> v1::SubmitJobRequest {
    v1::SubmitJobRequest {
        workflow: Some(workflow),
        clip: "plates/sh010/plate.%04d.exr".to_owned(),
        chunk_frames: chunk,
        ..request("sh010", "", output)
    }
}

/// Every picture of a finished sequence, by name.
fn sequence(folder: &Path) -> BTreeMap<String, Raster> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("entry").path());
    let pictures =
        paths.filter(|path: &PathBuf| path.extension().is_some_and(|extension| extension != "json"));
    pictures
        .map(|path| {
            let name = path.file_name().expect("named").to_string_lossy().into_owned();
            (name, read(&path).expect("a whole picture"))
        })
        .collect()
}

async fn done(farm: &Farm, request: v1::SubmitJobRequest) -> (BTreeMap<String, Raster>, Vec<v1::Failure>) {
    let output = farm.path(&request.output);
    let (job, failures) = farm.run(request).await;
    assert_eq!(job.state(), JobState::Done, "{}: {failures:?}", job.message);
    (sequence(&output), failures)
}

fn numbers(picture: &Raster) -> Vec<f32> {
    let of = |samples: &Samples| match samples {
        Samples::F16(samples) => samples.iter().map(|sample| sample.to_f32()).collect(),
        Samples::F32(samples) => samples.clone(),
        Samples::U8(samples) => samples.iter().map(|sample| f32::from(*sample) / 255.0).collect::<Vec<_>>(),
        Samples::U16(samples) => samples.iter().map(|sample| f32::from(*sample) / 65535.0).collect(),
    };
    picture.planes.iter().flat_map(|plane| of(&plane.samples)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn float_exr_goes_through_a_temporal_workflow_in_chunks_as_in_one_piece() {
    let farm = Farm::start(Setup { simulators: vec![Config::default(); 3], ..Setup::default() }).await;
    clips::make_exr(&farm.path("plates/sh010"), 1..=20, 24, 16);
    let workflow = || temporal_mean(2, "kind = \"handles\"\nhead = 2\ntail = 2");
    let (whole, _) = done(&farm, exr_request("whole", workflow(), 100)).await;
    assert_eq!(whole.len(), 20);
    assert!(numbers(&whole["plate.0001.exr"]).iter().any(|number| *number > 1.0 || *number < 0.0));
    for chunk in [1, 3, 7] {
        let (split, _) = done(&farm, exr_request(&format!("split{chunk}"), workflow(), chunk)).await;
        assert!(split == whole, "chunks of {chunk} show");
    }
    // What the clip says of itself, its result says, too.
    let (_, said) = look(&farm.path("comps/whole/plate.0007.exr")).expect("header");
    assert_eq!(said.time_code.map(|code| code.to_string()).as_deref(), Some("01:00:00:07"));
    assert_eq!(
        (said.frame_rate, said.pixel_aspect),
        (Some(Rate { numerator: 24, denominator: 1 }), Some(2.0))
    );
    // A clip can name its frames itself, as Flame does.
    let named = v1::SubmitJobRequest {
        clip: "plates/sh010/plate.[0005-0009].exr".to_owned(),
        ..exr_request("named", workflow(), 2)
    };
    let (named, _) = done(&farm, named).await;
    assert_eq!(named.len(), 5);
    assert!(named.iter().all(|(name, picture)| whole[name] == *picture));
    // A missing handle shows, so the comparison can fail.
    let short = temporal_mean(2, "kind = \"handles\"\nhead = 1\ntail = 2");
    let (short, _) = done(&farm, exr_request("short", short, 3)).await;
    assert!(short != whole);
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_between_frames_are_the_same_in_chunks_as_in_one_piece() {
    let farm = Farm::start(Setup { simulators: vec![Config::default(); 3], ..Setup::default() }).await;
    clips::make_exr(&farm.path("plates/sh010"), 1..=9, 24, 16);
    let make = async |factor: &str, chunk: u32| {
        let workflow = source("between", INTERPOLATE, INTERPOLATE_GRAPH);
        let parameters = [("factor".to_owned(), factor.to_owned())].into();
        let output = format!("between-{}-{chunk}", factor.replace('.', "-"));
        done(&farm, v1::SubmitJobRequest { parameters, ..exr_request(&output, workflow, chunk) }).await.0
    };
    for (factor, name, count) in [("2", "x2", 17), ("2.5", "x5-2", 21), ("4", "x4", 33), ("5", "x5", 41)] {
        let whole = make(factor, 1_000).await;
        assert_eq!(whole.len(), count, "{factor}");
        for chunk in [1, 4, 7] {
            assert!(make(factor, chunk).await == whole, "{factor}: chunks of {chunk} show");
        }
        // Every source frame that lies on the grid is there as it was.
        let first = read(&farm.path("plates/sh010/plate.0001.exr")).expect("read");
        assert_eq!(numbers(&whole[&format!("plate_{name}.0001.exr")]), numbers(&first));
        let last = read(&farm.path("plates/sh010/plate.0009.exr")).expect("read");
        assert_eq!(numbers(&whole[&format!("plate_{name}.{count:04}.exr")]), numbers(&last));
    }
    let (_, said) = look(&farm.path("comps/between-2-5-4/plate_x5-2.0004.exr")).expect("header");
    assert_eq!(said.frame_rate, Some(Rate { numerator: 60, denominator: 1 }));
    let manifest = SequenceManifest::read(&farm.path("comps/between-2-5-4")).expect("a manifest");
    assert_eq!(manifest.times, Some(TimesManifest { first: Frame(1), step: 2, multiplier: 5 }));
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlaps_are_faded_and_leave_the_rest_alone() {
    let farm = Farm::start(Setup { simulators: vec![Config::default(); 3], ..Setup::default() }).await;
    clips::make_exr(&farm.path("plates/sh010"), 1..=24, 24, 16);
    let name = |frame: i64| format!("plate.{frame:04}.exr");
    let (whole, _) = done(&farm, exr_request("whole", temporal_mean(1, "kind = \"whole\""), 0)).await;
    for ramp in ["linear", "smooth-step", "raised-cosine"] {
        // Six frames are shared: three on each side of a cut. The mean looks one frame further, so that what a
        // chunk renders is wrong in its outermost frame only.
        let split = format!("kind = \"overlap\"\nframes = 6\nramp = \"{ramp}\"");
        let (faded, _) = done(&farm, exr_request(ramp, temporal_mean(1, &split), 12)).await;
        assert_eq!(faded.len(), 24);
        for frame in 1..=24_i64 {
            let (faded, right) = (numbers(&faded[&name(frame)]), numbers(&whole[&name(frame)]));
            if [10, 15].contains(&frame) {
                // One side has it wrong there, with little weight.
                let off = faded.iter().zip(&right).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(off > 0.0 && off < 0.2, "{ramp}: frame {frame} is {off} off");
            } else {
                assert!(faded == right, "{ramp}: frame {frame} is not that of one piece");
            }
        }
    }
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_float_clip_comes_back_as_floats_from_a_workflow_of_eight_bits() {
    let farm = Farm::start(Setup::default()).await;
    let folder = farm.path("plates/sh010");
    clips::make_exr(&folder, 1..=4, 24, 16);
    let mut request = request("sh010", "resize-sharpen", "out");
    request.clip = "plates/sh010/plate.%04d.exr".to_owned();
    request.parameters = [("sharpen".to_owned(), "0".to_owned())].into();
    request.allow_clipping = true;
    for colour in ["", "acescg"] {
        request.output = format!("comps/out{colour}");
        request.colour_space = colour.to_owned();
        let (made, _) = done(&farm, request.clone()).await;
        assert_eq!(made.len(), 4);
        let (made, clip) = (&made["plate.0002.exr"], read(&folder.join("plate.0002.exr")).expect("read"));
        assert!(matches!(made.planes[0].samples, Samples::F16(_)));
        assert_eq!(made.metadata, clip.metadata);
        // What a display shows comes through in 8 bits; in another space's primaries channels mix.
        if colour.is_empty() {
            for (made, clip) in numbers(made).iter().zip(numbers(&clip)) {
                let clip = clip.clamp(0.0, 1.0);
                assert!((made - clip).abs() < 0.012, "{made} is not {clip}");
            }
        }
    }
    farm.stop().await;
}

/// Light far above white goes through 8 bits and comes back, in steps as coarse as they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_transform_brings_light_through_eight_bits() {
    let farm = Farm::start(Setup::default()).await;
    let folder = farm.path("plates/sh010");
    clips::make_exr(&folder, 1..=8, 24, 16);
    let mut request = request("sh010", "resize-sharpen", "out");
    request.clip = "plates/sh010/plate.%04d.exr".to_owned();
    request.parameters = [("sharpen".to_owned(), "0".to_owned())].into();
    for (index, view) in ["white=16", "white=2,exposure=-1", "exposure=-2"].into_iter().enumerate() {
        request.output = format!("comps/out{index}");
        request.view = view.to_owned();
        let (job, failures) = farm.run(request.clone()).await;
        assert_eq!(job.state(), JobState::Done, "{failures:?}");
        assert_eq!(job.view.parse::<View>(), view.parse());
        let made = sequence(&farm.path(&request.output));
        let view: View = view.parse().expect("a view");
        // As sRGB codes it in 8 bits.
        let step = |light: f32| match view.of(light) {
            dark if dark <= 0.003_130_8 => dark * 12.92 * 255.0,
            light => (1.055 * light.powf(1.0 / 2.4) - 0.055) * 255.0,
        };
        let mut brightest = 0.0_f32;
        for (name, made) in made {
            let clip = numbers(&read(&folder.join(&name)).expect("read"));
            for (made, clip) in numbers(&made).into_iter().zip(clip) {
                assert!((step(made) - step(clip)).abs() <= 2.0, "{view}, {name}: {made} is not {clip}");
                brightest = brightest.max(made);
            }
        }
        assert!(brightest > 3.0, "{view}: {brightest} at most");
    }
    let manifest = SequenceManifest::read(&farm.path("comps/out1")).expect("a manifest");
    assert_eq!(manifest.submission.expect("what was asked for").view, "white=2,exposure=-1");
    farm.stop().await;
}

/// Nodes that are made for 0 to 1 get nothing else, though they read floats; a view brings the rest along, exactly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_for_a_range_get_no_other_numbers() {
    let farm = Farm::start(Setup::default()).await;
    let folder = farm.path("plates/sh010");
    clips::make_exr(&folder, 1..=8, 24, 16);
    let Some(v1::submit_job_request::Workflow::WorkflowSource(mut workflow)) =
        Some(temporal_mean(0, "kind = \"per-frame\""))
    else {
        panic!("a source")
    };
    workflow.manifest =
        workflow.manifest.replace("colour = \"linear\"", "colour = \"linear\"\n        range = \"unit\"");
    let of = |output: &str, view: &str, allow_clipping| v1::SubmitJobRequest {
        clip: "plates/sh010/plate.%04d.exr".to_owned(),
        workflow: Some(v1::submit_job_request::Workflow::WorkflowSource(workflow.clone())),
        view: view.to_owned(),
        allow_clipping,
        ..request("sh010", "", output)
    };
    farm.client.submit(of("no", "", false)).await.expect_err("light would be lost");
    let data = v1::SubmitJobRequest { colour_space: "data".to_owned(), ..of("no", "white=16", false) };
    farm.client.submit(data).await.expect_err("data has no light");
    let (cut, _) = done(&farm, of("cut", "none", true)).await;
    let (kept, _) = done(&farm, of("kept", "white=16", false)).await;
    let mut beyond = 0;
    for (name, cut) in cut {
        let clip = numbers(&read(&folder.join(&name)).expect("read"));
        for ((cut, kept), clip) in numbers(&cut).into_iter().zip(numbers(&kept[&name])).zip(clip) {
            assert!((cut - clip.clamp(0.0, 1.0)).abs() < 1e-3, "{name}: {clip} was cut to {cut}");
            assert!(
                (kept - clip.max(0.0)).abs() <= 2e-3 * clip.abs().max(1.0),
                "{name}: {clip} came back as {kept}"
            );
            beyond += usize::from(!(0.0..=1.0).contains(&clip));
        }
    }
    assert!(beyond > 100, "{beyond} numbers were beyond 0 and 1");
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_bits_are_staged_as_a_node_reads_them() {
    let farm = Farm::start(Setup::default()).await;
    clips::make16(&farm.path("plates/sh010"), 1..=4, 24, 16);
    let (made, _) = done(&farm, request("sh010", "resize-sharpen", "out")).await;
    assert!(matches!(made["plate.0002.png"].planes[0].samples, Samples::U8(_)));
    farm.stop().await;
}

/// What a node gives back is held against what it should be before anything is assembled, and against the
/// other chunks when it is; whoever made it wrong is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nan_and_a_chunk_of_another_size_are_rendered_again() {
    for fault in [Fault::NanOutput, Fault::TruncateOutput, Fault::ShrinkAllOutput] {
        let simulators = vec![
            Config { faults: vec![fault], seconds_per_frame: 0.01, ..Config::default() },
            Config { seconds_per_frame: 0.01, ..Config::default() },
        ];
        let farm = Farm::start(Setup { simulators, ..Setup::default() }).await;
        clips::make_exr(&farm.path("plates/sh010"), 1..=20, 24, 16);
        let workflow = || temporal_mean(1, "kind = \"handles\"\nhead = 1\ntail = 1");
        let (made, failures) = done(&farm, exr_request("out", workflow(), 4)).await;
        let kinds: Vec<_> = failures.iter().map(v1::Failure::kind).collect();
        assert_eq!(kinds, [FailureKind::BadOutput], "{fault:?}: {failures:?}");
        let (whole, _) = done(&farm, exr_request("whole", workflow(), 100)).await;
        assert!(made == whole, "{fault:?}");
        let nodes = farm.client.nodes().await.expect("nodes");
        let struck = nodes.iter().find(|node| node.name == "node0").expect("listed");
        assert_eq!(struck.chunks_failed, 1, "{fault:?}: {nodes:?}");
        assert!(nodes.iter().all(|node| node.state() == NodeState::Idle));
        farm.stop().await;
    }
}

/// As `ImageMagick` and others write it: the smallest PNG for each frame. Nothing of it may show, whether the node
/// reads the files itself (`resize-sharpen`) or gets EXR of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grey_frame_of_a_colour_clip_is_taken_as_colour() {
    let farm = Farm::start(Setup::default()).await;
    let grey = |frame: i64| matches!(frame, 1 | 4 | 5);
    for (folder, small) in [("plates/small", true), ("plates/sh010", false)] {
        let folder = farm.path(folder);
        clips::make(&folder, 1..=6, 24, 16);
        for frame in (1..=6).filter(|frame| grey(*frame)) {
            let file = folder.join(format!("plate.{frame:04}.png"));
            let black = image::open(&file).expect("a frame").into_luma8();
            let saved = if small {
                black.save(&file)
            } else {
                image::DynamicImage::from(black).into_rgb8().save(&file)
            };
            saved.expect("a frame");
        }
    }
    for (workflow, output) in
        [(None, "own"), (Some(temporal_mean(1, "kind = \"handles\"\nhead = 1\ntail = 1")), "exr")]
    {
        let make = async |clip: &str, chunk: u32| {
            let request = v1::SubmitJobRequest {
                clip: format!("plates/{clip}/plate.%04d.png"),
                chunk_frames: chunk,
                ..request(clip, "resize-sharpen", &format!("{output}-{clip}-{chunk}"))
            };
            let workflow = workflow.clone().or(request.workflow.clone());
            done(&farm, v1::SubmitJobRequest { workflow, ..request }).await.0
        };
        let right = make("sh010", 100).await;
        assert_eq!(right.len(), 6);
        for chunk in [1, 2, 100] {
            assert!(
                make("small", chunk).await == right,
                "{output}: the grey frames show in chunks of {chunk}"
            );
        }
    }
    farm.stop().await;
}
