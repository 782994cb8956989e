//! The farm in one local file (redb), for one coordinator. The default, with nothing to install.

use std::{
    collections::BTreeMap,
    fs, io, panic,
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition,
};

use super::{Changed, Epoch, Group, Lead, News, Store, StoreError, Trust};
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
        let damaged = || StoreError::Damaged { path: path.to_owned() };
        let failed = |error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: path.to_owned() },
            DatabaseError::Storage(StorageError::Corrupted(_)) | DatabaseError::RepairAborted => damaged(),
            DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                damaged()
            }
            source => StoreError::Open { path: path.to_owned(), source: Box::new(source) },
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .map_err(|source| failed(DatabaseError::Storage(redb::StorageError::Io(source))))?;
        }
        if fs::metadata(path).is_ok_and(|file| file.len() == 0) {
            return Err(StoreError::EmptyFile { path: path.to_owned() });
        }
        // Of damage in some places redb makes a panic.
        let opened = panic::catch_unwind(|| Database::create(path));
        opened.map_err(|_| damaged())?.map(Arc::new).map_err(failed)
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
                Failed::File(redb::Error::Corrupted(_)) => StoreError::Damaged { path: self.path.clone() },
                Failed::File(source) => {
                    self.database = None;
                    StoreError::File { path: self.path.clone(), source: Box::new(source) }
                }
            }),
            Err(_) => {
                self.database = None;
                Err(StoreError::Damaged { path: self.path.clone() })
            }
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
    async fn lead(&mut self) -> Result<Lead, StoreError> {
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
            Ok(Lead::Ours { epoch: Epoch(epoch), trust: Trust::Whole })
        })
        .await
    }

    async fn load(&mut self) -> Result<BTreeMap<Key, Record>, StoreError> {
        self.blocking(|database| {
            let read = database.begin_read()?;
            let records = match read.open_table(RECORDS) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(BTreeMap::new()),
                records => records?,
            };
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

    async fn commit(&mut self, epoch: Epoch, group: Arc<Group>) -> Result<(), StoreError> {
        self.blocking(move |database| {
            let write = database.begin_write()?;
            {
                let leader = write.open_table(LEADER)?;
                if leader.get(EPOCH)?.is_none_or(|now| now.value() != epoch.0) {
                    return Err(Failed::Store(StoreError::Deposed));
                }
                let mut records = write.open_table(RECORDS)?;
                for (key, record) in &group.changes {
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

    async fn catch_up(&mut self, _: Epoch) -> Result<(), StoreError> {
        Ok(())
    }

    /// The file belongs to one process: who has it open leads.
    async fn keep(&mut self, _: Epoch, _: bool, _: usize) -> Result<(), StoreError> {
        Ok(())
    }

    async fn resign(&mut self, _: Epoch) -> Result<(), StoreError> {
        Ok(())
    }

    async fn follow(&mut self) -> Result<News, StoreError> {
        Ok(News { leader: None, changed: Changed::Everything })
    }

    /// There are none.
    async fn check_indexes(&mut self, _: &BTreeMap<Key, Record>) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_with_wrong_bits_is_refused_by_name_and_stops_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let whole = dir.path().join("whole.redb");
        let mut store = Embedded::open(&whole).expect("made");
        let Lead::Ours { epoch, .. } = store.lead().await.expect("lead") else { panic!("nobody else leads") };
        for node in 0..200_u32 {
            let record = Some(Record(format!("{{\"node\": {node}}}")));
            let changes = vec![(Key::Node(format!("node{node}").as_str().into()), record)];
            store.commit(epoch, Arc::new(Group { changes, events: Vec::new() })).await.expect("committed");
        }
        drop(store);
        let bytes = fs::read(&whole).expect("written");
        let (mut refused, mut read) = (0, 0);
        // Every 4,001st byte of what is used, and the header's one by one.
        let places =
            (0..320).chain((320..bytes.len()).step_by(4_001)).filter(|at| *at < 64 || bytes[*at] != 0);
        for (number, at) in places.take(400).enumerate() {
            let path = dir.path().join(format!("{number}.redb"));
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xff;
            fs::write(&path, damaged).expect("written");
            let told = match Embedded::open(&path) {
                Ok(mut store) => store.load().await.map(drop),
                Err(error) => Err(error),
            };
            match told {
                Ok(()) => read += 1,
                Err(error) => {
                    assert!(
                        error.to_string().contains("redb") || matches!(error, StoreError::Record(_)),
                        "{error}"
                    );
                    refused += 1;
                }
            }
            fs::remove_file(&path).expect("removed");
        }
        assert!(refused > 10 && read > 10, "{refused} refused, {read} read");
    }

    #[test]
    fn an_empty_file_is_no_new_farm() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("farm.redb");
        fs::write(&path, b"").expect("written");
        assert!(matches!(Embedded::open(&path), Err(StoreError::EmptyFile { .. })));
    }
}
