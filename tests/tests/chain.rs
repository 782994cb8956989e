//! A chain of jobs, each of which works on what the one before makes, while that makes it: the same pictures as one
//! after the other, sooner.

use hearth_agent::config::Transfer;
use hearth_client::v1::{self, JobState, control_job_request::Action};
use hearth_simulator::Config;
use hearth_tests::{
    clips,
    farm::{Farm, Setup, finish, request},
};

/// Works on what `job` makes.
fn behind(job: u64, workflow: &str, output: &str) -> v1::SubmitJobRequest {
    v1::SubmitJobRequest {
        clip: String::new(),
        clip_of: Some(v1::ClipOf { job_id: job, pass: String::new() }),
        chunk_frames: 4,
        ..request("", workflow, output)
    }
}

async fn submit(farm: &Farm, request: v1::SubmitJobRequest) -> u64 {
    farm.client.submit(request).await.expect("accepted").job.expect("a job").job_id
}

async fn a_chain(transfer: Transfer) {
    let slow = Config { seconds_per_frame: 0.03, ..Config::default() };
    let shared_output = transfer == Transfer::Shared;
    let farm =
        Farm::start(Setup { simulators: vec![slow; 2], transfer, shared_output, ..Setup::default() }).await;
    clips::make(&farm.path("plates/sh010"), 1001..=1024, 64, 36);
    let first = v1::SubmitJobRequest { chunk_frames: 4, ..request("sh010", "temporal-smooth", "smooth") };
    let first = submit(&farm, first).await;
    let second = submit(&farm, behind(first, "temporal-smooth", "smoother")).await;
    let third = submit(&farm, behind(second, "resize-sharpen", "sharp")).await;
    let mut jobs = Vec::new();
    for id in [first, second, third] {
        let (job, failures) = finish(&farm.client, id).await;
        assert_eq!(job.state(), JobState::Done, "{}: {failures:?}", job.name);
        assert!(failures.is_empty(), "{failures:?}");
        jobs.push(job);
    }
    for pair in jobs.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        assert_eq!(after.clip_of.as_ref().map(|made| made.job_id), Some(before.job_id));
        assert!(after.started_unix_ms < before.ended_unix_ms, "{} has waited for all", after.name);
    }
    // One after the other.
    let alone = |clip: &str, workflow: &str, output: &str| v1::SubmitJobRequest {
        clip: format!("comps/{clip}/plate.%04d.png"),
        ..request("", workflow, output)
    };
    for (clip, workflow, output) in
        [("smooth", "temporal-smooth", "alone1"), ("alone1", "resize-sharpen", "alone2")]
    {
        let (job, failures) = farm.run(alone(clip, workflow, output)).await;
        assert_eq!(job.state(), JobState::Done, "{failures:?}");
    }
    let whole = clips::read(&farm.path("comps/alone2"));
    assert_eq!(whole.len(), 24);
    assert!(clips::read(&farm.path("comps/sharp")) == whole, "the chain makes other pictures");
    assert_eq!(clips::leftovers(&farm.path("comps")), Vec::<String>::new());
    // What is done by now is a clip like any other.
    let again = submit(&farm, behind(first, "resize-sharpen", "again")).await;
    let (job, failures) = finish(&farm.client, again).await;
    assert_eq!((job.state(), job.clip_of), (JobState::Done, None), "{failures:?}");
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_makes_what_its_jobs_make_one_after_the_other() {
    a_chain(Transfer::Shared).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_runs_where_frames_are_uploaded() {
    a_chain(Transfer::Http).await;
}

/// What cannot follow is refused, and what follows is cancelled with what it follows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_follow_is_told() {
    let slow = Config { seconds_per_frame: 1.0, ..Config::default() };
    let farm = Farm::start(Setup { simulators: vec![slow; 2], ..Setup::default() }).await;
    clips::make(&farm.path("plates/sh010"), 1..=20, 64, 36);
    let odd = v1::SubmitJobRequest {
        frames: "1-20x2".to_owned(),
        deliveries: vec![v1::Delivery { format: "h264".to_owned(), ..v1::Delivery::default() }],
        ..request("sh010", "resize-sharpen", "odd")
    };
    let made = farm.client.submit(odd).await.expect("accepted").jobs;
    let (odd, movie) = (made[0].job_id, made[1].job_id);
    for (wrong, told) in [
        (behind(odd, "temporal-smooth", "x"), "does not make frames 2-18x2"),
        (v1::SubmitJobRequest { frames: "4".to_owned(), ..behind(odd, "resize-sharpen", "x") }, "frames 4"),
        (
            v1::SubmitJobRequest {
                clip: "plates/sh010/plate.%04d.png".to_owned(),
                ..behind(odd, "resize-sharpen", "x")
            },
            "leave one",
        ),
        (behind(movie, "resize-sharpen", "x"), "name the job that makes it"),
        (behind(99, "resize-sharpen", "x"), "no job 99"),
        (
            v1::SubmitJobRequest {
                clip_of: Some(v1::ClipOf { job_id: odd, pass: "depth".to_owned() }),
                ..behind(odd, "resize-sharpen", "x")
            },
            "no pass 'depth'",
        ),
        (
            v1::SubmitJobRequest { after_job_ids: vec![98], ..request("sh010", "resize-sharpen", "x") },
            "no job 98",
        ),
    ] {
        let refused = farm.client.submit(wrong).await.expect_err("it cannot be").to_string();
        assert!(refused.contains(told), "{told}: {refused}");
    }
    let follower = submit(&farm, behind(odd, "resize-sharpen", "follows")).await;
    let waiting = farm.client.job(follower).await.expect("there");
    assert!(waiting.message.contains(&format!("of job {odd}")), "{}", waiting.message);
    farm.client.control(odd, Action::Cancel(v1::Cancel::default())).await.expect("cancelled");
    for job in [odd, follower, movie] {
        assert_eq!(finish(&farm.client, job).await.0.state(), JobState::Cancelled);
    }
    farm.stop().await;
}
