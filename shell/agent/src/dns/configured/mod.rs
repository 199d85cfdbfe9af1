//! The configuration file in use: read at the start, and again when it changes.
//!
//! A file that cannot be used leaves everything as it was, and says so once. What the
//! file names (resolv.conf, files of hosts) is watched in the same way. Files are
//! compared by what is in them: a ConfigMap changes by a new symbolic link.

mod convert;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use portolan_api::dns_configuration::{self as file, ConfigurationError, DnsConfiguration};
use portolan_dns::Name;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::forward::{Dial, Forwarder};
use super::front::SharedFront;
use super::told::DnsTold;
pub use convert::ConvertError;
use convert::Seen;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// The longest file that is read.
const MOST_BYTES: u64 = 16 << 20;

/// Why a configuration is not used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not say what can be understood.
    #[error("{}: {source}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ConfigurationError,
    },
    /// It asks for what cannot be had.
    #[error(transparent)]
    Convert(#[from] ConvertError),
}

/// A configuration in use.
pub struct Configured {
    path: Option<PathBuf>,
    seen: Seen,
    configuration: DnsConfiguration,
    forwarder: Arc<Forwarder>,
    front: SharedFront,
    search: Option<Vec<Name>>,
    failed: Arc<AtomicU64>,
    look: Duration,
}

/// Reads a file, and says whether it would be used.
///
/// # Errors
/// If it would not.
pub fn check(path: &Path) -> Result<DnsConfiguration, LoadError> {
    let (configuration, _) = load(Some(path))?;
    Ok(configuration)
}

impl Configured {
    /// Reads the file, or takes what is usual where there is none.
    ///
    /// # Errors
    /// If the file cannot be used.
    pub fn open(path: Option<PathBuf>, dial: Dial) -> Result<Self, LoadError> {
        let (configuration, (in_use, seen)) = load(path.as_deref())?;
        let front = SharedFront::default();
        front.store(Arc::new(in_use.front));
        Ok(Self {
            path,
            seen,
            configuration,
            forwarder: Arc::new(Forwarder::new(in_use.forward, dial)),
            front,
            search: in_use.search,
            failed: Arc::default(),
            look: LOOK,
        })
    }

    /// Looks at the files so often. For tests.
    #[cfg(test)]
    pub(super) fn looking_every(mut self, look: Duration) -> Self {
        self.look = look;
        self
    }

    /// What the file said at the start.
    pub fn configuration(&self) -> &DnsConfiguration {
        &self.configuration
    }

    /// Who forwards by it.
    pub fn forwarder(&self) -> Arc<Forwarder> {
        Arc::clone(&self.forwarder)
    }

    /// What is looked at before the zones, by it.
    pub fn front(&self) -> SharedFront {
        Arc::clone(&self.front)
    }

    /// What pods have in their search lists after the cluster's own domains, if search
    /// lists are to be completed.
    pub fn search(&self) -> Option<&[Name]> {
        self.search.as_deref()
    }

    /// What is counted of all this, for whoever tells it.
    pub fn told(&self) -> DnsTold {
        DnsTold {
            forwarder: self.forwarder(),
            front: self.front(),
            failed_reloads: Arc::clone(&self.failed),
        }
    }

    /// Follows the files until `stop`; at once when `again` is notified.
    pub async fn follow(mut self, again: Arc<Notify>, stop: CancellationToken) {
        // What was told of a faulty file, so that it is told once.
        let mut told = String::new();
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.look) => false,
                () = again.notified() => true,
            };
            let path = self.path.clone();
            let Ok(read) = tokio::task::spawn_blocking(move || load(path.as_deref())).await else {
                return;
            };
            match read {
                Ok((configuration, (in_use, seen))) => {
                    told.clear();
                    if seen == self.seen {
                        if asked {
                            tracing::info!("the DNS configuration has not changed");
                        }
                        continue;
                    }
                    self.seen = seen;
                    self.use_now(configuration, in_use);
                }
                Err(error) => {
                    let error = in_a_line(&error);
                    if asked || error != told {
                        // Once per fault, as the file is looked at again and again.
                        self.failed.fetch_add(1, Ordering::Relaxed);
                        tracing::error!(error, "the DNS configuration stays as it was");
                    }
                    told = error;
                }
            }
        }
    }

    fn use_now(&mut self, configuration: DnsConfiguration, in_use: convert::InUse) {
        self.forwarder.apply(in_use.forward);
        self.front.store(Arc::new(in_use.front));
        let old = std::mem::replace(&mut self.configuration, configuration);
        let new = &self.configuration;
        let fixed = |of: &DnsConfiguration| {
            let (kubernetes, autopath) = (of.kubernetes.clone(), of.autopath.clone());
            (kubernetes, autopath, of.places.clone(), of.log_one_in)
        };
        if fixed(&old) != fixed(new) {
            tracing::warn!(
                "changes of kubernetes, autopath, log, health, ready and metrics in the DNS configuration hold from the next start on"
            );
        }
        tracing::info!("the DNS configuration was read again");
    }
}

/// An error and its causes.
fn in_a_line(error: &LoadError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

type Loaded = (DnsConfiguration, (convert::InUse, Seen));

fn load(path: Option<&Path>) -> Result<Loaded, LoadError> {
    let mut seen = Seen::default();
    let configuration = match path {
        None => DnsConfiguration::default(),
        Some(path) => {
            let text = read(path, &mut seen)?;
            file::read(&text).map_err(|source| LoadError::Invalid {
                path: path.to_owned(),
                source,
            })?
        }
    };
    let in_use = convert::convert(&configuration, &mut |named| {
        match read(named, &mut seen) {
            // Nobody named this one: a machine without it has no resolvers.
            Err(LoadError::Read { .. }) if path.is_none() => Ok(String::new()),
            read => read,
        }
    })?;
    Ok((configuration, (in_use, seen)))
}

/// The text of a file, remembered.
fn read(path: &Path, seen: &mut Seen) -> Result<String, LoadError> {
    use std::io::Read;
    let failed = |source| LoadError::Read {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MOST_BYTES)
        .read_to_string(&mut text)
        .map_err(failed)?;
    seen.remember(path, &text);
    Ok(text)
}
