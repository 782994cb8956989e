//! A night in a facility, from a seed: eight mixed jobs on six ComfyUIs, while everything that can die dies and
//! every link that can be cut is cut. In the end every job is done, right to the pixel.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use hearth_client::v1::{self, JobState};
use hearth_storage::manifest::SequenceManifest;
use hearth_workflows::{Frame, FrameRange, FrameSet, library::Library};
use image::DynamicImage;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use tokio::time::{sleep, timeout};

use crate::{
    clips,
    disk::Disk,
    facility::{Facility, LEADER_LEASE, Plan},
    farm::{assert_right, request},
    proxy::Link,
    reference::unsplit,
};

const JOBS: usize = 8;

/// Frames of a chunk, so that it is known how many can be in flight.
const CHUNK: u64 = 3;

/// Lengths of the clips.
const LENGTHS: [i64; 3] = [18, 30, 42];

const WORKFLOWS: [&str; 2] = ["resize-sharpen", "temporal-smooth"];

/// Longest night.
const PATIENCE: Duration = Duration::from_secs(180);

/// What the jobs must look like, made once.
#[derive(Clone)]
pub struct Expected(Arc<BTreeMap<(&'static str, i64), BTreeMap<Frame, DynamicImage>>>);

impl fmt::Debug for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expected").field(&self.0.len()).finish()
    }
}

impl Expected {
    pub async fn render() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let library = Library::read::<&str>(&[]);
        let mut all = BTreeMap::new();
        for length in LENGTHS {
            let clip = make_clip(dir.path(), length);
            let range = FrameRange::new(1, length).expect("range");
            for name in WORKFLOWS {
                let workflow = library.get(name).expect("shipped");
                all.insert((name, length), unsplit(workflow, &BTreeMap::new(), &clip, range).await);
            }
        }
        Self(Arc::new(all))
    }
}

fn make_clip(plates: &Path, length: i64) -> PathBuf {
    let clip = plates.join(format!("clip{length}"));
    clips::make(&clip, 1..=length, 32, 18);
    clip
}

/// How a night went.
#[derive(Debug, Clone, Default)]
pub struct Night {
    pub seed: u64,
    pub faults: BTreeMap<&'static str, u32>,
    pub frames: u64,
    /// Frames that were given to a ComfyUI more than once.
    pub again: u64,
    /// Frames that were in flight at the faults: no more can be rendered again.
    pub in_flight: u64,
    pub seconds: f64,
}

impl fmt::Display for Night {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.faults.iter().map(|(name, count)| format!("{count} {name}")).collect();
        write!(
            f,
            "seed {}: {} frames right after {:.1} s, {} rendered more than once ({} were in flight at a fault): {}",
            self.seed,
            self.frames,
            self.seconds,
            self.again,
            self.in_flight,
            faults.join(", ")
        )
    }
}

/// Something to be put right again at its time.
enum Repair {
    Coordinator(usize),
    Continue(usize),
    Redis,
    Agent(usize),
    Simulator(usize),
    Link(usize),
    Storage(&'static str),
    Room,
    Thaw,
}

/// Runs one night; panics when anything is not as it must be.
pub async fn night(seed: u64, expected: &Expected) -> Night {
    let started = Instant::now();
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut facility = Facility::start(Plan { coordinators: 3, ..Plan::default() }).await;
    for length in LENGTHS {
        make_clip(&facility.path("plates"), length);
    }
    let jobs: Vec<(&'static str, i64)> =
        (0..JOBS).map(|index| (WORKFLOWS[index % 2], LENGTHS[rng.random_range(0..LENGTHS.len())])).collect();
    let client = facility.client.clone();
    let work = tokio::spawn(all_jobs(client, jobs.clone(), rng.random()));
    let mut night = Night { seed, ..Night::default() };
    faults(&mut facility, &mut rng, &mut night, || work.is_finished()).await;
    let ended = timeout(PATIENCE, work).await;
    let Ok(ended) = ended else {
        panic!(
            "seed {seed}: the jobs do not end: {:#?}",
            facility.client.jobs(v1::ListJobsRequest::default()).await
        );
    };
    for job in ended.expect("every job is followed to its end") {
        assert_eq!(job.state(), JobState::Done, "seed {seed}: {job:#?}");
    }
    settle(&facility).await;
    let check = facility.hearth(&["farm", "check", "--store", &facility.redis.url()]);
    assert!(check.status.success(), "seed {seed}: {}", String::from_utf8_lossy(&check.stdout));
    for (index, (name, length)) in jobs.iter().enumerate() {
        let output = format!("job{index}");
        assert_right(&facility.path("comps"), &output, &expected.0[&(*name, *length)]);
        assert_once(&facility.path("comps").join(output), *length);
        night.frames += *length as u64;
    }
    let begun = begun(&facility.agents_said());
    assert!(begun >= night.frames, "{begun} frames were begun, {} are there", night.frames);
    night.again = begun - night.frames;
    night.seconds = started.elapsed().as_secs_f64();
    assert!(night.again <= night.in_flight, "{night}");
    night
}

/// Every frame of the sequence comes from exactly one chunk.
fn assert_once(folder: &Path, length: i64) {
    let manifest = SequenceManifest::read(folder).expect("a manifest");
    let mut all = FrameSet::new();
    let mut sum = 0;
    for chunk in &manifest.chunks {
        sum += chunk.frames.len();
        all.insert_all(&chunk.frames);
    }
    let range = FrameRange::new(1, length).expect("range");
    assert_eq!((all, sum), (range.into(), length as u64), "{manifest:?}");
}

/// Waits until nothing of the jobs' work is left: an agent may still be removing it.
async fn settle(facility: &Facility) {
    let started = Instant::now();
    while !clips::leftovers(&facility.path("comps")).is_empty() && started.elapsed() < Duration::from_secs(15)
    {
        sleep(Duration::from_millis(50)).await;
    }
}

/// Frames in chunks that agents have begun, as their logs say: every one that may have been rendered. A chunk
/// that only waited behind another, and was moved to an idle node, is not one, nor is one that found no storage.
pub fn begun(log: &str) -> u64 {
    fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
        line.split_once(&format!("{name}=\""))?.1.split('"').next()
    }
    let mut attempts: BTreeMap<&str, u64> = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains(" begun ")) {
        let field = |name| field(line, name);
        if let (Some(attempt), Some(frames)) =
            (field("attempt"), field("frames").filter(|text| !text.is_empty()))
        {
            let frames: FrameSet = frames.parse().expect("frames");
            attempts.insert(attempt, frames.len());
        }
    }
    let unmade = ["an idle node begins it sooner", "nothing is made of it"];
    for line in log.lines().filter(|line| unmade.iter().any(|text| line.contains(text))) {
        field(line, "attempt").and_then(|moved| attempts.remove(moved));
    }
    attempts.values().sum()
}

/// Submits and follows every job, whatever happens meanwhile.
async fn all_jobs(
    client: hearth_client::FarmClient,
    jobs: Vec<(&'static str, i64)>,
    seed: u64,
) -> Vec<v1::Job> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut following = Vec::new();
    for (index, (workflow, length)) in jobs.into_iter().enumerate() {
        let submission = v1::SubmitJobRequest {
            chunk_frames: CHUNK as u32,
            priority: Some(rng.random_range(0..=100)),
            request_id: format!("night-{index}"),
            ..request(&format!("clip{length}"), workflow, &format!("job{index}"))
        };
        let pause = rng.random_range(0..1_500);
        let job = loop {
            match client.submit(submission.clone()).await {
                Ok(response) => break response.job.expect("a job").job_id,
                // The farm says "try again", and means it.
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        };
        following.push(tokio::spawn(follow(client.clone(), job)));
        sleep(Duration::from_millis(pause)).await;
    }
    let mut ended = Vec::new();
    for follow in following {
        ended.push(follow.await.expect("followed"));
    }
    ended
}

async fn follow(client: hearth_client::FarmClient, job: u64) -> v1::Job {
    let mut watch = client.watch(job, false);
    let mut last = v1::Job::default();
    while let Some(update) = watch.next().await.expect("the watch goes on") {
        if let v1::watch_job_response::Update::Job(job) = update {
            last = job;
        }
    }
    last
}

/// Faults until the work is done, or enough has happened.
async fn faults(facility: &mut Facility, rng: &mut SmallRng, night: &mut Night, done: impl Fn() -> bool) {
    let mut repairs: Vec<(Instant, Repair)> = Vec::new();
    let count = rng.random_range(6..=14);
    let mut happened = 0;
    while (happened < count && !done()) || !repairs.is_empty() {
        sleep(Duration::from_millis(rng.random_range(50..700))).await;
        if happened < count && !done() {
            happened += 1;
            let (name, nodes, repair) = fault(facility, rng, &repairs).await;
            if let Some((after, repair)) = repair {
                *night.faults.entry(name).or_default() += 1;
                // Two chunks on each node.
                night.in_flight += nodes as u64 * 2 * CHUNK;
                repairs.push((Instant::now() + after, repair));
            }
        }
        let now = Instant::now();
        for (_, due) in repairs.extract_if(.., |(at, _)| *at <= now) {
            repair(facility, due).await;
        }
    }
}

/// What it is called, how many nodes it concerns, and what puts it right after a while.
type Fault = (&'static str, usize, Option<(Duration, Repair)>);

async fn fault(facility: &mut Facility, rng: &mut SmallRng, under_way: &[(Instant, Repair)]) -> Fault {
    let all = facility.simulators.len();
    let leader = facility.leader().await;
    let milliseconds =
        |rng: &mut SmallRng, range: std::ops::Range<u64>| Duration::from_millis(rng.random_range(range));
    let busy = |index: usize| {
        under_way.iter().any(|(_, repair)| {
            matches!(repair, Repair::Coordinator(other) | Repair::Continue(other) if *other == index)
        })
    };
    let hangs = facility.disk.as_ref().is_some_and(Disk::is_frozen);
    match rng.random_range(0..100) {
        0..20 if !hangs => {
            let Some(leader) = leader.filter(|leader| !busy(*leader)) else { return ("", 0, None) };
            facility.coordinators[leader].process.kill();
            let back = milliseconds(rng, 300..3_000);
            ("killed leaders", all, Some((back, Repair::Coordinator(leader))))
        }
        20..32 => {
            let Some(leader) = leader.filter(|leader| !busy(*leader)) else { return ("", 0, None) };
            facility.coordinators[leader].process.signal("-STOP");
            let back = LEADER_LEASE + milliseconds(rng, 300..2_000);
            ("paused leaders", all, Some((back, Repair::Continue(leader))))
        }
        32..40 => {
            if under_way.iter().any(|(_, repair)| matches!(repair, Repair::Redis)) {
                return ("", 0, None);
            }
            facility.redis.kill();
            ("killed Redis", all, Some((milliseconds(rng, 100..2_500), Repair::Redis)))
        }
        40..45 => {
            let root = ["plates", "comps"][rng.random_range(0..2)];
            let is_struck = |repair: &Repair| {
                matches!(repair, Repair::Storage(other) if *other == root) || is_of_disk(repair)
            };
            if under_way.iter().any(|(_, repair)| is_struck(repair)) {
                return ("", 0, None);
            }
            take_away(facility, root, rng.random_bool(0.5));
            ("lost storages", all, Some((milliseconds(rng, 200..4_000), Repair::Storage(root))))
        }
        45..54 => {
            let under_way = under_way
                .iter()
                .any(|(_, repair)| is_of_disk(repair) || matches!(repair, Repair::Storage(_)));
            let Some(disk) = facility.disk.as_mut().filter(|_| !under_way) else { return ("", 0, None) };
            if rng.random_bool(0.5) {
                disk.fill();
                ("full storages", all, Some((milliseconds(rng, 200..4_000), Repair::Room)))
            } else {
                disk.freeze();
                ("hung storages", all, Some((milliseconds(rng, 200..4_000), Repair::Thaw)))
            }
        }
        // What hangs on storage cannot be killed before that answers.
        54..61 if !hangs => {
            let agent = rng.random_range(0..facility.agents.len());
            facility.agents[agent].kill();
            (
                "killed agents",
                all / facility.agents.len(),
                Some((milliseconds(rng, 100..2_000), Repair::Agent(agent))),
            )
        }
        61..74 => {
            let simulator = rng.random_range(0..facility.simulators.len());
            facility.simulators[simulator].kill();
            ("killed ComfyUIs", 1, Some((milliseconds(rng, 100..2_000), Repair::Simulator(simulator))))
        }
        _ => {
            let links = facility.coordinators.len() * 2 + facility.to_comfyui.len();
            let link = rng.random_range(0..links);
            let state = if rng.random_bool(0.5) { Link::Silent } else { Link::Torn };
            link_at(facility, link).set(state);
            let nodes = if link < facility.coordinators.len() * 2 { all } else { 1 };
            ("cut links", nodes, Some((milliseconds(rng, 200..4_000), Repair::Link(link))))
        }
    }
}

fn link_at(facility: &Facility, index: usize) -> &crate::proxy::Proxy {
    let coordinators = facility.coordinators.len();
    if index < coordinators {
        &facility.coordinators[index].link
    } else if index < coordinators * 2 {
        &facility.coordinators[index - coordinators].to_redis
    } else {
        &facility.to_comfyui[index - coordinators * 2]
    }
}

async fn repair(facility: &mut Facility, due: Repair) {
    match due {
        Repair::Coordinator(index) => facility.restart_coordinator(index),
        Repair::Continue(index) => facility.coordinators[index].process.signal("-CONT"),
        Repair::Redis => facility.redis.restart().await,
        Repair::Agent(index) => facility.restart_agent(index),
        Repair::Simulator(index) => facility.restart_simulator(index),
        Repair::Link(index) => link_at(facility, index).set(Link::Whole),
        Repair::Storage(root) => bring_back(facility, root),
        Repair::Room => facility.disk.as_ref().expect("it was filled").make_room(),
        Repair::Thaw => facility.disk.as_mut().expect("it was frozen").thaw(),
    }
}

/// Whether it ends a fault of the disk that holds the results.
fn is_of_disk(repair: &Repair) -> bool {
    matches!(repair, Repair::Room | Repair::Thaw)
}

/// As when it is unmounted: an empty folder is where it was, of another file system.
fn take_away(facility: &mut Facility, root: &str, other: bool) {
    if let Some(disk) = facility.disk.as_mut().filter(|_| root == "comps") {
        return disk.take_away(other);
    }
    std::fs::rename(facility.path(root), facility.path(&away(root))).expect("the storage goes away");
    std::fs::create_dir(facility.path(root)).expect("the mount point is there");
}

fn bring_back(facility: &mut Facility, root: &str) {
    if let Some(disk) = facility.disk.as_mut().filter(|_| root == "comps") {
        return disk.bring_back();
    }
    std::fs::remove_dir(facility.path(root)).expect("nobody has written below the mount point");
    std::fs::rename(facility.path(&away(root)), facility.path(root)).expect("the storage comes back");
}

fn away(root: &str) -> String {
    format!("{root}.away")
}
