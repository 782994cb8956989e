//! What goes wrong inside ComfyUI is told apart, and the job ends with the right pixels all the same.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hearth_agent::Transfer;
use hearth_client::v1::{
    Cancel, Drain, Failure, FailureKind, Job, JobState, NodeState, Undrain, control_job_request::Action,
    control_node_request as node,
};
use hearth_simulator::{Config, Fault, Simulator};
use hearth_tests::{
    clips,
    farm::{Farm, PATIENCE, Setup, assert_right, finish, request, source, until},
    reference::unsplit,
};
use hearth_workflows::{FrameRange, library::Library};

const FRAMES: i64 = 24;

/// A clip on a farm of two nodes, one of which is struck; the job and its failures.
async fn with_fault(faults: &[Fault], setup: Setup) -> (Job, Vec<Failure>) {
    let simulators = vec![
        Config { faults: faults.to_vec(), seconds_per_frame: 0.01, ..Config::default() },
        Config { seconds_per_frame: 0.01, ..Config::default() },
    ];
    let farm = Farm::start(Setup { simulators, ..setup }).await;
    let clip = farm.path("plates/sh010");
    clips::make(&clip, 1..=FRAMES, 32, 20);
    let (job, failures) = run_where_it_strikes(&farm).await;
    assert_eq!(job.state(), JobState::Done, "{}: {failures:?}", job.message);
    let library = Library::read::<&str>(&[]);
    let workflow = library.get("temporal-smooth").expect("shipped");
    let range = FrameRange::new(1, FRAMES).expect("range");
    let expected = unsplit(workflow, &BTreeMap::new(), &clip, range).await;
    assert_right(&farm.path("comps"), "sh010", &expected);
    farm.stop().await;
    (job, failures)
}

/// The second node, which is sound, waits until the fault has struck or was got over: it could have rendered everything
/// by then, even what the first only had in its queue.
async fn run_where_it_strikes(farm: &Farm) -> (Job, Vec<Failure>) {
    let sound = "node1";
    farm.client.control_node(sound, node::Action::Drain(Drain {})).await.expect("drained");
    let job = farm.client.submit(request("sh010", "temporal-smooth", "sh010")).await.expect("accepted").job;
    let job = job.expect("a job").job_id;
    let has_struck = |job: &Job| !job.failures.is_empty() || job.counts.is_some_and(|counts| counts.done > 0);
    until(&farm.client, job, has_struck).await;
    farm.client.control_node(sound, node::Action::Undrain(Undrain {})).await.expect("undrained");
    finish(&farm.client, job).await
}

fn kinds(failures: &[Failure]) -> Vec<FailureKind> {
    failures.iter().map(Failure::kind).collect()
}

#[tokio::test]
async fn out_of_memory_is_told_and_gets_smaller_chunks() {
    let (_, failures) = with_fault(&[Fault::OutOfMemory], Setup::default()).await;
    assert_eq!(kinds(&failures), [FailureKind::OutOfMemory]);
    assert!(
        failures[0].message.starts_with("out of GPU memory: torch.OutOfMemoryError: ")
            && failures[0].message.ends_with("node 2 (ImageFromBatch)"),
        "{}",
        failures[0].message
    );
}

#[tokio::test]
async fn memory_that_suffices_for_smaller_chunks_only_suffices() {
    // Three loaded frames fit, four do not.
    let frame = 32 * 20 * 3 * 4 * 6;
    let simulators = vec![Config { vram_bytes: frame * 3, ..Config::default() }];
    let farm = Farm::start(Setup { simulators, ..Setup::default() }).await;
    clips::make(&farm.path("plates/sh010"), 1..=12, 32, 20);
    let (job, failures) = farm.run(request("sh010", "resize-sharpen", "sh010")).await;
    assert_eq!(job.state(), JobState::Done, "{}", job.message);
    assert!(!failures.is_empty() && failures.iter().all(|f| f.kind() == FailureKind::OutOfMemory));
    farm.stop().await;
}

#[tokio::test]
async fn an_exception_in_a_node_is_told_with_node_and_class() {
    let (_, failures) = with_fault(&[Fault::Error], Setup::default()).await;
    assert_eq!(kinds(&failures), [FailureKind::Execution]);
    let message = &failures[0].message;
    assert!(
        message.contains("node 2 (ImageFromBatch)") && message.contains("simulated failure"),
        "{message}"
    );
}

#[tokio::test]
async fn a_hanging_prompt_is_found_by_its_silence() {
    let tune_agent = Box::new(|agent: &mut hearth_agent::Config| agent.stall_seconds = 1);
    let (_, failures) = with_fault(&[Fault::Hang], Setup { tune_agent, ..Setup::default() }).await;
    assert_eq!(failures[0].kind(), FailureKind::Hung);
}

#[tokio::test]
async fn a_dead_worker_thread_is_found_and_the_node_gets_no_more_work() {
    let simulators = vec![
        Config { faults: vec![Fault::WorkerDeath], seconds_per_frame: 0.01, ..Config::default() },
        Config { seconds_per_frame: 0.01, ..Config::default() },
    ];
    let tune_agent = Box::new(|agent: &mut hearth_agent::Config| agent.stall_seconds = 2);
    let farm = Farm::start(Setup { simulators, tune_agent, ..Setup::default() }).await;
    clips::make(&farm.path("plates/sh010"), 1..=FRAMES, 32, 20);
    let (job, failures) = run_where_it_strikes(&farm).await;
    assert_eq!(job.state(), JobState::Done, "{}", job.message);
    assert!(kinds(&failures).contains(&FailureKind::Hung), "{failures:?}");
    hangs(&farm).await;
    farm.stop().await;
}

/// The first node says that it hangs, once it has asked ComfyUI long enough to let go.
async fn hangs(farm: &Farm) {
    let started = Instant::now();
    loop {
        let node = farm.client.nodes().await.expect("nodes").remove(0);
        if node.state() == NodeState::Unready && node.message.contains("hangs in a prompt") {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{node:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_cancelled_prompt_that_comfyui_keeps_makes_the_node_unready() {
    let simulators = vec![Config { faults: vec![Fault::WorkerDeath], ..Config::default() }];
    let farm = Farm::start(Setup { simulators, ..Setup::default() }).await;
    clips::make(&farm.path("plates/sh010"), 1..=4, 16, 12);
    let job = farm.client.submit(request("sh010", "resize-sharpen", "out")).await.expect("accepted").job;
    let job = job.expect("a job").job_id;
    let is_queued = |job: &Job| job.attempts.iter().any(|attempt| attempt.progress.is_some());
    until(&farm.client, job, is_queued).await;
    farm.client.control(job, Action::Cancel(Cancel::default())).await.expect("cancelled");
    hangs(&farm).await;
    farm.stop().await;
}

#[tokio::test]
async fn a_server_error_is_tried_again_before_anything_fails() {
    let (_, failures) = with_fault(&[Fault::Refuse, Fault::Refuse], Setup::default()).await;
    assert_eq!(kinds(&failures), []);
}

#[tokio::test]
async fn a_late_reply_does_not_run_the_prompt_twice() {
    let (_, failures) = with_fault(&[Fault::SlowReply], Setup::default()).await;
    assert_eq!(kinds(&failures), []);
}

#[tokio::test]
async fn a_dropped_socket_loses_nothing() {
    let (_, failures) = with_fault(&[Fault::DropSockets, Fault::DropSockets], Setup::default()).await;
    assert_eq!(kinds(&failures), []);
}

#[tokio::test]
async fn a_picture_that_is_not_whole_or_not_like_the_others_is_caught_and_rendered_again() {
    for (fault, said) in [
        (Fault::TruncateOutput, "cut off"),
        (Fault::LoseOutput, "not there"),
        (Fault::EmptyOutput, "is empty"),
        (Fault::ShrinkOutput, "is 16x10"),
        (Fault::GreyOutput, "with 1 channels"),
    ] {
        for shared_output in [true, false] {
            let setup = Setup { shared_output, ..Setup::default() };
            let (_, failures) = with_fault(&[fault], setup).await;
            assert_eq!(kinds(&failures), [FailureKind::BadOutput], "{fault:?}");
            assert!(failures[0].message.contains(said), "{}", failures[0].message);
        }
    }
}

#[tokio::test]
async fn a_dying_server_is_told_from_a_failing_node() {
    let (_, failures) = with_fault(&[Fault::Die], Setup::default()).await;
    assert!(!failures.is_empty());
    assert!(failures.iter().all(|failure| failure.kind() == FailureKind::ComfyDied), "{failures:?}");
}

#[tokio::test]
async fn frames_travel_by_http_where_nothing_is_shared() {
    let setup = Setup { transfer: Transfer::Http, shared_output: false, ..Setup::default() };
    let (_, failures) = with_fault(&[], setup).await;
    assert_eq!(kinds(&failures), []);
}

/// Loads a folder as VideoHelperSuite does, and saves 16 bits.
const FOLDER_MANIFEST: &str = r#"
[workflow]
title = "Folder"
purpose = "Test"
[clip]
node = "1"
load = "directory"
formats = ["png8", "png16"]
[split]
kind = "per-frame"
[[pass]]
name = "deep"
node = "2"
format = "png16"
[[pass]]
name = "flat"
node = "3"
"#;

const FOLDER_GRAPH: &str = r#"{
    "1": { "class_type": "VHS_LoadImagesPath", "inputs": { "directory": "x" } },
    "2": { "class_type": "SimulatorSaveImage16", "inputs": { "images": ["1", 0], "filename_prefix": "x" } },
    "3": { "class_type": "SaveImage", "inputs": { "images": ["1", 0], "filename_prefix": "x" } }
}"#;

#[tokio::test]
async fn folders_are_loaded_passes_kept_apart_and_sixteen_bits_kept() {
    for transfer in [Transfer::Shared, Transfer::Http] {
        let farm = Farm::start(Setup { transfer, ..Setup::default() }).await;
        clips::make16(&farm.path("plates/sh010"), -3..=8, 16, 12);
        let mut request = request("sh010", "", "sh010");
        request.workflow = Some(source("folder", FOLDER_MANIFEST, FOLDER_GRAPH));
        let (job, failures) = farm.run(request).await;
        assert_eq!(job.state(), JobState::Done, "{}: {failures:?}", job.message);
        for (pass, bits) in [("deep", 16), ("flat", 8)] {
            let made = clips::read(&farm.path("comps/sh010").join(pass));
            assert_eq!(made.len(), 12);
            for (name, picture) in made {
                let (stem, frame) = name.split_once('.').expect("named for its frame");
                assert_eq!(stem, format!("plate_{pass}"));
                assert_eq!(u32::from(picture.color().bits_per_pixel()), 3 * bits, "{name}");
                // What ComfyUI's loaders keep of 16 bits is the high byte.
                let plate = image::open(farm.path(&format!("plates/sh010/plate.{frame}"))).expect("plate");
                assert_eq!(picture.to_rgb8(), plate.to_rgb8(), "{name}");
            }
        }
        farm.stop().await;
    }
}

/// So quick that nobody has seen it away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comfyui_that_restarts_quickly_is_asked_anew_what_it_has() {
    let mut farm = Farm::start(Setup { simulators: vec![Config::default()], ..Setup::default() }).await;
    let address = farm.urls[0].trim_start_matches("http://").parse().expect("an address");
    let vram = async |farm: &Farm| farm.client.nodes().await.expect("told")[0].vram_bytes;
    assert_eq!(vram(&farm).await, 24 << 30);
    farm.simulators.remove(0).stop().await;
    let other = Config { base: farm.path("node0"), vram_bytes: 80 << 30, ..Config::default() };
    farm.simulators.push(Simulator::start(address, other).await.expect("started"));
    // Far sooner than it is asked without a reason: once a minute.
    let told = tokio::time::timeout(Duration::from_secs(30), async {
        while vram(&farm).await != 80 << 30 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    told.await.expect("the agent has not noticed");
    farm.stop().await;
}
