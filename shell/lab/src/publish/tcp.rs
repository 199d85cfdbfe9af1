//! One published TCP port.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long one node may take to answer before the next is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Pause after a failed accept, which is a lack of descriptors as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until `closed`, and takes every connection along at the end.
pub(super) async fn forward(
    listener: TcpListener,
    targets: Arc<[SocketAddr]>,
    closed: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closed.cancelled() => return,
        };
        match accepted {
            Ok((client, _from)) => {
                let targets = Arc::clone(&targets);
                let closed = closed.clone();
                tokio::spawn(async move {
                    let relayed = closed.run_until_cancelled(relay(client, &targets)).await;
                    if let Some(Err(error)) = relayed {
                        tracing::debug!(%error, "a published connection broke");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept on a published port");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Copies both ways. The end of one direction is passed on as such and leaves
/// the other open; an error closes both, which the client sees as a reset.
async fn relay(mut client: TcpStream, targets: &[SocketAddr]) -> io::Result<()> {
    let mut node = match connect(targets).await {
        Ok(node) => node,
        Err(error) => {
            // A refused connection should look like one, not like an empty answer.
            client.set_zero_linger().ok();
            return Err(error);
        }
    };
    client.set_nodelay(true)?;
    node.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut node).await?;
    Ok(())
}

async fn connect(targets: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for target in targets {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(target)).await {
            Ok(Ok(node)) => return Ok(node),
            Ok(Err(error)) => last = error,
            Err(elapsed) => last = elapsed.into(),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn published(targets: Vec<SocketAddr>) -> (SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let closed = CancellationToken::new();
        tokio::spawn(forward(listener, targets.into(), closed.clone()));
        (at, closed)
    }

    #[tokio::test]
    async fn half_closed_connections_still_answer_and_dead_nodes_are_passed_over() {
        let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = {
            let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
            gone.local_addr().unwrap()
        };
        let (at, closed) = published(vec![dead, node.local_addr().unwrap()]).await;
        let mut client = TcpStream::connect(at).await.unwrap();
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let (mut server, _) = node.accept().await.unwrap();
        let mut question = String::new();
        server.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
        closed.cancel();
    }

    #[tokio::test]
    async fn a_port_that_goes_takes_its_connections_along() {
        let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (at, closed) = published(vec![node.local_addr().unwrap()]).await;
        let mut client = TcpStream::connect(at).await.unwrap();
        client.write_all(b"x").await.unwrap();
        let (_server, _) = node.accept().await.unwrap();
        closed.cancel();
        assert_eq!(client.read(&mut [0]).await.ok().unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn a_refused_connection_is_a_reset() {
        let dead = {
            let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
            gone.local_addr().unwrap()
        };
        let (at, _closed) = published(vec![dead]).await;
        let mut client = TcpStream::connect(at).await.unwrap();
        let error = client.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
