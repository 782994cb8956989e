//! From the queue to the end of the prompt. The socket tells how far it is; history is the verdict.

use std::time::Duration;

use hearth_proto::v1::{self, AttemptPhase, FailureKind};
use hearth_workflows::bind::Prompt;
use serde_json::Value;
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{Instant, sleep_until},
};

use super::{Failure, Tell, Told, Workbench};
use crate::comfy::{ComfyError, Event, Happening, PromptId, Running, Status};

/// How often ComfyUI is asked although the socket is there: an event can be lost.
const POLL: Duration = Duration::from_secs(5);

/// How often when nothing is heard of this prompt.
const BLIND_POLL: Duration = Duration::from_millis(500);

/// Refused connections in a row after which a ComfyUI is dead.
const REFUSALS: u32 = 2;

/// Progress is told at most so often.
const TELL: Duration = Duration::from_millis(100);

/// Previews at most so often.
const PREVIEW: Duration = Duration::from_millis(500);

/// How many times longer a prompt may be silent whose events cannot be heard.
const BLIND_PATIENCE: u32 = 6;

/// Watches until the prompt is over; its entry in the history. `client_id`: under which its events come.
pub(super) async fn watch(
    bench: &Workbench,
    prompt_id: &PromptId,
    prompt: &Prompt,
    client_id: Option<String>,
    mut events: broadcast::Receiver<Event>,
    tell: Tell<'_>,
) -> Result<Value, Failure> {
    let mut view = View::new(prompt);
    let mut poll_at = Instant::now() + POLL;
    let mut silent_since = Instant::now();
    let mut away = Away::default();
    let mut ahead = Ahead::default();
    let mut hearing = true;
    loop {
        // Events for this prompt come only over the connection it was queued under.
        let blind = !hearing || client_id.is_none() || bench.socket.client_id() != client_id;
        if blind {
            poll_at = poll_at.min(Instant::now() + BLIND_POLL);
        }
        let patience = if blind { bench.stall * BLIND_PATIENCE } else { bench.stall };
        let ask = tokio::select! {
            event = events.recv(), if hearing => match event {
                Ok(event) => {
                    // While others run ahead of it, a queued prompt is not stuck.
                    let ours = event.prompt == *prompt_id;
                    if ours || !view.started {
                        silent_since = Instant::now();
                    }
                    ours && view.happened(event.what, tell)
                }
                Err(RecvError::Lagged(_)) => true,
                Err(RecvError::Closed) => {
                    hearing = false;
                    true
                }
            },
            () = sleep_until(poll_at) => true,
            () = sleep_until(silent_since + patience) => return Err(hung(prompt_id, patience)),
        };
        if !ask {
            continue;
        }
        poll_at = Instant::now() + if blind { BLIND_POLL } else { POLL };
        let asked = Instant::now();
        match bench.client.status(prompt_id).await {
            Ok(Status::Ended) => match bench.client.history(prompt_id).await {
                Ok(Some(entry)) => return Ok(entry),
                Ok(None) => return Err(lost()),
                Err(error) => away.note(bench, &error, asked)?,
            },
            Ok(Status::Unknown) => return Err(lost()),
            Ok(Status::Running) => {
                away = Away::default();
                view.is_running(tell);
            }
            Ok(Status::Pending) => {
                away = Away::default();
                // One of our own tells us when it goes on; if it does not, it hangs, and we behind it. Of somebody
                // else's prompt nothing is heard: it is work for as long as the queue moves.
                let running = bench.client.running().await.unwrap_or_default();
                if running.iter().any(|running| running.attempt.is_none()) {
                    silent_since = Instant::now();
                    ahead.note(bench.stall, running)?;
                }
            }
            Err(error) => away.note(bench, &error, asked)?,
        }
    }
}

/// How long ComfyUI has not answered.
#[derive(Default)]
struct Away {
    since: Option<Instant>,
    /// Connections refused in a row.
    refused: u32,
}

impl Away {
    /// ComfyUI did not answer. It has died once nobody listens at its address, or once the silence lasts too long: a
    /// busy one may answer late. `asked`: since when it has been waited for this answer.
    fn note(&mut self, bench: &Workbench, error: &ComfyError, asked: Instant) -> Result<(), Failure> {
        let since = *self.since.get_or_insert(asked);
        self.refused = if error.is_refused() { self.refused + 1 } else { 0 };
        if self.refused >= REFUSALS || since.elapsed() >= bench.dead {
            return Err(Failure::died(error));
        }
        Ok(())
    }
}

/// The prompt in front of ours in the queue, and since when.
#[derive(Default)]
struct Ahead {
    running: Vec<Running>,
    since: Option<Instant>,
}

impl Ahead {
    /// A prompt of another program runs. A queue that does not move for `stall` is given up: the worker behind it may
    /// have died, which nothing but the queue shows.
    fn note(&mut self, stall: Duration, running: Vec<Running>) -> Result<(), Failure> {
        if self.running != running {
            *self = Self { running, since: Some(Instant::now()) };
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() < stall {
            return Ok(());
        }
        let blocking = self.running.iter().find(|running| running.attempt.is_none());
        let id = blocking.map(|running| running.id.clone());
        let message = format!(
            "ComfyUI's queue has not moved for {} s: it is at prompt {} of another program; wait for that to end, or restart ComfyUI if it hangs",
            stall.as_secs(),
            id.as_ref().map_or("", PromptId::as_str)
        );
        Err(Failure { blocked_by: id, ..Failure::new(FailureKind::Unavailable, message) })
    }
}

fn lost() -> Failure {
    let message = "ComfyUI does not know the prompt any more: it was restarted, or its queue was cleared";
    Failure::new(FailureKind::ComfyDied, message)
}

fn hung(prompt: &PromptId, patience: Duration) -> Failure {
    let message = format!(
        "ComfyUI has shown no progress for {} s; it hangs, or a node is slower than the agent's stall_seconds allows",
        patience.as_secs()
    );
    Failure { blocked_by: Some(prompt.clone()), ..Failure::new(FailureKind::Hung, message) }
}

/// What people see of the prompt.
struct View<'a> {
    prompt: &'a Prompt,
    nodes: usize,
    started: bool,
    progress: v1::AttemptProgress,
    finished: usize,
    told_at: Option<Instant>,
    preview_at: Option<Instant>,
}

impl<'a> View<'a> {
    fn new(prompt: &'a Prompt) -> Self {
        let progress = v1::AttemptProgress { phase: AttemptPhase::Queued.into(), ..Default::default() };
        let nodes = prompt.titles.len().max(1);
        Self { prompt, nodes, started: false, progress, finished: 0, told_at: None, preview_at: None }
    }

    /// Takes an event in; true when the prompt is over.
    fn happened(&mut self, what: Happening, tell: Tell<'_>) -> bool {
        match what {
            Happening::Ended => return true,
            Happening::Other => return false,
            Happening::Started => self.is_running(tell),
            Happening::Executing { node } => {
                let known = self.prompt.titles.get(&node);
                self.progress.graph_node_title = known.cloned().unwrap_or_else(|| node.clone());
                self.progress.graph_node = node;
                (self.progress.step, self.progress.steps) = (0.0, 0.0);
            }
            Happening::Progress { step, steps } => {
                (self.progress.step, self.progress.steps) = (step, steps);
            }
            Happening::Finished { nodes } => self.finished = nodes,
            Happening::Preview(picture) => {
                if self.preview_at.is_none_or(|at| at.elapsed() >= PREVIEW) {
                    self.preview_at = Some(Instant::now());
                    tell(Told::Preview(picture));
                }
                return false;
            }
        }
        if self.told_at.is_none_or(|at| at.elapsed() >= TELL) {
            self.tell(tell);
        }
        false
    }

    fn is_running(&mut self, tell: Tell<'_>) {
        if !self.started {
            self.started = true;
            self.progress.phase = AttemptPhase::Running.into();
            self.tell(tell);
        }
    }

    fn tell(&mut self, tell: Tell<'_>) {
        let step = if self.progress.steps > 0.0 { self.progress.step / self.progress.steps } else { 0.0 };
        self.progress.fraction = ((self.finished as f64 + step) / self.nodes as f64).min(1.0);
        self.told_at = Some(Instant::now());
        tell(Told::Progress(self.progress.clone()));
    }
}
