//! What somebody sees who watches a job: how far each node is, pictures, and nothing twice or never after a
//! lost connection.

use hearth_client::v1::{AttemptPhase, JobState, WatchJobRequest, farm_client, watch_job_response::Update};
use hearth_simulator::Config;
use hearth_tests::{
    clips,
    farm::{Farm, Setup, request},
};

fn previewing() -> Setup {
    let simulator = Config { seconds_per_frame: 0.05, previews: true, ..Config::default() };
    Setup { simulators: vec![simulator; 2], ..Setup::default() }
}

#[tokio::test]
async fn progress_names_node_and_step_and_previews_are_pictures() {
    let farm = Farm::start(previewing()).await;
    clips::make(&farm.path("plates/sh010"), 1..=24, 64, 36);
    let job = farm.client.submit(request("sh010", "resize-sharpen", "out")).await.expect("accepted").job;
    let mut watch = farm.client.watch(job.expect("a job").job_id, true);
    let (mut steps, mut previews, mut last) = (0, 0, None);
    while let Some(update) = watch.next().await.expect("goes on") {
        match update {
            Update::Preview(preview) => {
                assert_eq!(preview.media_type, "image/jpeg");
                image::load_from_memory(&preview.image).expect("a picture");
                previews += 1;
            }
            Update::Job(job) => {
                let progress = job.attempts.iter().filter_map(|attempt| attempt.progress.as_ref());
                let stepping = progress.filter(|progress| {
                    progress.phase() == AttemptPhase::Running
                        && progress.graph_node_title == "Sharpen"
                        && progress.steps > 0.0
                        && (0.0..=1.0).contains(&progress.fraction)
                });
                steps += stepping.count();
                last = Some(job.state());
            }
            Update::ChunkFinished(_) | Update::Failure(_) => {}
        }
    }
    assert_eq!(last, Some(JobState::Done));
    assert!(steps > 0 && previews > 0, "{steps} steps, {previews} previews");
    farm.stop().await;
}

#[tokio::test]
async fn a_broken_watch_is_resumed_where_it_was() {
    let farm = Farm::start(previewing()).await;
    clips::make(&farm.path("plates/sh010"), 1..=24, 16, 12);
    let job = farm.client.submit(request("sh010", "resize-sharpen", "out")).await.expect("accepted").job;
    let job_id = job.expect("a job").job_id;
    let url = format!("http://{}", farm.coordinator.address);
    let mut client = farm_client::FarmClient::connect(url).await.expect("connected");
    let mut finished: Vec<String> = Vec::new();
    let mut cursor = 0;
    let mut ended = false;
    // A new connection for every single message.
    while !ended {
        let request = WatchJobRequest { job_id, cursor, previews: false };
        let mut stream = client.watch_job(request).await.expect("watched").into_inner();
        let first = stream.message().await.expect("goes on").expect("a message");
        assert!(first.cursor >= cursor, "cursors only grow");
        match first.update.expect("an update") {
            Update::ChunkFinished(chunk) => {
                cursor = first.cursor;
                finished.push(chunk.frames);
            }
            Update::Job(job) => {
                ended = job.state() == JobState::Done;
                // The snapshot tells nothing of chunks, so it must not hide one: the cursor stays.
                cursor = cursor.max(1);
            }
            _ => {}
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let mut all = hearth_workflows::FrameSet::new();
    let mut sum = 0;
    for frames in &finished {
        let frames: hearth_workflows::FrameSet = frames.parse().expect("frames");
        sum += frames.len();
        all.insert_all(&frames);
    }
    assert_eq!((all.to_string().as_str(), sum), ("1-24", 24), "each chunk is told once: {finished:?}");
    farm.stop().await;
}
