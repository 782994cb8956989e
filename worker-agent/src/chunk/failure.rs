//! Why an attempt failed, sorted: each kind has its own answer on the farm.

use std::io;

use hearth_proto::v1::FailureKind;
use hearth_storage::{Held, RootsError};
use hearth_workflows::FrameSet;

use crate::comfy::{ComfyError, Obstacle, PromptId};

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    pub kind: FailureKind,
    /// For people: what, where, what to do next.
    pub message: String,
    /// For bad frames: which.
    pub frames: FrameSet,
    /// The prompt that holds ComfyUI's worker and does not go on. Until it ends, nothing else runs there.
    pub blocked_by: Option<PromptId>,
}

impl Failure {
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), frames: FrameSet::new(), blocked_by: None }
    }

    /// With the names that people know of what is held, in place of those that only this process has.
    pub(crate) fn telling<'a>(self, held: impl IntoIterator<Item = &'a Held>) -> Self {
        let message = held.into_iter().fold(self.message, |message, held| held.tell(&message));
        Self { message, ..self }
    }

    /// `what` could not be done on storage.
    pub fn storage(what: impl std::fmt::Display, error: &io::Error) -> Self {
        let advice = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "; the disk is full: make room there"
            }
            io::ErrorKind::PermissionDenied => "; let the agent's user write there",
            io::ErrorKind::ReadOnlyFilesystem => "; it is mounted read-only",
            _ => "",
        };
        Self::new(FailureKind::Storage, format!("{what}: {error}{advice}"))
    }

    /// ComfyUI could not be reached or used before the prompt was in its queue: nothing of the attempt ran.
    pub(super) fn unavailable(error: &ComfyError) -> Self {
        match error {
            // Another node may take more, and smaller frames fit here.
            ComfyError::Obstructed { obstacle: Obstacle::TooLarge, .. } => {
                Self::new(FailureKind::Missing, hearth_telemetry::chain(error))
            }
            ComfyError::Obstructed { .. } => {
                Self::new(FailureKind::Unavailable, hearth_telemetry::chain(error))
            }
            _ => {
                let message = format!("{}; look whether it runs", hearth_telemetry::chain(error));
                Self::new(FailureKind::Unavailable, message)
            }
        }
    }

    /// ComfyUI went away with the prompt in its hands.
    pub(super) fn died(error: &ComfyError) -> Self {
        match error {
            ComfyError::Obstructed { .. } => Self::unavailable(error),
            _ => {
                let message = format!("{}; look whether it runs", hearth_telemetry::chain(error));
                Self::new(FailureKind::ComfyDied, message)
            }
        }
    }

    /// Whether ComfyUI may still be at it.
    pub(crate) fn may_still_run(&self) -> bool {
        matches!(
            self.kind,
            FailureKind::Hung
                | FailureKind::ComfyDied
                | FailureKind::Internal
                | FailureKind::Refused
                | FailureKind::Unavailable
        )
    }
}

impl From<RootsError> for Failure {
    fn from(error: RootsError) -> Self {
        let kind = match &error {
            RootsError::Outside { .. } | RootsError::LinksOut { .. } => FailureKind::BadFrame,
            _ => FailureKind::Storage,
        };
        Self::new(kind, hearth_telemetry::chain(&error))
    }
}
