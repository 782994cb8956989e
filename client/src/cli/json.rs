//! What programs read. Names and shapes are stable: fields are added, never renamed.

use hearth_proto::v1::{self, watch_job_response::Update};
use serde_json::{Value, json};

use super::tables;

pub(super) fn list(values: impl Iterator<Item = Value>) -> Value {
    Value::Array(values.collect())
}

pub(super) fn job(job: &v1::Job) -> Value {
    let counts = job.counts.unwrap_or_default();
    json!({
        "job": job.job_id,
        "name": job.name,
        "show": job.show,
        "user": job.user,
        "priority": job.priority,
        "urgent": job.urgent,
        "pool": job.pool,
        "workflow": job.workflow,
        "delivery": job.delivery,
        "after_jobs": job.after_job_ids,
        "clip_of": job.clip_of.as_ref().map(|made| json!({ "job": made.job_id, "pass": made.pass })),
        "batch": job.batch,
        "parameters": job.parameters,
        "clip": job.clip,
        "view": job.view,
        "output": job.output,
        "sequences": job.sequences,
        "state": tables::state_name(job.state()),
        "message": job.message,
        "frames": {
            "all": job.frames,
            "total": counts.total,
            "waiting": counts.waiting,
            "running": counts.running,
            "done": counts.done,
            "failed": counts.failed,
            "failed_frames": job.failed_frames,
            "lost": job.lost.iter().map(lost).collect::<Vec<_>>(),
        },
        "attempts": job.attempts.iter().map(attempt).collect::<Vec<_>>(),
        "failures": job.failures.iter().map(failure).collect::<Vec<_>>(),
        "submitted_unix_ms": job.submitted_unix_ms,
        "started_unix_ms": job.started_unix_ms,
        "ended_unix_ms": job.ended_unix_ms,
        "frames_per_second": job.frames_per_second,
        "eta_seconds": job.eta_seconds,
        "earliest_seconds": job.earliest_seconds,
        "latest_seconds": job.latest_seconds,
        "deadline_unix_ms": job.deadline_unix_ms,
        "nodes": job.nodes,
        "late": job.late,
    })
}

pub(super) fn clip(clip: &v1::Clip) -> Value {
    json!({
        "clip": clip.pattern,
        "frames": clip.frames,
        "missing": clip.missing,
        "width": clip.width,
        "height": clip.height,
        "format": clip.format,
        "message": clip.message,
    })
}

pub(super) fn node(node: &v1::Node) -> Value {
    json!({
        "name": node.name,
        "host": node.host,
        "state": tables::node_state_name(node.state()),
        "message": node.message,
        "pools": node.pools,
        "device": node.device,
        "vram_bytes": node.vram_bytes,
        "comfyui_version": node.comfyui_version,
        "agent_version": node.agent_version,
        "attempts": node.attempts.iter().map(attempt).collect::<Vec<_>>(),
        "frames_done": node.frames_done,
        "chunks_done": node.chunks_done,
        "chunks_failed": node.chunks_failed,
        "quarantined_until_unix_ms": node.quarantined_until_unix_ms,
    })
}

pub(super) fn workflow(workflow: &v1::Workflow) -> Value {
    let parameters = workflow.parameters.iter().map(|parameter| {
        json!({
            "name": parameter.name,
            "help": parameter.help,
            "type": parameter.r#type,
            "default": parameter.default_value,
            "minimum": parameter.minimum,
            "maximum": parameter.maximum,
            "choices": parameter.choices,
        })
    });
    let presets = workflow
        .presets
        .iter()
        .map(|preset| json!({ "name": preset.name, "help": preset.help, "parameters": preset.parameters }));
    json!({
        "name": workflow.name,
        "title": workflow.title,
        "purpose": workflow.purpose,
        "category": workflow.category,
        "split": workflow.split,
        "reads": workflow.clip_formats,
        "clips": workflow.clips,
        "passes": workflow.passes,
        "parameters": parameters.collect::<Vec<_>>(),
        "presets": presets.collect::<Vec<_>>(),
        "packages": workflow.packages,
        "models": workflow.models,
        "vram_gib": workflow.vram_gib,
        "deliveries": workflow.deliveries,
    })
}

pub(super) fn preset(preset: &v1::Preset) -> Value {
    use hearth_proto::v1::preset_name::Owner;
    let (user, show) = match preset.name.as_ref().and_then(|name| name.owner.as_ref()) {
        Some(Owner::User(user)) => (Some(user), None),
        Some(Owner::Show(show)) => (None, Some(show)),
        None => (None, None),
    };
    let versions = preset.versions.iter().map(|version| {
        json!({
            "number": version.number,
            "workflow": version.workflow,
            "parameters": version.parameters,
            "note": version.note,
            "by": version.by,
            "at_unix_ms": version.at_unix_ms,
        })
    });
    json!({
        "name": preset.name.as_ref().map(|name| &name.name),
        "user": user,
        "show": show,
        "versions": versions.collect::<Vec<_>>(),
        "favourite_of": preset.favourite_of,
        "used_unix_ms": preset.used_unix_ms,
    })
}

pub(super) fn preflight(response: &v1::CheckJobResponse) -> Value {
    let jobs = response.jobs.iter().map(|job| {
        json!({ "name": job.name, "output": job.output, "frames": job.frames, "delivery": job.delivery })
    });
    let nodes = response
        .nodes
        .iter()
        .map(|fit| json!({ "nodes": fit.nodes, "count": fit.count, "lacks": fit.lacks }));
    let cost = response.cost.as_ref().map(|cost| {
        json!({
            "gpu_seconds": cost.gpu_seconds,
            "chunks": cost.chunks,
            "earliest_seconds": cost.earliest_seconds,
            "latest_seconds": cost.latest_seconds,
        })
    });
    json!({
        "jobs": jobs.collect::<Vec<_>>(),
        "nodes": nodes.collect::<Vec<_>>(),
        "node_count": response.node_count,
        "nodes_elsewhere": response.nodes_elsewhere,
        "warnings": response.warnings,
        "cost": cost,
        "output_bytes": response.output_bytes,
        "free_bytes": response.free_bytes,
    })
}

pub(super) fn update(update: &Update) -> Value {
    match update {
        Update::Job(told) => json!({ "event": "job", "job": job(told) }),
        Update::ChunkFinished(chunk) => json!({
            "event": "chunk_finished",
            "attempt": chunk.attempt_id,
            "node": chunk.node,
            "frames": chunk.frames,
            "seconds": chunk.seconds,
        }),
        Update::Failure(told) => json!({ "event": "failure", "failure": failure(told) }),
        Update::Preview(preview) => {
            json!({ "event": "preview", "attempt": preview.attempt_id, "node": preview.node })
        }
    }
}

fn attempt(attempt: &v1::Attempt) -> Value {
    let progress = attempt.progress.as_ref();
    json!({
        "attempt": attempt.attempt_id,
        "node": attempt.node,
        "frames": attempt.frames,
        "started_unix_ms": attempt.started_unix_ms,
        "fraction": progress.map(|progress| progress.fraction),
        "graph_node": progress.map(|progress| progress.graph_node.clone()),
        "at": tables::progress(attempt),
    })
}

fn lost(lost: &v1::LostFrames) -> Value {
    json!({ "frames": lost.frames, "kind": kind(lost.kind()), "message": lost.message })
}

fn kind(kind: v1::FailureKind) -> String {
    kind.as_str_name().trim_start_matches("FAILURE_KIND_").to_lowercase()
}

fn failure(failure: &v1::Failure) -> Value {
    json!({
        "attempt": failure.attempt_id,
        "node": failure.node,
        "frames": failure.frames,
        "kind": kind(failure.kind()),
        "message": failure.message,
        "at_unix_ms": failure.at_unix_ms,
    })
}
