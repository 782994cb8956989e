//! Stories of a farm, as text: what happens, and below the line what the farm does about it.
//!
//! Each file of `tests/scenarios` is one story. Commands stand above `----`, the farm's effects below.
//! `HEARTH_UPDATE=1` writes what the farm did into the files; read the difference before you commit it.
//!
//! ```text
//! after 30s                                   time passes
//! NODE connects [slots N] [on HOST] [pool P] [lacks CLASS] [without ffmpeg] [holding ATTEMPT FRAMES]…
//! NODE disconnects | NODE beats [ATTEMPT…] | NODE beats TIME behind | NODE is not ready: REASON | NODE is ready
//! submit JOB FRAMES [priority N] [workflow NAME] [pool P] [chunk N] [deliver FORMAT] [show S] [user U] [urgent]
//!     [at-least N] [at-most N] [uses LIMIT] [first FRAMES] [within TIME] [of JOB] [behind JOB]
//!                                             the shows `double` (weight 2), `narrow` (one node) and `patient`
//!                                             (may be interrupted) have policies, and the limits `nuke` (two nodes)
//!                                             and `seat` (one node of a host)
//! NODE finishes ATTEMPT [in 4s] [late FRAMES]
//! NODE fails ATTEMPT KIND [FRAMES]
//! pause JOB | resume JOB | cancel JOB | retry JOB | priority JOB N | drain NODE | undrain NODE
//! restart                                     the coordinator dies and starts again
//! show JOB | why JOB | eta JOB | show nodes
//! ```

mod support;

use std::{collections::HashMap, env, fmt::Write as _, fs, path::Path, time::Duration};

use hearth_coordinator::farm::{
    Answer, AssignedWork, AttemptId, Command, Edit, Effect, FailureKind, FarmConfig, Held, JobEvent, JobId,
    NodeName, Outcome, Priority, Session, Step, Terms, Timestamp,
};
use hearth_workflows::FrameSet;
use support::{Kept, about, capabilities, config, deliver, follow, render, submission, workflow};

#[test]
fn stories_end_as_they_are_told() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("scenarios")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "txt"))
        .collect();
    files.sort();
    assert!(files.len() >= 10, "only {} scenarios found", files.len());
    let mut differing = Vec::new();
    for file in files {
        let told = fs::read_to_string(&file).expect("readable");
        let happened = Story::default().run(&told);
        if told == happened {
            continue;
        }
        if env::var_os("HEARTH_UPDATE").is_some() {
            fs::write(&file, &happened).expect("writable");
            continue;
        }
        differing.push(format!("{}:\n{}", file.display(), difference(&told, &happened)));
    }
    assert!(differing.is_empty(), "these stories went otherwise:\n{}", differing.join("\n"));
}

fn difference(told: &str, happened: &str) -> String {
    let mut text = String::new();
    for (number, (told, happened)) in told.lines().zip(happened.lines()).enumerate() {
        if told != happened {
            let _ = write!(text, "  line {}:\n    told:     {told}\n    happened: {happened}\n", number + 1);
            return text;
        }
    }
    format!("  told {} lines, happened {} lines\n", told.lines().count(), happened.lines().count())
}

struct Story {
    kept: Kept,
    now: Timestamp,
    sessions: HashMap<String, Session>,
    jobs: HashMap<String, JobId>,
    /// What each attempt was handed, to report it back.
    handed: HashMap<AttemptId, FrameSet>,
    last_session: u64,
}

impl Default for Story {
    fn default() -> Self {
        Self {
            kept: Kept::new(FarmConfig { max_nodes: 6, ..config() }, 1),
            now: Timestamp(1_000_000),
            sessions: HashMap::new(),
            jobs: HashMap::new(),
            handed: HashMap::new(),
            last_session: 0,
        }
    }
}

impl Story {
    /// The story with what really happened below each line.
    fn run(mut self, told: &str) -> String {
        let mut out = String::new();
        let mut block = String::new();
        let mut below = false;
        for line in told.lines() {
            if line == "----" {
                out.push_str("----\n");
                out.push_str(if block.is_empty() { "nothing\n" } else { &block });
                block.clear();
                below = true;
            } else if line.is_empty() || line.starts_with('#') {
                below = false;
                out.push_str(line);
                out.push('\n');
            } else if !below {
                out.push_str(line);
                out.push('\n');
                let effects = self.line(line);
                block.push_str(&effects);
            }
        }
        out
    }

    fn line(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let command = match words[..] {
            ["after", time] => {
                self.now = self.now.after(seconds(time));
                Command::Tick
            }
            ["restart"] => {
                self.kept.restart(self.now);
                self.sessions.clear();
                return String::new();
            }
            ["show", "nodes"] => return self.show_nodes(),
            ["show", job] => return self.show_job(job),
            ["why", job] => {
                let told = self.kept.farm.why(self.job(job)).unwrap_or_else(|| "nobody knows it".to_owned());
                return format!("{job}: {told}\n");
            }
            ["eta", job] => return self.tell_eta(job),
            ["submit", name, frames, ref options @ ..] => {
                let option = |name: &str| options.iter().position(|o| *o == name).map(|at| options[at + 1]);
                let workflow = workflow(option("workflow").unwrap_or("resize-sharpen"));
                let priority = option("priority").map_or(50, |n| n.parse().expect("priority"));
                let mut submission = submission(name, frames, priority, &workflow);
                render(&mut submission).chunk_frames = option("chunk").map(|n| n.parse().expect("chunk"));
                submission.jobs[0].spec.pool = option("pool").unwrap_or_default().to_owned();
                submission.jobs[0].spec.request_id = option("request").unwrap_or_default().to_owned();
                if let Some(format) = option("deliver") {
                    deliver(&mut submission, format.parse().expect("format"));
                }
                submission.jobs[0].spec.show = option("show").unwrap_or("show").to_owned();
                submission.jobs[0].spec.user = option("user").unwrap_or("user").to_owned();
                submission.jobs[0].spec.urgent = options.contains(&"urgent");
                let number = |name: &str| option(name).map_or(0, |n| n.parse().expect("a number"));
                submission.jobs[0].spec.terms = Terms {
                    min_nodes: number("at-least"),
                    max_nodes: number("at-most"),
                    limits: option("uses").map(str::to_owned).into_iter().collect(),
                    first: option("first").map_or_else(FrameSet::new, |text| text.parse().expect("frames")),
                    deadline: option("within").map(|time| self.now.after(seconds(time))),
                };
                if let Some(maker) = option("of") {
                    follow(&mut submission, self.job(maker));
                }
                submission.jobs[0].spec.after.extend(option("behind").map(|job| self.job(job)));
                let delivered = submission.jobs.get(1).map(|delivery| delivery.spec.name.clone());
                let step = self.apply(Command::Submit(Box::new(submission)));
                if let Ok(Answer::Submitted { job, already }) = step.answer {
                    self.jobs.insert((*name).to_owned(), job);
                    self.jobs.extend(delivered.map(|name| (name, JobId(job.0 + 1))));
                    let already = if already { "already " } else { "" };
                    return format!("{name} is {already}job {job}\n{}", self.tell(&step));
                }
                return self.tell(&step);
            }
            ["pause", job] => Command::Pause(self.job(job)),
            ["resume", job] => Command::Resume(self.job(job)),
            ["cancel", job] => Command::Cancel(self.job(job)),
            ["remove", job] => Command::Remove(self.job(job)),
            ["retry", job] => Command::Retry(self.job(job)),
            ["priority", job, n] => Command::SetPriority(
                self.job(job),
                Priority::new(n.parse().expect("number")).expect("at most 100"),
            ),
            ["edit", job, ref options @ ..] => {
                let option = |name: &str| options.iter().position(|o| *o == name).map(|at| options[at + 1]);
                let number = |name: &str| option(name).map(|n| n.parse().expect("a number"));
                let frames = |name: &str| option(name).map(|text| text.parse().expect("frames"));
                let edit = Edit {
                    priority: option("priority")
                        .map(|n| Priority::new(n.parse().expect("number")).expect("valid")),
                    pool: option("pool").map(str::to_owned),
                    deadline: option("within").map(|time| Some(self.now.after(seconds(time)))),
                    min_nodes: number("at-least"),
                    max_nodes: number("at-most"),
                    limits: option("uses").map(|limit| [limit.to_owned()].into()),
                    first: frames("first"),
                    frames: frames("frames"),
                };
                Command::Edit(self.job(job), Box::new(edit))
            }
            ["drain", node] => Command::Drain(node.into()),
            ["undrain", node] => Command::Undrain(node.into()),
            [node, "connects", ref options @ ..] => {
                let before = self.sessions.get(node).copied();
                let command = self.connects(node, options);
                let step = self.apply(command);
                // Whoever is refused has no connection; the other one's goes on.
                if let (Err(_), Some(session)) = (&step.answer, before) {
                    self.sessions.insert(node.to_owned(), session);
                }
                return self.tell(&step);
            }
            [node, ref event @ ..] => self.node_event(node, event, line),
            [] => return String::new(),
        };
        let step = self.apply(command);
        self.tell(&step)
    }

    fn connects(&mut self, node: &str, options: &[&str]) -> Command {
        self.last_session += 1;
        let session = Session(self.last_session);
        self.sessions.insert(node.to_owned(), session);
        let mut capabilities = capabilities();
        let (mut slots, mut held) = (1, Vec::new());
        let mut about = about(node);
        let mut rest = options;
        while !rest.is_empty() {
            rest = match rest {
                ["slots", n, rest @ ..] => {
                    slots = n.parse().expect("slots");
                    rest
                }
                ["on", host, rest @ ..] => {
                    about.host = (*host).to_owned();
                    rest
                }
                ["as", instance, rest @ ..] => {
                    about.instance = (*instance).to_owned();
                    rest
                }
                ["pool", pool, rest @ ..] => {
                    capabilities.pools.insert((*pool).to_owned());
                    rest
                }
                ["without", "ffmpeg", rest @ ..] => {
                    capabilities.ffmpeg = false;
                    rest
                }
                ["lacks", class, rest @ ..] => {
                    std::sync::Arc::make_mut(&mut capabilities.classes).remove(*class);
                    rest
                }
                ["holding", attempt, frames, rest @ ..] => {
                    let attempt = attempt.parse().expect("attempt");
                    held.push(Held { attempt, frames: frames.parse().expect("frames") });
                    rest
                }
                other => panic!("unknown option {other:?}"),
            };
        }
        Command::Hello {
            session,
            about,
            capabilities: Box::new(capabilities),
            slots,
            reason: String::new(),
            held,
        }
    }

    fn node_event(&mut self, node: &str, event: &[&str], line: &str) -> Command {
        let session = self.sessions.get(node).copied().unwrap_or(Session(0));
        let name: NodeName = node.into();
        match event {
            ["disconnects"] => Command::Gone { session, node: name },
            ["beats", behind, "behind"] => {
                let behind = seconds(behind).as_millis() as u64;
                let clock = Some(Timestamp(self.now.0.saturating_sub(behind)));
                Command::Heartbeat { session, node: name, attempts: Vec::new(), clock }
            }
            ["beats", attempts @ ..] => {
                let attempts = attempts.iter().map(|a| a.parse().expect("attempt")).collect();
                Command::Heartbeat { session, node: name, attempts, clock: Some(self.now) }
            }
            ["is", "ready"] => Command::Readiness {
                session,
                node: name,
                slots: 1,
                reason: String::new(),
                capabilities: None,
            },
            ["is", "not", "ready:", ..] => Command::Readiness {
                session,
                node: name,
                slots: 0,
                reason: line.split_once("ready: ").map_or("", |(_, reason)| reason).to_owned(),
                capabilities: None,
            },
            ["finishes", attempt, rest @ ..] => {
                let attempt: AttemptId = attempt.parse().expect("attempt");
                let mut frames = self.handed.get(&attempt).cloned().unwrap_or_default();
                let mut time = Duration::from_secs(frames.len());
                match rest {
                    ["in", taken] => time = seconds(taken),
                    ["late", late] => frames = late.parse().expect("frames"),
                    _ => {}
                }
                let outcome = Outcome::Succeeded { seconds: time.as_secs_f64(), published: None };
                Command::Result { session, node: name, attempt, frames, outcome }
            }
            ["fails", attempt, kind, rest @ ..] => {
                let attempt = attempt.parse().expect("attempt");
                let frames = rest.first().map(|text| text.parse().expect("frames")).unwrap_or_default();
                let kind = failure_kind(kind);
                let outcome = Outcome::Failed { kind, message: "told so".to_owned(), frames };
                let frames = self.handed.get(&attempt).cloned().unwrap_or_default();
                Command::Result { session, node: name, attempt, frames, outcome }
            }
            other => panic!("unknown event {other:?}"),
        }
    }

    fn apply(&mut self, command: Command) -> Step {
        self.kept.apply(self.now, command)
    }

    fn job(&self, name: &str) -> JobId {
        self.jobs.get(name).copied().unwrap_or_else(|| JobId(name.parse().expect("a job")))
    }

    fn name_of(&self, job: JobId) -> String {
        let named = self.jobs.iter().find(|(_, id)| **id == job);
        named.map_or_else(|| format!("job {job}"), |(name, _)| name.clone())
    }

    fn node_of(&self, session: Session) -> String {
        let named = self.sessions.iter().find(|(_, s)| **s == session);
        named.map_or_else(|| "nobody".to_owned(), |(name, _)| name.clone())
    }

    /// The step's effects, a line each.
    fn tell(&mut self, step: &Step) -> String {
        let mut text = String::new();
        if let Err(refusal) = &step.answer {
            let _ = writeln!(text, "refused: {refusal}");
        }
        for effect in &step.effects {
            match effect {
                Effect::Assign { session, assignment } => {
                    let node = self.node_of(*session);
                    let (id, job) = (assignment.attempt, &assignment.spec.name);
                    match &assignment.work {
                        AssignedWork::Chunk(frames) => {
                            self.handed.insert(id, frames.clone());
                            let _ = writeln!(text, "{node} gets {id}: {job} {frames}");
                        }
                        AssignedWork::Assembly(segments) => {
                            let from: Vec<String> =
                                segments.iter().map(|s| format!("{} by {}", s.frames, s.node)).collect();
                            let _ =
                                writeln!(text, "{node} gets {id}: assemble {job} from {}", from.join(", "));
                        }
                        AssignedWork::Delivery => {
                            let _ = writeln!(text, "{node} gets {id}: deliver {job}");
                        }
                        AssignedWork::CleanUp => {
                            let _ = writeln!(text, "{node} gets {id}: clean up {job}");
                        }
                    }
                }
                Effect::Cancel { session, attempt, reason } => {
                    let _ = writeln!(text, "{} is to stop {attempt}: {reason}", self.node_of(*session));
                }
                Effect::Job { job, event: JobEvent::ChunkFailed(failure) } => {
                    let (job, kind) = (self.name_of(*job), failure.kind);
                    let _ = writeln!(text, "{job} {} failed on {}: {kind:?}", failure.frames, failure.node);
                }
                Effect::Job { job, event: JobEvent::ChunkFinished { frames, .. } } => {
                    let _ = writeln!(text, "{} has {frames}", self.name_of(*job));
                }
                Effect::Acknowledge { .. } | Effect::Job { event: JobEvent::Changed, .. } => {}
            }
        }
        text
    }

    fn show_job(&self, name: &str) -> String {
        let Some(view) = self.kept.farm.job(self.job(name)) else {
            return format!("{name} is forgotten\n");
        };
        let mut text = format!(
            "{name} is {:?}: waiting {}, running {}, done {}, failed {}\n",
            view.state,
            view.waiting,
            view.running,
            view.done,
            view.failed.len(),
        );
        if !view.message.is_empty() {
            let _ = writeln!(text, "because {}", view.message);
        }
        text
    }

    fn tell_eta(&self, name: &str) -> String {
        let view = self.kept.farm.job(self.job(name)).expect("a job");
        let late = if view.late { "; late" } else { "" };
        match view.eta {
            Some(eta) => format!(
                "{name} takes {:.0}s, {:.0}s to {:.0}s{late}\n",
                eta.expected.as_secs_f64(),
                eta.earliest.as_secs_f64(),
                eta.latest.as_secs_f64()
            ),
            None => format!("{name}: nobody knows{late}\n"),
        }
    }

    fn show_nodes(&self) -> String {
        let mut text = String::new();
        for node in self.kept.farm.nodes() {
            let held: Vec<String> = node.attempts.iter().map(|a| a.id.to_string()).collect();
            let held = if held.is_empty() { String::new() } else { format!(", holds {}", held.join(" ")) };
            let _ = writeln!(text, "{} is {:?}{held}", node.about.name, node.state);
            if let Some(until) = node.quarantined_until {
                let left = until.since(self.now).as_secs();
                let _ = writeln!(text, "for {left}s, because {}", node.message);
            }
        }
        text
    }
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs_f64(text.strip_suffix('s').expect("seconds").parse().expect("seconds"))
}

fn failure_kind(text: &str) -> FailureKind {
    match text {
        "refused" => FailureKind::Refused,
        "missing" => FailureKind::Missing,
        "execution" => FailureKind::Execution,
        "out-of-memory" => FailureKind::OutOfMemory,
        "bad-frame" => FailureKind::BadFrame,
        "comfy-died" => FailureKind::ComfyDied,
        "storage" => FailureKind::Storage,
        "bad-output" => FailureKind::BadOutput,
        "hung" => FailureKind::Hung,
        "unavailable" => FailureKind::Unavailable,
        "output-taken" => FailureKind::OutputTaken,
        other => panic!("unknown failure {other}"),
    }
}
