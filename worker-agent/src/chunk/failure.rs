//! Why an attempt failed, sorted: each kind has its own answer on the farm.

use std::io;

use hearth_proto::v1::FailureKind;
use hearth_storage::RootsError;
use hearth_workflows::FrameSet;

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    pub kind: FailureKind,
    /// For people: what, where, what to do next.
    pub message: String,
    /// For bad frames: which.
    pub frames: FrameSet,
}

impl Failure {
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), frames: FrameSet::new() }
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

    /// Whether ComfyUI may still be at it.
    pub(crate) fn may_still_run(&self) -> bool {
        matches!(
            self.kind,
            FailureKind::Hung | FailureKind::ComfyDied | FailureKind::Internal | FailureKind::Refused
        )
    }
}

impl From<RootsError> for Failure {
    fn from(error: RootsError) -> Self {
        Self::new(FailureKind::Storage, hearth_telemetry::chain(&error))
    }
}
