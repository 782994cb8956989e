//! Storage that goes away, comes back, or is another one: nothing is lost, nothing is called done that is not there, and
//! no frame fails for it.

use std::{fs, path::Path, process::Command};

use hearth_client::v1::{FailureKind, JobState};
use hearth_simulator::Config;
use hearth_storage::marker::MARKER_FILE;
use hearth_tests::{
    clips,
    disk::Disk,
    farm::{Farm, Setup, assert_right, finish, request, until},
    reference,
};
use hearth_workflows::{FrameRange, library::Library, parameters::ParameterTexts};

/// Every file below a folder, by name.
fn files_below(folder: &Path) -> Vec<String> {
    clips::files(folder).into_keys().collect()
}

async fn slow_farm() -> Farm {
    let slow = Config { seconds_per_frame: 0.05, ..Config::default() };
    Farm::start(Setup { simulators: vec![slow; 2], ..Setup::default() }).await
}

/// What is left where a mount was is an empty folder, which takes files as well.
#[tokio::test]
async fn an_output_root_that_is_unmounted_takes_nothing_and_the_job_waits_for_it() {
    let farm = slow_farm().await;
    clips::make(&farm.path("plates/sh010"), 1..=24, 32, 20);
    let mut asked = request("sh010", "temporal-smooth", "sh010");
    asked.chunk_frames = 3;
    let job = farm.client.submit(asked).await.expect("accepted").job.expect("a job").job_id;
    until(&farm.client, job, |job| job.counts.is_some_and(|counts| counts.done > 0)).await;

    let (mounted, elsewhere) = (farm.path("comps"), farm.path("comps-away"));
    fs::rename(&mounted, &elsewhere).expect("unmounted");
    fs::create_dir(&mounted).expect("an empty mount point");
    let is_hindered = |job: &hearth_client::v1::Job| {
        let away = job.failures.iter().filter(|failure| failure.kind() == FailureKind::Storage);
        // More often than a frame may fail.
        away.count() > 6
    };
    let waiting = until(&farm.client, job, is_hindered).await;
    assert!(!matches!(waiting.state(), JobState::Done | JobState::Partial | JobState::Failed), "{waiting:?}");
    let told = &waiting.failures[0].message;
    assert!(told.contains("is not the storage that the job was submitted to"), "{told}");
    assert_eq!(files_below(&mounted), Vec::<String>::new(), "written beneath the mount point");
    // A new job would be for another storage.
    let refused = farm.client.submit(request("sh010", "temporal-smooth", "other")).await;
    let refused = refused.expect_err("refused").to_string();
    assert!(refused.contains(MARKER_FILE) && refused.contains("mounted"), "{refused}");

    fs::remove_dir_all(&mounted).expect("removed");
    fs::rename(&elsewhere, &mounted).expect("mounted again");
    let (job, failures) = finish(&farm.client, job).await;
    assert_eq!(job.state(), JobState::Done, "{failures:?}");
    assert_eq!(job.counts.map(|counts| counts.failed), Some(0));
    let library = Library::read::<&str>(&[]);
    let workflow = library.get("temporal-smooth").expect("shipped");
    let clip = FrameRange::new(1, 24).expect("a range");
    let whole = reference::unsplit(workflow, &ParameterTexts::new(), &farm.path("plates/sh010"), clip).await;
    assert_right(&mounted, "sh010", &whole);
    farm.stop().await;
}

/// Plates that are away look like frames that are missing.
#[tokio::test]
async fn plates_that_are_away_are_no_bad_frames() {
    let farm = slow_farm().await;
    clips::make(&farm.path("plates/sh010"), 1..=12, 32, 20);
    let mut asked = request("sh010", "resize-sharpen", "sh010");
    asked.chunk_frames = 2;
    let job = farm.client.submit(asked).await.expect("accepted").job.expect("a job").job_id;
    fs::rename(farm.path("plates"), farm.path("plates-away")).expect("unmounted");
    fs::create_dir(farm.path("plates")).expect("an empty mount point");
    let failed_often = |job: &hearth_client::v1::Job| job.failures.len() > 6;
    let waiting = until(&farm.client, job, failed_often).await;
    assert!(waiting.failures.iter().all(|it| it.kind() == FailureKind::Storage), "{:?}", waiting.failures);
    fs::remove_dir(farm.path("plates")).expect("removed");
    fs::rename(farm.path("plates-away"), farm.path("plates")).expect("mounted again");
    let (job, failures) = finish(&farm.client, job).await;
    assert_eq!(job.state(), JobState::Done, "{failures:?}");
    assert_eq!(clips::read(&farm.path("comps/sh010")).len(), 12);
    farm.stop().await;
}

/// Opening a pipe waits for a writer, as a file on a dead server waits for that.
#[tokio::test]
async fn a_pipe_among_the_frames_is_refused_and_holds_up_nobody() {
    let farm = Farm::start(Setup::default()).await;
    clips::make(&farm.path("plates/sh010"), 1..=3, 16, 12);
    fs::remove_file(farm.path("plates/sh010/plate.0002.png")).expect("removed");
    let pipe = farm.path("plates/sh010/plate.0002.png");
    assert!(Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()));
    let refused = farm.client.submit(request("sh010", "resize-sharpen", "x")).await;
    let refused = refused.expect_err("refused").to_string();
    assert!(refused.contains("plate.0002.png is no regular file"), "{refused}");
    farm.stop().await;
}

/// A farm whose results lie on a disk of their own, which goes first: nothing can be removed while it hangs. `None` where
/// the system lets us mount none.
async fn farm_on_disk(max_tries: u32, stall_seconds: u64) -> Option<(Farm, Disk)> {
    let dir = tempfile::tempdir().expect("tempdir");
    let folder = dir.path().join("comps");
    fs::create_dir(&folder).expect("folder");
    let Some(disk) = Disk::mount(&folder, &dir.path().join("comps.img"), 16) else {
        println!("no disk can be mounted here: as root, with loop devices, it could");
        return None;
    };
    let setup = Setup {
        shared_output: false,
        tune_coordinator: Box::new(move |config| config.max_tries = max_tries),
        tune_agent: Box::new(move |config| config.stall_seconds = stall_seconds),
        ..Setup::default()
    };
    Some((Farm::start_in(dir, setup).await, disk))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_waits_for_a_full_disk() {
    let Some((farm, disk)) = farm_on_disk(2, 600).await else { return };
    clips::make(&farm.path("plates/sh010"), 1..=12, 200, 150);
    disk.fill();
    let submitted = farm.client.submit(request("sh010", "resize-sharpen", "sh010")).await.expect("accepted");
    let job = submitted.job.expect("a job").job_id;
    // More failures than a frame survives that is to blame itself.
    until(&farm.client, job, |job| job.failures.len() > 8).await;
    let why = farm.client.explain(job).await.expect("a reason");
    assert!(why.contains("it runs on") || why.contains("the disk is full: make room there"), "{why}");
    disk.make_room();
    let (job, failures) = finish(&farm.client, job).await;
    assert_eq!(job.state(), JobState::Done, "{}", job.message);
    assert!(failures.iter().all(|failure| failure.kind() == FailureKind::Storage), "{failures:?}");
    assert_eq!(clips::read(&farm.path("comps/sh010")).len(), 12);
    farm.stop().await;
}

/// Whoever writes waits in the kernel, as on a hard mount whose server is away; the agent's work ends by its deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_waits_for_a_disk_that_hangs_and_nobody_is_held_up() {
    let Some((farm, mut disk)) = farm_on_disk(2, 1).await else { return };
    clips::make(&farm.path("plates/sh010"), 1..=12, 32, 20);
    let mut asked = request("sh010", "resize-sharpen", "sh010");
    asked.chunk_frames = 2;
    let job = farm.client.submit(asked).await.expect("accepted").job.expect("a job").job_id;
    disk.freeze();
    let hindered = until(&farm.client, job, |job| job.failures.len() > 4).await;
    assert!(hindered.failures.iter().all(|it| it.kind() == FailureKind::Storage), "{:?}", hindered.failures);
    let told = &hindered.failures[0].message;
    assert!(told.contains("within 1 s; look whether storage answers"), "{told}");
    // What asks nothing of that disk is answered in time.
    let answer = std::time::Duration::from_secs(20);
    let listed = tokio::time::timeout(answer, farm.client.clips("plates/sh010"));
    assert_eq!(listed.await.expect("in time").expect("a list").clips.len(), 1);
    disk.thaw();
    let (job, failures) = finish(&farm.client, job).await;
    assert_eq!(job.state(), JobState::Done, "{failures:?}");
    assert!(failures.iter().all(|failure| failure.kind() == FailureKind::Storage), "{failures:?}");
    assert_eq!(clips::read(&farm.path("comps/sh010")).len(), 12);
    farm.stop().await;
}
