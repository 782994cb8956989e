//! Trouble on a farm of real processes, each kind ending as it should: the rest of the work is done, and people are
//! told what is wrong.

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use hearth_client::v1::{Failure, FailureKind, Job, JobState, NodeState};
use hearth_tests::{
    clips,
    farm::{PATIENCE, assert_right, finish, request, source},
    processes::{Processes, program},
    reference::unsplit,
};
use hearth_workflows::{Frame, FrameRange, library::Library};
use image::{DynamicImage, Rgb};

const FRAMES: i64 = 40;

/// What the simulators cannot work on, as an option of theirs and as a pixel.
const POISON: &str = "ff00ff";
const POISON_PIXEL: Rgb<u8> = Rgb([255, 0, 255]);

async fn expected(clip: &Path, workflow: &str) -> BTreeMap<Frame, DynamicImage> {
    let library = Library::read::<&str>(&[]);
    let workflow = library.get(workflow).expect("shipped");
    unsplit(workflow, &BTreeMap::new(), clip, FrameRange::new(1, FRAMES).expect("range")).await
}

fn poison(clip: &Path, frame: i64) {
    let file = clip.join(format!("plate.{frame:04}.png"));
    let mut picture = image::open(&file).expect("a frame").into_rgb8();
    picture.put_pixel(0, 0, POISON_PIXEL);
    picture.save(file).expect("saved");
}

fn kinds(job: &Job) -> Vec<FailureKind> {
    job.failures.iter().map(Failure::kind).collect()
}

/// Submits a clip of its own.
async fn submit(farm: &Processes, name: &str, workflow: &str) -> u64 {
    clips::make(&farm.path(&format!("plates/{name}")), 1..=FRAMES, 32, 20);
    let submitted = farm.client.submit(request(name, workflow, name)).await.expect("accepted");
    submitted.job.expect("a job").job_id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poison_frame_is_left_out_and_named_and_a_retry_brings_it() {
    let farm = Processes::start_with(&[vec!["--poison", POISON], vec!["--poison", POISON]], &[]).await;
    let clip = farm.path("plates/sh010");
    clips::make(&clip, 1..=FRAMES, 32, 20);
    let whole = expected(&clip, "resize-sharpen").await;
    let good = image::open(clip.join("plate.0017.png")).expect("a frame");
    poison(&clip, 17);
    poison(&clip, 33);
    let submitted = farm.client.submit(request("sh010", "resize-sharpen", "sh010")).await.expect("accepted");
    let (job, failures) = finish(&farm.client, submitted.job.expect("a job").job_id).await;

    assert_eq!(job.state(), JobState::Partial, "{}: {failures:?}", job.message);
    assert_eq!(job.failed_frames, "17,33");
    let [lost] = &job.lost[..] else { panic!("one reason: {:?}", job.lost) };
    assert_eq!((lost.frames.as_str(), lost.kind()), ("17,33", FailureKind::Execution));
    assert!(job.message.starts_with("done with failed frames 17,33: RuntimeError: "), "{}", job.message);
    assert!(lost.message.contains("a picture of the batch is poisoned"), "{}", lost.message);
    let made = clips::read(&farm.path("comps/sh010"));
    assert_eq!(made.len() as i64, FRAMES - 2);
    assert!(!made.contains_key("plate.0017.png") && made.contains_key("plate.0016.png"));

    // A script can tell it from success and from failure, and a person reads why.
    let id = job.job_id.to_string();
    let watched = farm.hearth(&["watch", &id]);
    let said = String::from_utf8_lossy(&watched.stdout).into_owned();
    assert_eq!(watched.status.code(), Some(6), "{said}");
    assert!(said.contains("38 of 40 frames") && said.contains("failed frames: 17,33"), "{said}");
    assert!(said.contains(&format!("hearth retry {id}")), "{said}");

    // One of them is put right.
    good.save(clip.join("plate.0017.png")).expect("saved");
    assert!(farm.hearth(&["retry", &id]).status.success());
    let (job, _) = finish(&farm.client, job.job_id).await;
    assert_eq!((job.state(), job.failed_frames.as_str()), (JobState::Partial, "33"), "{}", job.message);
    assert_eq!(clips::read(&farm.path("comps/sh010")).len() as i64, FRAMES - 1);

    // And the other: the sequence is whole, and nothing is left behind.
    clips::make(&clip, 33..=33, 32, 20);
    assert!(farm.hearth(&["retry", &id]).status.success());
    let (job, _) = finish(&farm.client, job.job_id).await;
    assert_eq!(job.state(), JobState::Done, "{}", job.message);
    assert_right(&farm.path("comps"), "sh010", &whole);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poison_job_is_stopped_and_others_run_on() {
    const MANIFEST: &str = "[workflow]\ntitle = \"Broken\"\npurpose = \"Test\"\n[clip]\nnode = \"1\"\nload = \"image\"\n\
        [split]\nkind = \"per-frame\"\n[[pass]]\nname = \"main\"\nnode = \"3\"\n";
    // Nothing is left of the pictures.
    const GRAPH: &str = r#"{
        "1": { "class_type": "LoadImage", "inputs": { "image": "x" } },
        "2": { "class_type": "ImageBlur", "inputs": { "image": ["1", 0], "blur_radius": 99, "sigma": 1.0 } },
        "3": { "class_type": "SaveImage", "inputs": { "images": ["2", 0], "filename_prefix": "x" } }
    }"#;
    let farm = Processes::start(3, 0.02, &[]).await;
    let good = submit(&farm, "good", "resize-sharpen").await;
    clips::make(&farm.path("plates/bad"), 1..=FRAMES * 10, 16, 12);
    let mut bad = request("bad", "", "bad");
    bad.workflow = Some(source("broken", MANIFEST, GRAPH));
    let bad = farm.client.submit(bad).await.expect("accepted").job.expect("a job").job_id;
    let (job, failures) = finish(&farm.client, bad).await;
    assert_eq!(job.state(), JobState::Failed);
    assert!(job.message.starts_with("stopped: "), "{}", job.message);
    assert!(job.message.contains("Value 99 bigger than max of 31"), "{}", job.message);
    // Long before each of its hundreds of frames was tried four times.
    assert!(failures.len() <= 8, "{} failures", failures.len());
    assert!(!farm.path("comps/bad").exists());
    let (job, _) = finish(&farm.client, good).await;
    assert_eq!(job.state(), JobState::Done, "{}", job.message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poison_node_is_put_in_quarantine_and_the_work_goes_on() {
    let slow = ["--seconds-per-frame", "0.03"];
    let farm = Processes::start_with(
        &[slow.to_vec(), [&slow[..], &["--always", "error"]].concat()],
        &[("HEARTH_QUARANTINE_SECONDS", "600")],
    )
    .await;
    let mut jobs = Vec::new();
    for name in ["one", "two", "three", "four"] {
        jobs.push((name, submit(&farm, name, "resize-sharpen").await));
    }
    for (_, job) in &jobs {
        let (job, failures) = finish(&farm.client, *job).await;
        assert_eq!(job.state(), JobState::Done, "{}: {failures:?}", job.message);
    }
    for (name, _) in jobs {
        let clip = farm.path(&format!("plates/{name}"));
        assert_right(&farm.path("comps"), name, &expected(&clip, "resize-sharpen").await);
    }
    let nodes = farm.client.nodes().await.expect("nodes");
    let states: Vec<_> = nodes.iter().map(|node| (node.state(), node.frames_done > 0)).collect();
    let poisoned = nodes.iter().find(|node| node.state() == NodeState::Quarantined);
    let poisoned = poisoned.unwrap_or_else(|| panic!("{states:?}"));
    assert_eq!(poisoned.frames_done, 0);
    assert!(poisoned.message.contains("chunks in a row, of jobs"), "{}", poisoned.message);
    assert!(poisoned.message.contains("simulated failure of a node"), "{}", poisoned.message);
    let said = String::from_utf8_lossy(&farm.hearth(&["nodes"]).stdout).into_owned();
    assert!(said.contains("quarantined"), "{said}");
    // Somebody has looked at it.
    assert!(farm.hearth(&["undrain", &poisoned.name]).status.success());
    let nodes = farm.client.nodes().await.expect("nodes");
    assert!(nodes.iter().all(|node| node.state() == NodeState::Idle), "{nodes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_straggler_is_overtaken() {
    let speed = ["--seconds-per-frame", "0.1"];
    // Its third prompt takes ten times as long as it should.
    let slow = ["--fault", "none", "--fault", "none", "--fault", "slow"];
    let farm = Processes::start_with(
        &[speed.to_vec(), [&speed[..], &slow].concat()],
        &[("HEARTH_LATE_SECONDS", "1")],
    )
    .await;
    clips::make(&farm.path("plates/sh010"), 1..=FRAMES, 32, 20);
    let mut wanted = request("sh010", "resize-sharpen", "sh010");
    wanted.chunk_frames = 5;
    let job = farm.client.submit(wanted).await.expect("accepted").job.expect("a job").job_id;
    let (job, failures) = finish(&farm.client, job).await;
    assert_eq!(job.state(), JobState::Done, "{}: {failures:?}", job.message);
    assert!(failures.is_empty(), "nothing has failed: {failures:?}");
    let said = farm.coordinator.said() + &farm.agent.said();
    assert!(said.contains("another attempt has finished its frames"), "the loser is interrupted: {said}");
    assert_right(&farm.path("comps"), "sh010", &expected(&farm.path("plates/sh010"), "resize-sharpen").await);
    // The node was interrupted, and is free.
    let nodes = farm.client.nodes().await.expect("nodes");
    assert!(nodes.iter().all(|node| node.attempts.is_empty()), "{nodes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_little_memory_is_learned_once_and_remembered() {
    // Three loaded frames fit, four do not.
    let vram = f64::from(32 * 20 * 3 * 4 * 6 * 3) / f64::from(1_u32 << 30);
    let vram = format!("{vram}");
    let mut farm = Processes::start_with(&[vec!["--vram-gib", &vram], vec!["--vram-gib", &vram]], &[]).await;
    let first = submit(&farm, "first", "resize-sharpen").await;
    let (job, _) = finish(&farm.client, first).await;
    assert_eq!(job.state(), JobState::Done, "{}", job.message);
    assert!(!job.failures.is_empty() && kinds(&job).iter().all(|kind| *kind == FailureKind::OutOfMemory));
    // Even by a coordinator that was not there.
    farm.restart_coordinator();
    hearth_tests::farm::wait_for_nodes(&farm.client, 2).await;
    let second = submit(&farm, "second", "resize-sharpen").await;
    let (job, failures) = finish(&farm.client, second).await;
    assert_eq!(job.state(), JobState::Done, "{}", job.message);
    assert!(failures.is_empty(), "it is not tried again: {failures:?}");
    assert_right(
        &farm.path("comps"),
        "second",
        &expected(&farm.path("plates/second"), "resize-sharpen").await,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombie_is_found_restarted_and_works_again() {
    let mut farm = Processes::start_with(
        &[vec!["--fault", "worker-death"], vec!["--seconds-per-frame", "0.05"]],
        &[("HEARTH_STALL_SECONDS", "1")],
    )
    .await;
    let url = |index: usize| format!("http://127.0.0.1:{}", farm.port(index));
    // As an init system would: the old one is killed, and another takes its place.
    let (pid, new) = (farm.simulators[0].pid(), farm.path("new.pid"));
    let script = format!(
        "kill -9 {pid}; {} --listen 127.0.0.1:{} --base {} >{} 2>&1 & echo $! > {}",
        program("comfy-simulator").display(),
        farm.port(0),
        farm.path("comfyui0").display(),
        farm.path("new.log").display(),
        new.display(),
    );
    let (first, second) = (url(0), url(1));
    let nodes = format!(
        "[[nodes]]\ncomfyui = \"{first}\"\nrestart = '''{script}'''\n[[nodes]]\ncomfyui = \"{second}\"\n"
    );
    let zombie = format!("host:{}", farm.port(0));
    farm.configure_agent(&nodes).await;
    let _stop = StopPid(new.clone());
    let job = submit(&farm, "sh010", "resize-sharpen").await;
    let (job, _) = finish(&farm.client, job).await;
    assert_eq!(job.state(), JobState::Done, "{}", job.message);
    assert!(kinds(&job).contains(&FailureKind::Hung), "{:?}", job.failures);
    assert_right(&farm.path("comps"), "sh010", &expected(&farm.path("plates/sh010"), "resize-sharpen").await);

    let started = Instant::now();
    loop {
        let nodes = farm.client.nodes().await.expect("nodes");
        let back = nodes.iter().find(|node| node.name == zombie).expect("known");
        if new.is_file() && back.state() == NodeState::Idle {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "it does not come back: {back:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let job = submit(&farm, "sh020", "resize-sharpen").await;
    let (job, failures) = finish(&farm.client, job).await;
    assert_eq!((job.state(), failures.len()), (JobState::Done, 0), "{}", job.message);
    let nodes = farm.client.nodes().await.expect("nodes");
    let back = nodes.iter().find(|node| node.name == zombie).expect("known");
    assert!(back.frames_done > 0, "it works again: {back:?}");
}

/// The process whose id stands in the file.
struct StopPid(std::path::PathBuf);

impl Drop for StopPid {
    fn drop(&mut self) {
        if let Ok(pid) = std::fs::read_to_string(&self.0) {
            let _ = Command::new("kill").args(["-9", pid.trim()]).status();
        }
    }
}
