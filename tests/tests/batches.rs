//! Clips of several workflows submitted as one: all or nothing, controlled as one, and whole although nodes die.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hearth_client::v1::{self, JobState, control_batch_request::Action, submit_job_request::Workflow};
use hearth_simulator::Config;
use hearth_tests::{
    clips,
    farm::{Farm, PATIENCE, Setup, finish, request},
};

/// Workflow, clip and preset of ten jobs.
const TEN: [(&str, &str, &str); 10] = [
    ("film-look", "exr", "vision3"),
    ("film-look", "png", "film-noir"),
    ("chroma-key", "exr", ""),
    ("rife-interpolation", "exr", "film-to-60"),
    ("3d-maps", "png", "quick-look"),
    ("flux-upscale", "png", "model-only"),
    ("face-restoration", "png", "subtle"),
    ("multi-format-export", "exr", "web-preview"),
    ("temporal-smooth", "png", ""),
    ("background-plate", "", ""),
];

fn ten(output: &str) -> Vec<v1::SubmitJobRequest> {
    let job = |(index, (workflow, clip, preset)): (usize, &(&str, &str, &str))| {
        let parameters = match *workflow {
            "3d-maps" => vec![("resolution", "64")],
            "multi-format-export" => vec![("preview_width", "24")],
            "background-plate" => vec![("width", "256"), ("height", "256"), ("steps", "2")],
            _ => Vec::new(),
        };
        let texts = parameters.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        v1::SubmitJobRequest {
            workflow: Some(Workflow::WorkflowName((*workflow).to_owned())),
            clip: if clip.is_empty() { String::new() } else { format!("plates/{clip}/plate.%04d.{clip}") },
            output: format!("comps/{output}/{index:02}-{workflow}"),
            preset: (*preset).to_owned(),
            parameters: texts.collect(),
            chunk_frames: 4,
            no_deliveries: true,
            show: "dune".to_owned(),
            ..v1::SubmitJobRequest::default()
        }
    };
    TEN.iter().enumerate().map(job).collect()
}

async fn farm(simulators: Vec<Config>) -> Farm {
    let farm = Farm::start(Setup { simulators, ..Setup::default() }).await;
    clips::make(&farm.path("plates/png"), 1001..=1012, 48, 32);
    clips::make_exr(&farm.path("plates/exr"), 1001..=1012, 48, 32);
    farm
}

fn batch(jobs: Vec<v1::SubmitJobRequest>) -> v1::SubmitBatchRequest {
    v1::SubmitBatchRequest { request_id: String::new(), jobs }
}

/// Every picture below the folder.
fn pictures(folder: &Path) -> Vec<(String, hearth_pictures::Raster)> {
    let read = |path: PathBuf| hearth_pictures::read(&path).expect("a picture");
    clips::files(folder).into_iter().map(|(name, path)| (name, read(path))).collect()
}

/// The place of a ComfyUI that still lives and is at work on the batch, of which some is done.
async fn at_work(farm: &Farm, batch: u64) -> usize {
    let started = Instant::now();
    loop {
        let jobs = farm.client.batch(batch).await.expect("there");
        let done: u64 = jobs.iter().filter_map(|job| job.counts).map(|counts| counts.done).sum();
        let busy = jobs.iter().flat_map(|job| &job.attempts).find_map(|attempt| {
            let index: usize = attempt.node.trim_start_matches("node").parse().ok()?;
            farm.simulators.iter().position(|alive| alive.url() == farm.urls[index])
        });
        if let Some(place) = busy.filter(|_| done > 10) {
            return place;
        }
        assert!(started.elapsed() < PATIENCE, "nobody is ever at work: {jobs:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_clips_of_many_workflows_are_done_although_two_nodes_die() {
    let mut farm = farm(vec![Config { seconds_per_frame: 0.01, ..Config::default() }; 4]).await;
    let mut made = Vec::new();
    for (output, killed) in [("calm", 0), ("storm", 2)] {
        let jobs = farm.client.submit_batch(batch(ten(output))).await.expect("accepted").jobs;
        assert_eq!(jobs.len(), 10);
        assert!(jobs.iter().all(|job| job.batch == jobs[0].job_id));
        for _ in 0..killed {
            let victim = at_work(&farm, jobs[0].job_id).await;
            farm.simulators.remove(victim).stop().await;
        }
        for job in &jobs {
            let (job, failures) = finish(&farm.client, job.job_id).await;
            assert_eq!(job.state(), JobState::Done, "{}: {failures:?}", job.name);
            let counts = job.counts.expect("counts");
            assert_eq!((counts.done, counts.failed), (counts.total, 0), "{}", job.name);
        }
        made.push(pictures(&farm.path(&format!("comps/{output}"))));
    }
    assert_eq!(farm.simulators.len(), 2);
    assert!(made[0].len() > 120 && made[0] == made[1], "the storm shows");
    assert_eq!(clips::leftovers(&farm.path("comps")), Vec::<String>::new());
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_taken_whole_or_not_at_all_and_controlled_as_one() {
    let farm = farm(vec![Config { seconds_per_frame: 0.5, ..Config::default() }; 2]).await;
    let mut jobs = ten("wrong");
    jobs[1].clip = "plates/nowhere/plate.%04d.png".to_owned();
    jobs[4].preset = "nonsense".to_owned();
    let refused = farm.client.submit_batch(batch(jobs)).await.expect_err("two are wrong").to_string();
    for told in ["of 10 jobs", "job 2 (plates/nowhere/plate.%04d.png)", "job 5 (", "no preset 'nonsense'"] {
        assert!(refused.contains(told), "{told}: {refused}");
    }
    // A dry run is refused in the same words, and one that would be taken tells of every job.
    let mut jobs = ten("wrong");
    jobs[1].clip = "plates/nowhere/plate.%04d.png".to_owned();
    jobs[4].preset = "nonsense".to_owned();
    assert_eq!(farm.client.check_batch(jobs).await.expect_err("two are wrong").to_string(), refused);
    let told = farm.client.check_batch(ten("right")).await.expect("nothing is wrong");
    let able = told.iter().filter(|job| job.nodes.iter().all(|fit| fit.lacks.is_empty())).count();
    assert_eq!((told.len(), able), (10, 10), "{told:?}");
    assert!(told[3].jobs[0].output.ends_with("right/03-rife-interpolation"), "{:?}", told[3]);
    assert!(farm.client.jobs(v1::ListJobsRequest::default()).await.expect("listed").jobs.is_empty());
    let empty = farm.client.submit_batch(batch(Vec::new())).await.expect_err("nothing in it").to_string();
    assert!(empty.contains("0 jobs in one batch"), "{empty}");
    let mut same = ten("same");
    same[1].output = same[0].output.clone();
    assert!(farm.client.check_batch(same.clone()).await.is_err(), "two jobs would write to one place");
    assert!(farm.client.submit_batch(batch(same)).await.is_err(), "two jobs write to one place");

    // Versions are counted up within the batch.
    let numbered = |_| request("png", "resize-sharpen", "numbered/v###");
    let mut slow: Vec<_> = (0..3).map(numbered).collect();
    slow[2].deliveries = vec![v1::Delivery { format: "png-proxy".to_owned(), ..v1::Delivery::default() }];
    let answer = farm.client.submit_batch(batch(slow)).await.expect("accepted");
    let outputs: Vec<&str> = answer.jobs.iter().map(|job| job.output.as_str()).collect();
    assert_eq!(
        outputs,
        ["comps/numbered/v001", "comps/numbered/v002", "comps/numbered/v003", "comps/numbered/v003_proxy"]
    );
    assert_eq!(answer.jobs[3].after_job_ids, [answer.jobs[2].job_id]);

    // Any of its numbers will do.
    let (first, last) = (answer.jobs[0].job_id, answer.jobs[3].job_id);
    let paused = farm.client.control_batch(last, Action::Pause(v1::Pause {})).await.expect("paused");
    assert!(paused.iter().all(|job| job.state() == JobState::Paused), "{paused:?}");
    let raised = Action::SetPriority(v1::SetPriority { priority: 90 });
    let raised = farm.client.control_batch(first, raised).await.expect("raised");
    assert!(raised.iter().all(|job| job.priority == 90));
    // What has ended already is left as it is.
    farm.client
        .control(answer.jobs[1].job_id, v1::control_job_request::Action::Cancel(v1::Cancel {}))
        .await
        .expect("cancelled");
    let cancelled = farm.client.control_batch(first, Action::Cancel(v1::Cancel {})).await.expect("cancelled");
    assert!(cancelled.iter().all(|job| job.state() == JobState::Cancelled), "{cancelled:?}");
    let again =
        farm.client.control_batch(first, Action::Pause(v1::Pause {})).await.expect_err("all have ended");
    assert!(again.to_string().contains("already been cancelled"), "{again}");
    farm.stop().await;
}
