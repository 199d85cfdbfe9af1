//! Who gets in, what stays on disk, and what is public.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use crate::common::{Lab, client, config, open, request};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use http::Method;
use portolan_apiserver::{Config, LogError, LogRequest, LogStream, OpenError, PodBackend, Server};
use serde_json::json;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn nobody_gets_in_without_a_name() {
    let lab = Lab::start().await;
    let kubeconfig = lab.server.kubeconfig(&lab.url);
    let stranger = client(&kubeconfig, |config| {
        config.auth_infos[0].auth_info = Default::default()
    })
    .await;
    let refused = request(&stranger, Method::GET, CONFIG_MAPS, None, &[])
        .await
        .expect(401);
    assert_eq!(
        (&refused["kind"], &refused["reason"]),
        (&json!("Status"), &json!("Unauthorized"))
    );
    request(&stranger, Method::GET, "/api", None, &[])
        .await
        .expect(401);
    for path in ["/healthz", "/livez", "/readyz"] {
        let got = request(&stranger, Method::GET, path, None, &[]).await;
        assert_eq!((got.code, &got.body[..]), (200, &b"ok"[..]), "{path}");
    }
    let version = request(&stranger, Method::GET, "/version", None, &[])
        .await
        .expect(200);
    assert!(
        version["gitVersion"]
            .as_str()
            .unwrap()
            .starts_with("v1.36.")
    );
    let bad = [("authorization", "Bearer nonsense")];
    request(&stranger, Method::GET, CONFIG_MAPS, None, &bad)
        .await
        .expect(401);
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_nobody() {
    let lab = Lab::start().await;
    let other = Lab::start().await;
    let foreign = other.server.kubeconfig(&other.url);
    let foreign = kube::config::Kubeconfig::from_yaml(&foreign).unwrap();
    let client = client(&lab.server.kubeconfig(&lab.url), |config| {
        config.auth_infos = foreign.auth_infos.clone();
    })
    .await;
    request(&client, Method::GET, CONFIG_MAPS, None, &[])
        .await
        .expect(401);
}

#[tokio::test]
async fn service_account_tokens_read_and_do_not_write() {
    let lab = Lab::start().await;
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let wanted = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}});
    let made = lab.post(path, &wanted).await.expect(201);
    let token = made["status"]["token"].as_str().unwrap().to_owned();
    let account = client(&lab.server.kubeconfig(&lab.url), |config| {
        config.auth_infos[0].auth_info = Some(kube::config::AuthInfo {
            token: Some(token.clone().into()),
            ..Default::default()
        });
    })
    .await;
    request(&account, Method::GET, CONFIG_MAPS, None, &[])
        .await
        .expect(200);
    request(&account, Method::GET, "/api", None, &[])
        .await
        .expect(200);
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let refused = request(&account, Method::POST, CONFIG_MAPS, Some(&object), &[])
        .await
        .expect(403);
    assert_eq!(
        refused["message"],
        "configmaps is forbidden: User \"system:serviceaccount:default:default\" cannot create resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
    lab.delete("/api/v1/namespaces/default/serviceaccounts/default")
        .await
        .expect(200);
    request(&account, Method::GET, CONFIG_MAPS, None, &[])
        .await
        .expect(401);
    let short = json!({"spec": {"expirationSeconds": 5}});
    lab.post(
        "/api/v1/namespaces/kube-system/serviceaccounts/default/token",
        &short,
    )
    .await
    .expect(422);
}

#[tokio::test]
async fn the_data_directory_is_private_and_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let server = open(dir.path()).await;
    let data = config(dir.path()).data_dir;
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for key in ["ca.key", "server.key", "admin.key", "service-account.key"] {
        assert_eq!(mode(&data.join(key)), 0o600, "{key}");
    }
    let second = Server::open(config(dir.path())).await.unwrap_err();
    assert!(matches!(second, OpenError::InUse { .. }), "{second}");
    assert!(second.to_string().contains("in use by another portolan"));
    drop(server);

    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let no_folder = Server::open(Config {
        data_dir: file,
        ..Config::default()
    })
    .await
    .unwrap_err();
    assert!(
        matches!(no_folder, OpenError::DataDir { .. }),
        "{no_folder}"
    );

    let broken = dir.path().join("broken");
    std::fs::create_dir(&broken).unwrap();
    std::fs::write(broken.join("state.redb"), "x".repeat(9000)).unwrap();
    let damaged = Server::open(Config {
        data_dir: broken,
        ..Config::default()
    })
    .await
    .unwrap_err();
    assert!(matches!(damaged, OpenError::State { .. }), "{damaged:?}");
}

#[tokio::test]
async fn the_identity_stays_and_the_certificate_follows_its_names() {
    let dir = tempfile::tempdir().unwrap();
    let data = config(dir.path()).data_dir;
    let server = open(dir.path()).await;
    let (kubeconfig, ca) = (
        server.kubeconfig("https://x"),
        server.ca_certificate().to_owned(),
    );
    let certificate = || std::fs::read_to_string(data.join("server.crt")).unwrap();
    let first = certificate();
    drop(server);
    let server = open(dir.path()).await;
    assert_eq!(server.kubeconfig("https://x"), kubeconfig);
    assert_eq!(certificate(), first);
    drop(server);
    let renamed = Config {
        extra_sans: vec!["lab.example".to_owned()],
        ..config(dir.path())
    };
    let server = loop {
        match Server::open(renamed.clone()).await {
            Err(OpenError::InUse { .. }) => tokio::task::yield_now().await,
            other => break other.unwrap(),
        }
    };
    assert_ne!(certificate(), first);
    assert_eq!(server.ca_certificate(), ca);
}

#[tokio::test]
async fn allocations_survive_a_restart() {
    let lab = Lab::start().await;
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str, ip: Option<&str>| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}});
    let made = lab.post(services, &service("web", None)).await.expect(201);
    let ip = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let lab = Lab::start_in(lab.stop().await).await;
    assert_eq!(lab.get(&format!("{services}/web")).await.expect(200), made);
    lab.post(services, &service("thief", Some(&ip)))
        .await
        .expect(422);
}

struct Echo;

impl PodBackend for Echo {
    fn logs(&self, request: LogRequest) -> BoxFuture<'_, Result<LogStream, LogError>> {
        Box::pin(async move {
            if request.options.previous {
                return Err(LogError::BadRequest(
                    "previous terminated container \"main\" in pod \"p\" not found".to_owned(),
                ));
            }
            let line = format!(
                "{} {} {:?}\n",
                request.node, request.container, request.options.tail_lines
            );
            Ok(
                futures::stream::iter([Ok(Bytes::from(line)), Ok(Bytes::from_static(b"more"))])
                    .boxed(),
            )
        })
    }
}

#[tokio::test]
async fn logs_come_from_the_pod_backend() {
    let lab = Lab::start().await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"nodeName": "node-1", "containers": [{"name": "main", "image": "nginx"}]}});
    lab.post("/api/v1/namespaces/default/pods", &pod)
        .await
        .expect(201);
    let log = "/api/v1/namespaces/default/pods/p/log";
    lab.get(log).await.expect(500);
    lab.server.set_pod_backend(Arc::new(Echo));
    let got = lab.get(&format!("{log}?tailLines=3")).await;
    assert_eq!(got.body, "node-1 main Some(3)\nmore");
    let got = lab.get(&format!("{log}?limitBytes=6")).await;
    assert_eq!(got.body, "node-1");
    assert_eq!(
        lab.get(&format!("{log}?previous=true")).await.expect(400)["reason"],
        "BadRequest"
    );
    assert_eq!(
        lab.get(&format!("{log}?container=x")).await.expect(400)["message"],
        "container x is not valid for pod p"
    );
    lab.get("/api/v1/namespaces/default/pods/q/log")
        .await
        .expect(404);
}

#[tokio::test]
async fn large_lists_are_compressed_for_those_who_want_it() {
    let lab = Lab::start().await;
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "big"}, "data": {"k": "x".repeat(300_000)}});
    lab.post(CONFIG_MAPS, &object).await.expect(201);
    let gzip = [("accept-encoding", "gzip")];
    let got = request(&lab.client, Method::GET, CONFIG_MAPS, None, &gzip).await;
    assert_eq!(got.code, 200);
    assert!(
        got.headers
            .get("content-encoding")
            .is_some_and(|value| value == "gzip")
            || got.body.len() > 300_000
    );
    let small = request(&lab.client, Method::GET, "/api/v1/nodes", None, &gzip).await;
    assert!(small.headers.get("content-encoding").is_none());
}
