//! Rendering some frames anew: those are replaced, and the others stay as they were.

use hearth_client::v1::{self, JobState};
use hearth_simulator::Config;
use hearth_storage::manifest::SequenceManifest;
use hearth_tests::{
    clips,
    farm::{Farm, Setup, finish, request},
};
use hearth_workflows::Frame;

fn ask(frames: &str, sharpen: &str, overwrite: bool) -> v1::SubmitJobRequest {
    v1::SubmitJobRequest {
        frames: frames.to_owned(),
        overwrite,
        parameters: [("sharpen".to_owned(), sharpen.to_owned())].into(),
        chunk_frames: 2,
        ..request("sh010", "resize-sharpen", "sh010")
    }
}

/// The frame of `plate.0012.png`.
fn frame(file: &str) -> Frame {
    Frame(file.split('.').nth(1).and_then(|digits| digits.parse().ok()).expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overwriting_named_frames_keeps_the_others() {
    let farm = Farm::start(Setup::default()).await;
    clips::make(&farm.path("plates/sh010"), 1..=20, 24, 16);
    let output = farm.path("comps/sh010");
    let (job, _) = farm.run(ask("", "0", false)).await;
    assert_eq!(job.state(), JobState::Done);
    let old = clips::read(&output);
    assert_eq!(old.len(), 20);

    let mut now = old.clone();
    let mut makers = vec![SequenceManifest::read(&output).expect("a manifest").job];
    for (frames, sharpen) in [("10-12", "3"), ("12-13,20", "5")] {
        let (job, failures) = farm.run(ask(frames, sharpen, true)).await;
        assert_eq!(job.state(), JobState::Done, "{failures:?}");
        let new = clips::read(&output);
        assert_eq!(new.keys().collect::<Vec<_>>(), old.keys().collect::<Vec<_>>(), "frames are lost");
        let named: hearth_workflows::FrameSet = frames.parse().expect("frames");
        for (file, picture) in &new {
            assert_eq!(named.contains(frame(file)), now[file] != *picture, "{file} after {frames}");
        }
        now = new;
        makers.push(SequenceManifest::read(&output).expect("a manifest").job);
    }
    // The manifest says who made what, and holds every file.
    let manifest = SequenceManifest::read(&output).expect("a manifest");
    let kept: Vec<(String, String)> =
        manifest.kept.iter().map(|kept| (kept.job.clone(), kept.frames.to_string())).collect();
    let wanted = [(makers[0].clone(), "1-9,14-19".to_owned()), (makers[1].clone(), "10-11".to_owned())];
    assert_eq!(kept, wanted);
    let files = &manifest.files["beauty"];
    assert_eq!(files.len(), 20);
    assert!(files.values().all(|file| file.is_whole(&output)));

    // A sequence of other passes or names would be lost but for these frames; all of it may be replaced.
    let other = |frames: &str| v1::SubmitJobRequest {
        workflow: request("sh010", "temporal-smooth", "x").workflow,
        parameters: [].into(),
        clip: "plates/other/plate.%03d.png".to_owned(),
        ..ask(frames, "0", true)
    };
    clips::make(&farm.path("plates/sh010"), 1..=20, 24, 16);
    std::fs::create_dir_all(farm.path("plates/other")).expect("a folder");
    for frame in 1..=20 {
        let from = farm.path(&format!("plates/sh010/plate.{frame:04}.png"));
        std::fs::copy(from, farm.path(&format!("plates/other/plate.{frame:03}.png"))).expect("a copy");
    }
    let refused = farm.client.submit(other("3-4")).await.expect_err("refused").to_string();
    assert!(refused.contains("has frames 1-2,5-20 of another workflow, or under other names"), "{refused}");
    assert_eq!(clips::read(&output), now);
    let (job, _) = farm.run(other("")).await;
    assert_eq!(job.state(), JobState::Done, "{}", job.message);
    assert!(SequenceManifest::read(&output).expect("a manifest").kept.is_empty());

    // A dry run says what becomes of what is there.
    let told = farm.client.check(ask("3-4", "0", true)).await;
    assert!(told.is_err(), "other passes and names");
    let again = farm.client.check(v1::SubmitJobRequest { frames: "3-4".to_owned(), ..other("") }).await;
    let warnings = again.expect("it could be").warnings;
    let told = "frames 3-4 of comps/sh010 are replaced, 1-2,5-20 stay";
    assert!(warnings.iter().any(|warning| warning == told), "{warnings:?}");

    let whole = farm.client.check(other("")).await.expect("it could be").warnings;
    let told = "the sequence at comps/sh010, frames 1-20, is replaced";
    assert!(whole.iter().any(|warning| warning == told), "{whole:?}");

    // What lies in its folder and is not of it would go with it.
    let inside = v1::SubmitJobRequest { output: "comps/sh010/wip/v001".to_owned(), ..ask("1-2", "0", false) };
    assert_eq!(farm.run(inside).await.0.state(), JobState::Done);
    let refused = farm.client.submit(ask("", "0", true)).await.expect_err("refused").to_string();
    assert!(refused.contains("holds another sequence, wip/v001"), "{refused}");
    assert!(output.join("wip/v001").is_dir());
    farm.stop().await;
}

/// A frame of those that are named fails for good, and comes after a retry: the others stay through both assemblies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_stays_through_a_retry() {
    let farm = Farm::start(Setup {
        simulators: vec![Config::default()],
        tune_coordinator: Box::new(|config| config.max_tries = 1),
        ..Setup::default()
    })
    .await;
    clips::make(&farm.path("plates/sh010"), 1..=8, 24, 16);
    let output = farm.path("comps/sh010");
    let (job, _) = farm.run(ask("", "0", false)).await;
    assert_eq!(job.state(), JobState::Done);
    let old = clips::read(&output);
    // It breaks after it was looked at.
    let name = farm.client.nodes().await.expect("nodes")[0].name.clone();
    let drain = v1::control_node_request::Action::Drain(v1::Drain {});
    farm.client.control_node(&name, drain).await.expect("drained");
    let job = farm.client.submit(ask("3-6", "3", true)).await.expect("accepted").job.expect("a job").job_id;
    let broken = farm.path("plates/sh010/plate.0005.png");
    let whole = std::fs::read(&broken).expect("a plate");
    std::fs::write(&broken, &whole[..whole.len() / 2]).expect("written");
    let undrain = v1::control_node_request::Action::Undrain(v1::Undrain {});
    farm.client.control_node(&name, undrain).await.expect("undrained");
    let (job, _) = finish(&farm.client, job).await;
    assert_eq!((job.state(), job.failed_frames.as_str()), (JobState::Partial, "5"), "{}", job.message);
    assert_eq!(clips::read(&output).len(), 7);
    std::fs::write(&broken, whole).expect("written");
    let retry = v1::control_job_request::Action::Retry(v1::Retry {});
    farm.client.control(job.job_id, retry).await.expect("retried");
    let (job, failures) = finish(&farm.client, job.job_id).await;
    assert_eq!(job.state(), JobState::Done, "{failures:?}");
    let new = clips::read(&output);
    assert_eq!(new.len(), 8);
    for (file, picture) in &new {
        assert_eq!((3..=6).contains(&frame(file).0), old[file] != *picture, "{file}");
    }
    assert_eq!(SequenceManifest::read(&output).expect("a manifest").files["beauty"].keys().count(), 8);
    farm.stop().await;
}
