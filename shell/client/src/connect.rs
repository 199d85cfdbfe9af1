//! Clients from a kubeconfig or from inside a pod.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use thiserror::Error;

/// The longest silence on a connection: watches end by themselves a little earlier.
const READ_TIMEOUT: Duration = Duration::from_secs(295);

/// Why no client could be made.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The kubeconfig is not readable as one.
    #[error("cannot read kubeconfig {origin}")]
    Kubeconfig {
        /// The file, or what stands in for it.
        origin: PathBuf,
        /// What the parser said.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// This is no pod, or one without a service account.
    #[error(
        "found no service account of a pod (KUBERNETES_SERVICE_HOST and /var/run/secrets/kubernetes.io/serviceaccount)"
    )]
    ServiceAccount(#[source] Box<kube::config::InClusterError>),
    /// Neither a kubeconfig nor a pod's service account was found.
    #[error("found neither a kubeconfig nor the service account of a pod")]
    Infer(#[source] Box<kube::config::InferConfigError>),
    /// The certificates or addresses in the configuration do not work.
    #[error("cannot set up the connection to {server}")]
    Client {
        /// The API server's address.
        server: String,
        /// What the TLS stack said.
        #[source]
        source: Box<kube::Error>,
    },
}

/// A client from the text of a kubeconfig, as the embedded API server hands it out.
pub async fn from_kubeconfig_text(yaml: &str) -> Result<Client, ConnectError> {
    let origin = PathBuf::from("(in memory)");
    let config = Kubeconfig::from_yaml(yaml).map_err(|e| ConnectError::Kubeconfig {
        origin: origin.clone(),
        source: Box::new(e),
    })?;
    from_kubeconfig(config, origin).await
}

/// A client from a kubeconfig file and its current context.
pub async fn from_kubeconfig_file(path: &Path) -> Result<Client, ConnectError> {
    let config = Kubeconfig::read_from(path).map_err(|e| ConnectError::Kubeconfig {
        origin: path.to_owned(),
        source: Box::new(e),
    })?;
    from_kubeconfig(config, path.to_owned()).await
}

/// A client by the service account of the pod that this runs in; its token is
/// read again as it is renewed.
///
/// # Errors
/// If this is no pod, or its service account is not mounted.
pub fn from_service_account() -> Result<Client, ConnectError> {
    let config = Config::incluster().map_err(|e| ConnectError::ServiceAccount(Box::new(e)))?;
    client(config)
}

/// A client from `$KUBECONFIG`, `~/.kube/config` or the pod's service account.
pub async fn infer() -> Result<Client, ConnectError> {
    let config = Config::infer()
        .await
        .map_err(|e| ConnectError::Infer(Box::new(e)))?;
    client(config)
}

async fn from_kubeconfig(kubeconfig: Kubeconfig, origin: PathBuf) -> Result<Client, ConnectError> {
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|e| ConnectError::Kubeconfig {
            origin,
            source: Box::new(e),
        })?;
    client(config)
}

/// The address of the API server of a kubeconfig file's current context, or of the pod
/// that this runs in: what tells one cluster from another before it is asked.
///
/// # Errors
/// As for the client of the same.
pub async fn server_url(kubeconfig: Option<&Path>) -> Result<String, ConnectError> {
    let Some(path) = kubeconfig else {
        let config = Config::incluster();
        let config = config.map_err(|e| ConnectError::ServiceAccount(Box::new(e)))?;
        return Ok(config.cluster_url.to_string());
    };
    let failed = |source| ConnectError::Kubeconfig {
        origin: path.to_owned(),
        source: Box::new(source),
    };
    let read = Kubeconfig::read_from(path).map_err(failed)?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
    Ok(config.map_err(failed)?.cluster_url.to_string())
}

fn client(mut config: Config) -> Result<Client, ConnectError> {
    // A server that is silently gone must not hold a watch for ever.
    config.read_timeout.get_or_insert(READ_TIMEOUT);
    let server = config.cluster_url.to_string();
    Client::try_from(config).map_err(|e| ConnectError::Client {
        server,
        source: Box::new(e),
    })
}
