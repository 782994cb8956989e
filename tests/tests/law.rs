//! The law, with pixels: whatever carves a job, in whatever order its chunks come, with chunks that fail, that are
//! lost and come late after all, and with files that go bad before the end, its sequence has the pixels of one
//! chunk. The farm's rules and the agent's assembly are the real ones; only the model is arithmetic.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
};

use hearth_agent::sequence::{self, Watched};
use hearth_coordinator::farm::{
    AssignedWork, AttemptId, Capabilities, Command, Effect, Farm, FarmConfig, FarmTag, JobClip, JobId,
    JobSpec, JobState, NodeAbout, NodeName, Outcome, Priority, Render, Segment, Session, Submission, Task,
    Terms, Timestamp,
};
use hearth_pictures::{Effort, Metadata, Plane, Raster, Samples, Window, read, write};
use hearth_proto::v1;
use hearth_storage::{
    Roots,
    manifest::{ChunkManifest, FileManifest},
};
use hearth_workflows::{
    Frame, FrameRange, FrameSet, Split, Workflow,
    format::{ColourSpace, Encoding, PictureFormat},
    split::{ChunkPlan, Ramp, Shape},
};
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

const GRAPH: &str = r#"{
"1": { "class_type": "LoadImage", "inputs": { "image": "x" } },
"2": { "class_type": "SaveImage", "inputs": { "images": ["1", 0], "filename_prefix": "x", "multiplier": 1 } }
}"#;

const NODES: u64 = 3;
const PIXELS: usize = 6;

fn workflow(split: &str) -> Arc<Workflow> {
    let manifest = format!(
        r#"
        [workflow]
        title = "Arithmetic"
        purpose = "Test"
        [clip]
        node = "1"
        load = "image"
        formats = ["exr-half"]
        [split]
        {split}
        [[pass]]
        name = "beauty"
        node = "2"
        format = "exr-half"
        "#
    );
    Arc::new(Workflow::parse("arithmetic", &manifest, GRAPH).expect("a workflow"))
}

fn splits() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("kind = \"per-frame\"".to_owned()),
        (0_u32..4, 0_u32..4)
            .prop_map(|(head, tail)| format!("kind = \"handles\"\nhead = {head}\ntail = {tail}")),
        (1_u32..7, prop::sample::select(Ramp::ALL))
            .prop_map(|(frames, ramp)| format!("kind = \"overlap\"\nframes = {frames}\nramp = \"{ramp}\"")),
        prop::sample::select(vec!["2", "5/2", "3", "4"]).prop_map(|factor| format!(
            "kind = \"interpolate\"\nfactor = \"{factor}\"\nsets = [\"2.multiplier\"]"
        )),
        Just("kind = \"whole\"".to_owned()),
    ]
}

fn source(frame: Frame, pixel: usize) -> f32 {
    let mix = (frame.0 as u32).wrapping_mul(2_654_435_761).wrapping_add(pixel as u32 * 40_503);
    (mix >> 16) as f32 / 4_096.0 - 4.0
}

/// What the model makes of what a chunk loads: the pixels of every picture. `drift`: where it may differ from
/// chunk to chunk, by how much it does.
fn model(split: Split, plan: &ChunkPlan, drift: f32) -> Vec<Vec<f32>> {
    let loaded = &plan.loaded;
    let pixels = |of: &dyn Fn(usize) -> f32| (0..PIXELS).map(of).collect::<Vec<f32>>();
    let mean = |frames: &[Frame], pixel: usize| {
        frames.iter().map(|frame| source(*frame, pixel)).sum::<f32>() / frames.len() as f32
    };
    (0..plan.made)
        .map(|place| match split {
            Split::PerFrame => pixels(&|pixel| source(loaded[place], pixel) * 0.5),
            Split::Overlap { .. } => pixels(&|pixel| source(loaded[place], pixel) * 0.5 + drift),
            Split::Handles { head, tail } => {
                let from = place.saturating_sub(head as usize);
                let around = &loaded[from..(place + tail as usize + 1).min(loaded.len())];
                pixels(&|pixel| mean(around, pixel))
            }
            Split::Interpolate { multiplier, .. } => {
                let (frame, part) = (place / multiplier as usize, place % multiplier as usize);
                let next = loaded[(frame + 1).min(loaded.len() - 1)];
                let part = part as f32 / multiplier as f32;
                pixels(&|pixel| source(loaded[frame], pixel) * (1.0 - part) + source(next, pixel) * part)
            }
            Split::Whole | Split::Generate { .. } => {
                pixels(&|pixel| source(loaded[place], pixel) + mean(loaded, pixel))
            }
        })
        .collect()
}

fn raster(pixels: &[f32]) -> Raster {
    let window = Window::of_size(PIXELS as u32, 1);
    let samples = pixels.iter().map(|pixel| half::f16::from_f32(*pixel)).collect();
    let planes = vec![Plane { name: "Y".to_owned(), samples: Samples::F16(samples) }];
    Raster { display: window, data: window, planes, metadata: Metadata::default() }
}

fn half_pixels(picture: &Raster) -> Vec<half::f16> {
    match &picture.planes[0].samples {
        Samples::F16(samples) => samples.clone(),
        other => panic!("{} samples that are no halves", other.len()),
    }
}

/// A farm, its nodes' chunks and its storage.
struct World {
    dir: tempfile::TempDir,
    farm: Farm,
    now: u64,
    job: JobId,
    split: Split,
    clip: FrameRange,
    /// By how much chunks may differ, where they may.
    drifting: bool,
    held: Vec<(AttemptId, FrameSet)>,
    /// Held by nodes of which nothing was heard; they may finish all the same.
    lost: Vec<(AttemptId, FrameSet)>,
    assembly: Option<(AttemptId, Vec<Segment>)>,
    nodes: BTreeMap<AttemptId, NodeName>,
}

impl World {
    fn new(split: &str, len: i64, chunk: u64, drifting: bool) -> Self {
        let workflow = workflow(split);
        let config =
            FarmConfig { max_tries: 1_000, retry_delay: std::time::Duration::ZERO, ..FarmConfig::default() };
        let clip = FrameRange::new(1001, 1000 + len).expect("a range");
        let split = workflow.manifest().split(&BTreeMap::new()).expect("a split");
        let mut world = Self {
            dir: tempfile::tempdir().expect("tempdir"),
            farm: Farm::new(config, FarmTag("t".to_owned())),
            now: 1_000_000,
            job: JobId(1),
            split,
            clip,
            drifting,
            held: Vec::new(),
            lost: Vec::new(),
            assembly: None,
            nodes: BTreeMap::new(),
        };
        let spec = JobSpec {
            name: "job".to_owned(),
            show: String::new(),
            user: String::new(),
            pool: String::new(),
            task: Task::Render(Render {
                workflow: workflow.id().clone(),
                workflow_name: workflow.name().to_owned(),
                parameters: BTreeMap::new(),
                clip: Some(JobClip {
                    path: "plates/plate.%04d.exr".parse().expect("a path"),
                    encoding: Encoding { format: PictureFormat::ExrHalf, colour: ColourSpace::Linear },
                    pixels: 0,
                    view: None,
                    made_by: None,
                }),
                clip_range: clip,
                chunk_frames: Some(chunk),
                pictures: Vec::new(),
            }),
            frames: split.results(&clip.into()),
            output: "comps/out".parse().expect("a path"),
            urgent: false,
            overwrite: false,
            after: BTreeSet::default(),
            terms: Terms::default(),
            batch: None,
            storage: BTreeMap::new(),
            traceparent: String::new(),
            request_id: String::new(),
        };
        world.apply(Command::Submit(Box::new(Submission::one(spec, Priority::DEFAULT, workflow.clone()))));
        for node in 0..NODES {
            let capabilities = Capabilities {
                classes: Arc::new(workflow.needed_classes().into_iter().map(str::to_owned).collect()),
                roots: ["plates", "comps"].map(str::to_owned).into(),
                ..Capabilities::default()
            };
            let about = NodeAbout {
                name: NodeName::from(format!("n{node}")),
                host: String::new(),
                agent_version: String::new(),
                instance: String::new(),
            };
            world.apply(Command::Hello {
                session: Session(node + 1),
                about: Box::new(about),
                capabilities: Box::new(capabilities),
                slots: 2,
                reason: String::new(),
                held: Vec::new(),
            });
        }
        world
    }

    fn apply(&mut self, command: Command) {
        let step = self.farm.apply(Timestamp(self.now), command);
        for effect in step.effects {
            match effect {
                Effect::Assign { session, assignment } => {
                    let id = assignment.attempt;
                    self.nodes.insert(id, NodeName::from(format!("n{}", session.0 - 1)));
                    match assignment.work {
                        AssignedWork::Chunk(frames) => self.held.push((id, frames)),
                        AssignedWork::Assembly(segments) => self.assembly = Some((id, segments)),
                        AssignedWork::Delivery | AssignedWork::CleanUp => panic!("nobody asked for {id}"),
                    }
                }
                Effect::Cancel { attempt, .. } => self.lose(attempt),
                Effect::Acknowledge { .. } | Effect::Job { .. } => {}
            }
        }
        hearth_coordinator::farm::invariants::check(&self.farm).expect("invariants hold");
    }

    fn lose(&mut self, attempt: AttemptId) {
        let at = self.held.iter().position(|(held, _)| *held == attempt);
        self.lost.extend(at.map(|at| self.held.remove(at)));
    }

    fn result(&mut self, attempt: AttemptId, frames: FrameSet, outcome: Outcome) {
        let node = self.nodes[&attempt].clone();
        let session = Session(node.to_string()[1..].parse::<u64>().expect("a number") + 1);
        self.apply(Command::Result { session, node, attempt, frames, outcome });
    }

    fn work(&self) -> std::path::PathBuf {
        self.dir.path().join(".hearth-t-1")
    }

    /// Renders and publishes a chunk, and reports it.
    fn finish(&mut self, attempt: AttemptId, frames: FrameSet) {
        let name = self.farm.tag().attempt_name(attempt);
        let folder = self.work().join(&name);
        let pass = folder.join("beauty");
        fs::create_dir_all(&pass).expect("folder");
        let plan = self.split.plan(&frames, self.clip, Shape::default());
        let drift = if self.drifting { attempt.number as f32 } else { 0.0 };
        let made = model(self.split, &plan, drift);
        let mut files = BTreeMap::new();
        for (place, frame) in &plan.kept {
            let file = pass.join(format!("{frame}.exr"));
            write(&file, &raster(&made[*place]), PictureFormat::ExrHalf, Effort::Fast).expect("written");
            files.insert(*frame, FileManifest::of(&file).expect("read"));
        }
        let manifest = ChunkManifest {
            hearth_version: "0".to_owned(),
            attempt: name,
            node: self.nodes[&attempt].to_string(),
            frames: frames.clone(),
            passes: [("beauty".to_owned(), files)].into(),
        };
        let published = Some(manifest.write(&folder).expect("written"));
        self.result(attempt, frames, Outcome::Succeeded { seconds: 1.0, published });
    }

    /// One thing that may happen.
    fn happen(&mut self, what: u8, which: usize) {
        let pick = |list: &[(AttemptId, FrameSet)]| list.get(which % list.len().max(1)).cloned();
        match what {
            // Nothing is heard of one node's chunk until its lease is over; the others beat.
            0 | 1 => {
                let Some((silent, _)) = pick(&self.held) else { return };
                self.now += 31_000;
                for (attempt, _) in self.held.clone() {
                    let node = self.nodes[&attempt].clone();
                    let session = Session(node.to_string()[1..].parse::<u64>().expect("a number") + 1);
                    let attempts = if attempt == silent { Vec::new() } else { vec![attempt] };
                    self.apply(Command::Heartbeat { session, node, attempts, clock: None });
                }
                self.lose(silent);
                self.apply(Command::Tick);
            }
            2 => {
                let Some((late, frames)) = pick(&self.lost) else { return };
                self.lost.retain(|(lost, _)| *lost != late);
                self.finish(late, frames);
            }
            3 => {
                let Some((failing, frames)) = pick(&self.held) else { return };
                self.held.retain(|(held, _)| *held != failing);
                let outcome = Outcome::Failed {
                    kind: hearth_coordinator::farm::FailureKind::Execution,
                    message: String::new(),
                    frames: FrameSet::new(),
                };
                self.result(failing, frames, outcome);
            }
            _ => {
                let Some((done, frames)) = pick(&self.held) else { return };
                self.held.retain(|(held, _)| *held != done);
                self.finish(done, frames);
            }
        }
        self.now += 10;
        self.apply(Command::Tick);
    }

    fn assembly_of(&self, segments: &[Segment]) -> (Roots, v1::Assembly) {
        let tag = self.farm.tag().clone();
        let mut roots = Roots::default();
        roots.insert("comps", self.dir.path().to_owned());
        let assembly = v1::Assembly {
            work_dir: "comps/.hearth-t-1".to_owned(),
            output: "comps/out".to_owned(),
            passes: vec![v1::PassFiles {
                name: "beauty".to_owned(),
                pattern: "plate.%04d.exr".to_owned(),
                format: PictureFormat::ExrHalf.to_string(),
                colour_space: ColourSpace::Linear.to_string(),
            }],
            segments: segments
                .iter()
                .map(|segment| v1::Segment {
                    attempt_id: tag.attempt_name(segment.attempt),
                    node: segment.node.to_string(),
                    frames: segment.frames.to_string(),
                    manifest_blake3: segment
                        .published
                        .map(|digest| digest.as_bytes().to_vec())
                        .unwrap_or_default(),
                })
                .collect(),
            cross_fade: match self.split {
                Split::Overlap { frames, ramp, .. } => Some(v1::CrossFade { frames, ramp: ramp.to_string() }),
                _ => None,
            },
            ..v1::Assembly::default()
        };
        (roots, assembly)
    }

    /// Puts the sequence together; files that are not right are made again.
    fn assemble(&mut self, attempt: AttemptId, segments: &[Segment]) {
        let (roots, assembly) = self.assembly_of(segments);
        let (cancel, tell) = (CancellationToken::new(), |_| {});
        let done =
            sequence::assemble(&roots, "assembly", &assembly, Watched::new(&cancel, &tell, Arc::default()));
        let outcome = match done {
            Ok(()) => Outcome::Succeeded { seconds: 0.0, published: None },
            Err(failure) => {
                assert_eq!(failure.kind, v1::FailureKind::BadOutput, "{}", failure.message);
                let kind = hearth_coordinator::farm::FailureKind::BadOutput;
                Outcome::Failed { kind, message: failure.message, frames: failure.frames }
            }
        };
        self.result(attempt, FrameSet::new(), outcome);
    }

    /// Lives through `script` and then in peace to the end. `spoilt`: a published file that is gone before the
    /// first assembly. Returns who made what in the end.
    fn live(&mut self, script: &[(u8, usize)], spoilt: usize) -> Vec<Segment> {
        for (what, which) in script {
            self.happen(*what, *which);
        }
        let mut last = Vec::new();
        for round in 0..10_000 {
            let state = self.farm.job(self.job).expect("the job is there").state;
            if state == JobState::Done {
                return last;
            }
            if let Some((attempt, segments)) = self.assembly.take() {
                if round % 2 == 0 || spoilt % 2 == 1 {
                    self.spoil(&segments, spoilt);
                }
                self.assemble(attempt, &segments);
                last = segments;
            }
            self.happen(9, round);
        }
        panic!("the job does not end: {:?}", self.farm.job(self.job));
    }

    /// Removes one file, once.
    fn spoil(&self, segments: &[Segment], spoilt: usize) {
        let segment = &segments[spoilt % segments.len()];
        let name = self.farm.tag().attempt_name(segment.attempt);
        let frame = segment.frames.first().expect("a frame");
        let mark = self.dir.path().join("spoilt");
        if !mark.exists() {
            fs::write(mark, "").expect("mark");
            fs::remove_file(self.work().join(name).join(format!("beauty/{frame}.exr"))).expect("removed");
        }
    }

    fn sequence(&self) -> BTreeMap<Frame, Vec<half::f16>> {
        let frames = self.split.results(&self.clip.into());
        let file = |frame: Frame| self.dir.path().join(format!("out/plate.{:04}.exr", frame.0));
        let pixels = |path: &Path| half_pixels(&read(path).expect("a whole picture"));
        frames.iter().map(|frame| (frame, pixels(&file(frame)))).collect()
    }

    /// What one chunk of all frames makes.
    fn in_one_piece(&self) -> BTreeMap<Frame, Vec<half::f16>> {
        let frames = self.split.results(&self.clip.into());
        let plan = self.split.plan(&frames, self.clip, Shape::default());
        let made = model(self.split, &plan, 0.0);
        let halves = |place: usize| made[place].iter().map(|pixel| half::f16::from_f32(*pixel)).collect();
        plan.kept.iter().map(|(place, frame)| (*frame, halves(*place))).collect()
    }
}

/// Halves in order, so that neighbours differ by one.
fn rank(number: half::f16) -> i32 {
    let bits = i32::from(number.to_bits() & 0x7fff);
    if number.is_sign_negative() { -bits } else { bits }
}

fn scripts() -> impl Strategy<Value = Vec<(u8, usize)>> {
    prop::collection::vec((0_u8..8, any::<usize>()), 0..24)
}

#[test]
fn an_assembly_that_nobody_wants_any_more_stops_and_leaves_its_place_free() {
    let mut world = World::new("kind = \"overlap\"\nframes = 4", 20, 5, false);
    let mut round = 0;
    let (attempt, segments) = loop {
        if let Some(assembly) = world.assembly.take() {
            break assembly;
        }
        world.happen(9, round);
        round += 1;
    };
    let (roots, assembly) = world.assembly_of(&segments);
    let cancel = CancellationToken::new();
    cancel.cancel();
    let stopped =
        sequence::assemble(&roots, "first", &assembly, Watched::new(&cancel, &|_| {}, Arc::default()));
    assert_eq!(stopped.expect_err("stopped").kind, v1::FailureKind::Interrupted);
    assert!(!world.dir.path().join("out").exists());
    // Another agent is not hindered by what is left of it.
    world.assemble(attempt, &segments);
    assert_eq!(world.sequence().len(), 20);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_split_of_a_job_has_the_pixels_of_one_piece(
        split in splits(), len in 2_i64..24, chunk in 1_u64..9, script in scripts(), spoilt in any::<usize>(),
    ) {
        let mut world = World::new(&split, len, chunk, false);
        world.live(&script, spoilt);
        let (made, whole) = (world.sequence(), world.in_one_piece());
        prop_assert_eq!(made.len(), whole.len());
        let ulps = i32::from(matches!(world.split, Split::Overlap { .. }));
        for (frame, pixels) in &made {
            for (made, whole) in pixels.iter().zip(&whole[frame]) {
                let off = (rank(*made) - rank(*whole)).abs();
                prop_assert!(off <= ulps, "{}, frame {frame}: {made} where {whole} is right", split);
            }
        }
    }

    /// Chunks that differ, as those of a diffusion do: away from the cuts each is as it was rendered, and in a ramp
    /// nothing lies outside what is faded.
    #[test]
    fn what_differs_is_faded_and_only_there(
        overlap in 1_u32..7, ramp in prop::sample::select(Ramp::ALL), len in 8_i64..30, chunk in 1_u64..12,
        script in scripts(),
    ) {
        let split = format!("kind = \"overlap\"\nframes = {overlap}\nramp = \"{ramp}\"");
        let mut world = World::new(&split, len, chunk, true);
        let segments = world.live(&script, 0);
        let (made, base) = (world.sequence(), world.in_one_piece());
        let reach = i64::from(overlap).div_euclid(2) + 1;
        for (frame, pixels) in &made {
            let near = |segment: &&Segment| {
                segment.frames.iter().any(|own| own.0.abs_diff(frame.0) <= reach as u64)
            };
            let drifts: Vec<f32> =
                segments.iter().filter(near).map(|segment| segment.attempt.number as f32).collect();
            let least = drifts.iter().copied().fold(f32::INFINITY, f32::min);
            let greatest = drifts.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            for (pixel, made) in pixels.iter().enumerate() {
                let drift = made.to_f32() - base[frame][pixel].to_f32();
                // Halves of this size are a sixty-fourth apart, at most.
                prop_assert!(
                    (least - 0.04..=greatest + 0.04).contains(&drift),
                    "frame {} drifts by {}, not by {} to {}", frame, drift, least, greatest
                );
            }
        }
    }
}
