//! WebSockets as clients write them by hand, and what is refused.

use serde_json::{Value, json};

use crate::raw::{PODS, WEB, request, start, upgrade};

fn exec(command: &[&str]) -> String {
    let words: Vec<String> = command
        .iter()
        .map(|word| format!("command={word}"))
        .collect();
    format!("{WEB}/exec?stdout=true&stderr=true&{}", words.join("&"))
}

#[tokio::test]
async fn each_subprotocol_has_its_form() {
    let (lab, _) = start().await;
    let json_status = "{\"details\":";
    let text_status =
        "command terminated with non-zero exit code: error executing command [fail 3], exit code 3";
    for (offered, chosen, expected) in [
        ("v4.channel.k8s.io", Some("v4.channel.k8s.io"), json_status),
        (
            "x, v4.channel.k8s.io",
            Some("v4.channel.k8s.io"),
            json_status,
        ),
        (
            "v4.channel.k8s.io, v5.channel.k8s.io",
            Some("v5.channel.k8s.io"),
            json_status,
        ),
        ("channel.k8s.io", Some("channel.k8s.io"), text_status),
        ("", None, text_status),
    ] {
        let raw = upgrade(&lab, &exec(&["fail", "3"]), offered).await;
        assert_eq!(raw.header("sec-websocket-protocol"), chosen, "{offered}");
        assert_eq!(
            raw.header("sec-websocket-accept"),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        let mut socket = raw.websocket().await;
        // The session stands.
        assert_eq!(socket.next().await, Some((1, Vec::new())));
        let [_, stdout, stderr, error] = socket.rest().await;
        assert_eq!(stdout, b"out\n");
        assert_eq!(stderr, b"oops\n");
        let error = String::from_utf8(error).unwrap();
        assert!(error.starts_with(expected), "{offered}: {error}");
        if expected == json_status {
            let status: Value = serde_json::from_str(&error).unwrap();
            assert_eq!(
                status["details"]["causes"],
                json!([{"reason": "ExitCode", "message": "3"}])
            );
        }
    }
}

#[tokio::test]
async fn base64_channels_are_text() {
    let (lab, _) = start().await;
    let raw = upgrade(&lab, &exec(&["fail", "0"]), "v4.base64.channel.k8s.io").await;
    let mut socket = raw.websocket().await;
    assert_eq!(socket.next().await, Some((b'1', Vec::new())));
    let [_, stdout, stderr, error] = socket.rest().await;
    assert_eq!(stdout, b"b3V0Cg==");
    assert_eq!(stderr, b"b29wcwo=");
    assert_eq!(error, b"eyJtZXRhZGF0YSI6e30sInN0YXR1cyI6IlN1Y2Nlc3MifQ==");
}

#[tokio::test]
async fn pings_are_answered_and_unknown_channels_ignored() {
    use futures::SinkExt as _;
    use tokio_tungstenite::tungstenite::Message;
    let (lab, _) = start().await;
    let path = format!("{WEB}/exec?stdin=1&stdout=1&command=cat");
    let mut socket = upgrade(&lab, &path, "v5.channel.k8s.io")
        .await
        .websocket()
        .await;
    socket.0.send(Message::Ping("x".into())).await.unwrap();
    socket.send(77, b"what").await;
    socket.send(3, b"what").await;
    socket.0.send(Message::binary(Vec::new())).await.unwrap();
    socket.send(255, b"").await;
    socket.send(255, b"\x4d").await;
    socket.send(0, b"line").await;
    assert_eq!(socket.next().await, Some((1, Vec::new())));
    assert_eq!(socket.next().await, Some((1, b"line".to_vec())));
    socket.send(255, b"\0").await;
    let [_, _, _, error] = socket.rest().await;
    assert_eq!(error, br#"{"metadata":{},"status":"Success"}"#);
}

#[tokio::test]
async fn requests_are_checked_before_the_upgrade() {
    let (lab, _) = start().await;
    let v4 = "v4.channel.k8s.io";
    let command = "exec?stdout=1&command=echo";
    let cases = [
        (
            format!("{PODS}/none/{command}"),
            404,
            "pods \\\"none\\\" not found",
        ),
        (
            format!("{WEB}/{command}&container=x"),
            400,
            "container x is not valid for pod web",
        ),
        (
            format!("{PODS}/two/{command}"),
            400,
            "a container name must be specified for pod two, choose one of: [a gone]",
        ),
        (
            format!("{PODS}/new/{command}"),
            400,
            "pod new does not have a host assigned",
        ),
        (
            format!("{PODS}/done/{command}"),
            500,
            "container not found (\"main\")",
        ),
        (
            format!("{PODS}/two/{command}&container=gone"),
            500,
            "container not found (\"gone\")",
        ),
        (
            format!("{WEB}/exec?command=echo"),
            400,
            "you must specify at least 1 of stdin, stdout, stderr",
        ),
        (
            format!("{WEB}/exec?stdout=1"),
            400,
            "you must specify at least one command",
        ),
    ];
    for (path, code, message) in cases {
        let raw = upgrade(&lab, &path, v4).await;
        assert_eq!(raw.code, code, "{path}");
        let body = raw.body().await;
        assert!(body.contains(message), "{path}: {body}");
    }
    let raw = upgrade(&lab, &format!("{WEB}/{command}"), "x").await;
    assert_eq!(raw.code, 403);
}

#[tokio::test]
async fn forwarding_is_checked_before_the_upgrade() {
    let (lab, _) = start().await;
    let v4 = "v4.channel.k8s.io";
    let cases = [
        (
            format!("{WEB}/portforward"),
            400,
            "query parameter \"port\" is required",
        ),
        (
            format!("{WEB}/portforward?ports=80,99999"),
            400,
            "unable to parse \"99999\" as a port",
        ),
        (
            format!("{PODS}/new/portforward?ports=80"),
            400,
            "pod new does not have a host assigned",
        ),
    ];
    for (path, code, message) in cases {
        let raw = upgrade(&lab, &path, v4).await;
        assert_eq!(raw.code, code, "{path}");
        let body = raw.body().await;
        assert!(body.contains(message), "{path}: {body}");
    }
}

#[tokio::test]
async fn a_request_without_upgrade_is_told_so() {
    let (lab, _) = start().await;
    for (method, path) in [
        ("GET", exec(&["echo"])),
        ("POST", format!("{WEB}/attach?stdout=1")),
        ("POST", format!("{WEB}/portforward")),
    ] {
        let raw = request(&lab, method, &path, &[("Content-Length", "0")]).await;
        assert_eq!(raw.code, 400);
        let status: Value = serde_json::from_str(&raw.body().await).unwrap();
        assert_eq!(status["reason"], "BadRequest");
        assert_eq!(status["message"], "Upgrade request required");
    }
    // Over HTTP/2, which has no upgrades.
    let got = lab.get(&exec(&["echo"])).await.expect(400);
    assert_eq!(got["message"], "Upgrade request required");
    let other = [("Connection", "Upgrade"), ("Upgrade", "h2c")];
    let raw = request(&lab, "GET", &exec(&["echo"]), &other).await;
    assert_eq!(raw.code, 400);
    assert!(
        raw.body()
            .await
            .starts_with("unable to upgrade: missing upgrade headers")
    );
    let spdy = [
        ("Connection", "Upgrade"),
        ("Upgrade", "SPDY/3.1"),
        ("X-Stream-Protocol-Version", "v9.channel.k8s.io"),
    ];
    let raw = request(&lab, "POST", &exec(&["echo"]), &spdy).await;
    assert_eq!(raw.code, 403);
    assert!(
        raw.head
            .contains("x-accepted-stream-protocol-versions: v4.channel.k8s.io")
    );
    let body = raw.body().await;
    assert!(body.contains("client supports [v9.channel.k8s.io], server accepts [v4.channel.k8s.io v3.channel.k8s.io v2.channel.k8s.io channel.k8s.io]"), "{body}");
    let raw = request(&lab, "DELETE", &exec(&["echo"]), &spdy).await;
    assert_eq!(raw.code, 405);
}
