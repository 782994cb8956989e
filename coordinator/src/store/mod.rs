//! Where a farm's records are durable, and who may write them. Thin on purpose: the rules live in the farm.

mod address;
mod embedded;
mod redis;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::farm::{JobEvent, JobId, Key, Record, RecordError};

pub use address::StoreAddress;
pub use embedded::Embedded;
pub use redis::{AddressError, Redis, RedisAddress, RedisError, RedisOptions};

/// Grows with every leader. A write under an older one is refused by the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// Records to write (`Some`) or to remove (`None`).
pub type Changes = Vec<(Key, Option<Record>)>;

/// Something that happened to a job; cursors only grow, also across restarts and leaders.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Happened {
    pub cursor: u64,
    pub job: JobId,
    pub event: JobEvent,
}

/// What is written together, or not at all.
#[derive(Debug, Clone, Default)]
pub struct Group {
    pub changes: Changes,
    /// For those who follow; a store with one coordinator drops them.
    pub events: Vec<Happened>,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lead {
    Ours {
        epoch: Epoch,
        trust: Trust,
    },
    /// `address`: where clients and agents reach the leader.
    Theirs {
        address: String,
    },
}

/// Whether the store has everything that was ever committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    Whole,
    /// It has restarted, or another server has taken its place: the latest writes may be lost.
    Suspect,
    /// It has less than this process has seen.
    Behind,
}

/// What has changed since the last look.
#[derive(Debug)]
pub struct News {
    /// Where the leader is reached; `None`: nobody leads.
    pub leader: Option<String>,
    pub changed: Changed,
}

#[derive(Debug)]
pub enum Changed {
    /// Records with their present values, and what happened.
    Some(Group),
    /// Too much to tell: load everything, then look again.
    Everything,
    /// The store has less than was seen before: what is in memory is worth keeping.
    Behind,
}

/// Keeps a farm's records.
pub trait Store: Send + 'static {
    /// Becomes the one that may write, unless another is; every earlier leader's writes are refused from now on.
    fn lead(&mut self) -> impl Future<Output = Result<Lead, StoreError>> + Send;

    /// Every record. While another leads this may be torn; [`Store::follow`] makes it whole.
    fn load(&mut self) -> impl Future<Output = Result<BTreeMap<Key, Record>, StoreError>> + Send;

    /// Writes the whole group or nothing of it, durably. After a failure the same group can be given again: it
    /// is written once.
    fn commit(
        &mut self,
        epoch: Epoch,
        group: Arc<Group>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// After a commit has failed: makes sure that everything before it is there, and is content with the group
    /// itself being there or not. A load tells which.
    fn catch_up(&mut self, epoch: Epoch) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Stays leader. `settled`: the records are known to be whole. `jobs`: so many are in it at least; where there are fewer,
    /// or no farm at all, the store is [`StoreError::Behind`].
    fn keep(
        &mut self,
        epoch: Epoch,
        settled: bool,
        jobs: usize,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Lets another lead, at once.
    fn resign(&mut self, epoch: Epoch) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// What another leader has changed since the last load or look.
    fn follow(&mut self) -> impl Future<Output = Result<News, StoreError>> + Send;

    /// Whether what leads operators and loads to the records (indexes) agrees with them; the text says what
    /// does not.
    fn check_indexes(
        &mut self,
        records: &BTreeMap<Key, Record>,
    ) -> impl Future<Output = Result<Vec<String>, StoreError>> + Send;
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
    #[error(
        "the farm's file {path} is damaged; put a copy of it back, or move it away and make the farm anew from what lies on storage: hearth farm recover FOLDER…"
    )]
    Damaged { path: PathBuf },
    #[error(
        "the farm's file {path} is empty, as after a full disk; put a copy of it back, or remove it for a new farm"
    )]
    EmptyFile { path: PathBuf },
    #[error("cannot read or write the farm's file {path}; is the disk full?")]
    File { path: PathBuf, source: Box<redb::Error> },
    #[error(transparent)]
    Redis(Box<RedisError>),
    #[error("another coordinator leads the farm now")]
    Deposed,
    #[error(
        "the store has less than was committed to it; it was restored, emptied or lost its latest writes"
    )]
    Behind,
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        Self::Redis(Box::new(error))
    }
}

impl StoreError {
    /// Whether a commit that failed so may have been written nevertheless.
    pub fn may_have_been_written(&self) -> bool {
        match self {
            Self::File { .. } => true,
            Self::Redis(error) => matches!(**error, RedisError::Away { .. }),
            _ => false,
        }
    }

    /// Whether waiting may help. What does not pass stops a coordinator that has just started.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Open { .. }
            | Self::InUse { .. }
            | Self::Damaged { .. }
            | Self::EmptyFile { .. }
            | Self::Record(_) => false,
            Self::Redis(error) => error.may_pass(),
            Self::File { .. } | Self::Deposed | Self::Behind => true,
        }
    }
}
