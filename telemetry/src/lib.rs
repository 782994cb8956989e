//! What every program of Hearth does alike at its edges: configuration, logs, traces, metrics, and telling
//! an error with its causes.

mod configuration;
mod error;
mod logs;
mod metrics;
mod signals;

pub use configuration::{ConfigurationError, configure, host_name};
pub use error::chain;
pub use logs::{LogFormat, Logs, LogsError, LogsGuard};
pub use metrics::serve_metrics;
pub use signals::{run_to_end, until_stopped};
