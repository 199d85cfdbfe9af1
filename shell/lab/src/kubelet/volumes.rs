//! Volumes of a pod as folders of the lab.
//!
//! `emptyDir`, `configMap`, `secret`, `downwardAPI` and `projected` with their
//! contents as of the pod's start; `hostPath` as it is. A pod that mounts no
//! service account token of its own gets the usual one. Absent: claims, and
//! everything that a storage driver serves.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, KeyToPath, Pod, Volume, VolumeProjection,
};

use super::env::{Facts, Sources, field};
use crate::container::Bind;

/// Where pods find their token.
const TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The ConfigMap that Kubernetes puts the cluster's CA certificate into.
pub(super) const CA_MAP: &str = "kube-root-ca.crt";

/// What volumes are filled with.
pub(super) struct Contents<'a> {
    pub(super) pod: &'a Pod,
    pub(super) facts: &'a Facts,
    pub(super) sources: &'a Sources,
    pub(super) token: Option<&'a str>,
    pub(super) ca: &'a str,
}

/// Files of one folder by relative path.
type Files = BTreeMap<String, String>;

/// Whether the pod wants the usual token, and under which account's name.
pub(super) fn account(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let projects = |volume: &Volume| {
        let projected = volume.projected.as_ref();
        let sources = projected.and_then(|projected| projected.sources.as_ref());
        sources
            .into_iter()
            .flatten()
            .any(|source| source.service_account_token.is_some())
    };
    let own = spec.volumes.iter().flatten().any(projects);
    if spec.automount_service_account_token == Some(false) && !own {
        return None;
    }
    let name = spec
        .service_account_name
        .clone()
        .filter(|name| !name.is_empty());
    Some(name.unwrap_or_else(|| "default".to_owned()))
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
            fs::create_dir_all(&path).map_err(|e| failed(e.to_string()))?;
            continue;
        }
        let files = files_of(volume, contents).map_err(failed)?;
        write(&path, &files).map_err(|e| failed(e.to_string()))?;
    }
    if let Some(token) = contents.token {
        let namespace = contents.pod.metadata.namespace.clone().unwrap_or_default();
        let files = Files::from([
            ("token".to_owned(), token.to_owned()),
            ("ca.crt".to_owned(), contents.ca.to_owned()),
            ("namespace".to_owned(), namespace),
        ]);
        write(&token_dir(dir), &files).map_err(|e| e.to_string())?;
    }
    Ok(())
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
        let name = ("configmap", map.name.clone());
        return pick(&name, map.items.as_deref(), map.optional, contents);
    }
    if let Some(secret) = &volume.secret {
        let name = ("secret", secret.secret_name.clone().unwrap_or_default());
        return pick(&name, secret.items.as_deref(), secret.optional, contents);
    }
    if let Some(down) = &volume.downward_api {
        return downward(down.items.as_deref().unwrap_or_default(), contents);
    }
    if let Some(projected) = &volume.projected {
        let mut files = Files::new();
        for source in projected.sources.iter().flatten() {
            files.extend(projection(source, contents)?);
        }
        return Ok(files);
    }
    Err("a lab has no such volumes: only emptyDir, configMap, secret, downwardAPI, projected and hostPath".to_owned())
}

fn projection(source: &VolumeProjection, contents: &Contents<'_>) -> Result<Files, String> {
    if let Some(token) = &source.service_account_token {
        let text = contents.token.unwrap_or_default().to_owned();
        return Ok(Files::from([(token.path.clone(), text)]));
    }
    if let Some(map) = &source.config_map {
        let name = ("configmap", map.name.clone());
        return pick(&name, map.items.as_deref(), map.optional, contents);
    }
    if let Some(secret) = &source.secret {
        let name = ("secret", secret.name.clone());
        return pick(&name, secret.items.as_deref(), secret.optional, contents);
    }
    let down = source
        .downward_api
        .as_ref()
        .and_then(|down| down.items.as_deref());
    downward(down.unwrap_or_default(), contents)
}

/// The files of a ConfigMap or Secret, all or those that are named.
fn pick(
    name: &(&'static str, String),
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    contents: &Contents<'_>,
) -> Result<Files, String> {
    let own;
    let data = match contents.sources.get(name) {
        Some(data) => data,
        None if name.1 == CA_MAP => {
            own = Files::from([("ca.crt".to_owned(), contents.ca.to_owned())]);
            &own
        }
        None if optional == Some(true) => return Ok(Files::new()),
        None => return Err(format!("{} {:?} not found", name.0, name.1)),
    };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data.clone());
    };
    let mut files = Files::new();
    for item in items {
        match data.get(&item.key) {
            Some(text) => drop(files.insert(item.path.clone(), text.clone())),
            None if optional == Some(true) => {}
            None => {
                return Err(format!(
                    "references non-existent {} key: {}",
                    name.0, item.key
                ));
            }
        }
    }
    Ok(files)
}

fn downward(items: &[DownwardAPIVolumeFile], contents: &Contents<'_>) -> Result<Files, String> {
    let mut files = Files::new();
    for item in items {
        let text = match &item.field_ref {
            Some(reference) => field(&reference.field_path, contents.pod, contents.facts)?,
            None => "0".to_owned(),
        };
        files.insert(item.path.clone(), text);
    }
    Ok(files)
}

/// Writes files below `dir`; a path that would leave it is refused.
fn write(dir: &Path, files: &Files) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for (name, text) in files {
        if Path::new(name)
            .components()
            .any(|part| !matches!(part, std::path::Component::Normal(_)))
        {
            return Err(io::Error::other(format!("bad path {name:?}")));
        }
        let path = dir.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, text)?;
    }
    Ok(())
}
