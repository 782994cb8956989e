//! Getting a ComfyUI back that hangs or stays away.

use std::time::Duration;

use tokio::{process::Command, sync::mpsc, time::sleep};
use tracing::warn;

use super::Event;
use crate::comfy::Client;

/// How often a ComfyUI that hangs is asked whether it has let go.
const PERIOD: Duration = Duration::from_secs(1);

/// Tells once that ComfyUI has not let go of the prompt, and then when it has.
pub(super) async fn wait_until_let_go(client: Client, attempt: String, events: mpsc::Sender<Event>) {
    let mut told = false;
    while !events.is_closed() {
        let running = client.running().await;
        if running.as_ref().is_ok_and(|running| !running.contains(&attempt)) {
            // The node is gone only when the agent ends.
            let _ = events.send(Event::Unstuck { attempt }).await;
            return;
        }
        if running.is_ok() && !std::mem::replace(&mut told, true) {
            let _ = events.send(Event::Stuck { attempt: attempt.clone() }).await;
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
