//! Storage that goes away, comes back, or is another one: nothing is lost, nothing is called done that is not there, and
//! no frame fails for it.

use std::{fs, path::Path, process::Command};

use hearth_client::v1::{FailureKind, JobState};
use hearth_simulator::Config;
use hearth_storage::marker::MARKER_FILE;
use hearth_tests::{
    clips,
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
