//! The gRPC side: clients (`clients`) and agents (`agents`), and the words between farm and contract
//! (`convert`). Decides nothing.

mod agents;
mod clients;
mod convert;

pub use agents::{AgentsService, Previews};
pub use clients::FarmService;
