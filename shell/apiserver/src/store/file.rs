//! The state file: one redb database, one row per object.
//!
//! A commit returns only after fsync (`Durability::Immediate`), which is what
//! makes an acknowledged write survive kill -9 and a power cut. After a crash
//! redb goes back to the last commit by itself when it is opened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::object::{Collection, Key, KindIndex, ObjectName, Stored};
use crate::OpenError;

/// (collection, namespace, name) → the object's JSON.
const OBJECTS: TableDefinition<'_, (&str, &str, &str), &[u8]> = TableDefinition::new("objects");
/// Counters.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// The last resource version given to a write.
const REVISION: &str = "revision";
/// Version of this layout; another number is refused.
const LAYOUT: (&str, u64) = ("layout", 1);
/// Pages that redb keeps in memory. Readers never touch the file, so little is enough.
const PAGE_CACHE_BYTES: usize = 16 << 20;

/// The open file.
#[derive(Debug)]
pub(crate) struct StateFile {
    database: Database,
}

/// What a file held when it was opened.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) revision: u64,
    pub(crate) objects: BTreeMap<Key, Stored>,
}

/// One row to write; `None` deletes.
pub(crate) type Row<'a> = (&'a Key, Option<&'a [u8]>);

impl StateFile {
    /// Open or make the file and read everything in it.
    pub(crate) fn open(
        path: &Path,
        collections: &[Collection],
    ) -> Result<(Self, Loaded), OpenError> {
        let database = Database::builder()
            .set_cache_size(PAGE_CACHE_BYTES)
            .create(path)
            .map_err(|error| open_error(path, error))?;
        let file = Self { database };
        file.prepare(path)?;
        let loaded = file.load(collections).map_err(|source| OpenError::State {
            path: path.to_owned(),
            source,
        })?;
        Ok((file, loaded))
    }

    fn prepare(&self, path: &Path) -> Result<(), OpenError> {
        let layout = self.layout().map_err(|source| OpenError::State {
            path: path.to_owned(),
            source: source.into(),
        })?;
        if layout == LAYOUT.1 {
            return Ok(());
        }
        Err(OpenError::Config(format!(
            "the state in {} has layout {layout}, this program reads {}: use the program that wrote it, or another --data-dir",
            path.display(),
            LAYOUT.1
        )))
    }

    /// The file's layout number; a new file gets ours.
    fn layout(&self) -> Result<u64, redb::Error> {
        let write = self.database.begin_write()?;
        let layout = {
            let mut meta = write.open_table(META)?;
            let found = meta.get(LAYOUT.0)?.map(|number| number.value());
            if found.is_none() {
                meta.insert(LAYOUT.0, LAYOUT.1)?;
            }
            found.unwrap_or(LAYOUT.1)
        };
        write.open_table(OBJECTS)?;
        write.commit()?;
        Ok(layout)
    }

    fn load(
        &self,
        collections: &[Collection],
    ) -> Result<Loaded, Box<dyn std::error::Error + Send + Sync>> {
        let index: BTreeMap<&str, KindIndex> = collections
            .iter()
            .enumerate()
            .map(|(index, collection)| (collection.name.as_str(), index))
            .collect();
        let read = self.database.begin_read()?;
        let mut loaded = Loaded::default();
        if let Some(revision) = read.open_table(META)?.get(REVISION)? {
            loaded.revision = revision.value();
        }
        for row in read.open_table(OBJECTS)?.iter()? {
            let (key, json) = row?;
            let (collection, namespace, name) = key.value();
            // A kind of a newer program stays in the file, unseen.
            let Some(&kind) = index.get(collection) else {
                continue;
            };
            let Some(spec) = collections.get(kind) else {
                continue;
            };
            let stored = Stored::decode(spec, json.value())?;
            loaded.revision = loaded.revision.max(stored.revision);
            let name = ObjectName {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
            loaded.objects.insert(Key { kind, name }, stored);
        }
        Ok(loaded)
    }

    /// Write all rows and the counter, or nothing; returns after fsync.
    pub(crate) fn commit(
        &self,
        collections: &[Collection],
        rows: &[Row<'_>],
        revision: u64,
    ) -> Result<(), redb::Error> {
        let mut write = self.database.begin_write()?;
        write.set_durability(Durability::Immediate)?;
        {
            let mut objects = write.open_table(OBJECTS)?;
            for (key, json) in rows {
                let Some(collection) = collections.get(key.kind) else {
                    continue;
                };
                let row = (
                    collection.name.as_str(),
                    key.name.namespace.as_str(),
                    key.name.name.as_str(),
                );
                match json {
                    Some(json) => objects.insert(row, *json)?,
                    None => objects.remove(row)?,
                };
            }
            write.open_table(META)?.insert(REVISION, revision)?;
        }
        write.commit()?;
        Ok(())
    }
}

fn open_error(path: &Path, error: DatabaseError) -> OpenError {
    let path: PathBuf = path.to_owned();
    if let DatabaseError::DatabaseAlreadyOpen = error {
        return OpenError::InUse { path };
    }
    if let DatabaseError::Storage(redb::StorageError::Io(source)) = error {
        // A file that is no database gives this kind; the disk gives others.
        if source.kind() != std::io::ErrorKind::InvalidData {
            return OpenError::DataDir { path, source };
        }
        return OpenError::State {
            path,
            source: Box::new(source),
        };
    }
    OpenError::State {
        path,
        source: Box::new(error),
    }
}
