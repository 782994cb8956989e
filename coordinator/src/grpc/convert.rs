//! Between the farm's types and the contract's messages.

use std::collections::HashMap;

use hearth_proto::v1;
use hearth_workflows::{
    FrameSet, Split, Workflow,
    format::{ColourSpace, Encoding, PictureFormat},
    parameters::ParameterTexts,
};

use super::SharedNames;
use crate::{
    farm::{
        AssignedWork, Assignment, AttemptPhase, AttemptView, Capabilities, Deliver, Failure, FailureKind,
        FarmTag, JobId, JobSpec, JobState, JobView, LostFrames, NodeState, NodeView, Progress, Render,
        Segment, Source, Task, Timestamp,
    },
    recovery::JobManifest,
};

/// A function between two enums whose variants have the same names.
macro_rules! same_names {
    ($name:ident: $from:ident => $to:ty { $($variant:ident),* }) => {
        pub(crate) fn $name(value: $from) -> $to {
            match value {
                $($from::$variant => <$to>::$variant),*
            }
        }
    };
}

same_names!(failure_kind: FailureKind => v1::FailureKind {
    Refused, Missing, Execution, OutOfMemory, BadFrame, ComfyDied, Hung, Storage, BadOutput, Lost,
    Interrupted, Internal, Unavailable, OutputTaken
});
same_names!(job_state: JobState => v1::JobState {
    Waiting, Running, Paused, Assembling, Delivering, Done, Partial, Failed, Cancelled
});
same_names!(node_state: NodeState => v1::NodeState {
    Idle, Busy, Drained, Quarantined, Unready, Offline
});
same_names!(attempt_phase: AttemptPhase => v1::AttemptPhase {
    Staging, Queued, Running, Collecting, Publishing, Assembling, Encoding
});

/// `None`: a state of a newer Hearth's, or none.
pub(crate) fn job_state_from(state: v1::JobState) -> Option<JobState> {
    Some(match state {
        v1::JobState::Unspecified => return None,
        v1::JobState::Waiting => JobState::Waiting,
        v1::JobState::Running => JobState::Running,
        v1::JobState::Paused => JobState::Paused,
        v1::JobState::Assembling => JobState::Assembling,
        v1::JobState::Delivering => JobState::Delivering,
        v1::JobState::Done => JobState::Done,
        v1::JobState::Partial => JobState::Partial,
        v1::JobState::Failed => JobState::Failed,
        v1::JobState::Cancelled => JobState::Cancelled,
    })
}

/// An unknown kind, from an agent newer than us, counts as internal.
pub(crate) fn failure_kind_from(kind: v1::FailureKind) -> FailureKind {
    match kind {
        v1::FailureKind::Refused => FailureKind::Refused,
        v1::FailureKind::Missing => FailureKind::Missing,
        v1::FailureKind::Execution => FailureKind::Execution,
        v1::FailureKind::OutOfMemory => FailureKind::OutOfMemory,
        v1::FailureKind::BadFrame => FailureKind::BadFrame,
        v1::FailureKind::ComfyDied => FailureKind::ComfyDied,
        v1::FailureKind::Hung => FailureKind::Hung,
        v1::FailureKind::Storage => FailureKind::Storage,
        v1::FailureKind::BadOutput => FailureKind::BadOutput,
        v1::FailureKind::Lost => FailureKind::Lost,
        v1::FailureKind::Interrupted => FailureKind::Interrupted,
        v1::FailureKind::Unavailable => FailureKind::Unavailable,
        v1::FailureKind::OutputTaken => FailureKind::OutputTaken,
        v1::FailureKind::Internal | v1::FailureKind::Unspecified => FailureKind::Internal,
    }
}

pub(crate) fn progress_from(progress: v1::AttemptProgress) -> Progress {
    Progress {
        phase: match progress.phase() {
            v1::AttemptPhase::Staging | v1::AttemptPhase::Unspecified => AttemptPhase::Staging,
            v1::AttemptPhase::Queued => AttemptPhase::Queued,
            v1::AttemptPhase::Running => AttemptPhase::Running,
            v1::AttemptPhase::Collecting => AttemptPhase::Collecting,
            v1::AttemptPhase::Publishing => AttemptPhase::Publishing,
            v1::AttemptPhase::Assembling => AttemptPhase::Assembling,
            v1::AttemptPhase::Encoding => AttemptPhase::Encoding,
        },
        graph_node: progress.graph_node,
        graph_node_title: progress.graph_node_title,
        step: progress.step,
        steps: progress.steps,
        fraction: progress.fraction,
    }
}

/// Frames as text; empty text is no frames.
pub(crate) fn frames_from(text: &str) -> Result<FrameSet, hearth_workflows::frames::FramesError> {
    if text.is_empty() { Ok(FrameSet::new()) } else { text.parse() }
}

fn millis(time: Timestamp) -> i64 {
    time.0 as i64
}

pub(crate) fn attempt(tag: &FarmTag, view: AttemptView) -> v1::Attempt {
    v1::Attempt {
        attempt_id: tag.attempt_name(view.id),
        node: view.node.to_string(),
        frames: view.frames.to_string(),
        started_unix_ms: millis(view.assigned),
        progress: view.progress.map(|progress| v1::AttemptProgress {
            phase: attempt_phase(progress.phase).into(),
            graph_node: progress.graph_node,
            graph_node_title: progress.graph_node_title,
            step: progress.step,
            steps: progress.steps,
            fraction: progress.fraction,
        }),
    }
}

pub(crate) fn failure(tag: &FarmTag, job: crate::farm::JobId, failure: &Failure) -> v1::Failure {
    v1::Failure {
        attempt_id: tag.attempt_name(crate::farm::AttemptId { job, number: failure.attempt }),
        node: failure.node.to_string(),
        frames: failure.frames.to_string(),
        kind: failure_kind(failure.kind).into(),
        message: failure.message.clone(),
        at_unix_ms: millis(failure.at),
    }
}

pub(crate) fn job(tag: &FarmTag, view: JobView) -> v1::Job {
    let spec = &view.spec;
    let sequences = view.workflow.as_ref().map(|workflow| {
        let pattern = |pattern: String| format!("{}/{pattern}", spec.output);
        spec.pass_files(workflow)
            .into_iter()
            .map(|pass| (pass.pass.clone(), pattern(pass.pattern())))
            .collect()
    });
    let clip_of = spec.render().and_then(|render| render.clip.as_ref()?.made_by.as_ref());
    let (workflow, clip, delivery) = match &spec.task {
        Task::Render(render) => {
            let clip = render.clip.as_ref().map(|clip| clip.path.to_string());
            (render.workflow_name.clone(), clip.unwrap_or_default(), String::new())
        }
        Task::Deliver(deliver) => (String::new(), deliver.sequence.to_string(), deliver.format.to_string()),
    };
    v1::Job {
        job_id: view.id.0,
        name: spec.name.clone(),
        show: spec.show.clone(),
        user: spec.user.clone(),
        priority: view.priority.get().into(),
        pool: spec.pool.clone(),
        workflow,
        clip,
        output: spec.output.to_string(),
        state: job_state(view.state).into(),
        message: view.message,
        counts: Some(v1::FrameCounts {
            total: spec.frames.len(),
            waiting: view.waiting,
            running: view.running,
            done: view.done,
            failed: view.failed.len(),
        }),
        frames: spec.frames.to_string(),
        failed_frames: view.failed.to_string(),
        attempts: view.attempts.into_iter().map(|view| attempt(tag, view)).collect(),
        failures: view.failures.iter().map(|told| failure(tag, view.id, told)).collect(),
        submitted_unix_ms: millis(view.submitted),
        started_unix_ms: view.started.map_or(0, millis),
        ended_unix_ms: view.ended.map_or(0, millis),
        frames_per_second: view.frames_per_second.unwrap_or(0.0),
        eta_seconds: view.eta.map(|eta| eta.expected.as_secs_f64()),
        earliest_seconds: view.eta.map(|eta| eta.earliest.as_secs_f64()),
        latest_seconds: view.eta.map(|eta| eta.latest.as_secs_f64()),
        deadline_unix_ms: spec.terms.deadline.map_or(0, millis),
        late: view.late,
        sequences: sequences.unwrap_or_default(),
        parameters: spec.render().map(parameters).unwrap_or_default(),
        after_job_ids: spec.after.iter().map(|job| job.0).collect(),
        clip_of: clip_of.map(|made| v1::ClipOf { job_id: made.job.0, pass: made.pass.clone() }),
        batch: spec.batch.map_or(0, |job| job.0),
        delivery,
        urgent: spec.urgent,
        lost: view.lost.iter().map(lost).collect(),
        nodes: view.nodes.iter().map(ToString::to_string).collect(),
        colour_space: spec
            .render()
            .and_then(|render| render.clip.as_ref())
            .map_or_else(String::new, |clip| clip.encoding.colour.to_string()),
        view: spec.render().map(view_text).unwrap_or_default(),
    }
}

/// Empty: none.
fn view_text(render: &Render) -> String {
    let view = render.clip.as_ref().and_then(|clip| clip.view);
    view.map(|view| view.to_string()).unwrap_or_default()
}

fn lost(lost: &LostFrames) -> v1::LostFrames {
    v1::LostFrames {
        frames: lost.frames.to_string(),
        kind: failure_kind(lost.kind).into(),
        message: lost.message.clone(),
    }
}

fn parameters(render: &Render) -> HashMap<String, String> {
    render.parameters.clone().into_iter().collect()
}

pub(crate) fn node(tag: &FarmTag, view: NodeView) -> v1::Node {
    v1::Node {
        name: view.about.name.to_string(),
        host: view.about.host,
        state: node_state(view.state).into(),
        message: view.message,
        pools: view.capabilities.pools.into_iter().collect(),
        device: view.capabilities.device,
        vram_bytes: view.capabilities.vram_bytes,
        comfyui_version: view.capabilities.comfyui_version,
        agent_version: view.about.agent_version,
        attempts: view.attempts.into_iter().map(|view| attempt(tag, view)).collect(),
        frames_done: view.frames_done,
        chunks_done: view.chunks_done,
        chunks_failed: view.chunks_failed,
        quarantined_until_unix_ms: view.quarantined_until.map_or(0, millis),
    }
}

/// With nothing for names that nobody has told yet, whose digests come with it.
pub(crate) fn capabilities_from(told: v1::Capabilities, names: &SharedNames) -> (Capabilities, Vec<String>) {
    let mut missing = Vec::new();
    let mut named = |digest: String| {
        names.get(&digest).unwrap_or_else(|| {
            missing.push(digest);
            std::sync::Arc::default()
        })
    };
    let (classes, models) = (named(told.node_classes_digest), named(told.models_digest));
    let capabilities = Capabilities {
        pools: told.pools.into_iter().collect(),
        classes,
        models,
        roots: told.roots.into_iter().collect(),
        device: told.device,
        vram_bytes: told.vram_bytes,
        comfyui_version: told.comfyui_version,
        ffmpeg: told.ffmpeg,
        saves_to_paths: told.saves_to_paths,
    };
    (capabilities, missing)
}

pub(crate) fn workflow(workflow: &Workflow) -> v1::Workflow {
    let manifest = workflow.manifest();
    let (about, parameters, passes) = (&manifest.workflow, &manifest.parameters, &manifest.passes);
    let split = manifest.split(&ParameterTexts::new()).map_or_else(|error| error, |split| split.to_string());
    v1::Workflow {
        name: workflow.name().to_owned(),
        title: about.title.clone(),
        purpose: about.purpose.clone(),
        category: about.category.clone(),
        split,
        parameters: parameters
            .iter()
            .map(|(name, parameter)| v1::Parameter {
                name: name.clone(),
                help: parameter.help.clone(),
                r#type: parameter.kind.name().to_owned(),
                default_value: parameter.default_text(),
                minimum: parameter.min,
                maximum: parameter.max,
                choices: parameter.choices.clone(),
                extensions: parameter.extensions.clone(),
            })
            .collect(),
        passes: passes.iter().map(|pass| pass.name.clone()).collect(),
        presets: manifest
            .presets
            .iter()
            .map(|(name, preset)| v1::WorkflowPreset {
                name: name.clone(),
                help: preset.help.clone(),
                parameters: preset.parameters.clone().into_iter().collect(),
            })
            .collect(),
        packages: manifest.needs.packages.keys().cloned().collect(),
        models: workflow.needed_models(&ParameterTexts::new()),
        vram_gib: manifest.needs.vram_gib,
        clip_formats: manifest
            .clip
            .iter()
            .flat_map(|clip| clip.formats.iter().map(ToString::to_string))
            .collect(),
        clips: manifest.clips(Encoding { format: PictureFormat::ExrHalf, colour: ColourSpace::Linear }),
        deliveries: manifest
            .deliveries
            .iter()
            .map(|delivery| format!("{}:{}", delivery.format, delivery.pass))
            .collect(),
    }
}

pub(crate) fn source(workflow: &Workflow) -> v1::WorkflowSource {
    v1::WorkflowSource {
        name: workflow.name().to_owned(),
        manifest: workflow.manifest_text().to_owned(),
        graph: workflow.graph_text().to_owned(),
    }
}

/// What every chunk of a job needs to be understood; `None` for a delivery, which has no chunks.
pub(crate) fn job_definition(
    tag: &FarmTag,
    job: JobId,
    spec: &JobSpec,
    workflow: &Workflow,
) -> Option<v1::JobDefinition> {
    let render = spec.render()?;
    let clip = render.clip.as_ref();
    Some(v1::JobDefinition {
        job_id: job.0,
        workflow_id: workflow.id().to_string(),
        parameters: parameters(render),
        clip: clip.map(|clip| clip.path.to_string()).unwrap_or_default(),
        clip_first: render.clip_range.first.0,
        clip_last: render.clip_range.last.0,
        work_dir: spec.work_dir(&tag.0, job.0).to_string(),
        manifest: JobManifest::of(tag, job, spec, workflow).to_json(),
        clip_format: clip.map(|clip| clip.encoding.format.to_string()).unwrap_or_default(),
        clip_colour_space: clip.map(|clip| clip.encoding.colour.to_string()).unwrap_or_default(),
        storage: storage(spec),
        view: view_text(render),
    })
}

/// By root, the id of the storage that the job was submitted to.
fn storage(spec: &JobSpec) -> HashMap<String, String> {
    spec.storage.iter().map(|(root, id)| (root.clone(), id.to_string())).collect()
}

/// What would make the same job again.
fn submission(spec: &JobSpec, render: &Render, workflow: &Workflow) -> v1::SubmitJobRequest {
    let frames = match render.split(workflow) {
        // Frames between frames were not asked for by number.
        Split::Interpolate { .. } => render.clip_range.into(),
        Split::Generate { .. } => FrameSet::new(),
        _ => spec.frames.clone(),
    };
    let clip = render.clip.as_ref();
    v1::SubmitJobRequest {
        name: spec.name.clone(),
        show: spec.show.clone(),
        user: spec.user.clone(),
        pool: spec.pool.clone(),
        workflow: Some(v1::submit_job_request::Workflow::WorkflowSource(source(workflow))),
        parameters: parameters(render),
        clip: clip.map(|clip| clip.path.to_string()).unwrap_or_default(),
        frames: frames.to_string(),
        output: spec.output.to_string(),
        chunk_frames: render.chunk_frames.unwrap_or(0) as u32,
        colour_space: clip.map(|clip| clip.encoding.colour.to_string()).unwrap_or_default(),
        view: view_text(render),
        ..v1::SubmitJobRequest::default()
    }
}

fn assembly(
    tag: &FarmTag,
    (spec, render): (&JobSpec, &Render),
    workflow: &Workflow,
    segments: &[Segment],
) -> v1::Assembly {
    let (mut cross_fade, mut interpolation) = (None, None);
    match render.split(workflow) {
        Split::Overlap { frames, ramp, .. } => {
            cross_fade = Some(v1::CrossFade { frames, ramp: ramp.to_string() });
        }
        Split::Interpolate { multiplier, step } => {
            interpolation = Some(v1::Interpolation { first: render.clip_range.first.0, multiplier, step });
        }
        _ => {}
    }
    let mut missing = spec.frames.clone();
    segments.iter().for_each(|segment| missing.remove_all(&segment.frames));
    v1::Assembly {
        work_dir: String::new(),
        output: spec.output.to_string(),
        passes: spec
            .pass_files(workflow)
            .into_iter()
            .map(|pass| v1::PassFiles {
                pattern: pass.pattern(),
                name: pass.pass,
                format: pass.encoding.format.to_string(),
                colour_space: pass.encoding.colour.to_string(),
            })
            .collect(),
        cross_fade,
        segments: self::segments(tag, segments),
        workflow: render.workflow_name.clone(),
        parameters: parameters(render),
        clip: render.clip.as_ref().map(|clip| clip.path.to_string()).unwrap_or_default(),
        submission: Some(submission(spec, render, workflow)),
        interpolation,
        overwrite: spec.overwrite,
        missing: missing.to_string(),
    }
}

fn segments(tag: &FarmTag, segments: &[Segment]) -> Vec<v1::Segment> {
    let told = |segment: &Segment| v1::Segment {
        attempt_id: tag.attempt_name(segment.attempt),
        node: segment.node.to_string(),
        frames: segment.frames.to_string(),
        manifest_blake3: segment.published.map(|digest| digest.as_bytes().to_vec()).unwrap_or_default(),
    };
    segments.iter().map(told).collect()
}

fn clip_source(tag: &FarmTag, source: &Source) -> v1::ClipSource {
    v1::ClipSource {
        work_dir: source.work_dir.to_string(),
        output: source.output.to_string(),
        pass: source.pass.clone(),
        segments: segments(tag, &source.pieces),
    }
}

fn deliver(spec: &JobSpec, deliver: &Deliver) -> v1::Deliver {
    v1::Deliver {
        work_dir: String::new(),
        output: spec.output.to_string(),
        sequence: deliver.sequence.to_string(),
        frames: spec.frames.to_string(),
        colour_space: deliver.colour.to_string(),
        format: deliver.format.to_string(),
        text: deliver.text.clone(),
        frame_rate: deliver.rate.clone(),
        overwrite: spec.overwrite,
        curve: deliver.curve.map(|curve| curve.to_string()).unwrap_or_default(),
        tiles: deliver
            .tiles
            .iter()
            .map(|tile| v1::SheetTile {
                sequence: tile.sequence.to_string(),
                frame: tile.frame.0,
                label: tile.label.clone(),
            })
            .collect(),
    }
}

pub(crate) fn assignment(tag: &FarmTag, assignment: &Assignment) -> v1::Assignment {
    use v1::assignment::Work;
    let Assignment { attempt, spec, workflow, work, source } = assignment;
    let work_dir = spec.work_dir(&tag.0, attempt.job.0).to_string();
    let work = match (work, &spec.task, workflow) {
        (AssignedWork::Chunk(frames), ..) => Some(Work::Chunk(v1::Chunk {
            frames: frames.to_string(),
            source: source.as_ref().map(|source| clip_source(tag, source)),
        })),
        (AssignedWork::Assembly(segments), Task::Render(render), Some(workflow)) => {
            let assembly = assembly(tag, (spec, render), workflow, segments);
            Some(Work::Assembly(v1::Assembly { work_dir, ..assembly }))
        }
        (AssignedWork::Delivery, Task::Deliver(task), _) => {
            Some(Work::Deliver(v1::Deliver { work_dir, ..deliver(spec, task) }))
        }
        (AssignedWork::CleanUp, ..) => Some(Work::CleanUp(v1::CleanUp { work_dir })),
        // The farm assembles what was rendered and delivers what is a delivery.
        (AssignedWork::Assembly(_) | AssignedWork::Delivery, ..) => None,
    };
    v1::Assignment {
        attempt_id: tag.attempt_name(*attempt),
        job_id: attempt.job.0,
        traceparent: spec.traceparent.clone(),
        // Of a chunk it was told with the job.
        storage: if matches!(work, Some(Work::Chunk(_))) { HashMap::new() } else { storage(spec) },
        work,
    }
}
