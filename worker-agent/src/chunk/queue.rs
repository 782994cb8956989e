//! The prompt, into ComfyUI's queue exactly once, and out of it again.

use std::time::Duration;

use hearth_proto::v1::FailureKind;
use hearth_telemetry::chain;
use hearth_workflows::{
    bind::{self, Prompt, StagedClip, StagedFiles},
    split::ChunkPlan,
};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{ChunkTask, Failure, Workbench, collect, stage};
use crate::{
    comfy::{Client, ComfyError, PromptId, Receipt, Status, folders, verdict},
    config::Transfer,
};

/// How long to wait for the socket before a prompt is queued without ears.
const SOCKET_PATIENCE: Duration = Duration::from_secs(3);

const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(4);

/// How long an interrupt is repeated until ComfyUI has let go.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn bind(
    bench: &Workbench,
    task: &ChunkTask,
    plan: &ChunkPlan,
    staged: &StagedClip,
    pictures: &StagedFiles,
) -> Result<Prompt, Failure> {
    let out = saves_below(bench, task).await?;
    bind::bind(&task.workflow, &task.parameters, plan, staged, pictures, &out, &task.attempt)
        .map_err(|error| Failure::new(FailureKind::Internal, chain(&error)))
}

/// Where nodes save that write to a path of their own, as the ComfyUI sees it.
async fn saves_below(bench: &Workbench, task: &ChunkTask) -> Result<String, Failure> {
    if bench.transfer == Transfer::Shared || !task.workflow.saves_to_paths() {
        return Ok(stage::saved(bench, task).display().to_string());
    }
    let stats = bench.client.system_stats().await.map_err(|error| Failure::unavailable(&error))?;
    match folders::output(&stats) {
        Some(output) => Ok(format!("{output}/{}", collect::saved_folder(&task.attempt))),
        None => {
            let message =
                "it is not known any more where ComfyUI's output folder lies, in which a pass is saved";
            Err(Failure::new(FailureKind::Missing, message))
        }
    }
}

/// Whether ComfyUI knows the prompt, in whatever state.
pub(super) async fn is_known(client: &Client, prompt: &PromptId) -> Result<bool, Failure> {
    let status = client.status(prompt).await;
    status.map(|status| status != Status::Unknown).map_err(|error| Failure::unavailable(&error))
}

/// Queues the prompt. What fails on the way is tried again for as long as a ComfyUI may be away, and never
/// before it is certain that the prompt did not arrive: ComfyUI would run it twice. The client id under which
/// its events come, if any will.
pub(super) async fn queue(
    bench: &Workbench,
    attempt: &str,
    prompt: &Prompt,
) -> Result<Option<String>, Failure> {
    // A client id is always sent: without one, ComfyUI hides cached outputs.
    let heard_under = bench.socket.connected(SOCKET_PATIENCE).await;
    let client_id = heard_under.as_deref().unwrap_or("hearth-without-socket");
    let prompt_id = PromptId::of_attempt(attempt);
    let deadline = Instant::now() + bench.dead;
    let mut retry = FIRST_RETRY;
    loop {
        let error = match bench.client.queue(&prompt.graph, attempt, client_id).await {
            Ok(Receipt::Queued) => return Ok(heard_under),
            Ok(Receipt::Refused(answer)) => return Err(verdict::refusal(&answer)),
            // It cannot have arrived, and will not by trying again.
            Err(error) if error.is_refused() || matches!(error, ComfyError::Obstructed { .. }) => {
                return Err(Failure::unavailable(&error));
            }
            Err(error) => error,
        };
        warn!(error = %chain(&error), "the prompt may not have arrived");
        // Until it is known whether it did, nothing is sent again.
        loop {
            sleep(retry.mul_f64(rand::random_range(0.5..1.0))).await;
            retry = (retry * 2).min(LAST_RETRY);
            match bench.client.status(&prompt_id).await {
                Ok(Status::Unknown) if Instant::now() < deadline => break,
                Ok(Status::Unknown) => return Err(not_accepted(&error)),
                Ok(Status::Pending | Status::Running | Status::Ended) => return Ok(heard_under),
                Err(_) if Instant::now() < deadline => {}
                Err(error) => return Err(Failure::died(&error)),
            }
        }
    }
}

fn not_accepted(error: &ComfyError) -> Failure {
    match error {
        ComfyError::Away { .. } | ComfyError::Obstructed { .. } => Failure::unavailable(error),
        ComfyError::Status { .. }
        | ComfyError::NotJson { .. }
        | ComfyError::TooLong { .. }
        | ComfyError::Save { .. } => {
            let message = format!("{}; its log says why", chain(error));
            Failure::new(FailureKind::ComfyDied, message)
        }
    }
}

/// Takes the prompt out of the queue or interrupts it, again and again until ComfyUI has let go: an
/// interrupt that arrives between two prompts is lost. False when it has not.
pub(super) async fn stop(client: &Client, prompt: &PromptId) -> bool {
    let deadline = Instant::now() + STOP_PATIENCE;
    while Instant::now() < deadline {
        match client.stop(prompt).await {
            Ok(()) => {}
            // Nobody listens there: a ComfyUI that is gone runs nothing.
            Err(error) if error.is_refused() => return true,
            // A busy event loop answers later.
            Err(error) => tracing::debug!(error = %chain(&error), "cannot be stopped yet"),
        }
        match client.status(prompt).await {
            Ok(Status::Ended | Status::Unknown) => return true,
            Ok(Status::Pending | Status::Running) | Err(_) => sleep(FIRST_RETRY).await,
        }
    }
    warn!(%prompt, "ComfyUI does not let go of the prompt");
    false
}
