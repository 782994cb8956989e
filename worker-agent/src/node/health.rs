//! Whether the node's ComfyUI can take work, and what is done when it cannot.

use hearth_proto::v1::{self, attach_request::Message as Say};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Node, RESTART_EVERY, recovery};
use crate::{
    Transfer,
    comfy::{Health, PromptId, TESTED},
    hours::Hours,
};

impl Node {
    pub(super) fn health(&mut self, health: Health) {
        match health {
            Health::Up(mut offer) => {
                let capabilities = &offer.capabilities;
                info!(
                    version = capabilities.comfyui_version,
                    device = capabilities.device,
                    "ComfyUI is there"
                );
                if !TESTED.iter().any(|tested| *tested == capabilities.comfyui_version) {
                    warn!(
                        version = capabilities.comfyui_version,
                        "this ComfyUI is not one that Hearth was tested with ({})",
                        TESTED.join(", ")
                    );
                }
                self.complete(&mut offer.capabilities);
                let capabilities = offer.capabilities.clone();
                self.offer = Some(offer);
                self.unready = None;
                self.down_since = None;
                self.stuck.clear();
                self.meters.comfyui_up.get_or_create(&self.label()).set(1);
                self.tell_readiness(Some(capabilities));
            }
            Health::Changed(mut offer) => {
                info!("what ComfyUI offers has changed");
                self.complete(&mut offer.capabilities);
                let capabilities = offer.capabilities.clone();
                self.offer = Some(offer);
                self.tell_readiness(Some(capabilities));
            }
            Health::Down { reason } => {
                warn!(reason, "ComfyUI is away");
                self.unready = Some(reason);
                self.down_since.get_or_insert_with(Instant::now);
                self.meters.comfyui_up.get_or_create(&self.label()).set(0);
                self.tell_readiness(None);
            }
        }
    }

    /// Adds what ComfyUI knows nothing of.
    fn complete(&self, capabilities: &mut v1::Capabilities) {
        capabilities.pools = self.config.pools.clone();
        capabilities.roots = self.bench.roots.names().map(str::to_owned).collect();
        capabilities.ffmpeg = self.bench.encoder.found;
        capabilities.saves_to_paths |= self.bench.transfer == Transfer::Shared;
    }

    /// A prompt holds ComfyUI's worker. Until it ends, nothing else will run there.
    pub(super) fn hangs(&mut self, prompt: PromptId) {
        if !self.stuck.insert(prompt.clone()) {
            return;
        }
        self.tell_readiness(None);
        let (client, events) = (self.bench.client.clone(), self.events.clone());
        tokio::spawn(recovery::wait_until_let_go(client, prompt, events));
    }

    /// Runs the configured command, if there is one.
    pub(super) fn restart(&mut self) {
        let recently = self.restarted.is_some_and(|at| at.elapsed() < RESTART_EVERY);
        if self.config.restart.is_empty() || recently {
            return;
        }
        self.restarted = Some(Instant::now());
        warn!(command = self.config.restart, "restarting ComfyUI");
        tokio::spawn(recovery::run(self.config.restart.clone()));
    }

    pub(super) fn readiness(&self, capabilities: Option<v1::Capabilities>) -> v1::NodeReadiness {
        let reason = match (&self.unready, !self.stuck.is_empty()) {
            (Some(reason), _) => reason.clone(),
            (None, true) => {
                format!(
                    "ComfyUI at {} hangs in a prompt that does not end; restart it, or wait if the prompt is another program's",
                    self.config.comfyui
                )
            }
            (None, false) => self.off.clone().unwrap_or_default(),
        };
        let slots = if reason.is_empty() { self.slots } else { 0 };
        v1::NodeReadiness { slots, reason, capabilities }
    }

    /// The node's hours may have begun, or be over. What runs by then is done to its end.
    pub(super) fn look_at_the_clock(&mut self) {
        let off = self.config.hours.as_ref().and_then(Hours::off);
        if off.is_some() != self.off.is_some() {
            match &off {
                Some(reason) => info!("{reason}"),
                None => info!("its hours have begun"),
            }
            self.off = off;
            self.tell_readiness(None);
        }
    }

    pub(super) fn tell_readiness(&mut self, capabilities: Option<v1::Capabilities>) {
        self.say(Say::Readiness(self.readiness(capabilities)));
    }
}
