//! One published UDP port. Each client of the host gets a socket of its own
//! towards the node, so that the node sees one client per client and answers
//! find their way back.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{net::UdpSocket, sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

/// The largest UDP payload.
const MAX_DATAGRAM: usize = 65_535;

/// Clients that have gone and are not yet forgotten; more wait in their tasks.
const GONE_DEPTH: usize = 64;

/// Bounds of one port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// A client that says and hears nothing for so long is forgotten.
    pub(super) idle: Duration,
    /// Clients at a time.
    pub(super) clients: usize,
}

/// Passes datagrams both ways until `closed`.
pub(super) async fn forward(
    host: UdpSocket,
    targets: Arc<[SocketAddr]>,
    limits: Limits,
    closed: CancellationToken,
) {
    let host = Arc::new(host);
    let mut clients: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let (tell_gone, mut gone) = mpsc::channel(GONE_DEPTH);
    let mut buffer = vec![0; MAX_DATAGRAM];
    // Tasks of clients end with the port.
    let _clients_end = closed.clone().drop_guard();
    loop {
        let received = tokio::select! {
            received = host.recv_from(&mut buffer) => received,
            Some(client) = gone.recv() => {
                clients.remove(&client);
                continue;
            }
            () = closed.cancelled() => return,
        };
        // Errors here are those of earlier sends (a client that went away).
        let Ok((length, client)) = received else {
            continue;
        };
        let Some(datagram) = buffer.get(..length) else {
            continue;
        };
        let node = match clients.get(&client) {
            Some(node) => Arc::clone(node),
            None if clients.len() >= limits.clients => continue,
            None => match connect(&targets).await {
                Ok(node) => {
                    let node = Arc::new(node);
                    clients.insert(client, Arc::clone(&node));
                    let answers = answer(Arc::clone(&host), Arc::clone(&node), client, limits.idle);
                    let (closed, tell_gone) = (closed.clone(), tell_gone.clone());
                    tokio::spawn(async move {
                        closed.run_until_cancelled(answers).await;
                        tell_gone.send(client).await.ok();
                    });
                    node
                }
                Err(error) => {
                    tracing::debug!(%error, "no node takes a published datagram");
                    continue;
                }
            },
        };
        // UDP may lose datagrams; a refusal shows up at the next one.
        node.send(datagram).await.ok();
    }
}

/// Passes answers to one client on until nothing has come for `idle`.
async fn answer(host: Arc<UdpSocket>, node: Arc<UdpSocket>, client: SocketAddr, idle: Duration) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    while let Ok(received) = timeout(idle, node.recv(&mut buffer)).await {
        // Nobody listens there at the moment; the client may try again.
        let Ok(length) = received else { continue };
        let Some(datagram) = buffer.get(..length) else {
            continue;
        };
        host.send_to(datagram, client).await.ok();
    }
}

/// A socket towards the first node that there is a way to.
async fn connect(targets: &[SocketAddr]) -> io::Result<UdpSocket> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for target in targets {
        let any: SocketAddr = if target.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = UdpSocket::bind(any).await?;
        match socket.connect(target).await {
            Ok(()) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn local() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").await.unwrap()
    }

    #[tokio::test]
    async fn every_client_gets_its_own_answers_and_idle_ones_make_room() {
        let node = local().await;
        let host = local().await;
        let at = host.local_addr().unwrap();
        let closed = CancellationToken::new();
        let limits = Limits {
            idle: Duration::from_millis(200),
            clients: 2,
        };
        let targets = Arc::from([node.local_addr().unwrap()]);
        let port = tokio::spawn(forward(host, targets, limits, closed.clone()));

        let (one, two) = (local().await, local().await);
        let mut buffer = [0; 16];
        let mut peers = Vec::new();
        for (client, text) in [(&one, b"one"), (&two, b"two")] {
            client.send_to(text, at).await.unwrap();
            let (length, from) = node.recv_from(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], text);
            peers.push(from);
        }
        assert_ne!(peers[0], peers[1]);
        node.send_to(b"2", peers[1]).await.unwrap();
        node.send_to(b"1", peers[0]).await.unwrap();
        for (client, text) in [(&one, b"1"), (&two, b"2")] {
            let length = client.recv(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], text);
        }

        // A third finds no room until the others have been idle for long enough.
        let three = local().await;
        let room = async {
            loop {
                three.send_to(b"three", at).await.unwrap();
                let heard = timeout(Duration::from_millis(20), node.recv_from(&mut buffer)).await;
                if heard.is_ok() {
                    break;
                }
            }
        };
        timeout(Duration::from_secs(10), room)
            .await
            .expect("idle clients are forgotten");
        closed.cancel();
        port.await.unwrap();
    }
}
