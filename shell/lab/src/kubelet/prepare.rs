//! From objects of the API to what runs: volumes, environment, files.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, Container, Pod, PodSpec, Secret, Service, ServiceAccount},
};
use kube::{
    Api,
    api::{ListParams, PostParams},
};

use super::{
    KubeletConfig,
    env::{self, Facts, Sources},
    security, termination,
    volumes::{self, Contents, TokenKind, USUAL_TOKEN_SECONDS},
};
use crate::{
    container::{
        ContainerSpec,
        files::{self, Resolver},
    },
    image::{Image, Port, Wanted},
};

/// How often ConfigMaps and Secrets are read again for the volumes that show
/// them.
const FOLLOW: SignedDuration = SignedDuration::from_secs(5);
/// How long one request to the API server may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// A server that gives shorter ones is not asked more often than this calls for.
const LEAST_TOKEN_LIFE: SignedDuration = SignedDuration::from_secs(60);

/// What a UTS name can hold.
pub(super) const LONGEST_HOSTNAME: usize = 64;

/// What keeps a pod or a container from starting.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrepareError {
    /// The API server could not be asked.
    #[error("cannot get {what}")]
    Api {
        what: String,
        #[source]
        cause: kube::Error,
    },
    #[error("cannot get {0}: no answer")]
    Late(String),
    /// The objects say something that cannot be.
    #[error("{0}")]
    Objects(String),
}

/// One request, in time.
async fn ask<T>(
    what: &str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, PrepareError> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(cause)) => Err(PrepareError::Api {
            what: what.to_owned(),
            cause,
        }),
        Err(_late) => Err(PrepareError::Late(what.to_owned())),
    }
}

fn not_found(error: &PrepareError) -> bool {
    matches!(error, PrepareError::Api { cause: kube::Error::Api(status), .. } if status.code == 404)
}

/// The folder of a pod's volumes.
pub(super) fn volume_dir(config: &KubeletConfig, uid: &str) -> PathBuf {
    pod_dir(config, uid).join("volumes")
}

/// Everything that a pod has on disk but its logs.
pub(super) fn pod_dir(config: &KubeletConfig, uid: &str) -> PathBuf {
    config.data_dir.join("pods").join(uid)
}

/// What a pod's volumes were filled with, and when to look again.
#[derive(Clone, Default)]
pub(super) struct Filled {
    tokens: BTreeMap<TokenKind, Token>,
    /// When the token should be renewed or the objects read again, which is
    /// done by filling the volumes again.
    pub(super) again: Option<Timestamp>,
}

/// Fills the pod's volumes, with the token that they have while it is good.
pub(super) async fn fill_volumes(
    config: &KubeletConfig,
    pod: &Pod,
    facts: &Facts,
    dir: &Path,
    before: &Filled,
) -> Result<Filled, PrepareError> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let references = volumes::references(pod);
    let now = Timestamp::now();
    let follow = (!references.is_empty()).then(|| now.checked_add(FOLLOW).unwrap_or(now));
    let sources = sources(config, &namespace, references, Binary::Shown).await?;
    let mut tokens = BTreeMap::new();
    for kind in volumes::tokens(pod) {
        let good = before.tokens.get(&kind).filter(|token| now < token.renew);
        let token = match good.cloned() {
            Some(good) => Some(good),
            None => token(config, pod, &namespace, &kind).await?,
        };
        tokens.extend(token.map(|token| (kind, token)));
    }
    let texts = tokens
        .iter()
        .map(|(kind, token)| (kind.clone(), token.text.clone()))
        .collect();
    let contents = Contents {
        pod,
        facts,
        sources: &sources,
        tokens: &texts,
        ca: &config.cluster_ca,
    };
    volumes::make(dir, &contents).map_err(PrepareError::Objects)?;
    let renew = tokens.values().map(|token| token.renew).min();
    Ok(Filled {
        tokens,
        again: [renew, follow].into_iter().flatten().min(),
    })
}

/// A service account token and when to ask for the next one.
#[derive(Clone)]
struct Token {
    text: String,
    renew: Timestamp,
}

/// A token for the pod's service account, by TokenRequest. A server without
/// that subresource gives none, and the pod does without.
async fn token(
    config: &KubeletConfig,
    pod: &Pod,
    namespace: &str,
    kind: &TokenKind,
) -> Result<Option<Token>, PrepareError> {
    let account = &volumes::account(pod);
    let accounts: Api<ServiceAccount> = Api::namespaced(config.client.clone(), namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            expiration_seconds: Some(kind.seconds),
            audiences: kind.audience.clone().map(|audience| vec![audience]),
            bound_object_ref: Some(k8s_openapi::api::authentication::v1::BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let what = format!("a token for service account {namespace}/{account}");
    let params = PostParams::default();
    match ask(
        &what,
        accounts.create_token_request(account, &params, &request),
    )
    .await
    {
        Ok(answer) => Ok(answer.status.and_then(|status| {
            let expires = status.expiration_timestamp.map(|time| time.0);
            Some(Token {
                text: status.token?,
                renew: renewal(Timestamp::now(), expires),
            })
        })),
        Err(error) if not_found(&error) => {
            tracing::debug!(namespace, account, "the API server gives no tokens");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// After four fifths of a token's life, as kubelet does.
fn renewal(now: Timestamp, expires: Option<Timestamp>) -> Timestamp {
    let hour = SignedDuration::from_secs(USUAL_TOKEN_SECONDS);
    let life = expires.map_or(hour, |expires| expires.duration_since(now));
    let part = life.max(LEAST_TOKEN_LIFE) / 5 * 4;
    now.checked_add(part).unwrap_or(now)
}

/// Whether `binaryData` counts: variables never have it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Binary {
    Shown,
    LeftOut,
}

/// A ConfigMap's entries; the binary ones are for files, not for variables.
fn data_of(map: ConfigMap, binary: Binary) -> BTreeMap<String, Vec<u8>> {
    let texts = map.data.unwrap_or_default().into_iter();
    let mut all: BTreeMap<_, _> = texts.map(|(key, text)| (key, text.into_bytes())).collect();
    if binary == Binary::Shown {
        let more = map.binary_data.unwrap_or_default().into_iter();
        all.extend(more.map(|(key, bytes)| (key, bytes.0)));
    }
    all
}

/// Reads ConfigMaps and Secrets; what is not there is left out.
async fn sources(
    config: &KubeletConfig,
    namespace: &str,
    names: Vec<(&'static str, String)>,
    binary: Binary,
) -> Result<Sources, PrepareError> {
    let mut all = Sources::new();
    for (kind, name) in names {
        let what = format!("{kind} {namespace}/{name}");
        let data = if kind == "configmap" {
            let maps: Api<ConfigMap> = Api::namespaced(config.client.clone(), namespace);
            let map = ask(&what, maps.get(&name)).await;
            map.map(|map| data_of(map, binary))
        } else {
            let secrets: Api<Secret> = Api::namespaced(config.client.clone(), namespace);
            let secret = ask(&what, secrets.get(&name)).await;
            secret.map(|secret| {
                let data = secret.data.unwrap_or_default().into_iter();
                data.map(|(key, value)| (key, value.0)).collect()
            })
        };
        match data {
            Ok(data) => drop(all.insert((kind, name), data)),
            Err(error) if not_found(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Variables of the namespace's Services, and always those of the API server.
async fn service_vars(
    config: &KubeletConfig,
    namespace: &str,
    links: bool,
) -> Result<BTreeMap<String, String>, PrepareError> {
    let mut services = Vec::new();
    if links {
        let own: Api<Service> = Api::namespaced(config.client.clone(), namespace);
        let list = ask("the Services", own.list(&ListParams::default())).await?;
        services = list.items;
    }
    let system: Api<Service> = Api::namespaced(config.client.clone(), "default");
    let kubernetes = ask("Service default/kubernetes", system.get_opt("kubernetes")).await?;
    services.retain(|service| service.metadata.name.as_deref() != Some("kubernetes"));
    services.extend(kubernetes);
    Ok(env::of_services(&services))
}

/// The host name of a pod: its own choice, or its name as far as it fits.
pub(super) fn hostname(pod: &Pod) -> String {
    let own = pod.spec.as_ref().and_then(|spec| spec.hostname.clone());
    let own = own.filter(|name| !name.is_empty());
    let mut name = own
        .or_else(|| pod.metadata.name.clone())
        .unwrap_or_default();
    // A UTS name has 64 bytes with its end; kubelet cuts at 63 and trims.
    name.truncate(63);
    name.trim_end_matches(['-', '.']).to_owned()
}

/// What the containers of a pod call themselves: with `setHostnameAsFQDN` the
/// whole name, if the pod has a subdomain.
pub(super) fn full_hostname(pod: &Pod, cluster_domain: &str) -> String {
    let short = hostname(pod);
    let spec = pod.spec.as_ref();
    let full = spec.is_some_and(|spec| spec.set_hostname_as_fqdn == Some(true));
    let sub = spec.and_then(|spec| spec.subdomain.as_deref());
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    match sub.filter(|sub| full && !sub.is_empty()) {
        Some(sub) => format!("{short}.{sub}.{namespace}.svc.{cluster_domain}"),
        None => short,
    }
}

/// Everything that the keeper needs to start `container`.
pub(super) async fn container_spec(
    config: &KubeletConfig,
    pod: &Pod,
    container: &Container,
    image: &Image,
    facts: &Facts,
) -> Result<ContainerSpec, PrepareError> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let links = spec.enable_service_links.unwrap_or(true);
    let services = service_vars(config, &namespace, links).await?;
    let references = env::references(container);
    let sources = sources(config, &namespace, references, Binary::LeftOut).await?;
    let env = env::of_container(pod, container, facts, &services, &sources);
    let env = env.map_err(PrepareError::Objects)?;
    let vars: BTreeMap<String, String> = env.iter().cloned().collect();
    let expanded = |list: &Option<Vec<String>>| {
        let list = list.iter().flatten();
        list.map(|text| files::expand(text, &vars))
            .collect::<Vec<_>>()
    };
    let ports = container.ports.iter().flatten().filter_map(|port| {
        Some(Port {
            number: u16::try_from(port.container_port).ok()?,
            udp: port.protocol.as_deref() == Some("UDP"),
            name: port.name.clone().unwrap_or_default(),
        })
    });
    let wanted = Wanted {
        command: expanded(&container.command),
        args: expanded(&container.args),
        ports: ports.collect(),
    };
    let root = pod_dir(config, &uid).join("roots").join(&container.name);
    std::fs::create_dir_all(&root).map_err(|cause| {
        PrepareError::Objects(format!("cannot make {}: {cause}", root.display()))
    })?;
    let security = container.security_context.clone().unwrap_or_default();
    let capabilities = security.capabilities.unwrap_or_default();
    let last_words = termination::file(config, &uid, &container.name);
    let last_words = termination::bind(&last_words, container).map_err(|cause| {
        PrepareError::Objects(format!("cannot make {}: {cause}", last_words.display()))
    })?;
    let mut binds = volumes::binds(&volume_dir(config, &uid), pod, container);
    binds.push(last_words);
    let mut hide = config.hide.clone();
    hide.push(config.data_dir.clone());
    Ok(ContainerSpec {
        stdin: container.stdin == Some(true),
        terminal: container.tty == Some(true),
        hostname: facts.hostname.clone(),
        argv: image.argv(&wanted),
        env,
        cwd: container.working_dir.clone().unwrap_or_default(),
        root,
        files: own_files(config, pod, &spec, facts),
        binds,
        user: security::user(pod, container).map_err(PrepareError::Objects)?,
        read_only_root: security.read_only_root_filesystem == Some(true),
        hide,
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        privileged: security.privileged == Some(true),
    })
}

/// The files of the pod's own in `/etc`.
fn own_files(
    config: &KubeletConfig,
    pod: &Pod,
    spec: &PodSpec,
    facts: &Facts,
) -> BTreeMap<PathBuf, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let sub = spec.subdomain.as_deref().filter(|sub| !sub.is_empty());
    let domain = sub.map(|sub| format!("{sub}.{namespace}.svc.{}", config.cluster_domain));
    let aliases: Vec<(String, Vec<String>)> = spec
        .host_aliases
        .iter()
        .flatten()
        .map(|alias| {
            (
                alias.ip.clone(),
                alias.hostnames.clone().unwrap_or_default(),
            )
        })
        .collect();
    let host = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let short = match spec.host_network {
        Some(true) => facts.hostname.clone(),
        Some(false) | None => hostname(pod),
    };
    let hosts = files::hosts(&facts.pod_ips, &short, domain.as_deref(), &aliases);
    let resolver = resolver(config, namespace, spec, &host("/etc/resolv.conf"));
    BTreeMap::from([
        ("/etc/hosts".into(), hosts),
        ("/etc/hostname".into(), format!("{}\n", facts.hostname)),
        ("/etc/resolv.conf".into(), resolver.text()),
        (
            "/etc/nsswitch.conf".into(),
            files::nsswitch(&host("/etc/nsswitch.conf")),
        ),
    ])
}

/// `/etc/resolv.conf` by `dnsPolicy` and `dnsConfig` (D19).
fn resolver(config: &KubeletConfig, namespace: &str, spec: &PodSpec, host: &str) -> Resolver {
    let on_host = spec.host_network == Some(true);
    let mut resolver = match spec.dns_policy.as_deref() {
        Some("None") => Resolver::default(),
        Some("Default") => Resolver::parse(host),
        Some("ClusterFirstWithHostNet") => {
            Resolver::cluster_first(&config.dns_ips, namespace, &config.cluster_domain)
        }
        Some(_) | None if on_host => Resolver::parse(host),
        Some(_) | None => {
            Resolver::cluster_first(&config.dns_ips, namespace, &config.cluster_domain)
        }
    };
    if let Some(more) = &spec.dns_config {
        let options = more.options.iter().flatten().filter_map(|option| {
            let name = option.name.clone()?;
            Some(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name,
            })
        });
        resolver.extend(Resolver {
            servers: more.nameservers.clone().unwrap_or_default(),
            search: more.searches.clone().unwrap_or_default(),
            options: options.collect(),
        });
    }
    resolver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c18_tokens_are_renewed_in_time() {
        let now = Timestamp::UNIX_EPOCH;
        for (expires, renew) in [
            (Some(1000), 800),
            (None, 2885),
            (Some(5), 48),
            (Some(-9), 48),
        ] {
            let expires = expires.map(|s| Timestamp::from_second(s).unwrap());
            assert_eq!(renewal(now, expires).as_second(), renew, "{expires:?}");
        }
    }

    #[test]
    fn a_host_name_fits() {
        let pod = |name: &str, own: &str| -> Pod {
            let text = format!(
                "{{metadata: {{name: {name}}}, spec: {{hostname: '{own}', containers: []}}}}"
            );
            serde_saphyr::from_str(&text).unwrap()
        };
        let long = format!("{}-{}", "a".repeat(62), "b".repeat(20));
        for (name, own, expected) in [
            ("web-0", "", "web-0"),
            ("web-0", "db", "db"),
            (long.as_str(), "", &"a".repeat(62)),
        ] {
            assert_eq!(hostname(&pod(name, own)), expected);
        }
    }
}
