//! The state file: one redb database, one row per object.
//!
//! A commit returns only after fsync (`Durability::Immediate`), which is what
//! makes an acknowledged write survive kill -9 and a power cut. After a crash
//! redb goes back to the last commit by itself when it is opened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::{Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::collections::Collections;
use super::object::{Key, KindIndex, ObjectName, Stored};
use crate::OpenError;

/// (collection, namespace, name) → what [`write_row`] writes.
const OBJECTS: TableDefinition<'_, (&str, &str, &str), &[u8]> = TableDefinition::new("objects");
/// Counters.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// The last resource version given to a write.
const REVISION: &str = "revision";
/// Before the name of a collection: the version of its last change, which may
/// have been a deletion.
const LAST: &str = "last/";
/// The least version of the last change of collections that have no such row:
/// set where a file was written by an older program.
const FLOOR: &str = "floor";
/// Version of this layout; newer ones are refused, older ones written anew.
const LAYOUT: (&str, u64) = ("layout", 2);
/// The layout whose rows are the JSON alone.
const BARE: u64 = 1;
/// Pages that redb keeps in memory. Readers never touch the file, so little is enough.
const PAGE_CACHE_BYTES: usize = 16 << 20;
/// Before the JSON of a row: the revision and the flags, so that a start does
/// not have to read any JSON.
const ROW_HEAD: usize = 9;
const DELETING: u8 = 1;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The open file.
#[derive(Debug)]
pub(crate) struct StateFile {
    database: Database,
}

/// What a file held when it was opened.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) revision: u64,
    /// No collection without a row of its own has changed after this.
    pub(crate) floor: u64,
    /// The last changes of collections.
    pub(crate) last: BTreeMap<KindIndex, u64>,
    /// By collection, each sorted by name.
    pub(crate) objects: Vec<(KindIndex, Vec<(ObjectName, Stored)>)>,
}

/// One row to write, with the version of the change; `None` deletes.
pub(crate) type Row<'a> = (&'a Key, u64, Option<&'a Stored>);

impl StateFile {
    /// Open or make the file and read everything in it.
    pub(crate) fn open(
        path: &Path,
        collections: &Collections,
    ) -> Result<(Self, Loaded), OpenError> {
        let state = |source: Error| OpenError::State {
            path: path.to_owned(),
            source,
        };
        let database = Database::builder()
            .set_cache_size(PAGE_CACHE_BYTES)
            .create(path)
            .map_err(|error| open_error(path, error))?;
        let file = Self { database };
        match file.layout().map_err(|error| state(error.into()))? {
            layout if layout == LAYOUT.1 => {}
            BARE => file.write_anew().map_err(state)?,
            layout => {
                return Err(OpenError::Config(format!(
                    "the state in {} has layout {layout}, this program reads {}: use the program that wrote it, or another --data-dir",
                    path.display(),
                    LAYOUT.1
                )));
            }
        }
        let loaded = file.load(collections).map_err(state)?;
        Ok((file, loaded))
    }

    /// The file's layout number; a new file gets ours.
    fn layout(&self) -> Result<u64, redb::Error> {
        let read = self.database.begin_read()?;
        match read.open_table(META) {
            Ok(meta) => {
                if let Some(layout) = meta.get(LAYOUT.0)? {
                    return Ok(layout.value());
                }
            }
            Err(redb::TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let write = self.database.begin_write()?;
        write.open_table(META)?.insert(LAYOUT.0, LAYOUT.1)?;
        write.open_table(OBJECTS)?;
        write.commit()?;
        Ok(LAYOUT.1)
    }

    /// Bring a file of bare rows to this layout, in one transaction.
    fn write_anew(&self) -> Result<(), Error> {
        let write = self.database.begin_write()?;
        {
            let mut objects = write.open_table(OBJECTS)?;
            let mut rows = Vec::new();
            for row in objects.iter()? {
                let (key, json) = row?;
                let (collection, namespace, name) = key.value();
                let key = [collection, namespace, name].map(str::to_owned);
                rows.push((key, json.value().to_vec()));
            }
            for ([collection, namespace, name], json) in rows {
                let value: serde_json::Value = serde_json::from_slice(&json)?;
                let revision = super::revision_of(&value).unwrap_or(0);
                let deleting = value["metadata"]["deletionTimestamp"].is_string();
                let stored = Stored::new(revision, Bytes::from(json), deleting);
                let row = write_row(&stored);
                objects.insert((&*collection, &*namespace, &*name), &*row)?;
            }
            let mut meta = write.open_table(META)?;
            let revision = meta.get(REVISION)?.map_or(0, |revision| revision.value());
            meta.insert(FLOOR, revision)?;
            meta.insert(LAYOUT.0, LAYOUT.1)?;
        }
        write.commit()?;
        Ok(())
    }

    fn load(&self, collections: &Collections) -> Result<Loaded, Error> {
        let read = self.database.begin_read()?;
        let mut loaded = Loaded::default();
        for row in read.open_table(META)?.iter()? {
            let (key, number) = row?;
            match (key.value(), key.value().strip_prefix(LAST)) {
                (REVISION, _) => loaded.revision = number.value(),
                (FLOOR, _) => loaded.floor = number.value(),
                (_, Some(collection)) => {
                    let index = collections.index(collection);
                    loaded.last.extend(index.map(|it| (it, number.value())));
                }
                (_, None) => {}
            }
        }
        let mut current = String::new();
        for row in read.open_table(OBJECTS)?.iter()? {
            let (key, bytes) = row?;
            let (collection, namespace, name) = key.value();
            // Rows of a collection follow one another. One that no kind of the
            // table has belongs to a definition, which is itself in this file.
            if loaded.objects.is_empty() || collection != current {
                collection.clone_into(&mut current);
                let Some(kind) = collections.index(collection) else {
                    continue;
                };
                loaded.objects.push((kind, Vec::new()));
            }
            let stored = read_row(bytes.value()).ok_or("a row is too short")?;
            loaded.revision = loaded.revision.max(stored.revision);
            let name = ObjectName {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
            if let Some((_, objects)) = loaded.objects.last_mut() {
                objects.push((name, stored));
            }
        }
        Ok(loaded)
    }

    /// Write all rows and the counter, or nothing; returns after fsync.
    pub(crate) fn commit(
        &self,
        collections: &Collections,
        rows: &[Row<'_>],
        revision: u64,
    ) -> Result<(), redb::Error> {
        let mut write = self.database.begin_write()?;
        write.set_durability(Durability::Immediate)?;
        {
            let mut objects = write.open_table(OBJECTS)?;
            let mut last: BTreeMap<&str, u64> = BTreeMap::new();
            for (key, changed, stored) in rows {
                let Some(collection) = collections.get(key.kind) else {
                    continue;
                };
                last.insert(&collection.name, *changed);
                let row = (
                    collection.name.as_str(),
                    key.name.namespace.as_str(),
                    key.name.name.as_str(),
                );
                match stored {
                    Some(stored) => objects.insert(row, &*write_row(stored))?,
                    None => objects.remove(row)?,
                };
            }
            let mut meta = write.open_table(META)?;
            meta.insert(REVISION, revision)?;
            for (collection, changed) in last {
                meta.insert(format!("{LAST}{collection}").as_str(), changed)?;
            }
        }
        write.commit()?;
        Ok(())
    }
}

fn write_row(stored: &Stored) -> Vec<u8> {
    let mut row = Vec::with_capacity(ROW_HEAD + stored.json.len());
    row.extend_from_slice(&stored.revision.to_be_bytes());
    row.push(if stored.deleting { DELETING } else { 0 });
    row.extend_from_slice(&stored.json);
    row
}

fn read_row(row: &[u8]) -> Option<Stored> {
    let (head, json) = row.split_at_checked(ROW_HEAD)?;
    let (revision, flags) = head.split_first_chunk::<8>()?;
    let deleting = flags.first().is_some_and(|flags| flags & DELETING != 0);
    let json = Bytes::copy_from_slice(json);
    Some(Stored::new(u64::from_be_bytes(*revision), json, deleting))
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
