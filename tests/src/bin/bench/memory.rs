//! The agent's memory while it brings 500 frames of 4K through a node, as PNG over HTTP and as float EXR that is
//! converted both ways: it must not grow with the job.

use std::{fs, path::Path, time::Duration};

use hearth_client::v1;
use hearth_pictures::{Converter, Effort, read, write};
use hearth_tests::{
    clips,
    farm::{finish, request, source},
    processes::Processes,
};
use hearth_workflows::format::{ColourSpace, Encoding, PictureFormat};

use crate::Figure;

const FRAMES: i64 = 500;
const WIDTH: u32 = 3840;
const HEIGHT: u32 = 2160;

/// Pictures in and out, nothing between: the agent's work is the same, the simulator's is less.
const MANIFEST: &str = r#"
[workflow]
title = "Pass through"
purpose = "Benchmark"
[clip]
node = "1"
load = "image"
[split]
kind = "per-frame"
[[pass]]
name = "beauty"
node = "2"
"#;

const GRAPH: &str = r#"{
    "1": { "class_type": "LoadImage", "inputs": { "image": "x" } },
    "2": { "class_type": "SaveImage", "inputs": { "images": ["1", 0], "filename_prefix": "x" } }
}"#;

pub(crate) async fn measure() -> Vec<Figure> {
    vec![over(PictureFormat::Png8).await, over(PictureFormat::ExrHalf).await]
}

/// Four pictures under 500 names.
fn make(clip: &Path, format: PictureFormat) {
    fs::create_dir_all(clip).expect("folder");
    let extension = format.extension();
    for frame in 1..=4_i64 {
        let small = clips::draw(frame, WIDTH / 16, HEIGHT / 16);
        let large = image::imageops::resize(&small, WIDTH, HEIGHT, image::imageops::FilterType::Nearest);
        let png = clip.join(format!("made.{frame:04}.png"));
        large.save(&png).expect("frame");
        let from = Encoding { format: PictureFormat::Png8, colour: ColourSpace::Srgb };
        let to = Encoding { format, colour: format.usual_colour() };
        let file = clip.join(format!("plate.{frame:04}.{extension}"));
        match Converter::new(from, to) {
            Some(converter) => {
                write(&file, &converter.convert(&read(&png).expect("read")), format, Effort::Small)
                    .expect("frame");
            }
            None => fs::copy(&png, &file).map(drop).expect("frame"),
        }
        fs::remove_file(png).expect("removed");
    }
    for frame in 5..=FRAMES {
        let from = clip.join(format!("plate.{:04}.{extension}", (frame - 1) % 4 + 1));
        fs::hard_link(from, clip.join(format!("plate.{frame:04}.{extension}"))).expect("link");
    }
}

async fn over(format: PictureFormat) -> Figure {
    let farm = Processes::start(2, 0.0, &[]).await;
    make(&farm.path("plates/clip"), format);
    let workflow = Some(source("pass-through", MANIFEST, GRAPH));
    let clip = format!("plates/clip/plate.%04d.{}", format.extension());
    let submission = v1::SubmitJobRequest { workflow, clip, chunk_frames: 4, ..request("clip", "", "out") };
    let job = farm.client.submit(submission).await.expect("accepted").job.expect("a job").job_id;
    let mut samples: Vec<(u64, f64)> = Vec::new();
    loop {
        let view = farm.client.job(job).await.expect("there");
        let done = view.counts.unwrap_or_default().done;
        samples.push((done, resident_mib(farm.agent.pid())));
        if view.ended_unix_ms > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let (view, failures) = finish(&farm.client, job).await;
    assert_eq!(view.state(), v1::JobState::Done, "{failures:?}");
    // After the first fifth everything that is kept once has been made.
    let most = |from: u64, to: u64| {
        let within = samples.iter().filter(|(done, _)| (from..to).contains(done));
        within.map(|(_, mib)| *mib).fold(0.0, f64::max)
    };
    let (second, last) = (most(100, 200), most(400, FRAMES as u64 + 1));
    let what = match format {
        PictureFormat::Png8 => "8-bit PNG".to_owned(),
        other => format!("{}, converted for the node and back", other.name()),
    };
    Figure::new(
        format!("agent's memory during {FRAMES} frames of {WIDTH}x{HEIGHT}, {what}, HTTP, 2 nodes"),
        format!("at most {second:.0} MiB in the second fifth, {last:.0} MiB in the last"),
        format!("under 300 MiB and flat: {:.2} times", last / second),
    )
}

fn resident_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or("");
    let kib: f64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0.0);
    kib / 1024.0
}
