//! TCP: two connections, and what is said on one is said on the other.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use socket2::Type;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Route, Shared};

/// The longest that an endpoint may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until the first token is cancelled; what was accepted lives until the
/// second is.
pub(super) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    route: Arc<Route>,
    (stop, all): (CancellationToken, CancellationToken),
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accept(&listener, &shared) => accepted,
        };
        match accepted {
            Ok((client, place)) => {
                let (shared, route, all) = (Arc::clone(&shared), Arc::clone(&route), all.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = all.cancelled() => {}
                        passed = pass(client, &shared, &route) => {
                            if let Err(error) = passed {
                                tracing::debug!(%error, "a connection on localhost broke off");
                            }
                        }
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection on localhost could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    shared: &Shared,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(&shared.places).acquire_owned().await;
    let place = place.map_err(io::Error::other)?;
    let (client, _) = listener.accept().await?;
    Ok((client, place))
}

/// Passes on in both directions until both have ended. One that ends is ended on
/// the other side, which may go on talking; one that breaks breaks both.
async fn pass(mut client: TcpStream, shared: &Shared, route: &Route) -> io::Result<()> {
    let mut server = match connect(&client, shared, route).await {
        Ok(server) => server,
        Err(error) => {
            // The client is reset, as it would be by the endpoint.
            client.set_zero_linger()?;
            return Err(error);
        }
    };
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let passed = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    if let Err(error) = passed {
        client.set_zero_linger()?;
        server.set_zero_linger()?;
        return Err(error);
    }
    Ok(())
}

async fn connect(client: &TcpStream, shared: &Shared, route: &Route) -> io::Result<TcpStream> {
    let endpoint = route.choose(client.peer_addr()?.ip());
    let endpoint = endpoint.ok_or(io::ErrorKind::ConnectionRefused)?;
    let socket = shared.socket(Type::STREAM, endpoint)?;
    let socket = TcpSocket::from_std_stream(socket.into());
    timeout(CONNECT_TIMEOUT, socket.connect(endpoint)).await?
}
