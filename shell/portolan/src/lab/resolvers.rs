//! Names outside the cluster: the host's resolvers, reached through the broker.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use portolan_agent::dns::{
    Dial, ForwardSettings, Forwarder, RouteSettings, ServerSettings, Upstream,
};
use portolan_dns::Name;
use portolan_dns::upstream::Policy;
use portolan_lab::broker::{Broker, BrokerError};
use tokio::runtime::Handle;

/// An upstream over the host's resolvers; none if the host has none.
pub(crate) async fn upstream(broker: &Broker) -> Result<Option<Arc<dyn Upstream>>, BrokerError> {
    let resolvers = broker.resolvers().await?;
    if resolvers.is_empty() {
        return Ok(None);
    }
    let servers = resolvers
        .into_iter()
        .map(|ip| ServerSettings::plain(SocketAddr::new(ip, portolan_plan::DNS_PORT)))
        .collect();
    let runtime = Handle::current();
    let udp = {
        let (broker, runtime) = (broker.clone(), runtime.clone());
        move |at: SocketAddr| {
            let socket = wait(&runtime, broker.udp_to_resolver(at.ip()))?;
            socket.into_std()
        }
    };
    let broker = broker.clone();
    let tcp = move |at: SocketAddr| {
        let stream = wait(&runtime, broker.tcp_to_resolver(at.ip()))?;
        stream.into_std()
    };
    let dial = Dial::By {
        udp: Arc::new(udp),
        tcp: Arc::new(tcp),
    };
    let settings = ForwardSettings {
        routes: vec![RouteSettings {
            policy: Policy::Sequential,
            ..RouteSettings::new(Name::root(), servers)
        }],
        ..ForwardSettings::default()
    };
    Ok(Some(Arc::new(Forwarder::new(settings, dial))))
}

/// Waits for the broker from a callback that is not async.
fn wait<T>(runtime: &Handle, asked: impl Future<Output = Result<T, BrokerError>>) -> io::Result<T> {
    tokio::task::block_in_place(|| runtime.block_on(asked)).map_err(io::Error::other)
}
