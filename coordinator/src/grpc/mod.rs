//! The gRPC side: clients (`clients`) and agents (`agents`), and the words between farm and contract
//! (`convert`). Decides nothing.

mod agents;
mod clients;
mod convert;
mod media;
mod preflight;
mod presets;
mod questions;
mod requests;
mod shared;

use hearth_proto::LEADER;
use hearth_telemetry::chain;
use tonic::{Status, metadata::MetadataValue};

use crate::driver::DriverError;
pub use agents::{AgentsService, Previews};
pub use clients::FarmService;
pub use questions::Questions;
pub use shared::SharedNames;

/// That this coordinator cannot do it now; and where the leader is, for those who want to go there.
fn unavailable(error: &DriverError) -> Status {
    let mut status = Status::unavailable(chain(error));
    if let DriverError::Follows { leader } = error
        && let Ok(leader) = MetadataValue::try_from(leader.as_deref().unwrap_or_default())
    {
        status.metadata_mut().insert(LEADER, leader);
    }
    status
}
