//! Port-forward over WebSocket channels, with kube's client and by hand.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use portolan_apiserver::ConnectHost;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::backend::pattern;
use crate::common::DEADLINE;
use crate::raw::{WEB, start, upgrade};

#[tokio::test]
async fn connections_of_kubes_client() {
    const BYTES: usize = 6 << 20;
    let (lab, fake) = start().await;
    let pods: Api<Pod> = Api::namespaced(lab.client.clone(), "default");
    let mut forwarder = pods.portforward("web", &[7, 81]).await.unwrap();
    let refused = forwarder.take_error(81).unwrap().await.unwrap();
    let uid = fake.connects.lock().unwrap().first().unwrap().uid.clone();
    assert_eq!(
        refused,
        format!(
            "error forwarding port 81 to pod web, uid : failed to connect to localhost:81 inside namespace \"{uid}\": connection refused"
        )
    );
    // The other port works all the same.
    let stream = forwarder.take_stream(7).unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let sent: Vec<u8> = (0..BYTES).map(pattern).collect();
    let mut received = vec![0; BYTES];
    let both = async { tokio::join!(write.write_all(&sent), read.read_exact(&mut received)) };
    let (wrote, got) = tokio::time::timeout(DEADLINE, both).await.unwrap();
    wrote.unwrap();
    got.unwrap();
    assert!(sent == received);
    let hosts: Vec<ConnectHost> = fake
        .connects
        .lock()
        .unwrap()
        .iter()
        .map(|one| one.host)
        .collect();
    assert_eq!(hosts, [ConnectHost::Localhost; 2]);
}

#[tokio::test]
async fn each_channel_begins_with_its_port() {
    let (lab, _) = start().await;
    let path = format!("{WEB}/portforward?ports=7&ports=258");
    let raw = upgrade(&lab, &path, "v5.channel.k8s.io, v4.channel.k8s.io").await;
    assert_eq!(
        raw.header("sec-websocket-protocol"),
        Some("v4.channel.k8s.io")
    );
    let mut socket = raw.websocket().await;
    let mut first = Vec::new();
    for _ in 0..5 {
        first.push(socket.next().await.unwrap());
    }
    first.sort();
    let error = b"error forwarding port 258";
    assert_eq!(
        first[..3],
        [(0, vec![7, 0]), (1, vec![7, 0]), (2, vec![2, 1])]
    );
    assert_eq!(first[3], (3, vec![2, 1]));
    assert_eq!(first[4].0, 3);
    assert!(first[4].1.starts_with(error));
    socket.send(0, b"echo").await;
    assert_eq!(socket.next().await, Some((0, b"echo".to_vec())));
}
