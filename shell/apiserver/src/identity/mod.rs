//! Who the server is, and how it knows who its clients are: the certificate
//! authority, the certificates it signs, and service-account tokens.
//!
//! Everything lives in the data directory and is made once. The server
//! certificate is signed anew when its names change or its end is near, so a
//! kubeconfig written earlier stays valid.

mod certificates;
mod kubeconfig;
mod tokens;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

pub(crate) use certificates::subject_of;
pub(crate) use tokens::{Claims, KubernetesClaims, NamedClaim, TokenError};

use crate::{Config, OpenError};

/// All keys and certificates.
pub(crate) struct Identity {
    /// The authority's certificate, PEM.
    pub(crate) ca: String,
    /// Certificate and key of this server, PEM.
    pub(crate) server: Pair,
    admin: Pair,
    tokens: tokens::Signer,
}

/// A certificate with its key, both PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Identity {
    /// Read the identity from the data directory, making what is missing.
    pub(crate) fn open(config: &Config) -> Result<Self, OpenError> {
        let dir = config.data_dir.as_path();
        let authority = certificates::Authority::open(dir)?;
        let server = certificates::server(dir, &authority, &server_names(config))?;
        let admin = certificates::admin(dir, &authority)?;
        let issuer = format!("https://kubernetes.default.svc.{}", config.cluster_domain);
        let tokens = tokens::Signer::open(dir, issuer)?;
        Ok(Self {
            ca: authority.certificate,
            server,
            admin,
            tokens,
        })
    }

    pub(crate) fn tokens(&self) -> &tokens::Signer {
        &self.tokens
    }

    /// A kubeconfig with the administrator's certificate and key in it.
    pub(crate) fn kubeconfig(&self, server_url: &str) -> String {
        kubeconfig::render(server_url, &self.ca, &self.admin)
    }
}

/// A name that a certificate vouches for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum San {
    Dns(String),
    Ip(IpAddr),
}

impl San {
    fn parse(text: &str) -> Self {
        match text.parse() {
            Ok(ip) => Self::Ip(ip),
            Err(_) => Self::Dns(text.to_owned()),
        }
    }
}

/// Everything by which clients call this server.
fn server_names(config: &Config) -> BTreeSet<San> {
    let mut names: BTreeSet<San> = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "localhost",
        "127.0.0.1",
        "::1",
    ]
    .into_iter()
    .map(San::parse)
    .collect();
    let domain = &config.cluster_domain;
    names.insert(San::Dns(format!("kubernetes.default.svc.{domain}")));
    names.extend(config.service_cidrs.iter().filter_map(first_address));
    names.extend(config.advertise.iter().map(|address| San::Ip(address.ip())));
    names.extend(config.extra_sans.iter().map(|name| San::parse(name)));
    names
}

fn first_address(net: &IpNet) -> Option<San> {
    portolan_plan::allocate::AddressRange::new(*net)
        .nth(1)
        .map(San::Ip)
}

/// Make the data directory, for its owner only.
pub(crate) fn prepare_dir(dir: &Path) -> Result<(), OpenError> {
    let wrap = |source| OpenError::DataDir {
        path: dir.to_owned(),
        source,
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(wrap)?;
    // Reading it now gives the plain error before anything is half made.
    drop(std::fs::read_dir(dir).map_err(wrap)?);
    let mut permissions = std::fs::metadata(dir).map_err(wrap)?.permissions();
    if permissions.mode() & 0o777 != 0o700 {
        permissions.set_mode(0o700);
        std::fs::set_permissions(dir, permissions).map_err(wrap)?;
    }
    Ok(())
}

/// The text of a file, or nothing if there is none.
fn read(path: &Path) -> Result<Option<String>, OpenError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::DataDir {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Write a file for its owner only, whole or not at all.
fn write(path: &Path, text: &str) -> Result<(), OpenError> {
    let wrap = |source| OpenError::DataDir {
        path: path.to_owned(),
        source,
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary: PathBuf = path.with_file_name(name);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(wrap)?;
    file.write_all(text.as_bytes()).map_err(wrap)?;
    file.sync_all().map_err(wrap)?;
    std::fs::rename(&temporary, path).map_err(wrap)
}

/// An identity error with what was attempted.
fn failed(
    doing: impl Into<String>,
    source: impl std::error::Error + Send + Sync + 'static,
) -> OpenError {
    OpenError::Identity {
        doing: doing.into(),
        source: Box::new(source),
    }
}
