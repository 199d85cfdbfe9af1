//! The server: opened once, served on any number of listeners.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::allocator::Allocator;
use crate::context::{self, Context};
use crate::identity::{self, Identity};
use crate::store::Store;
use crate::tls::Tls;
use crate::{
    Config, OpenError, PodBackend, ServeError, bootstrap, custom, janitor, listen, service_ips,
};

/// Why there is no place for the collections that every server has.
const TOO_MANY: &str = "the state holds too many kinds: delete CustomResourceDefinitions with the program that wrote it";
/// Name of the state file in the data directory.
const STATE_FILE: &str = "state.redb";

/// An opened API server. It holds the lock of its data directory until the
/// last handle and the last connection are gone.
pub struct Server {
    pub(crate) context: Arc<Context>,
    tls: Arc<Tls>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("data_dir", &self.context.config.data_dir)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Open the data directory, make what is missing (certificate authority,
    /// certificates, namespaces, Services) and load the state.
    ///
    /// Needs a running tokio runtime.
    pub async fn open(config: Config) -> Result<Arc<Self>, OpenError> {
        check(&config)?;
        let opening = tokio::task::spawn_blocking(move || {
            identity::prepare_dir(&config.data_dir)?;
            // The store first: it is the lock that keeps a second server out.
            let path = config.data_dir.join(STATE_FILE);
            let store = Store::open(&path, context::collections())?;
            let identity = Identity::open(&config)?;
            let tls = Tls::new(&identity)?;
            let allocator =
                Allocator::new(&config.service_cidrs, config.node_ports.clone(), &store)
                    .ok_or_else(|| OpenError::Config(TOO_MANY.to_owned()))?;
            let context = Arc::new(Context::new(config, store, identity, allocator));
            Ok((context, Arc::new(tls)))
        });
        let (context, tls) = opening.await.map_err(|error| OpenError::Identity {
            doing: "open the data directory".to_owned(),
            source: Box::new(error),
        })??;
        service_ips::prepare(&context).await?;
        bootstrap::ensure(&context).await?;
        custom::start(&context).await;
        janitor::start(&context);
        service_ips::start(&context);
        Ok(Arc::new(Self { context, tls }))
    }

    /// A kubeconfig for the administrator, with the client key embedded: write
    /// it with mode 0600.
    pub fn kubeconfig(&self, server_url: &str) -> String {
        self.context.identity.kubeconfig(server_url)
    }

    /// The kubeconfig for clients inside this process.
    pub fn client_config(&self, server_url: &str) -> String {
        self.kubeconfig(server_url)
    }

    /// The certificate of the server's authority, PEM: what pods find as `ca.crt`.
    pub fn ca_certificate(&self) -> &str {
        &self.context.identity.ca
    }

    /// Serve a listener until `shutdown`; watches end then, and open requests
    /// get some time to end.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<(), ServeError> {
        let context = Arc::clone(&self.context);
        let tls = Arc::clone(&self.tls);
        listen::serve(context, tls, listener, shutdown).await
    }

    /// Say who answers `pods/NAME/log`.
    pub fn set_pod_backend(&self, backend: Arc<dyn PodBackend>) {
        self.context.set_pod_backend(backend);
    }
}

fn check(config: &Config) -> Result<(), OpenError> {
    if config.service_cidrs.is_empty() {
        return Err(OpenError::Config(
            "at least one range of Service addresses is needed (service_cidrs)".to_owned(),
        ));
    }
    for address in &config.dns_ips {
        if !config.service_cidrs.iter().any(|net| net.contains(address)) {
            return Err(OpenError::Config(format!(
                "the DNS address {address} is in none of the Service ranges"
            )));
        }
    }
    Ok(())
}

/// The address of DNS in a range of Services, by custom the tenth; `None` for
/// a range that is too small.
pub fn cluster_dns(services: IpNet) -> Option<IpAddr> {
    portolan_plan::allocate::AddressRange::new(services).nth(10)
}
