//! Bad input: a clear error at the earliest moment that it can be known, and the other jobs run on.

use std::{fs, path::Path};

use hearth_client::{
    ClientError,
    v1::{FailureKind, JobState, SubmitJobRequest},
};
use hearth_simulator::Config;
use hearth_tests::{
    clips,
    farm::{Farm, Setup, finish, request, source, until},
};
use hearth_workflows::library::Library;

async fn refused(farm: &Farm, request: SubmitJobRequest) -> String {
    match farm.client.submit(request).await {
        Err(ClientError::Refused { message, .. }) => message,
        other => panic!("not refused: {other:?}"),
    }
}

/// While anything else goes wrong, a good job is done.
async fn good_job_runs(farm: &Farm, output: &str) {
    let (job, _) = farm.run(request("good", "resize-sharpen", output)).await;
    assert_eq!(job.state(), JobState::Done, "{}", job.message);
}

#[tokio::test]
async fn what_is_wrong_with_a_clip_is_said_at_submit() {
    let farm = Farm::start(Setup::default()).await;
    let plates = farm.path("plates");
    clips::make(&plates.join("good"), 1..=6, 16, 12);

    fs::create_dir_all(plates.join("empty")).expect("folder");
    let text = refused(&farm, request("empty", "resize-sharpen", "x")).await;
    assert_eq!(text, "clip plates/empty/plate.%04d.png: no frame there; the folder is empty");

    clips::make(&plates.join("gap"), 1..=9, 16, 12);
    for frame in [4, 5, 8] {
        fs::remove_file(plates.join(format!("gap/plate.{frame:04}.png"))).expect("removed");
    }
    let text = refused(&farm, request("gap", "resize-sharpen", "x")).await;
    assert_eq!(
        text,
        "clip plates/gap/plate.%04d.png: frames 4-5,8 are missing; render or copy them, or name other frames"
    );
    // Named frames are enough for a per-frame workflow, but handles reach into the gap.
    let some = |workflow| SubmitJobRequest { frames: "1-3".to_owned(), ..request("gap", workflow, "some") };
    let text = refused(&farm, some("temporal-smooth")).await;
    assert!(text.contains("frames 4 are missing"), "{text}");
    let (job, _) = farm.run(some("resize-sharpen")).await;
    assert_eq!(job.state(), JobState::Done);

    clips::make(&plates.join("mixed"), 1..=4, 16, 12);
    clips::make(&plates.join("mixed"), 3..=3, 20, 12);
    let text = refused(&farm, request("mixed", "resize-sharpen", "x")).await;
    assert!(text.contains("frame 3: 20x12") && text.contains("frame 1 is 16x12"), "{text}");

    clips::make(&plates.join("cut"), 1..=4, 16, 12);
    truncate(&plates.join("cut/plate.0002.png"));
    let text = refused(&farm, request("cut", "resize-sharpen", "x")).await;
    assert!(text.contains("frame 2 cannot be used") && text.contains("is cut off"), "{text}");

    fs::write(plates.join("cut/plate.0002.png"), b"").expect("written");
    let text = refused(&farm, request("cut", "resize-sharpen", "x")).await;
    assert!(text.contains("is empty (0 bytes)") && text.contains("render or copy it again"), "{text}");

    // To render again what is never read is in vain.
    fs::write(plates.join("cut/plate.0002.png"), b"GIF89a, which nobody reads here").expect("written");
    let text = refused(&farm, request("cut", "resize-sharpen", "x")).await;
    assert!(text.contains("write it in another format") && !text.contains("again"), "{text}");

    clips::make16(&plates.join("deep"), 1..=2, 16, 12);
    let library = Library::read::<&Path>(&[]);
    let shipped = library.get("resize-sharpen").expect("shipped");
    let only_jpeg = shipped.manifest_text().replace("[\"png8\"]", "[\"jpeg\"]");
    let workflow = Some(source("only-jpeg", &only_jpeg, shipped.graph_text()));
    let text = refused(&farm, SubmitJobRequest { workflow, ..request("deep", "", "x") }).await;
    let expected = "is 16-bit PNG (srgb), which workflow only-jpeg does not read right; it reads JPEG";
    assert!(text.contains(expected), "{text}");
    let colour_space = "p3".to_owned();
    let text =
        refused(&farm, SubmitJobRequest { colour_space, ..request("deep", "resize-sharpen", "x") }).await;
    assert!(text.contains("'p3' is no colour space; there are linear, srgb"), "{text}");

    // A stray name far away makes no clip of millions of frames.
    clips::make(&plates.join("stray"), 1..=3, 16, 12);
    fs::copy(plates.join("stray/plate.0001.png"), plates.join("stray/plate.20240101123000.png"))
        .expect("copied");
    let text = refused(&farm, request("stray", "temporal-smooth", "x")).await;
    assert!(text.contains("frames 4-20240101122999 are missing"), "{text}");
    let long = SubmitJobRequest { name: "n".repeat(300), ..request("good", "resize-sharpen", "x") };
    assert_eq!(refused(&farm, long).await, "the name is 300 bytes long; at most 256 are taken");

    good_job_runs(&farm, "good").await;
    let text = refused(&farm, request("good", "resize-sharpen", "good")).await;
    assert_eq!(
        text,
        "output comps/good exists already; give another one, remove it, or ask for it to be overwritten"
    );
    farm.stop().await;
}

#[tokio::test]
async fn no_path_leads_out_of_the_roots() {
    let farm = Farm::start(Setup::default()).await;
    clips::make(&farm.path("plates/good"), 1..=6, 16, 12);
    let elsewhere = tempfile::tempdir().expect("tempdir");
    clips::make(elsewhere.path(), 1..=2, 16, 12);
    std::os::unix::fs::symlink(elsewhere.path(), farm.path("plates/away")).expect("link");
    std::os::unix::fs::symlink(elsewhere.path(), farm.path("comps/away")).expect("link");

    let text = refused(&farm, request("../comps", "resize-sharpen", "x")).await;
    assert!(text.contains("has the part '..'"), "{text}");
    let text = refused(&farm, request("away", "resize-sharpen", "x")).await;
    assert!(text.contains("leads out of storage root plates through a symbolic link"), "{text}");
    let text = refused(&farm, request("good", "resize-sharpen", "away/x")).await;
    assert!(text.contains("leads out of storage root comps"), "{text}");
    // A single frame can lead out as well.
    clips::make(&farm.path("plates/one"), 1..=2, 16, 12);
    let link = farm.path("plates/one/plate.0003.png");
    std::os::unix::fs::symlink(elsewhere.path().join("plate.0001.png"), link).expect("link");
    let text = refused(&farm, request("one", "resize-sharpen", "x")).await;
    assert!(
        text.contains("plate.0003.png is a symbolic link that leads out of every storage root"),
        "{text}"
    );
    let absolute = SubmitJobRequest { output: "/tmp/x".to_owned(), ..request("good", "resize-sharpen", "x") };
    assert!(refused(&farm, absolute).await.contains("is absolute"));
    let unknown =
        SubmitJobRequest { output: "elsewhere/x".to_owned(), ..request("good", "resize-sharpen", "x") };
    assert!(
        refused(&farm, unknown)
            .await
            .contains("no storage root 'elsewhere' on this host; it has comps, plates")
    );
    good_job_runs(&farm, "good").await;
    farm.stop().await;
}

const MANIFEST: &str = r#"
[workflow]
title = "Broken"
purpose = "Test"
[clip]
node = "1"
load = "image"
[split]
kind = "per-frame"
[[pass]]
name = "beauty"
node = "3"
"#;

#[tokio::test]
async fn a_workflow_with_a_missing_node_is_refused_and_one_with_an_unknown_class_waits_and_says_why() {
    let farm = Farm::start(Setup::default()).await;
    clips::make(&farm.path("plates/good"), 1..=6, 16, 12);
    let graph = |class: &str, from: &str| {
        format!(
            r#"{{
            "1": {{ "class_type": "LoadImage", "inputs": {{ "image": "x" }} }},
            "2": {{ "class_type": "{class}", "inputs": {{ "image": ["{from}", 0] }} }},
            "3": {{ "class_type": "SaveImage", "inputs": {{ "images": ["2", 0], "filename_prefix": "x" }} }}
            }}"#
        )
    };
    let submit = |graph: &str, output: &str| SubmitJobRequest {
        workflow: Some(source("broken", MANIFEST, graph)),
        ..request("good", "", output)
    };
    let text = refused(&farm, submit(&graph("ImageInvert", "7"), "x")).await;
    assert_eq!(text, "broken/graph.json: node 2, input image: links to node 7, which is not in the graph");

    let waiting = farm.client.submit(submit(&graph("NoSuchNode", "1"), "waiting")).await;
    let job = waiting.expect("accepted").job.expect("a job").job_id;
    let view = until(&farm.client, job, |job| job.state() == JobState::Waiting).await;
    assert_eq!(view.message, "none of 2 connected nodes can run it: node class NoSuchNode is not installed");
    good_job_runs(&farm, "good").await;
    assert_eq!(farm.client.job(job).await.expect("there").state(), JobState::Waiting);
    farm.stop().await;
}

#[tokio::test]
async fn a_value_that_only_comfyui_refuses_fails_the_job_with_node_and_input() {
    let farm =
        Farm::start(Setup { tune_coordinator: Box::new(|config| config.max_tries = 1), ..Setup::default() })
            .await;
    clips::make(&farm.path("plates/good"), 1..=6, 16, 12);
    let graph = r#"{
        "1": { "class_type": "LoadImage", "inputs": { "image": "x" } },
        "2": { "class_type": "ImageBlur", "inputs": { "image": ["1", 0], "blur_radius": 99, "sigma": 1.0 } },
        "3": { "class_type": "SaveImage", "inputs": { "images": ["2", 0], "filename_prefix": "x" } }
    }"#;
    let submission =
        SubmitJobRequest { workflow: Some(source("broken", MANIFEST, graph)), ..request("good", "", "x") };
    let (job, failures) = farm.run(submission).await;
    assert_eq!(job.state(), JobState::Failed);
    assert_eq!(failures[0].kind(), FailureKind::Refused);
    assert!(failures[0].message.contains("node 2 (ImageBlur): Value 99 bigger than max of 31: blur_radius"));
    good_job_runs(&farm, "good").await;
    farm.stop().await;
}

#[tokio::test]
async fn a_frame_that_breaks_after_submit_fails_alone() {
    let farm = Farm::start(Setup {
        simulators: vec![Config { seconds_per_frame: 0.01, ..Config::default() }],
        tune_coordinator: Box::new(|config| config.max_tries = 2),
        ..Setup::default()
    })
    .await;
    let plates = farm.path("plates");
    clips::make(&plates.join("good"), 1..=6, 16, 12);
    clips::make(&plates.join("breaks"), 1..=20, 16, 12);
    let node = farm.client.nodes().await.expect("nodes")[0].name.clone();
    let drain = hearth_client::v1::control_node_request::Action::Drain(hearth_client::v1::Drain {});
    let undrain = hearth_client::v1::control_node_request::Action::Undrain(hearth_client::v1::Undrain {});
    farm.client.control_node(&node, drain).await.expect("drained");
    let submitted =
        farm.client.submit(request("breaks", "resize-sharpen", "breaks")).await.expect("accepted");
    truncate(&plates.join("breaks/plate.0007.png"));
    farm.client.control_node(&node, undrain).await.expect("undrained");
    let (job, failures) = finish(&farm.client, submitted.job.expect("a job").job_id).await;
    assert_eq!(job.state(), JobState::Partial);
    assert_eq!(job.failed_frames, "7");
    assert_eq!(clips::read(&farm.path("comps/breaks")).len(), 19);
    assert!(failures.iter().all(|failure| failure.kind() == FailureKind::BadFrame), "{failures:?}");
    assert!(job.message.contains("frame 7") && job.message.contains("cut off"), "{}", job.message);
    good_job_runs(&farm, "good").await;

    // Put right, the job is finished by a retry.
    clips::make(&plates.join("breaks"), 7..=7, 16, 12);
    let retry = hearth_client::v1::control_job_request::Action::Retry(hearth_client::v1::Retry {});
    farm.client.control(job.job_id, retry).await.expect("retried");
    let (job, _) = finish(&farm.client, job.job_id).await;
    assert_eq!(job.state(), JobState::Done, "{}", job.message);
    assert_eq!(clips::read(&farm.path("comps/breaks")).len(), 20);
    farm.stop().await;
}

fn truncate(path: &Path) {
    let bytes = fs::read(path).expect("readable");
    fs::write(path, &bytes[..bytes.len() / 2]).expect("written");
}
