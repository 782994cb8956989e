//! Real processes, killed in the middle of a job. Each job ends with the right pixels, no gap, no duplicate.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use hearth_client::v1::{JobState, NodeState};
use hearth_tests::{
    clips,
    farm::{assert_right, finish, request, until},
    processes::Processes,
    reference::unsplit,
};
use hearth_workflows::{Frame, FrameRange, library::Library};
use image::DynamicImage;

const FRAMES: i64 = 60;

async fn expected(clip: &Path) -> BTreeMap<Frame, DynamicImage> {
    let library = Library::read::<&str>(&[]);
    let workflow = library.get("temporal-smooth").expect("shipped");
    let range = FrameRange::new(1, FRAMES).expect("range");
    unsplit(workflow, &BTreeMap::new(), clip, range).await
}

/// Runs a clip; once some frames are done and others run, `kill` strikes.
async fn survives(kill: impl AsyncFnOnce(&mut Processes)) {
    let mut farm = Processes::start(3, 0.05, &[]).await;
    let clip = farm.path("plates/sh010");
    clips::make(&clip, 1..=FRAMES, 48, 27);
    let request = request("sh010", "temporal-smooth", "sh010");
    let job = farm.client.submit(request).await.expect("accepted").job.expect("a job").job_id;
    until(&farm.client, job, |job| {
        let counts = job.counts.unwrap_or_default();
        counts.done > 0 && counts.running > 0
    })
    .await;
    let client = farm.client.clone();
    let watching = tokio::spawn(async move { finish(&client, job).await });
    until(&farm.client, job, |job| job.counts.unwrap_or_default().running > 0).await;
    kill(&mut farm).await;
    let (ended, failures) = watching.await.expect("the watch survives");
    assert_eq!(ended.state(), JobState::Done, "{}: {failures:?}", ended.message);
    assert_right(&farm.path("comps"), "sh010", &expected(&clip).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_comfyui_loses_no_frame() {
    survives(async |farm| farm.simulators[1].kill()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comfyui_that_comes_back_empty_loses_no_frame() {
    survives(async |farm| farm.restart_simulator(0)).await;
}

/// It takes connections and says nothing, as one whose host swaps does: known after the agent's `dead_seconds` (2 here),
/// however patient single requests are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comfyui_that_stands_still_loses_no_frame() {
    survives(async |farm| {
        farm.simulators[1].signal("-STOP");
        let stopped = Instant::now();
        let name = format!("host:{}", farm.port(1));
        loop {
            let nodes = farm.client.nodes().await.expect("nodes");
            let node = nodes.into_iter().find(|node| node.name == name).expect("known");
            if node.state() == NodeState::Unready && node.attempts.is_empty() {
                break;
            }
            assert!(stopped.elapsed() < Duration::from_secs(30), "nobody notices: {node:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agent_loses_no_frame() {
    survives(async |farm| farm.restart_agent()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_coordinator_loses_no_frame() {
    survives(async |farm| farm.restart_coordinator()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_killed_at_once_loses_no_frame() {
    survives(async |farm| {
        farm.coordinator.kill();
        farm.agent.kill();
        farm.restart_simulator(2);
        farm.restart_agent();
        farm.restart_coordinator();
    })
    .await;
}
