//! A Redis that lies: it answers other than it should, says to have done what it has not, cuts answers off. While it does,
//! coordinators may say that the store is broken; they must not end, grow, or call done what is not there. When it is
//! honest again, every job that was there before ends right.
//!
//! `HEARTH_ACTS=10000 HEARTH_SEED=7 cargo nextest run -p hearth-tests --test hostile_redis` tells more lies, or others.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hearth_client::v1::{self, JobState};
use hearth_tests::{
    clips,
    facility::{Facility, Plan},
    farm::{assert_right, finish, request, until},
    processes::peak_mebibytes,
    proxy::Link,
    reference::unsplit,
};
use hearth_workflows::{FrameRange, library::Library};

const FRAMES: i64 = 60;

/// What a coordinator of a small farm may need.
const MOST_MEBIBYTES: u64 = 512;

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().map_or(usual, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_redis_says_no_frame_is_lost() {
    let (seed, acts) = (number("HEARTH_SEED", 1), number("HEARTH_ACTS", 200));
    println!("replay with HEARTH_SEED={seed} HEARTH_ACTS={acts}");
    let mut facility =
        Facility::start(Plan { coordinators: 2, agents: 1, seconds_per_frame: 0.1, ..Plan::default() }).await;
    let clip = facility.path("plates/sh010");
    clips::make(&clip, 1..=FRAMES, 32, 18);
    let library = Library::read::<&str>(&[]);
    let workflow = library.get("temporal-smooth").expect("shipped");
    let range = FrameRange::new(1, FRAMES).expect("a range");
    let expected = unsplit(workflow, &BTreeMap::new(), &clip, range).await;
    let ask = |name: &str| v1::SubmitJobRequest {
        chunk_frames: 3,
        ..request("sh010", "temporal-smooth", &format!("sh010/{name}"))
    };
    let mut jobs = Vec::new();
    for name in ["first", "second"] {
        jobs.push(facility.client.submit(ask(name)).await.expect("accepted").job.expect("a job").job_id);
    }
    until(&facility.client, jobs[0], |job| job.counts.unwrap_or_default().done > 0).await;

    for (index, member) in facility.coordinators.iter().enumerate() {
        member.to_redis.set(Link::LyingRedis { seed: seed * 2 + index as u64 });
    }
    let started = Instant::now();
    let told = |facility: &Facility| -> u64 {
        facility.coordinators.iter().map(|member| member.to_redis.lies()).sum()
    };
    while told(&facility) < acts {
        assert!(started.elapsed() < Duration::from_secs(60 + acts), "{} lies", told(&facility));
        for (index, member) in facility.coordinators.iter_mut().enumerate() {
            assert!(member.process.is_alive(), "coordinator {index} has ended: {}", member.process.said());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("{} lies in {:.0} s", told(&facility), started.elapsed().as_secs_f64());
    let peaks: Vec<u64> =
        facility.coordinators.iter().map(|member| peak_mebibytes(member.process.pid())).collect();
    println!("coordinators had {peaks:?} MiB at the most");
    assert!(peaks.iter().all(|peak| *peak < MOST_MEBIBYTES), "{peaks:?} MiB");
    for member in &facility.coordinators {
        member.to_redis.set(Link::Whole);
    }

    // It goes on as ever.
    let after = v1::SubmitJobRequest { request_id: "after".to_owned(), ..ask("after") };
    let honest = Instant::now();
    jobs.push(loop {
        match facility.client.submit(after.clone()).await {
            Ok(accepted) => break accepted.job.expect("a job").job_id,
            Err(error) => assert!(honest.elapsed() < Duration::from_secs(20), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    });
    for job in &jobs {
        let (ended, failures) = finish(&facility.client, *job).await;
        assert_eq!(ended.state(), JobState::Done, "{}: {failures:?}", ended.message);
    }
    let comps = facility.path("comps/sh010");
    let started = Instant::now();
    while !clips::leftovers(&comps).is_empty() {
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", clips::leftovers(&comps));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for name in ["first", "second", "after"] {
        assert_right(&comps, name, &expected);
    }
    for member in &mut facility.coordinators {
        assert!(member.process.is_alive(), "a coordinator has ended: {}", member.process.said());
    }
    let check = facility.hearth(&["farm", "check", "--store", &facility.redis.url()]);
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
}
