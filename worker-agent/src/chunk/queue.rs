//! The prompt, into ComfyUI's queue exactly once, and out of it again.

use std::time::Duration;

use hearth_proto::v1::FailureKind;
use hearth_telemetry::chain;
use hearth_workflows::{
    bind::{self, Prompt, StagedClip},
    split::ChunkPlan,
};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{ChunkTask, Failure, Workbench, away};
use crate::comfy::{Client, ComfyError, Receipt, Status, verdict};

/// How long to wait for the socket before a prompt is queued without ears.
const SOCKET_PATIENCE: Duration = Duration::from_secs(3);

const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(4);

/// How long an interrupt is repeated until ComfyUI has let go.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn bind(task: &ChunkTask, plan: &ChunkPlan, staged: &StagedClip) -> Result<Prompt, Failure> {
    bind::bind(&task.workflow, &task.parameters, plan, staged, &task.attempt)
        .map_err(|error| Failure::new(FailureKind::Internal, chain(&error)))
}

/// Whether ComfyUI knows the prompt, in whatever state.
pub(super) async fn is_known(client: &Client, attempt: &str) -> Result<bool, Failure> {
    client.status(attempt).await.map(|status| status != Status::Unknown).map_err(|error| away(&error))
}

/// Queues the prompt. What fails on the way is tried again for as long as a ComfyUI may be away, and never
/// before it is certain that the prompt did not arrive: ComfyUI would run it twice.
pub(super) async fn queue(bench: &Workbench, attempt: &str, prompt: &Prompt) -> Result<(), Failure> {
    // A client id is always sent: without one, ComfyUI hides cached outputs.
    let client_id = bench.socket.connected(SOCKET_PATIENCE).await;
    let client_id = client_id.unwrap_or_else(|| "hearth-without-socket".to_owned());
    let deadline = Instant::now() + bench.dead;
    let mut retry = FIRST_RETRY;
    loop {
        let error = match bench.client.queue(&prompt.graph, attempt, &client_id).await {
            Ok(Receipt::Queued) => return Ok(()),
            Ok(Receipt::Refused(answer)) => return Err(verdict::refusal(&answer)),
            Err(error) => error,
        };
        warn!(error = %chain(&error), "the prompt may not have arrived");
        sleep(retry.mul_f64(rand::random_range(0.5..1.0))).await;
        retry = (retry * 2).min(LAST_RETRY);
        match bench.client.status(attempt).await {
            Ok(Status::Unknown) | Err(_) if Instant::now() < deadline => {}
            Ok(Status::Unknown) => return Err(not_accepted(&error)),
            Ok(Status::Pending | Status::Running | Status::Ended) => return Ok(()),
            Err(error) => return Err(away(&error)),
        }
    }
}

fn not_accepted(error: &ComfyError) -> Failure {
    match error {
        ComfyError::Away { .. } => away(error),
        ComfyError::Status { .. } | ComfyError::NotJson { .. } => {
            let message = format!("{}; its log says why", chain(error));
            Failure::new(FailureKind::ComfyDied, message)
        }
    }
}

/// Takes the prompt out of the queue or interrupts it, again and again until ComfyUI has let go: an
/// interrupt that arrives between two prompts is lost.
pub(super) async fn stop(client: &Client, attempt: &str) {
    let deadline = Instant::now() + STOP_PATIENCE;
    while Instant::now() < deadline {
        if let Err(error) = client.stop(attempt).await {
            // A ComfyUI that is gone runs nothing.
            tracing::debug!(error = %chain(&error), "cannot be stopped");
            return;
        }
        match client.status(attempt).await {
            Ok(Status::Pending | Status::Running) => sleep(FIRST_RETRY).await,
            Ok(Status::Ended | Status::Unknown) | Err(_) => return,
        }
    }
    warn!(attempt, "ComfyUI does not let go of the prompt");
}
