//! The gRPC contract of Hearth, `hearth.v1`, and the trace context that travels with it.
//!
//! Coordinator, agents and clients meet here and nowhere else. No rule of the farm lives in this crate.

pub mod codec;
pub mod names;
pub mod trace;

/// Messages, clients and servers of package `hearth.v1`.
#[allow(clippy::pedantic, clippy::unwrap_used, missing_debug_implementations, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("hearth.v1");

    /// The compiled descriptors, for the reflection service.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hearth_descriptor.bin"));
}

/// The largest gRPC message that either side accepts, in bytes. An assembly of a million frames
/// lists its chunks in a few MiB.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// Job definitions that both sides of an agent's stream remember; one more, and both forget all of them.
pub const REMEMBERED_JOBS: usize = 512;

/// In the metadata of a refusal by a coordinator that follows: where the leader is, as `http://host:port`, or
/// nothing while nobody leads. Whoever wanted something goes there, or waits.
pub const LEADER: &str = "hearth-leader";
