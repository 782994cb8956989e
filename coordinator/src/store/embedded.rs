//! The farm in one local file (redb), for one coordinator. The default, with nothing to install.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::{Changes, Epoch, Store, StoreError};
use crate::farm::{Key, Record};

const RECORDS: TableDefinition<'_, &str, &str> = TableDefinition::new("records");
const LEADER: TableDefinition<'_, &str, u64> = TableDefinition::new("leader");
const EPOCH: &str = "epoch";

/// A farm's file.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// `None` after an I/O error: redb refuses everything until the file is opened again.
    database: Option<Arc<Database>>,
    path: PathBuf,
}

impl Embedded {
    /// Opens the file, or makes it; only one process can have it open.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Some(Self::database(path)?);
        Ok(Self { database, path: path.to_owned() })
    }

    fn database(path: &Path) -> Result<Arc<Database>, StoreError> {
        let failed = |error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: path.to_owned() },
            source => StoreError::Open { path: path.to_owned(), source: Box::new(source) },
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .map_err(|source| failed(DatabaseError::Storage(redb::StorageError::Io(source))))?;
        }
        Database::create(path).map(Arc::new).map_err(failed)
    }

    /// Runs `work` where it may block.
    async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Database) -> Result<T, Failed> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = match &self.database {
            Some(database) => database.clone(),
            None => self.database.insert(Self::database(&self.path)?).clone(),
        };
        let done = tokio::task::spawn_blocking(move || work(&database)).await;
        match done {
            Ok(result) => result.map_err(|failed| match failed {
                Failed::Store(error) => error,
                Failed::File(source) => {
                    self.database = None;
                    StoreError::File { path: self.path.clone(), source: Box::new(source) }
                }
            }),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
}

/// Why a transaction did not go through.
enum Failed {
    File(redb::Error),
    Store(StoreError),
}

impl<E: Into<redb::Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::File(error.into())
    }
}

impl Store for Embedded {
    async fn lead(&mut self) -> Result<Epoch, StoreError> {
        self.blocking(|database| {
            let write = database.begin_write()?;
            let epoch = {
                let mut leader = write.open_table(LEADER)?;
                let epoch = leader.get(EPOCH)?.map_or(0, |epoch| epoch.value()) + 1;
                leader.insert(EPOCH, epoch)?;
                write.open_table(RECORDS)?;
                epoch
            };
            write.commit()?;
            Ok(Epoch(epoch))
        })
        .await
    }

    async fn load(&mut self) -> Result<BTreeMap<Key, Record>, StoreError> {
        self.blocking(|database| {
            let read = database.begin_read()?;
            let records = read.open_table(RECORDS)?;
            let mut all = BTreeMap::new();
            for entry in records.iter()? {
                let (key, value) = entry?;
                let key = key.value().parse().map_err(|error| Failed::Store(StoreError::Record(error)))?;
                all.insert(key, Record(value.value().to_owned()));
            }
            Ok(all)
        })
        .await
    }

    async fn commit(&mut self, epoch: Epoch, changes: Changes) -> Result<(), StoreError> {
        self.blocking(move |database| {
            let write = database.begin_write()?;
            {
                let leader = write.open_table(LEADER)?;
                if leader.get(EPOCH)?.is_none_or(|now| now.value() != epoch.0) {
                    return Err(Failed::Store(StoreError::Deposed));
                }
                let mut records = write.open_table(RECORDS)?;
                for (key, record) in &changes {
                    let key = key.to_string();
                    match record {
                        Some(record) => records.insert(key.as_str(), record.0.as_str())?,
                        None => records.remove(key.as_str())?,
                    };
                }
            }
            write.commit()?;
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_older_leader_is_refused_and_nothing_of_its_group_is_written() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut store = Embedded::open(&dir.path().join("farm.redb")).expect("open");
        let old = store.lead().await.expect("lead");
        let record = |text: &str| Some(Record(text.to_owned()));
        store.commit(old, vec![(Key::Meta, record("{}"))]).await.expect("commit");
        let new = store.lead().await.expect("lead");
        let refused = store.commit(old, vec![(Key::Meta, record("{\"a\":1}"))]).await;
        assert!(matches!(refused, Err(StoreError::Deposed)));
        assert_eq!(store.load().await.expect("load")[&Key::Meta], Record("{}".to_owned()));
        store.commit(new, vec![(Key::Meta, None)]).await.expect("commit");
        assert!(store.load().await.expect("load").is_empty());
    }

    #[tokio::test]
    async fn a_second_coordinator_on_the_same_file_is_told_so() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("farm.redb");
        let _first = Embedded::open(&path).expect("open");
        assert!(matches!(Embedded::open(&path), Err(StoreError::InUse { .. })));
    }
}
