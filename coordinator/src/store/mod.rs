//! Where a farm's records are durable. Thin on purpose: the rules live in the farm.

mod embedded;

use std::{collections::BTreeMap, path::PathBuf};

use crate::farm::{Key, Record, RecordError};

pub use embedded::Embedded;

/// Grows with every leader. A write under an older one is refused by the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// Records to write (`Some`) or to remove (`None`).
pub type Changes = Vec<(Key, Option<Record>)>;

/// Keeps a farm's records.
pub trait Store: Send + 'static {
    /// Becomes the one that may write; every earlier leader's writes are refused from now on.
    fn lead(&mut self) -> impl Future<Output = Result<Epoch, StoreError>> + Send;

    /// Every record.
    fn load(&mut self) -> impl Future<Output = Result<BTreeMap<Key, Record>, StoreError>> + Send;

    /// Writes all of `changes` or none of them, durably.
    fn commit(
        &mut self,
        epoch: Epoch,
        changes: Changes,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot open the farm's file {path}; is its folder writable?")]
    Open { path: PathBuf, source: Box<redb::DatabaseError> },
    #[error(
        "the farm's file {path} is in use by another coordinator; stop that one, or give this one a file of its own"
    )]
    InUse { path: PathBuf },
    #[error("cannot read or write the farm's file {path}; is the disk full?")]
    File { path: PathBuf, source: Box<redb::Error> },
    #[error("another coordinator leads the farm now")]
    Deposed,
    #[error(transparent)]
    Record(#[from] RecordError),
}
