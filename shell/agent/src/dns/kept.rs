//! The names that outlive the process: what was last published, in one file.
//!
//! A server that starts while the API server is away, or has not been listed yet,
//! answers from it (D20). The file is replaced as a whole, so that whoever is killed
//! leaves the old one or the new one. It is written by a task of its own, from a
//! snapshot that costs a few pointers, now and then while names change and once at
//! the end; its time of change says when somebody last answered from these names.
//!
//! ```text
//! file = magic length:u32 head zones sha256
//! ```
//!
//! The head is JSON: of which cluster, by which settings, answered where and to whom.
//! A file of another cluster, of other settings, that is too old or damaged is told of
//! and passed over.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use portolan_dns::{Name, Zone, Zones};
use portolan_plan::{NodeView, PodNames};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::guard::Clients;
use super::stats::DnsStats;

/// The file in the directory of state.
const FILE: &str = "names";
/// How the files begin that are being written.
const UNFINISHED: &str = "names.new-";
/// What the file begins with: the number is that of its layout.
const MAGIC: &[u8] = b"portolan names 2\n";
const DIGEST: usize = 32;
/// The longest head that is read.
const MOST_HEAD: usize = 1 << 20;
/// After so long without anybody who answered from them, names are no help.
const OLDEST: Duration = Duration::from_hours(24);
/// A writing that took long makes the pause so many times as long.
const SHARE: u32 = 100;
/// Unfinished files of that age belong to nobody any more.
const ABANDONED: Duration = Duration::from_secs(600);

/// When the file is written.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// The pause between a change and the next writing, so that many cost one.
    pause: Duration,
    /// How often the file is marked as being answered from while nothing changes.
    mark: Duration,
}

const USUAL: Pace = Pace {
    pause: Duration::from_secs(5),
    mark: Duration::from_secs(60),
};

/// Where names are kept, and for which cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepConfig {
    /// The directory of state; it is made if it is not there.
    pub directory: PathBuf,
    /// What tells one cluster from another: the address of its API server.
    pub cluster: String,
}

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) zones: Zones,
    /// Where they are answered; nothing for a server that is told where.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) clients: Clients,
}

/// Why kept names are not used.
#[derive(Debug, thiserror::Error)]
enum Unused {
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    #[error("it is no such file, of another version, or damaged")]
    Damaged,
    #[error("it is of another cluster or of other settings")]
    Foreign,
    #[error("nobody has answered from it for {} h", .0.as_secs() / 3600)]
    Old(Duration),
}

/// Keeps names until it is stopped.
pub(crate) struct Keeper {
    latest: watch::Sender<Kept>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Reads what is kept, if that can be used, and keeps what comes; must be called
    /// within a tokio runtime.
    pub(crate) fn open(
        config: &KeepConfig,
        view: &NodeView,
        stats: &Arc<DnsStats>,
    ) -> (Self, Option<Kept>) {
        Self::open_at(USUAL, config, view, stats)
    }

    fn open_at(
        pace: Pace,
        config: &KeepConfig,
        view: &NodeView,
        stats: &Arc<DnsStats>,
    ) -> (Self, Option<Kept>) {
        let place = Place {
            directory: config.directory.clone(),
            about: about(config, view),
        };
        let read = place.read(SystemTime::now());
        let path = place.path();
        let path = path.display();
        let found = match read {
            Ok(None) => None,
            Ok(Some((kept, age))) => {
                let (age, names) = (
                    age.as_secs(),
                    kept.zones.iter().map(Zone::len).sum::<usize>(),
                );
                tracing::info!(%path, age, names, "names are answered as they were kept, until the cluster has been listed");
                stats.kept_names(Some(age));
                Some(kept)
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%path, error, "kept names are not used");
                None
            }
        };
        let (latest, seen) = watch::channel(Kept::default());
        let stop = CancellationToken::new();
        let work = keep(pace, place, seen, (stop.clone(), Arc::clone(stats)));
        let keeper = Self {
            latest,
            stop,
            task: tokio::spawn(work),
        };
        (keeper, found)
    }

    /// Keeps these names from now on; costs nothing that depends on their number.
    pub(crate) fn keep(&self, kept: Kept) {
        self.latest.send_replace(kept);
    }

    /// Writes what is not written yet, and ends.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "the last names were not kept");
        }
    }
}

/// What the file must say of itself.
fn about(config: &KeepConfig, view: &NodeView) -> Value {
    let pods = match view.pod_names {
        PodNames::Disabled => "disabled",
        PodNames::Insecure => "insecure",
        PodNames::Verified => "verified",
    };
    json!({
        "cluster": config.cluster,
        "domain": &*view.cluster_domain,
        "pods": pods,
        "ttl": view.dns_ttl,
        "zonal": view.zonal_names,
    })
}

/// Writes what changes, each time after a pause.
async fn keep(
    pace: Pace,
    place: Place,
    mut latest: watch::Receiver<Kept>,
    (stop, stats): (CancellationToken, Arc<DnsStats>),
) {
    let mut writer = Writer {
        place: Arc::new(place),
        written: None,
        failed: false,
        stats,
    };
    let mut pause = pace.pause;
    loop {
        let (ended, wait) = tokio::select! {
            () = stop.cancelled() => (true, Duration::ZERO),
            changed = latest.changed() => (changed.is_err(), pause),
            () = tokio::time::sleep(pace.mark) => (false, Duration::ZERO),
        };
        let stopped = tokio::select! {
            () = stop.cancelled() => true,
            () = tokio::time::sleep(wait) => ended,
        };
        let kept = latest.borrow_and_update().clone();
        let began = Instant::now();
        writer.write(kept).await;
        pause = pace.pause.max(began.elapsed() * SHARE);
        if stopped {
            return;
        }
    }
}

/// Writes the file where it is not as it should be.
struct Writer {
    place: Arc<Place>,
    /// What is in the file.
    written: Option<Version>,
    /// The last writing failed, and that was told.
    failed: bool,
    stats: Arc<DnsStats>,
}

impl Writer {
    async fn write(&mut self, kept: Kept) {
        if kept.zones.iter().next().is_none() {
            return;
        }
        let version = Version::of(&kept);
        let mark = self.written.as_ref() == Some(&version);
        let place = Arc::clone(&self.place);
        let work = move || {
            if mark {
                place.mark()
            } else {
                place.write(&kept)
            }
        };
        let done = tokio::task::spawn_blocking(work).await;
        let done = done.unwrap_or_else(|error| Err(io::Error::other(error)));
        if !mark || done.is_err() {
            self.stats.names_kept(done.is_ok());
        }
        self.written = done.is_ok().then_some(version);
        let failed_before = std::mem::replace(&mut self.failed, done.is_err());
        if let (Err(error), false) = (done, failed_before) {
            let path = self.place.path();
            tracing::warn!(path = %path.display(), %error, "names cannot be kept for the next start");
        }
    }
}

/// What of a file tells it from others: serial numbers grow with each change.
#[derive(PartialEq)]
struct Version {
    serials: Vec<(Name, u32)>,
    addresses: Vec<IpAddr>,
    clients: Clients,
}

impl Version {
    fn of(kept: &Kept) -> Self {
        let zones = kept.zones.iter();
        Self {
            serials: zones
                .map(|zone| (zone.origin().clone(), zone.serial()))
                .collect(),
            addresses: kept.addresses.clone(),
            clients: kept.clients.clone(),
        }
    }
}

/// Where the file is, and what it must say.
struct Place {
    directory: PathBuf,
    about: Value,
}

impl Place {
    fn path(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    /// What is kept and how long ago somebody answered from it; none without a file.
    fn read(&self, now: SystemTime) -> Result<Option<(Kept, Duration)>, Unused> {
        let path = self.path();
        let octets = match fs::read(&path) {
            Ok(octets) => octets,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Unused::Read(error)),
        };
        let changed = fs::metadata(&path).and_then(|data| data.modified());
        // A clock that was set back makes nothing old.
        let age = now.duration_since(changed.map_err(Unused::Read)?);
        let age = age.unwrap_or_default();
        let (head, zones) = parts(&octets).ok_or(Unused::Damaged)?;
        if head.get("about") != Some(&self.about) {
            return Err(Unused::Foreign);
        }
        if age > OLDEST {
            return Err(Unused::Old(age));
        }
        let kept = kept(&head, zones).ok_or(Unused::Damaged)?;
        Ok(Some((kept, age)))
    }

    /// Replaces the file by one with these names.
    fn write(&self, kept: &Kept) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        self.sweep();
        // The name is nobody else's: another process may write at the same time.
        let name = format!("{UNFINISHED}{:016x}", RandomState::new().hash_one(0_u8));
        let path = self.directory.join(name);
        let done = self.write_to(&path, kept);
        if done.is_err() {
            drop(fs::remove_file(&path));
        }
        done
    }

    fn write_to(&self, path: &Path, kept: &Kept) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let mut out = Summed {
            out: BufWriter::new(file),
            sum: Sha256::new(),
        };
        let networks = match &kept.clients {
            Clients::Everybody => Value::Null,
            Clients::Within(networks) => texts(networks),
        };
        let head = json!({
            "about": self.about,
            "addresses": texts(&kept.addresses),
            "clients": networks,
        });
        let head = head.to_string();
        let length = u32::try_from(head.len()).map_err(io::Error::other)?;
        out.put(MAGIC)?;
        out.put(&length.to_be_bytes())?;
        out.put(head.as_bytes())?;
        kept.zones.write(|piece| out.put(piece))?;
        let Summed { mut out, sum } = out;
        out.write_all(&sum.finalize())?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(path, self.path())?;
        // The name of the file is on disk when its directory is.
        File::open(&self.directory)?.sync_all()
    }

    /// Takes away what others left unfinished who were killed long ago.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return;
        };
        for entry in entries.flatten() {
            let unfinished = entry.file_name().to_string_lossy().starts_with(UNFINISHED);
            let old = entry.metadata().and_then(|data| data.modified()).ok();
            let old = old.and_then(|at| SystemTime::now().duration_since(at).ok());
            if unfinished && old.is_some_and(|old| old > ABANDONED) {
                drop(fs::remove_file(entry.path()));
            }
        }
    }

    /// Says that the names in the file are still answered from.
    fn mark(&self) -> io::Result<()> {
        let file = OpenOptions::new().append(true).open(self.path())?;
        file.set_modified(SystemTime::now())
    }
}

/// Writes, and adds up what was written.
struct Summed {
    out: BufWriter<File>,
    sum: Sha256,
}

impl Summed {
    fn put(&mut self, piece: &[u8]) -> io::Result<()> {
        self.sum.update(piece);
        self.out.write_all(piece)
    }
}

fn texts(all: &[impl ToString]) -> Value {
    all.iter().map(ToString::to_string).collect()
}

/// The head of a file, and the octets of its zones, if it is whole.
fn parts(octets: &[u8]) -> Option<(Value, &[u8])> {
    let (summed, sum) = octets.split_at_checked(octets.len().checked_sub(DIGEST)?)?;
    let rest = summed.strip_prefix(MAGIC)?;
    if Sha256::digest(summed).as_slice() != sum {
        return None;
    }
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    if length > MOST_HEAD {
        return None;
    }
    let (head, zones) = rest.split_at_checked(length)?;
    Some((serde_json::from_slice(head).ok()?, zones))
}

fn kept(head: &Value, zones: &[u8]) -> Option<Kept> {
    let addresses = head.get("addresses")?.as_array()?;
    let clients = head.get("clients")?;
    let clients = if clients.is_null() {
        Clients::Everybody
    } else {
        let networks = clients.as_array()?.iter();
        let networks = networks.map(|text| text.as_str()?.parse::<IpNet>().ok());
        Clients::Within(networks.collect::<Option<_>>()?)
    };
    Some(Kept {
        zones: Zones::read(zones).ok()?,
        addresses: addresses
            .iter()
            .map(|text| text.as_str()?.parse().ok())
            .collect::<Option<_>>()?,
        clients,
    })
}

#[cfg(test)]
mod tests;
