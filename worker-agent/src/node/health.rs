//! Whether the node's ComfyUI can take work, and what is done when it cannot.

use hearth_proto::v1::{self, attach_request::Message as Say};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Node, RESTART_EVERY, recovery};
use crate::{Transfer, comfy::Health, hours::Hours};

impl Node {
    pub(super) fn health(&mut self, health: Health) {
        match health {
            Health::Up(mut offer) => {
                let capabilities = &mut offer.capabilities;
                info!(
                    version = capabilities.comfyui_version,
                    device = capabilities.device,
                    "ComfyUI is there"
                );
                capabilities.pools = self.config.pools.clone();
                capabilities.roots = self.bench.roots.names().map(str::to_owned).collect();
                capabilities.ffmpeg = self.bench.encoder.found;
                capabilities.saves_to_paths |= self.bench.transfer == Transfer::Shared;
                let capabilities = capabilities.clone();
                self.offer = Some(offer);
                self.unready = None;
                self.down_since = None;
                self.stuck.clear();
                self.meters.comfyui_up.get_or_create(&self.label()).set(1);
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

    /// A prompt hangs. Until ComfyUI lets go of it, nothing else will run there.
    pub(super) fn hangs(&mut self, attempt: &str) {
        self.stuck.insert(attempt.to_owned());
        self.tell_readiness(None);
        let (client, events, attempt) = (self.bench.client.clone(), self.events.clone(), attempt.to_owned());
        tokio::spawn(recovery::wait_until_let_go(client, attempt, events));
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
                    "ComfyUI at {} hangs in a prompt and does not let go; restart it",
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
