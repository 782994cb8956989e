//! What every program of Hearth does alike at its edges: configuration, logs, traces, metrics, listening, and telling
//! an error with its causes.

mod configuration;
mod error;
mod listen;
mod logs;
mod metrics;
mod signals;

pub use configuration::{ConfigurationError, configure, host_name};
pub use error::chain;
pub use listen::{Connection, Limits, Listener};
pub use logs::{LogFormat, Logs, LogsError, LogsGuard};
pub use metrics::{metrics_limits, serve_metrics};
pub use signals::{run_to_end, until_stopped};
