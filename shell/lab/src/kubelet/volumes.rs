//! Volumes of a pod as folders of the lab.
//!
//! `emptyDir`, `configMap`, `secret`, `downwardAPI` and `projected`, whose
//! contents follow their objects; `hostPath` as it is. A pod that mounts no
//! service account token of its own gets the usual one. Absent: claims, and
//! everything that a storage driver serves.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, KeyToPath, Pod, ServiceAccountTokenProjection, Volume,
    VolumeProjection,
};

use super::atomic::{self, File, Files, READABLE};
use super::env::{Facts, Sources, field};
use super::resources;
use crate::container::Bind;

/// Where pods find their token.
const TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long the usual token is good, kubelet's choice: an hour and seven seconds.
pub(super) const USUAL_TOKEN_SECONDS: i64 = 3607;
/// How long a projected token is good where nobody says anything.
const PROJECTED_TOKEN_SECONDS: i64 = 3600;
/// The ConfigMap that Kubernetes puts the cluster's CA certificate into.
pub(super) const CA_MAP: &str = "kube-root-ca.crt";

/// What volumes are filled with.
pub(super) struct Contents<'a> {
    pub(super) pod: &'a Pod,
    pub(super) facts: &'a Facts,
    pub(super) sources: &'a Sources,
    pub(super) tokens: &'a BTreeMap<TokenKind, String>,
    pub(super) ca: &'a str,
}

/// What a token is for, and how long it is good.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TokenKind {
    /// The API server if none.
    pub(super) audience: Option<String>,
    pub(super) seconds: i64,
}

impl TokenKind {
    /// What every pod has that does not decline.
    pub(super) const USUAL: Self = Self {
        audience: None,
        seconds: USUAL_TOKEN_SECONDS,
    };

    fn of(source: &ServiceAccountTokenProjection) -> Self {
        Self {
            audience: source.audience.clone().filter(|name| !name.is_empty()),
            seconds: source.expiration_seconds.unwrap_or(PROJECTED_TOKEN_SECONDS),
        }
    }
}

/// The tokens that a pod wants: the usual one and those of its volumes.
pub(super) fn tokens(pod: &Pod) -> BTreeSet<TokenKind> {
    let Some(spec) = &pod.spec else {
        return BTreeSet::new();
    };
    let projected = spec.volumes.iter().flatten();
    let sources = projected.filter_map(|volume| volume.projected.as_ref()?.sources.as_ref());
    let mut all: BTreeSet<TokenKind> = sources
        .flatten()
        .filter_map(|source| source.service_account_token.as_ref())
        .map(TokenKind::of)
        .collect();
    if spec.automount_service_account_token != Some(false) {
        all.insert(TokenKind::USUAL);
    }
    all
}

/// The name of the pod's service account.
pub(super) fn account(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let name = spec.and_then(|spec| spec.service_account_name.clone());
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| "default".to_owned())
}

/// Which ConfigMaps and Secrets the pod's volumes need.
pub(super) fn references(pod: &Pod) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    for volume in volumes.into_iter().flatten() {
        all.extend(
            volume
                .config_map
                .iter()
                .map(|map| ("configmap", map.name.clone())),
        );
        let secret = volume
            .secret
            .as_ref()
            .and_then(|secret| secret.secret_name.clone());
        all.extend(secret.map(|name| ("secret", name)));
        let projected = volume.projected.as_ref();
        for source in projected
            .and_then(|p| p.sources.as_ref())
            .into_iter()
            .flatten()
        {
            all.extend(
                source
                    .config_map
                    .iter()
                    .map(|map| ("configmap", map.name.clone())),
            );
            all.extend(
                source
                    .secret
                    .iter()
                    .map(|secret| ("secret", secret.name.clone())),
            );
        }
    }
    all
}

/// Makes the folders of all volumes under `dir`; `Err` is what an event says.
pub(super) fn make(dir: &Path, contents: &Contents<'_>) -> Result<(), String> {
    let spec = contents.pod.spec.as_ref();
    for volume in spec
        .and_then(|spec| spec.volumes.as_ref())
        .into_iter()
        .flatten()
    {
        let failed = |cause: String| {
            format!(
                "MountVolume.SetUp failed for volume {:?} : {cause}",
                volume.name
            )
        };
        let path = dir.join(&volume.name);
        if volume.host_path.is_some() {
            continue;
        }
        if volume.empty_dir.is_some() {
            shared_dir(&path).map_err(|e| failed(e.to_string()))?;
            continue;
        }
        let files = files_of(volume, contents).map_err(failed)?;
        atomic::write(&path, &files).map_err(|e| failed(e.to_string()))?;
    }
    let declines = spec.is_some_and(|spec| spec.automount_service_account_token == Some(false));
    if let Some(token) = contents.tokens.get(&TokenKind::USUAL).filter(|_| !declines) {
        let namespace = contents.pod.metadata.namespace.clone().unwrap_or_default();
        let files = Files::from([
            ("token".to_owned(), File::readable(token.as_str())),
            ("ca.crt".to_owned(), File::readable(contents.ca)),
            ("namespace".to_owned(), File::readable(namespace)),
        ]);
        atomic::write(&token_dir(dir), &files).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// A folder that every user of the pod's containers may write to.
fn shared_dir(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))
}

/// The folder of the usual token.
pub(super) fn token_dir(dir: &Path) -> PathBuf {
    dir.join("kube-api-access")
}

/// Where a container sees the volumes.
pub(super) fn binds(dir: &Path, pod: &Pod, container: &Container) -> Vec<Bind> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let mut all: Vec<Bind> = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = volumes
            .into_iter()
            .flatten()
            .find(|volume| volume.name == mount.name);
        let host = volume.and_then(|volume| volume.host_path.as_ref());
        let mut source = match host {
            Some(host) => PathBuf::from(&host.path),
            None => dir.join(&mount.name),
        };
        if let Some(below) = mount.sub_path.as_deref().filter(|below| !below.is_empty()) {
            source.push(below.trim_start_matches('/'));
        }
        let written = volume.is_some_and(|volume| volume.empty_dir.is_some() || host.is_some());
        all.push(Bind {
            source,
            target: PathBuf::from(&mount.mount_path),
            read_only: mount.read_only == Some(true) || !written,
        });
    }
    let usual = token_dir(dir);
    if usual.is_dir() && !all.iter().any(|bind| bind.target == Path::new(TOKEN_DIR)) {
        all.push(Bind {
            source: usual,
            target: PathBuf::from(TOKEN_DIR),
            read_only: true,
        });
    }
    all
}

fn files_of(volume: &Volume, contents: &Contents<'_>) -> Result<Files, String> {
    if let Some(map) = &volume.config_map {
        let wanted = Wanted {
            source: ("configmap", map.name.clone()),
            items: map.items.as_deref(),
            optional: map.optional,
            mode: mode(map.default_mode, READABLE),
        };
        return wanted.pick(contents);
    }
    if let Some(secret) = &volume.secret {
        let wanted = Wanted {
            source: ("secret", secret.secret_name.clone().unwrap_or_default()),
            items: secret.items.as_deref(),
            optional: secret.optional,
            mode: mode(secret.default_mode, READABLE),
        };
        return wanted.pick(contents);
    }
    if let Some(down) = &volume.downward_api {
        let usual = mode(down.default_mode, READABLE);
        return downward(down.items.as_deref().unwrap_or_default(), usual, contents);
    }
    if let Some(projected) = &volume.projected {
        let usual = mode(projected.default_mode, READABLE);
        let mut files = Files::new();
        for source in projected.sources.iter().flatten() {
            files.extend(projection(source, usual, contents)?);
        }
        return Ok(files);
    }
    Err("a lab has no such volumes: only emptyDir, configMap, secret, downwardAPI, projected and hostPath".to_owned())
}

/// A mode as the API has it.
fn mode(asked: Option<i32>, usual: u32) -> u32 {
    asked
        .and_then(|mode| u32::try_from(mode).ok())
        .unwrap_or(usual)
}

fn projection(
    source: &VolumeProjection,
    usual: u32,
    contents: &Contents<'_>,
) -> Result<Files, String> {
    if let Some(token) = &source.service_account_token {
        let given = contents.tokens.get(&TokenKind::of(token));
        let bytes = given.cloned().unwrap_or_default().into_bytes();
        let file = File { bytes, mode: usual };
        return Ok(Files::from([(token.path.clone(), file)]));
    }
    if let Some(map) = &source.config_map {
        let wanted = Wanted {
            source: ("configmap", map.name.clone()),
            items: map.items.as_deref(),
            optional: map.optional,
            mode: usual,
        };
        return wanted.pick(contents);
    }
    if let Some(secret) = &source.secret {
        let wanted = Wanted {
            source: ("secret", secret.name.clone()),
            items: secret.items.as_deref(),
            optional: secret.optional,
            mode: usual,
        };
        return wanted.pick(contents);
    }
    let down = source
        .downward_api
        .as_ref()
        .and_then(|down| down.items.as_deref());
    downward(down.unwrap_or_default(), usual, contents)
}

/// What a volume shows of a ConfigMap or Secret.
struct Wanted<'a> {
    source: (&'static str, String),
    items: Option<&'a [KeyToPath]>,
    optional: Option<bool>,
    mode: u32,
}

impl Wanted<'_> {
    /// The files, all or those that are named.
    fn pick(&self, contents: &Contents<'_>) -> Result<Files, String> {
        let (kind, name) = &self.source;
        let own;
        let data = match contents.sources.get(&self.source) {
            Some(data) => data,
            None if name == CA_MAP => {
                own = BTreeMap::from([("ca.crt".to_owned(), contents.ca.as_bytes().to_vec())]);
                &own
            }
            None if self.optional == Some(true) => return Ok(Files::new()),
            None => return Err(format!("{kind} {name:?} not found")),
        };
        let file = |bytes: &[u8], mode| File {
            bytes: bytes.to_vec(),
            mode,
        };
        let Some(items) = self.items.filter(|items| !items.is_empty()) else {
            let whole = data.iter();
            return Ok(whole
                .map(|(key, bytes)| (key.clone(), file(bytes, self.mode)))
                .collect());
        };
        let mut files = Files::new();
        for item in items {
            match data.get(&item.key) {
                Some(bytes) => {
                    let file = file(bytes, mode(item.mode, self.mode));
                    files.insert(item.path.clone(), file);
                }
                None if self.optional == Some(true) => {}
                None => {
                    return Err(format!("references non-existent {kind} key: {}", item.key));
                }
            }
        }
        Ok(files)
    }
}

fn downward(
    items: &[DownwardAPIVolumeFile],
    usual: u32,
    contents: &Contents<'_>,
) -> Result<Files, String> {
    let mut files = Files::new();
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(reference), _) => field(&reference.field_path, contents.pod, contents.facts)?,
            (None, Some(reference)) => resources::value(reference, contents.pod, None)?,
            (None, None) => String::new(),
        };
        let bytes = text.into_bytes();
        let mode = mode(item.mode, usual);
        files.insert(item.path.clone(), File { bytes, mode });
    }
    Ok(files)
}
