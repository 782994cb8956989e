//! The gRPC side: clients (`clients`) and agents (`agents`), and the words between farm and contract
//! (`convert`). Decides nothing.

mod agents;
mod clients;
mod convert;
mod door;
mod edit;
mod media;
mod preflight;
mod presets;
mod proof;
mod questions;
mod requests;
mod shared;
mod watch;

use hearth_proto::LEADER;
use hearth_telemetry::chain;
use tonic::{Status, metadata::MetadataValue};

use crate::driver::DriverError;
pub use agents::{AgentsService, Previews};
pub use clients::FarmService;
pub use proof::Proof;
pub use questions::Questions;
pub use shared::SharedNames;
pub use watch::MOST_WATCHERS;

/// Bytes of a message to people. It travels in a header, of which clients take 16 KiB, and may grow threefold in it.
const MESSAGE: usize = 4_096;

/// At most so many bytes of a text.
fn shortened(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

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
