//! /proxy of pods and Services.

use http::Method;
use http_body_util::BodyExt as _;
use kube::client::Body;
use portolan_apiserver::ConnectHost;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::common::{DEADLINE, Lab, request as call};
use crate::raw::{WEB, request, start};

const SERVICES: &str = "/api/v1/namespaces/default/services";

async fn service(lab: &Lab, ready: bool) {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [
            {"name": "http", "port": 8080, "targetPort": 80},
            {"name": "bad", "port": 81},
        ]},
    });
    lab.post(SERVICES, &service).await.expect(201);
    let target = |name: &str| json!({"kind": "Pod", "namespace": "default", "name": name});
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 80}, {"name": "bad", "port": 81}],
        "endpoints": [
            {"addresses": ["10.0.0.5"], "conditions": {"ready": ready}, "targetRef": target("web")},
            // Not the address of that pod, and no pod at all.
            {"addresses": ["10.0.0.9"], "targetRef": target("web")},
            {"addresses": ["10.0.0.7"]},
        ],
    });
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    lab.post(slices, &slice).await.expect(201);
}

#[tokio::test]
async fn requests_reach_the_pod_as_they_came() {
    let (lab, fake) = start().await;
    let path = format!("{WEB}/proxy/a%2Fb/c?x=1&watch=true");
    let headers = [("x-own", "1"), ("connection", "x-hop"), ("x-hop", "1")];
    let raw = request(&lab, "GET", &path, &headers).await;
    assert_eq!(raw.code, 200);
    let told: Value = serde_json::from_str(&raw.body().await).unwrap();
    assert_eq!(told["method"], "GET");
    assert_eq!(told["target"], "/a%2Fb/c?x=1&watch=true");
    let headers = &told["headers"];
    assert_eq!(headers["host"], "localhost");
    assert_eq!(headers["x-own"], "1");
    assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(headers["x-forwarded-uri"], format!("{WEB}/proxy/a%2Fb/c"));
    for absent in ["authorization", "x-hop", "connection"] {
        assert_eq!(headers[absent], Value::Null, "{absent}");
    }
    let connect = fake.connects.lock().unwrap().pop().unwrap();
    assert_eq!(connect.port, 80);
    assert_eq!(
        connect.host,
        ConnectHost::Address("10.0.0.5".parse().unwrap())
    );
    for method in ["PUT", "PATCH", "DELETE", "OPTIONS", "POST"] {
        let raw = request(
            &lab,
            method,
            &format!("{WEB}/proxy/"),
            &[("content-length", "0")],
        )
        .await;
        let told: Value = serde_json::from_str(&raw.body().await).unwrap();
        assert_eq!(
            (&told["method"], &told["target"]),
            (&json!(method), &json!("/"))
        );
    }
}

#[tokio::test]
async fn bodies_go_both_ways_whatever_their_size() {
    let (lab, _) = start().await;
    // Larger than what the API itself accepts.
    let sent = "x".repeat(5 << 20);
    let body = Value::String(sent.clone());
    let path = format!("{WEB}/proxy/echo");
    let got = call(&lab.client, Method::POST, &path, Some(&body), &[]).await;
    assert_eq!(got.code, 200);
    assert!(got.json() == body);
    let failed = lab.get(&format!("{WEB}/proxy/fail")).await;
    assert_eq!((failed.code, failed.body.as_ref()), (418, b"no".as_slice()));
}

#[tokio::test]
async fn an_endless_answer_comes_piece_by_piece() {
    let (lab, _) = start().await;
    let request = http::Request::get(format!("{WEB}/proxy/endless"))
        .body(Body::empty())
        .unwrap();
    let mut body = lab.client.send(request).await.unwrap().into_body();
    let mut seen = Vec::new();
    while seen.len() < 20 {
        let frame = tokio::time::timeout(DEADLINE, body.frame())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        seen.extend_from_slice(&frame.into_data().unwrap());
    }
    assert!(seen.starts_with(b"tick\ntick\n"));
    // It ends with the server.
    drop(body);
    lab.stop().await;
}

#[tokio::test]
async fn redirects_stay_behind_the_proxy() {
    let (lab, _) = start().await;
    let raw = request(&lab, "GET", &format!("{WEB}/proxy/redirect"), &[]).await;
    assert_eq!(raw.code, 302);
    let location = format!("{WEB}/proxy/login?next=x");
    assert_eq!(raw.header("location"), Some(location.as_str()));
    assert_eq!(raw.header("access-control-allow-origin"), None);
    let raw = request(&lab, "GET", &format!("{WEB}/proxy?a=b"), &[]).await;
    assert_eq!(raw.code, 301);
    let location = format!("{WEB}/proxy/?a=b");
    assert_eq!(raw.header("location"), Some(location.as_str()));
}

#[tokio::test]
async fn upgrades_are_passed_on() {
    let (lab, _) = start().await;
    let headers = [("Connection", "Upgrade"), ("Upgrade", "lines")];
    let mut raw = request(&lab, "GET", &format!("{WEB}/proxy/upgrade"), &headers).await;
    assert_eq!(raw.code, 101);
    assert_eq!(raw.header("upgrade"), Some("lines"));
    raw.stream.write_all(b"hello").await.unwrap();
    let mut answer = [0; 9];
    raw.stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"got hello");
    let raw = request(&lab, "GET", &format!("{WEB}/proxy/"), &headers).await;
    assert_eq!(raw.code, 500);
    assert!(
        raw.body()
            .await
            .contains("invalid upgrade response: status code 200")
    );
}

#[tokio::test]
async fn services_lead_to_a_ready_pod() {
    let (lab, fake) = start().await;
    service(&lab, true).await;
    for name in ["web:http", "web:8080", "http:web:http", "http:web:8080"] {
        let told = lab
            .get(&format!("{SERVICES}/{name}/proxy/x"))
            .await
            .expect(200);
        assert_eq!(told["target"], "/x");
        let connect = fake.connects.lock().unwrap().pop().unwrap();
        assert_eq!((connect.pod.as_str(), connect.port), ("web", 80));
    }
    let secure = lab
        .get(&format!("{WEB}:443/proxy/x").replace("pods/", "pods/https:"))
        .await;
    assert_eq!(secure.expect(200)["target"], "/x");
}

#[tokio::test]
async fn what_is_not_there_is_said() {
    let (lab, _) = start().await;
    service(&lab, false).await;
    let pods = "/api/v1/namespaces/default/pods";
    let cases = [
        (
            format!("{SERVICES}/web:http/proxy/"),
            503,
            "no endpoints available for service \"web\"",
        ),
        (
            format!("{SERVICES}/web/proxy/"),
            503,
            "no endpoints available for service \"web\"",
        ),
        (
            format!("{SERVICES}/web:99/proxy/"),
            503,
            "no service port 99 found for service \"web\"",
        ),
        (
            format!("{SERVICES}/none:80/proxy/"),
            404,
            "services \"none\" not found",
        ),
        (
            format!("{SERVICES}/none/proxy/"),
            404,
            "endpoints \"none\" not found",
        ),
        (
            format!("{SERVICES}/ftp:web:80/proxy/"),
            400,
            "invalid service request \"ftp:web:80\"",
        ),
        (
            format!("{pods}/none/proxy/"),
            404,
            "pods \"none\" not found",
        ),
        (
            format!("{WEB}:81/proxy/"),
            503,
            "error trying to reach service: dial tcp 10.0.0.5:81: connect: connection refused",
        ),
        (
            format!("{pods}/https:web:80/proxy/"),
            503,
            "error trying to reach service: ",
        ),
    ];
    for (path, code, message) in cases {
        // By hand: kube's client asks again and again after a 503.
        let raw = request(&lab, "GET", &path, &[]).await;
        assert_eq!(raw.code, code, "{path}");
        let status: Value = serde_json::from_str(&raw.body().await).unwrap();
        let found = status["message"].as_str().unwrap();
        assert!(found.starts_with(message), "{path}: {found}");
    }
}
