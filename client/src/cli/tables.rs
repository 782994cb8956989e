//! What people read.

use std::fmt::Write as _;

use comfy_table::{Table, presets::NOTHING};
use hearth_proto::v1::{self, JobState, NodeState};

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    table
}

pub(super) fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::Unspecified => "unknown",
        JobState::Waiting => "waiting",
        JobState::Running => "running",
        JobState::Paused => "paused",
        JobState::Assembling => "assembling",
        JobState::Delivering => "delivering",
        JobState::Done => "done",
        JobState::Partial => "partial",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}

pub(super) fn node_state_name(state: NodeState) -> &'static str {
    match state {
        NodeState::Unspecified => "unknown",
        NodeState::Idle => "idle",
        NodeState::Busy => "busy",
        NodeState::Drained => "drained",
        NodeState::Quarantined => "quarantined",
        NodeState::Unready => "not ready",
        NodeState::Offline => "offline",
    }
}

pub(super) fn jobs(jobs: &[v1::Job]) -> String {
    let mut table = table(&["JOB", "NAME", "WORKFLOW", "STATE", "PRIORITY", "FRAMES", "ETA", "USER", "SHOW"]);
    for job in jobs {
        let counts = job.counts.unwrap_or_default();
        let failed = if counts.failed > 0 { format!(", {} failed", counts.failed) } else { String::new() };
        table.add_row([
            job.job_id.to_string(),
            job.name.clone(),
            what(job),
            state_name(job.state()).to_owned(),
            if job.urgent { "urgent".to_owned() } else { job.priority.to_string() },
            format!("{}/{}{failed}", counts.done, counts.total),
            eta(job),
            job.user.clone(),
            job.show.clone(),
        ]);
    }
    trimmed(&table)
}

pub(super) fn job(job: &v1::Job) -> String {
    let counts = job.counts.unwrap_or_default();
    let mut facts = table(&["", ""]);
    facts.set_header(Vec::<String>::new());
    let mut fact = |name: &str, value: String| {
        if !value.is_empty() {
            facts.add_row([name.to_owned(), value]);
        }
    };
    fact("job", format!("{} ({})", job.job_id, job.name));
    fact("state", state_name(job.state()).to_owned());
    fact("why", job.message.clone());
    fact("workflow", job.workflow.clone());
    fact("delivers", job.delivery.clone());
    let after: Vec<String> = job.after_job_ids.iter().map(|job| format!("job {job}")).collect();
    fact("after", after.join(", "));
    fact("clip of", job.clip_of.as_ref().map_or(String::new(), |made| format!("job {}", made.job_id)));
    if job.batch > 0 && job.batch != job.job_id {
        fact("submitted with", format!("job {}", job.batch));
    }
    let mut parameters: Vec<String> =
        job.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    parameters.sort();
    fact("parameters", parameters.join(" "));
    if job.clip.is_empty() {
        fact("makes", format!("frames {}", job.frames));
    } else {
        fact("clip", format!("{} ({})", job.clip, job.frames));
        fact("view", job.view.clone());
    }
    fact("output", job.output.clone());
    fact(
        "frames",
        format!(
            "{} of {} done, {} running, {} waiting, {} failed",
            counts.done, counts.total, counts.running, counts.waiting, counts.failed
        ),
    );
    fact("failed", job.failed_frames.clone());
    for lost in &job.lost {
        fact("", format!("{}: {}", lost.frames, lost.message));
    }
    let now = now();
    let ago =
        |at: i64| if at > 0 { format!("{} ago", duration((now - at) as f64 / 1e3)) } else { String::new() };
    fact("submitted", ago(job.submitted_unix_ms));
    fact("started", ago(job.started_unix_ms));
    let took = (job.ended_unix_ms - job.started_unix_ms) as f64 / 1e3;
    let took = if job.started_unix_ms > 0 { format!(", after {}", duration(took)) } else { String::new() };
    fact(
        "ended",
        if job.ended_unix_ms > 0 { format!("{}{took}", ago(job.ended_unix_ms)) } else { String::new() },
    );
    fact("deadline", deadline(job, now));
    fact("rendered on", job.nodes.join(", "));
    fact("priority", if job.urgent { format!("{}, urgent", job.priority) } else { job.priority.to_string() });
    fact("pool", job.pool.clone());
    fact("show", job.show.clone());
    fact("user", job.user.clone());
    if job.frames_per_second > 0.0 {
        fact("speed", format!("{:.2} frames/s", job.frames_per_second));
    }
    let spread = job.earliest_seconds.zip(job.latest_seconds).filter(|_| job.eta_seconds.is_some());
    let spread = spread.map_or(String::new(), |(earliest, latest)| {
        format!(", at the earliest {}, at the latest {}", duration(earliest), duration(latest))
    });
    fact("eta", format!("{}{spread}", eta(job)));
    let mut text = trimmed(&facts);
    if !job.attempts.is_empty() {
        let mut running = table(&["ATTEMPT", "NODE", "FRAMES", "AT"]);
        for attempt in &job.attempts {
            running.add_row([
                attempt.attempt_id.clone(),
                attempt.node.clone(),
                attempt.frames.clone(),
                progress(attempt),
            ]);
        }
        let _ = write!(text, "\n\n{}", trimmed(&running));
    }
    if !job.failures.is_empty() {
        text.push_str("\n\nfailures, newest first:");
        for failure in &job.failures {
            let _ = write!(text, "\n  {} on {}: {}", failure_of(failure), failure.node, failure.message);
        }
    }
    text
}

pub(super) fn nodes(nodes: &[v1::Node]) -> String {
    let mut table =
        table(&["NODE", "STATE", "POOLS", "DEVICE", "GPU MEMORY", "COMFYUI", "FRAMES", "FAILED", "AT"]);
    for node in nodes {
        let at = match node.attempts.first() {
            Some(attempt) => format!("{} {}", attempt.attempt_id, progress(attempt)),
            None => node.message.clone(),
        };
        table.add_row([
            node.name.clone(),
            node_state_name(node.state()).to_owned(),
            node.pools.join(","),
            node.device.clone(),
            if node.vram_bytes > 0 {
                format!("{:.0} GiB", node.vram_bytes as f64 / GIB)
            } else {
                String::new()
            },
            node.comfyui_version.clone(),
            node.frames_done.to_string(),
            node.chunks_failed.to_string(),
            at,
        ]);
    }
    trimmed(&table)
}

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

fn owner_of(preset: &v1::Preset) -> (String, String) {
    use hearth_proto::v1::preset_name::Owner;
    let Some(name) = &preset.name else { return (String::new(), String::new()) };
    let owner = match &name.owner {
        Some(Owner::User(user)) => format!("user {user}"),
        Some(Owner::Show(show)) => format!("show {show}"),
        None => String::new(),
    };
    (owner, name.name.clone())
}

fn day(unix_ms: i64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(unix_ms.max(0) as u64);
    humantime::format_rfc3339_seconds(time).to_string().replace('T', " ").replace('Z', "")
}

fn values_of(version: &v1::PresetVersion) -> String {
    let mut values: Vec<String> =
        version.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    values.sort();
    values.join(", ")
}

/// A line for each preset; `user` is who asks.
pub(super) fn presets(presets: &[v1::Preset], user: &str) -> String {
    let mut table = table(&["PRESET", "OF", "WORKFLOW", "VERSION", "LAST USED", "NOTE"]);
    for preset in presets {
        let (owner, name) = owner_of(preset);
        let Some(last) = preset.versions.last() else { continue };
        let liked = if preset.favourite_of.iter().any(|by| by == user) { " *" } else { "" };
        let used = preset.used_unix_ms.get(user).map_or("never".to_owned(), |at| day(*at));
        table.add_row([
            format!("{name}{liked}"),
            owner,
            last.workflow.clone(),
            last.number.to_string(),
            used,
            last.note.clone(),
        ]);
    }
    trimmed(&table)
}

/// What one version of a preset sets, and which versions there are (UTC).
pub(super) fn preset(preset: &v1::Preset, version: &v1::PresetVersion) -> String {
    let (owner, name) = owner_of(preset);
    let mut text = format!("{name}, version {}, of {owner}: {}\n", version.number, version.workflow);
    let _ = writeln!(text, "  {}\n", values_of(version));
    let mut table = table(&["VERSION", "SAVED", "BY", "NOTE"]);
    for version in &preset.versions {
        let saved = day(version.at_unix_ms);
        table.add_row([&version.number.to_string(), &saved, &version.by, &version.note]);
    }
    format!("{text}{}", trimmed(&table))
}

/// How a batch does, in one line.
pub(super) fn batch(jobs: &[v1::Job]) -> String {
    let mut states: Vec<(JobState, usize)> = Vec::new();
    for job in jobs {
        match states.iter_mut().find(|(state, _)| *state == job.state()) {
            Some((_, count)) => *count += 1,
            None => states.push((job.state(), 1)),
        }
    }
    let counts = jobs.iter().filter_map(|job| job.counts);
    let (done, total) =
        counts.fold((0, 0), |(done, total), counts| (done + counts.done, total + counts.total));
    let states: Vec<String> =
        states.into_iter().map(|(state, count)| format!("{count} {}", state_name(state))).collect();
    let count = match jobs.len() {
        1 => "1 job".to_owned(),
        count => format!("{count} jobs"),
    };
    format!("{count}: {}; {done} of {total} frames", states.join(", "))
}

/// A line for each workflow, by category.
pub(super) fn workflows(workflows: &[v1::Workflow]) -> String {
    let mut table = table(&["WORKFLOW", "WHAT IT IS", "CATEGORY", "SPLIT"]);
    for workflow in workflows {
        table.add_row([&workflow.name, &workflow.title, &workflow.category, &workflow.split]);
    }
    format!("{}\n\nparameters and presets of one: hearth workflow show NAME", trimmed(&table))
}

/// All of one workflow.
pub(super) fn workflow(workflow: &v1::Workflow) -> String {
    let mut text = format!("{}: {}\n{}\n\n", workflow.name, workflow.title, workflow.purpose);
    let mut fact = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(text, "{name:<11}{value}");
        }
    };
    fact("split", workflow.split.clone());
    fact("passes", workflow.passes.join(", "));
    fact("delivers", workflow.deliveries.join(", "));
    let cuts = if workflow.clips { "; cuts off what a float clip holds below 0 and above 1" } else { "" };
    if !workflow.clip_formats.is_empty() {
        fact("reads", format!("{}{cuts}", workflow.clip_formats.join(", ")));
    }
    fact("packages", workflow.packages.join(", "));
    fact("models", workflow.models.join(", "));
    if workflow.vram_gib > 0.0 {
        fact("GPU memory", format!("{} GiB", workflow.vram_gib));
    }
    if !workflow.parameters.is_empty() {
        let mut parameters = table(&["PARAMETER", "DEFAULT", "RANGE", "WHAT IT DOES"]);
        for parameter in &workflow.parameters {
            let range = match (parameter.minimum, parameter.maximum) {
                (Some(minimum), Some(maximum)) => format!("{minimum} to {maximum}"),
                (Some(minimum), None) => format!("{minimum} or more"),
                (None, Some(maximum)) => format!("{maximum} or less"),
                (None, None) if parameter.choices.is_empty() => parameter.r#type.clone(),
                (None, None) => parameter.choices.join(", "),
            };
            parameters.add_row([&parameter.name, &parameter.default_value, &range, &parameter.help]);
        }
        let _ = writeln!(text, "\n{}", trimmed(&parameters));
    }
    if !workflow.presets.is_empty() {
        let mut presets = table(&["PRESET", "WHAT IT IS FOR", "SETS"]);
        for preset in &workflow.presets {
            let mut sets: Vec<String> =
                preset.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
            sets.sort();
            presets.add_row([&preset.name, &preset.help, &sets.join(", ")]);
        }
        let _ = writeln!(text, "\n{}", trimmed(&presets));
    }
    text.trim_end().to_owned()
}

/// The last word about a watched job.
pub(super) fn ending(job: &v1::Job) -> String {
    let counts = job.counts.unwrap_or_default();
    let seconds = (job.ended_unix_ms - job.submitted_unix_ms).max(0) as f64 / 1000.0;
    match job.state() {
        JobState::Done if !job.delivery.is_empty() => {
            // Until its sequence was there it only waited.
            let seconds = (job.ended_unix_ms - job.started_unix_ms).max(0) as f64 / 1000.0;
            format!("job {}: {} in {}: {}", job.job_id, job.delivery, duration(seconds), job.output)
        }
        JobState::Failed if !job.delivery.is_empty() => {
            format!(
                "job {} failed: {}\ntry it again with: hearth retry {}",
                job.job_id, job.message, job.job_id
            )
        }
        JobState::Done => {
            format!("job {}: {} frames in {}: {}", job.job_id, counts.done, duration(seconds), sequences(job))
        }
        JobState::Partial => {
            let mut text = format!(
                "job {}: {} of {} frames in {}: {}\nfailed frames: {}",
                job.job_id,
                counts.done,
                counts.total,
                duration(seconds),
                sequences(job),
                job.failed_frames,
            );
            for lost in &job.lost {
                let _ = write!(text, "\n  {}: {}", lost.frames, lost.message);
            }
            let _ = write!(text, "\ntry them again with: hearth retry {}", job.job_id);
            text
        }
        JobState::Failed => format!(
            "job {} failed: {}\n{} of {} frames are rendered and kept; try the rest again with: hearth retry {}",
            job.job_id, job.message, counts.done, counts.total, job.job_id
        ),
        state => format!("job {} is {}", job.job_id, state_name(state)),
    }
}

fn sequences(job: &v1::Job) -> String {
    let mut sequences: Vec<&str> = job.sequences.values().map(String::as_str).collect();
    sequences.sort_unstable();
    sequences.join(" ")
}

/// `frames 12-20: out of memory`.
pub(super) fn failure_of(failure: &v1::Failure) -> String {
    let kind =
        failure.kind().as_str_name().trim_start_matches("FAILURE_KIND_").to_lowercase().replace('_', " ");
    if failure.frames.is_empty() { kind } else { format!("frames {}: {kind}", failure.frames) }
}

/// What an attempt is at: `Sharpen 3/8 (40 %)`.
pub(super) fn progress(attempt: &v1::Attempt) -> String {
    let Some(progress) = &attempt.progress else {
        return "handed out".to_owned();
    };
    match progress.phase() {
        v1::AttemptPhase::Unspecified => String::new(),
        v1::AttemptPhase::Staging => "staging".to_owned(),
        v1::AttemptPhase::Queued => "queued".to_owned(),
        v1::AttemptPhase::Collecting => "collecting".to_owned(),
        v1::AttemptPhase::Publishing => "publishing".to_owned(),
        v1::AttemptPhase::Assembling => counted("assembling", progress),
        v1::AttemptPhase::Encoding => counted("encoding", progress),
        v1::AttemptPhase::Running => {
            let steps = if progress.steps > 1.0 {
                format!(" {:.0}/{:.0}", progress.step, progress.steps)
            } else {
                String::new()
            };
            format!("{}{steps} ({:.0} %)", progress.graph_node_title, progress.fraction * 100.0)
        }
    }
}

fn counted(what: &str, progress: &v1::AttemptProgress) -> String {
    if progress.steps > 0.0 {
        format!("{what} {:.0}/{:.0}", progress.step, progress.steps)
    } else {
        what.to_owned()
    }
}

/// What a job does: its workflow, or what it delivers.
pub(super) fn what(job: &v1::Job) -> String {
    if job.delivery.is_empty() { job.workflow.clone() } else { format!("deliver {}", job.delivery) }
}

pub(super) fn clips(clips: &[v1::Clip]) -> String {
    let mut table = table(&["CLIP", "FRAMES", "MISSING", "SIZE", "FORMAT"]);
    for clip in clips {
        let size = if clip.width > 0 { format!("{}x{}", clip.width, clip.height) } else { String::new() };
        table.add_row([&clip.pattern, &clip.frames, &clip.missing, &size, &clip.format]);
    }
    trimmed(&table)
}

/// Unix milliseconds.
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(i64::MAX)
}

/// From now on, so that it reads the same in every time zone.
fn deadline(job: &v1::Job, now: i64) -> String {
    let left = (job.deadline_unix_ms - now) as f64 / 1e3;
    match job.deadline_unix_ms {
        0 => String::new(),
        _ if left < 0.0 => format!("{} ago", duration(-left)),
        _ => format!("in {}", duration(left)),
    }
}

fn eta(job: &v1::Job) -> String {
    let late = if job.late { " (after its deadline)" } else { "" };
    match (job.state(), job.eta_seconds) {
        (JobState::Running | JobState::Waiting, Some(seconds)) => format!("{}{late}", duration(seconds)),
        _ => late.trim_start().to_owned(),
    }
}

/// `4.2 s`, `3 min 20 s`, `2 h 5 min`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Without the margin that the table puts around its cells.
fn trimmed(table: &Table) -> String {
    table
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}
