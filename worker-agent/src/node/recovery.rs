//! Getting a ComfyUI back that hangs or stays away.

use std::time::Duration;

use tokio::{process::Command, sync::mpsc, time::sleep};
use tracing::warn;

use super::Event;
use crate::comfy::{Client, PromptId};

/// How often a ComfyUI that hangs is asked whether it has let go.
const PERIOD: Duration = Duration::from_secs(1);

/// Reports when a prompt does not run any more; and once before, if it is one of ours, that ComfyUI has not let go of
/// it. A prompt of another program is nobody's to restart ComfyUI for.
pub(super) async fn wait_until_let_go(client: Client, prompt: PromptId, events: mpsc::Sender<Event>) {
    let mut reported = false;
    while !events.is_closed() {
        if let Ok(running) = client.running().await {
            let Some(held) = running.into_iter().find(|running| running.id == prompt) else {
                // The node is gone only when the agent ends.
                let _ = events.send(Event::Unstuck { prompt }).await;
                return;
            };
            if held.attempt.is_some() && !std::mem::replace(&mut reported, true) {
                let _ = events.send(Event::Stuck { prompt: prompt.clone() }).await;
            }
        }
        sleep(PERIOD).await;
    }
}

/// Runs the command that restarts ComfyUI.
pub(super) async fn run(command: String) {
    match Command::new("sh").arg("-c").arg(&command).status().await {
        Ok(status) if status.success() => {}
        Ok(status) => warn!(command, %status, "the restart command failed"),
        Err(error) => warn!(command, %error, "the restart command could not be run"),
    }
}
