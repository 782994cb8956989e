//! Going wrong on demand: `POST /simulator/faults {"fault": "hang"}`, or `--fault hang`.
//!
//! Each fault strikes one prompt, in the order given.

use serde::{Deserialize, Serialize};

/// What goes wrong with one prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Nothing: lets a prompt pass, to aim at a later one.
    None,
    /// `POST /prompt` answers 500.
    Refuse,
    /// The reply to `POST /prompt` comes seconds after the prompt was queued.
    SlowReply,
    /// Runs ten times slower.
    Slow,
    /// Starts and never goes on; an interrupt ends it.
    Hang,
    /// Runs out of GPU memory.
    OutOfMemory,
    /// A node raises an exception.
    Error,
    /// The process ends, in the middle of the prompt.
    Die,
    /// The worker thread ends: HTTP lives on, nothing runs any more.
    WorkerDeath,
    /// Every socket is closed, in the middle of the prompt.
    DropSockets,
    /// The middle one of the saved pictures is cut in half.
    TruncateOutput,
    /// The middle one of the saved pictures is gone, though history names it.
    LoseOutput,
    /// The middle one of the saved pictures has no bytes.
    EmptyOutput,
    /// The middle one of the saved pictures is half as large.
    ShrinkOutput,
    /// The middle one of the saved pictures is grey.
    GreyOutput,
    /// The middle one of the saved pictures is NaN all over; for float EXR.
    NanOutput,
    /// Every one of the saved pictures is half as large.
    ShrinkAllOutput,
}
