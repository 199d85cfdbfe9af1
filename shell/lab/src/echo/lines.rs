//! The TCP and UDP servers: one answer per line or datagram.

use std::sync::Arc;

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, UdpSocket},
};

use super::reply::Who;

/// Longest line that is answered as one.
const LONGEST_LINE: u64 = 64 * 1024;

/// Answers each line of each connection until dropped.
pub(super) async fn tcp(listener: TcpListener, who: Arc<Who>) {
    loop {
        let Ok((mut stream, client)) = listener.accept().await else {
            continue;
        };
        let who = who.clone();
        tokio::spawn(async move {
            let (read, mut write) = stream.split();
            let mut read = BufReader::new(read);
            loop {
                let mut line = Vec::new();
                let got = (&mut read)
                    .take(LONGEST_LINE)
                    .read_until(b'\n', &mut line)
                    .await;
                if !matches!(got, Ok(1..)) {
                    break;
                }
                let said = String::from_utf8_lossy(&line);
                let answer = who.line(client, said.trim_end_matches(['\r', '\n']));
                if write.write_all(answer.as_bytes()).await.is_err() {
                    break;
                }
            }
        });
    }
}

/// Answers each datagram until dropped.
pub(super) async fn udp(socket: UdpSocket, who: Arc<Who>) {
    let mut datagram = vec![0; 65_536];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut datagram).await else {
            continue;
        };
        let said = String::from_utf8_lossy(datagram.get(..length).unwrap_or_default());
        let answer = who.line(client, said.trim_end_matches(['\r', '\n']));
        if let Err(error) = socket.send_to(answer.as_bytes(), client).await {
            super::say(&format!("no answer to {client}: {error}"));
        }
    }
}
