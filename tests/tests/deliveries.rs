//! What comes after the sequence: movies, proxies and contact sheets, through a real ffmpeg, read with ffprobe and
//! ffmpeg. And what comes without a clip: takes.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use hearth_client::v1::{self, FailureKind, JobState};
use hearth_pictures::{Samples, read};
use hearth_simulator::Config;
use hearth_tests::{
    clips,
    farm::{Farm, Setup, finish, request, source, until},
};
use serde_json::Value;

fn delivery(format: &str) -> v1::Delivery {
    v1::Delivery { format: format.to_owned(), ..v1::Delivery::default() }
}

fn of_clip(clip: &str, formats: &[&str]) -> v1::DeliverRequest {
    v1::DeliverRequest {
        source: Some(v1::deliver_request::Source::Clip(clip.to_owned())),
        deliveries: formats.iter().map(|format| delivery(format)).collect(),
        ..v1::DeliverRequest::default()
    }
}

/// What ffprobe says of the first video stream.
fn probe(file: &Path) -> Value {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-count_frames", "-select_streams", "v:0", "-show_streams", "-of", "json"])
        .arg(file)
        .output()
        .expect("ffprobe runs");
    assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    told["streams"][0].clone()
}

/// One frame of a movie as 16-bit RGBA.
fn frame_of(movie: &Path, index: usize) -> Vec<u16> {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(movie)
        .args([
            "-vf",
            &format!("select=eq(n\\,{index}),scale=in_color_matrix=bt709:flags=accurate_rnd+full_chroma_inp"),
        ])
        .args(["-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgba64le", "-"])
        .output()
        .expect("ffmpeg runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
}

fn tags(probed: &Value) -> [&str; 4] {
    ["color_range", "color_space", "color_primaries", "color_transfer"]
        .map(|tag| probed[tag].as_str().unwrap_or("none"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequence_is_delivered_in_every_format() {
    let farm = Farm::start(Setup::default()).await;
    let plates = farm.path("plates/sh010");
    clips::make_flat_exr(&plates, 1001..=1012, 160, 90, [0.25, 0.05, 0.0, 0.5]);
    let formats = ["prores-4444", "prores-422-hq", "h264", "png-proxy", "contact-sheet"];
    let asked = of_clip("plates/sh010/plate.%04d.exr", &formats);
    let jobs = farm.client.deliver(asked).await.expect("accepted").jobs;
    assert_eq!(jobs.len(), 5);
    for job in &jobs {
        let (job, failures) = finish(&farm.client, job.job_id).await;
        assert_eq!(job.state(), JobState::Done, "{}: {failures:?}", job.delivery);
    }
    // Half of the light that is there without the alpha: 0.5 and 0.1, as sRGB.
    let (red, green) = (48_192, 22_926);
    let near = |pixel: &[u16], colour: [u16; 4], off: u16| {
        pixel.iter().zip(colour).all(|(found, wanted)| found.abs_diff(wanted) <= off)
    };

    let movie = plates.join("plate_prores4444.mov");
    let told = probe(&movie);
    assert_eq!((told["codec_name"].as_str(), told["profile"].as_str()), (Some("prores"), Some("4444")));
    assert_eq!((told["nb_read_frames"].as_str(), told["r_frame_rate"].as_str()), (Some("12"), Some("24/1")));
    assert_eq!(tags(&told), ["tv", "bt709", "bt709", "iec61966-2-1"]);
    assert_eq!(told["tags"]["timecode"].as_str(), Some("01:00:00:01"));
    assert_eq!(told["sample_aspect_ratio"].as_str(), Some("2:1"));
    let pixel = &frame_of(&movie, 3)[..4];
    assert!(near(pixel, [red, green, 0, 32_768], 600), "{pixel:?}");

    let told = probe(&plates.join("plate_prores422hq.mov"));
    assert_eq!((told["profile"].as_str(), told["pix_fmt"].as_str()), (Some("HQ"), Some("yuv422p10le")));
    assert_eq!(told["nb_read_frames"].as_str(), Some("12"));
    // Without alpha, on black: 0.25 and 0.05.
    let pixel = &frame_of(&plates.join("plate_prores422hq.mov"), 0)[..4];
    assert!(near(pixel, [35_199, 16_245, 0, 65_535], 900), "{pixel:?}");

    let movie = plates.join("plate_h264.mp4");
    let told = probe(&movie);
    assert_eq!((told["codec_name"].as_str(), told["pix_fmt"].as_str()), (Some("h264"), Some("yuv420p")));
    assert_eq!((told["nb_read_frames"].as_str(), told["width"].as_u64()), (Some("12"), Some(160)));
    let picture = frame_of(&movie, 0);
    assert!(near(&picture[..4], [35_199, 16_245, 0, 65_535], 1_500), "{:?}", &picture[..4]);
    let bottom = &picture[picture.len() * 9 / 10..];
    assert!(bottom.iter().step_by(4).any(|red| *red > 50_000), "no letter is burnt in");

    let proxies = plates.join("plate_proxy");
    let proxy = read(&proxies.join("plate.1012.png")).expect("a proxy");
    assert_eq!((proxy.display.width, proxy.planes.len()), (160, 4));
    let samples: Vec<u8> = proxy
        .planes
        .iter()
        .map(|plane| match &plane.samples {
            Samples::U8(samples) => samples[0],
            other => panic!("not 8 bits: {} samples", other.len()),
        })
        .collect();
    assert_eq!(samples, [188, 89, 0, 128]);
    assert_eq!(clips::read(&proxies).len(), 12);

    let sheet = read(&plates.join("plate_contact.png")).expect("a sheet");
    // Six beside each other, 480 wide, with 8 pixels between and around them.
    assert_eq!((sheet.display.width, sheet.display.height), (6 * 480 + 7 * 8, 2 * 270 + 3 * 8));
    assert_eq!(clips::leftovers(&plates), Vec::<String>::new());
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_has_the_curve_that_is_asked_for_and_says_so() {
    let farm = Farm::start(Setup::default()).await;
    let plates = farm.path("plates/sh010");
    clips::make_flat_exr(&plates, 1..=3, 160, 90, [0.5, 0.1, 0.0, 1.0]);
    let clip = "plates/sh010/plate.%04d.exr";
    for (curve, tag, red, green) in
        [("rec709", "bt709", 46_231, 19_054), ("srgb", "iec61966-2-1", 48_192, 22_926)]
    {
        let mut asked = of_clip(clip, &["prores-4444"]);
        asked.deliveries[0].curve = curve.to_owned();
        asked.deliveries[0].output = format!("comps/{curve}.mov");
        let job = farm.client.deliver(asked).await.expect("accepted").jobs[0].job_id;
        let (job, failures) = finish(&farm.client, job).await;
        assert_eq!(job.state(), JobState::Done, "{failures:?}");
        let movie = farm.path(&format!("comps/{curve}.mov"));
        assert_eq!(tags(&probe(&movie)), ["tv", "bt709", "bt709", tag]);
        // Without turning the curve back: the numbers as they are.
        let pixel = frame_of(&movie, 1);
        assert!(pixel[0].abs_diff(red) < 600 && pixel[1].abs_diff(green) < 600, "{curve}: {:?}", &pixel[..3]);
    }
    let mut asked = of_clip(clip, &["h264"]);
    asked.deliveries[0].curve = "p3".to_owned();
    let refused = farm.client.deliver(asked).await.expect_err("no such curve").to_string();
    assert!(refused.contains("'p3' is no curve; there are srgb, rec709"), "{refused}");
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_delivered_when_its_sequence_is_there() {
    let farm = Farm::start(Setup::default()).await;
    clips::make(&farm.path("plates/sh010"), 1..=12, 64, 36);
    let submission = v1::SubmitJobRequest {
        deliveries: vec![
            delivery("h264"),
            v1::Delivery { output: "comps/review/sh010.png".to_owned(), ..delivery("contact-sheet") },
        ],
        chunk_frames: 3,
        ..request("sh010", "resize-sharpen", "sh010/v###")
    };
    let jobs = farm.client.submit(submission.clone()).await.expect("accepted").jobs;
    assert_eq!(jobs.len(), 3);
    assert!(jobs[1..].iter().all(|job| job.after_job_ids == [jobs[0].job_id] && job.batch == jobs[0].job_id));
    for job in &jobs {
        let (job, failures) = finish(&farm.client, job.job_id).await;
        assert_eq!(job.state(), JobState::Done, "{}: {failures:?}", job.name);
        assert_eq!(job.counts.map(|counts| counts.done), Some(12));
    }
    assert_eq!(probe(&farm.path("comps/sh010/v001_h264.mp4"))["nb_read_frames"].as_str(), Some("12"));
    assert!(farm.path("comps/review/sh010.png").is_file());
    assert_eq!(clips::leftovers(&farm.path("comps/sh010")), Vec::<String>::new());

    // Later, too; and never over what is there, unless somebody asks for that.
    let again = v1::DeliverRequest {
        source: Some(v1::deliver_request::Source::JobId(jobs[0].job_id)),
        ..of_clip("", &["h264"])
    };
    let refused = farm.client.deliver(again.clone()).await.expect_err("it is there").to_string();
    assert!(refused.contains("comps/sh010/v001_h264.mp4 exists already"), "{refused}");
    let before = std::fs::metadata(farm.path("comps/sh010/v001_h264.mp4")).expect("there");
    let replaced =
        farm.client.deliver(v1::DeliverRequest { overwrite: true, ..again }).await.expect("accepted");
    let (job, _) = finish(&farm.client, replaced.jobs[0].job_id).await;
    assert_eq!(job.state(), JobState::Done);
    let after = std::fs::metadata(farm.path("comps/sh010/v001_h264.mp4")).expect("there");
    assert_ne!(before.modified().expect("a time"), after.modified().expect("a time"));

    // The same with a sequence: refused, then replaced, and nobody else's folder ever.
    let over = v1::SubmitJobRequest {
        output: "comps/sh010/v001".to_owned(),
        deliveries: Vec::new(),
        parameters: [("sharpen".to_owned(), "0".to_owned())].into(),
        ..submission
    };
    let refused = farm.client.submit(over.clone()).await.expect_err("it is there").to_string();
    assert!(refused.contains("exists already"), "{refused}");
    let old = clips::read(&farm.path("comps/sh010/v001"));
    let (job, _) = farm.run(v1::SubmitJobRequest { overwrite: true, ..over.clone() }).await;
    assert_eq!(job.state(), JobState::Done, "{}", job.message);
    let new = clips::read(&farm.path("comps/sh010/v001"));
    assert!(new.len() == 12 && new != old);
    let foreign = v1::SubmitJobRequest { output: "plates/sh010".to_owned(), overwrite: true, ..over };
    let refused = farm.client.submit(foreign).await.expect_err("not ours").to_string();
    assert!(refused.contains("Hearth has not made"), "{refused}");
    assert_eq!(clips::read(&farm.path("plates/sh010")).len(), 12);
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_ffmpeg_the_delivery_alone_fails_and_says_why() {
    let setup = Setup {
        tune_agent: Box::new(|config| config.ffmpeg = "/nowhere/ffmpeg".to_owned()),
        ..Setup::default()
    };
    let farm = Farm::start(setup).await;
    clips::make(&farm.path("plates/sh010"), 1..=4, 64, 36);
    let submission = v1::SubmitJobRequest {
        deliveries: vec![delivery("h264")],
        ..request("sh010", "resize-sharpen", "out")
    };
    let jobs = farm.client.submit(submission).await.expect("accepted").jobs;
    let (sequence, _) = finish(&farm.client, jobs[0].job_id).await;
    assert_eq!(sequence.state(), JobState::Done);
    let (failed, failures) = finish(&farm.client, jobs[1].job_id).await;
    assert_eq!(failed.state(), JobState::Failed);
    assert!(failed.message.contains("'/nowhere/ffmpeg' cannot be run"), "{}", failed.message);
    assert!(failed.message.contains("install ffmpeg"), "{}", failed.message);
    assert!(failures.iter().all(|failure| failure.kind() == FailureKind::Missing), "{failures:?}");
    farm.stop().await;
}

/// A sequence that ffmpeg is long at: the delivery tells how far it is, and goes when it is cancelled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_tells_how_far_it_is_and_can_be_cancelled() {
    // What is cancelled is cleaned up once nobody can be writing to it: after a lease.
    let setup = Setup { tune_coordinator: Box::new(|config| config.lease_seconds = 3), ..Setup::default() };
    let farm = Farm::start(setup).await;
    let plates = farm.path("plates/sh010");
    clips::make(&plates, 1..=1, 1920, 1080);
    for frame in 2..=600 {
        std::fs::hard_link(plates.join("plate.0001.png"), plates.join(format!("plate.{frame:04}.png")))
            .expect("link");
    }
    let asked = of_clip("plates/sh010/plate.%04d.png", &["prores-4444"]);
    let job = farm.client.deliver(asked).await.expect("accepted").jobs[0].job_id;
    let view = until(&farm.client, job, |job| job.counts.is_some_and(|counts| counts.done > 3)).await;
    assert_eq!(view.state(), JobState::Delivering);
    let progress = view.attempts[0].progress.clone().expect("progress");
    assert_eq!(progress.phase(), v1::AttemptPhase::Encoding);
    farm.client
        .control(job, v1::control_job_request::Action::Cancel(v1::Cancel::default()))
        .await
        .expect("cancelled");
    until(&farm.client, job, |job| job.state() == JobState::Cancelled && job.attempts.is_empty()).await;
    let work = plates.display().to_string();
    let writes = || {
        let listed =
            Command::new("pgrep").args(["-f", &work]).stdout(Stdio::piped()).output().expect("pgrep");
        listed.status.success()
    };
    hearth_tests::farm::eventually("ffmpeg goes and leaves nothing", || {
        !writes() && clips::leftovers(&plates).is_empty()
    })
    .await;
    assert!(!plates.join("plate_prores4444.mov").exists());
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_frame_is_named_and_the_delivery_can_be_tried_again() {
    let farm = Farm::start(Setup::default()).await;
    let plates = farm.path("plates/sh010");
    clips::make(&plates, 1..=8, 64, 36);
    let asked = of_clip("plates/sh010/plate.%04d.png", &["h264"]);
    // Whole to a look, and broken inside.
    let file = plates.join("plate.0005.png");
    let mut bytes = std::fs::read(&file).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0);
    std::fs::write(&file, &bytes).expect("written");
    let job = farm.client.deliver(asked.clone()).await.expect("accepted").jobs[0].job_id;
    let (failed, _) = finish(&farm.client, job).await;
    assert_eq!(failed.state(), JobState::Failed);
    assert!(failed.message.contains("frame 5: "), "{}", failed.message);
    clips::make(&plates, 5..=5, 64, 36);
    farm.client.control(job, v1::control_job_request::Action::Retry(v1::Retry {})).await.expect("again");
    let (done, _) = finish(&farm.client, job).await;
    assert_eq!(done.state(), JobState::Done, "{}", done.message);
    farm.stop().await;
}

const GENERATE: &str = r#"
[workflow]
title = "Frames out of nothing"
purpose = "Test"
[split]
kind = "generate"
frames = "length"
sets = ["4.batch_size"]
seed = "seed"
[chunk]
multiple = 4
plus = 1
max_frames = 41
[parameters.length]
type = "int"
default = 9
min = 1
[parameters.seed]
type = "int"
default = 7
sets = ["5.seed"]
[[pass]]
name = "beauty"
node = "7"
"#;

const GENERATE_GRAPH: &str = r#"{
"1": { "class_type": "UNETLoader", "inputs": { "unet_name": "model.safetensors", "weight_dtype": "default" } },
"2": { "class_type": "CLIPLoader", "inputs": { "clip_name": "text.safetensors", "type": "sd3" } },
"3": { "class_type": "CLIPTextEncode", "inputs": { "text": "a fire", "clip": ["2", 0] } },
"4": { "class_type": "EmptyLatentImage", "inputs": { "width": 32, "height": 16, "batch_size": 1 } },
"5": { "class_type": "KSampler", "inputs": { "model": ["1", 0], "seed": 0, "steps": 2, "cfg": 1.0,
    "sampler_name": "euler", "scheduler": "normal", "positive": ["3", 0], "negative": ["3", 0],
    "latent_image": ["4", 0], "denoise": 1.0 } },
"6": { "class_type": "VAEDecode", "inputs": { "samples": ["5", 0], "vae": ["8", 0] } },
"7": { "class_type": "SaveImage", "inputs": { "images": ["6", 0], "filename_prefix": "x" } },
"8": { "class_type": "VAELoader", "inputs": { "vae_name": "vae.safetensors" } }
}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wedge_is_a_take_for_each_value_and_a_sheet_of_all() {
    let farm = Farm::start(Setup::default()).await;
    clips::make(&farm.path("plates/sh010"), 1001..=1003, 96, 64);
    let wedge = |parameter: &str, values: &[&str]| v1::Wedge {
        parameter: parameter.to_owned(),
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    };
    let submission = v1::SubmitJobRequest {
        wedges: vec![wedge("sharpen", &["0", "2", "5"]), wedge("radius", &["1", "8"])],
        ..request("sh010", "resize-sharpen", "wedge")
    };
    let jobs = farm.client.submit(submission).await.expect("accepted").jobs;
    assert_eq!(jobs.len(), 7);
    let sheet = jobs.last().expect("a sheet");
    assert_eq!((sheet.name.as_str(), sheet.output.as_str()), ("sh010/plate wedge", "comps/wedge_wedge.png"));
    assert_eq!(sheet.after_job_ids.len(), 6);
    for job in &jobs {
        let (job, failures) = finish(&farm.client, job.job_id).await;
        assert_eq!(job.state(), JobState::Done, "{}: {failures:?}", job.name);
    }
    assert_eq!(clips::read(&farm.path("comps/wedge/sharpen-2_radius-8")).len(), 3);
    // Six pictures of 480 x 320 in a row, 8 pixels apart and around.
    let sheet = image::open(farm.path("comps/wedge_wedge.png")).expect("a picture").into_rgb8();
    assert_eq!(sheet.dimensions(), (6 * 488 + 8, 320 + 16));
    let tile = |place: u32| image::imageops::crop_imm(&sheet, 8 + place * 488, 8, 480, 320).to_image();
    // Not sharpened at all, the radius changes nothing but the label.
    let upper = |place| image::imageops::crop_imm(&tile(place), 0, 0, 480, 200).to_image();
    assert!(upper(0) == upper(1) && tile(0) != tile(1), "the labels differ, the pictures do not");
    assert!(upper(2) != upper(3) && upper(2) != upper(4));

    // Sizes may be what is tried: every tile is as large as the first.
    let sizes = v1::SubmitJobRequest {
        wedges: vec![wedge("scale", &["1", "0.5", "2"])],
        parameters: [("sharpen".to_owned(), "0".to_owned())].into(),
        ..request("sh010", "resize-sharpen", "sizes")
    };
    for job in farm.client.submit(sizes).await.expect("accepted").jobs {
        let (job, failures) = finish(&farm.client, job.job_id).await;
        assert_eq!(job.state(), JobState::Done, "{}: {failures:?}", job.name);
    }
    let sheet = image::open(farm.path("comps/sizes_wedge.png")).expect("a picture").into_rgb8();
    assert_eq!(sheet.dimensions(), (3 * 488 + 8, 320 + 16));
    let mean = |place: u32| {
        let upper = image::imageops::crop_imm(&sheet, 8 + place * 488, 8, 480, 200).to_image();
        upper.as_raw().iter().map(|value| f64::from(*value)).sum::<f64>() / upper.as_raw().len() as f64
    };
    let means = [0, 1, 2].map(mean);
    assert!(means.iter().all(|mean| (mean - means[0]).abs() < 8.0 && *mean > 30.0), "{means:?}");
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takes_are_made_out_of_nothing_side_by_side() {
    let models = [
        ("diffusion_models", "model.safetensors"),
        ("text_encoders", "text.safetensors"),
        ("vae", "vae.safetensors"),
    ];
    let models = models.map(|(folder, file)| (folder.to_owned(), vec![file.to_owned()]));
    let simulators = vec![Config { models: models.into(), ..Config::default() }; 3];
    let farm = Farm::start(Setup { simulators, ..Setup::default() }).await;
    let submission = v1::SubmitJobRequest {
        workflow: Some(source("fire", GENERATE, GENERATE_GRAPH)),
        clip: String::new(),
        name: "sh010 fire".to_owned(),
        parameters: [("length".to_owned(), "10".to_owned())].into(),
        takes: 3,
        deliveries: vec![delivery("contact-sheet")],
        ..request("", "", "fire/v###")
    };
    let jobs = farm.client.submit(submission.clone()).await.expect("accepted").jobs;
    let names: Vec<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "sh010 fire take 1",
            "sh010 fire take 1 contact-sheet",
            "sh010 fire take 2",
            "sh010 fire take 2 contact-sheet",
            "sh010 fire take 3",
            "sh010 fire take 3 contact-sheet",
        ]
    );
    for job in &jobs {
        let (job, failures) = finish(&farm.client, job.job_id).await;
        assert_eq!(job.state(), JobState::Done, "{}: {failures:?}", job.name);
    }
    let take = |number: u32| clips::read(&farm.path(&format!("comps/fire/v001/take0{number}")));
    let (first, second) = (take(1), take(2));
    // The model makes 13, of which the first 10 are kept.
    assert_eq!(first.keys().next().map(String::as_str), Some("sh010_fire_take_1.0001.png"));
    assert_eq!((first.len(), second.len(), take(3).len()), (10, 10, 10));
    // The simulator's nth frame is the noise of seed + n: takes with seeds one apart are each other's neighbours.
    assert!(first["sh010_fire_take_1.0002.png"] == second["sh010_fire_take_2.0001.png"]);
    assert!(first["sh010_fire_take_1.0001.png"] != second["sh010_fire_take_2.0001.png"]);
    assert!(farm.path("comps/fire/v001/take03_contact.png").is_file());

    let refused = async |request: v1::SubmitJobRequest| {
        farm.client.submit(request).await.expect_err("refused").to_string()
    };
    let clip = v1::SubmitJobRequest { clip: "plates/sh010/plate.%04d.png".to_owned(), ..submission.clone() };
    assert!(refused(clip).await.contains("out of nothing; leave out the clip"));
    let long = [("length".to_owned(), "42".to_owned())].into();
    let long = refused(v1::SubmitJobRequest { parameters: long, ..submission }).await;
    assert!(long.contains("42 frames cannot be made in one go; ask for 1 to 41"), "{long}");
    clips::make(&farm.path("plates/sh010"), 1..=2, 32, 16);
    let on_a_clip = v1::SubmitJobRequest { takes: 2, ..request("sh010", "resize-sharpen", "out") };
    assert!(refused(on_a_clip).await.contains("cannot make takes: it works on a clip"));
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finished_frames_are_shown_small_and_folders_are_listed() {
    let farm = Farm::start(Setup::default()).await;
    clips::make(&farm.path("plates/sh010"), 1..=12, 640, 360);
    std::fs::remove_file(farm.path("plates/sh010/plate.0012.png")).expect("removed");
    std::fs::remove_file(farm.path("plates/sh010/plate.0004.png")).expect("removed");
    clips::make_exr(&farm.path("plates/sh010"), 1001..=1003, 24, 16);
    std::fs::create_dir(farm.path("plates/sh010/old")).expect("folder");

    let listed = farm.client.clips("plates/sh010").await.expect("listed");
    let told: Vec<String> = listed
        .clips
        .iter()
        .map(|clip| {
            let v1::Clip { pattern, frames, missing, width, height, format, .. } = clip;
            format!("{pattern} {frames} [{missing}] {width}x{height} {format}")
        })
        .collect();
    assert_eq!(
        told,
        [
            "plates/sh010/plate.%04d.exr 1001-1003 [] 24x16 exr-half",
            "plates/sh010/plate.%04d.png 1-3,5-11 [4] 640x360 png8",
        ]
    );
    assert_eq!((listed.folders, listed.linked_folders), (vec!["old".to_owned()], Vec::new()));
    assert_eq!(farm.client.clips("plates").await.expect("listed").folders, ["sh010"]);
    let outside = farm.client.clips("plates/../..").await.expect_err("outside").to_string();
    assert!(outside.contains("could lead out of its root"), "{outside}");

    let submission = v1::SubmitJobRequest {
        frames: "5-11".to_owned(),
        chunk_frames: 2,
        ..request("sh010", "resize-sharpen", "out")
    };
    let (job, _) = farm.run(submission).await;
    assert_eq!(job.state(), JobState::Done, "{}", job.message);
    let thumbnails = farm.client.thumbnails(job.job_id, 24).await.expect("thumbnails");
    let frames: Vec<(&str, i64)> =
        thumbnails.iter().map(|small| (small.pass.as_str(), small.frame)).collect();
    assert_eq!(frames, [("beauty", 5), ("beauty", 7), ("beauty", 9), ("beauty", 11)]);
    for small in &thumbnails {
        let picture = image::load_from_memory(&small.image).expect("a JPEG");
        assert!(
            picture.width() <= 320 && picture.height() <= 320,
            "{}x{}",
            picture.width(),
            picture.height()
        );
    }
    assert_eq!(farm.client.thumbnails(job.job_id, 0).await.expect("one").len(), 1);
    farm.stop().await;
}
