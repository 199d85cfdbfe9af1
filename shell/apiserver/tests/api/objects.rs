//! Objects through the API: what is written is read, and what is wrong is said.

use crate::common::{Lab, request};
use http::Method;
use serde_json::{Value, json};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn config_map(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"app": name}},
        "data": {"a": "b"},
    })
}

fn service(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": "nginx"}]},
    })
}

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn an_object_from_create_to_delete() {
    let lab = Lab::start().await;
    let created = lab.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    assert_eq!(created["metadata"]["namespace"], "default");
    assert!(created["metadata"]["uid"].as_str().unwrap().len() == 36);
    assert!(
        created["metadata"]["creationTimestamp"]
            .as_str()
            .unwrap()
            .ends_with('Z')
    );
    let path = format!("{CONFIG_MAPS}/a");
    assert_eq!(lab.get(&path).await.expect(200), created);
    let again = lab.post(CONFIG_MAPS, &config_map("a")).await.expect(409);
    assert_eq!(again["reason"], "AlreadyExists");
    assert_eq!(again["message"], "configmaps \"a\" already exists");

    let mut changed = created.clone();
    changed["data"]["a"] = json!("c");
    let updated = lab.put(&path, &changed).await.expect(200);
    assert_ne!(version(&updated), version(&created));
    let conflict = lab.put(&path, &changed).await.expect(409);
    assert_eq!(conflict["reason"], "Conflict");
    let same = lab.put(&path, &updated).await.expect(200);
    assert_eq!(
        version(&same),
        version(&updated),
        "no change, no new version"
    );
    let patched = lab
        .merge(&path, &json!({"data": {"d": "e"}}))
        .await
        .expect(200);
    assert_eq!(patched["data"], json!({"a": "c", "d": "e"}));
    let stale = json!({"metadata": {"resourceVersion": version(&created)}});
    lab.merge(&path, &stale).await.expect(409);

    let deleted = lab.delete(&path).await.expect(200);
    assert_eq!(
        (&deleted["kind"], &deleted["status"]),
        (&json!("Status"), &json!("Success"))
    );
    let gone = lab.get(&path).await.expect(404);
    assert_eq!(gone["message"], "configmaps \"a\" not found");
    lab.delete(&path).await.expect(404);
}

#[tokio::test]
async fn a_generated_name_and_a_dry_run() {
    let lab = Lab::start().await;
    let mut object = config_map("x");
    object["metadata"] = json!({"generateName": "gen-"});
    let created = lab.post(CONFIG_MAPS, &object).await.expect(201);
    let name = created["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("gen-") && name.len() == 9, "{name}");
    let dry = lab
        .post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("dry"))
        .await;
    assert_eq!(dry.expect(201)["metadata"]["name"], "dry");
    lab.get(&format!("{CONFIG_MAPS}/dry")).await.expect(404);
}

#[tokio::test]
async fn bad_requests_get_a_status() {
    let lab = Lab::start().await;
    let cases = [
        (
            Method::POST,
            CONFIG_MAPS,
            json!({"apiVersion": "v1", "kind": "Pod"}),
            400,
        ),
        (Method::POST, CONFIG_MAPS, json!({"kind": "ConfigMap"}), 422),
        (Method::POST, CONFIG_MAPS, json!([1]), 400),
        (
            Method::POST,
            "/api/v1/namespaces/nowhere/configmaps",
            config_map("a"),
            404,
        ),
        (Method::POST, "/api/v1/configmaps", config_map("a"), 404),
        (
            Method::POST,
            "/api/v1/namespaces/default/things",
            config_map("a"),
            404,
        ),
        (
            Method::PUT,
            "/api/v1/namespaces/default/configmaps/b",
            config_map("a"),
            400,
        ),
        (
            Method::PUT,
            "/apis/apps/v1/namespaces/default/deployments/b",
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "b"}}),
            404,
        ),
        (
            Method::GET,
            "/api/v1/namespaces/default/configmaps?resourceVersion=x",
            Value::Null,
            400,
        ),
        (
            Method::GET,
            "/api/v1/namespaces/default/configmaps?continue=zz",
            Value::Null,
            400,
        ),
        (
            Method::GET,
            "/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=x",
            Value::Null,
            500,
        ),
        (
            Method::TRACE,
            "/api/v1/namespaces/default/configmaps",
            Value::Null,
            405,
        ),
    ];
    for (method, path, body, code) in cases {
        let what = format!("{method} {path}");
        let got = lab.request(method, path, Some(&body)).await;
        assert_eq!(got.code, code, "{what}: {}", got.json());
        assert_eq!(got.json()["kind"], "Status", "{what}");
    }
}

#[tokio::test]
async fn bodies_that_cannot_be_read_get_a_status() {
    let lab = Lab::start().await;
    let mut versioned = config_map("v");
    versioned["metadata"]["resourceVersion"] = json!("1");
    lab.post(CONFIG_MAPS, &versioned).await.expect(500);
    let huge = json!({"data": "x".repeat(4 << 20)});
    lab.post(CONFIG_MAPS, &huge).await.expect(413);
    for (content_type, code) in [
        ("application/cbor", 415),
        ("application/vnd.kubernetes.protobuf", 400),
    ] {
        let headers = [("content-type", content_type)];
        let got = request(
            &lab.client,
            Method::POST,
            CONFIG_MAPS,
            Some(&json!({})),
            &headers,
        )
        .await;
        got.expect(code);
    }
    let accept = [("accept", "application/vnd.kubernetes.protobuf")];
    request(&lab.client, Method::GET, CONFIG_MAPS, None, &accept)
        .await
        .expect(406);
    let either = [(
        "accept",
        "application/vnd.kubernetes.protobuf,application/json",
    )];
    request(&lab.client, Method::GET, CONFIG_MAPS, None, &either)
        .await
        .expect(200);
    let apply = [("content-type", "application/x-unknown")];
    let path = format!("{CONFIG_MAPS}/a?fieldManager=x");
    request(&lab.client, Method::PATCH, &path, Some(&json!({})), &apply)
        .await
        .expect(415);
}

#[tokio::test]
async fn lists_in_chunks_are_of_one_moment() {
    let lab = Lab::start().await;
    for name in ["a", "b", "c", "d", "e"] {
        lab.post(CONFIG_MAPS, &config_map(name)).await.expect(201);
    }
    let selector = "labelSelector=app";
    let first = lab
        .get(&format!("{CONFIG_MAPS}?limit=2&{selector}"))
        .await
        .expect(200);
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&first), ["a", "b"]);
    lab.delete(&format!("{CONFIG_MAPS}/d")).await.expect(200);
    lab.post(CONFIG_MAPS, &config_map("cc")).await.expect(201);
    let mut token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    let mut rest = Vec::new();
    loop {
        let page = lab
            .get(&format!(
                "{CONFIG_MAPS}?limit=2&{selector}&continue={token}"
            ))
            .await
            .expect(200);
        assert_eq!(version(&page), version(&first));
        rest.extend(names(&page));
        match page["metadata"]["continue"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(rest, ["c", "d", "e"]);
    let exact = format!(
        "{CONFIG_MAPS}?resourceVersionMatch=Exact&resourceVersion={}",
        version(&first)
    );
    assert!(names(&lab.get(&exact).await.expect(200)).contains(&"d".to_owned()));
    let all = lab.get("/api/v1/namespaces?limit=1").await.expect(200);
    assert_eq!(all["metadata"]["remainingItemCount"], 3);
}

#[tokio::test]
async fn c18_what_every_cluster_has() {
    let lab = Lab::start().await;
    let kubernetes = lab.get(&format!("{SERVICES}/kubernetes")).await.expect(200);
    assert_eq!(kubernetes["spec"]["clusterIP"], "10.96.0.1");
    let slice = lab
        .get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes")
        .await
        .expect(200);
    assert_eq!(slice["endpoints"][0]["addresses"][0], "172.18.0.1");
    let endpoints = lab
        .get("/api/v1/namespaces/default/endpoints/kubernetes")
        .await
        .expect(200);
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "172.18.0.1");
    let dns = lab
        .get("/api/v1/namespaces/kube-system/services/kube-dns")
        .await
        .expect(200);
    assert_eq!(
        dns["spec"]["clusterIPs"],
        json!(["10.96.0.10", "fd00:10:96::a"])
    );
    let names: Vec<&Value> = dns["spec"]["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| &port["name"])
        .collect();
    assert_eq!(names, ["dns", "dns-tcp", "metrics"]);
    for namespace in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        lab.get(&format!("/api/v1/namespaces/{namespace}"))
            .await
            .expect(200);
    }
}

#[tokio::test]
async fn a2_a7_a9_services_get_addresses_and_ports() {
    let lab = Lab::start().await;
    let spec = json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]});
    let web = lab.post(SERVICES, &service("web", &spec)).await.expect(201);
    let ip = web["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert!(ip.starts_with("10.96."), "{ip}");
    assert!(web["spec"]["ports"][0]["nodePort"].as_i64().unwrap() >= 30_000);
    let wanted = json!({"clusterIP": ip, "ports": [{"port": 80, "protocol": "TCP"}]});
    let dry = format!("{SERVICES}?dryRun=All");
    lab.post(&dry, &service("dry", &wanted)).await.expect(201);
    let taken = lab
        .post(SERVICES, &service("other", &wanted))
        .await
        .expect(422);
    assert!(
        taken["message"]
            .as_str()
            .unwrap()
            .contains("provided IP is already allocated"),
        "{taken}"
    );
    lab.delete(&format!("{SERVICES}/web")).await.expect(200);
    lab.post(SERVICES, &service("other", &wanted))
        .await
        .expect(201);
    // PUT makes a missing Service, whatever version it names.
    let mut put = service("put", &json!({"ports": [{"port": 80, "protocol": "TCP"}]}));
    put["metadata"]["resourceVersion"] = json!("7");
    lab.put(&format!("{SERVICES}/put"), &put).await.expect(201);
}

#[tokio::test]
async fn pods_go_with_grace() {
    let lab = Lab::start().await;
    lab.post(PODS, &pod("free")).await.expect(201);
    let deleted = lab.delete(&format!("{PODS}/free")).await.expect(200);
    assert_eq!(deleted["kind"], "Pod");
    lab.get(&format!("{PODS}/free")).await.expect(404);

    let made = lab.post(PODS, &pod("bound")).await.expect(201);
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    let path = format!("{PODS}/bound");
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "bound"}, "target": {"kind": "Node", "name": "node-1"}});
    lab.post(&format!("{path}/binding"), &binding)
        .await
        .expect(201);
    lab.post(&format!("{path}/binding"), &binding)
        .await
        .expect(409);
    let bound = lab.get(&path).await.expect(200);
    assert_eq!(bound["spec"]["nodeName"], "node-1");
    let marked = lab.delete(&path).await.expect(200);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    let again = lab.delete(&path).await.expect(200);
    assert_eq!(
        again["metadata"]["deletionTimestamp"],
        marked["metadata"]["deletionTimestamp"]
    );
    let now = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": {"uid": "other"}});
    lab.request(Method::DELETE, &path, Some(&now))
        .await
        .expect(409);
    let now = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": made["metadata"]["uid"]}});
    lab.request(Method::DELETE, &path, Some(&now))
        .await
        .expect(200);
    lab.get(&path).await.expect(404);
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let lab = Lab::start().await;
    let mut object = config_map("held");
    object["metadata"]["finalizers"] = json!(["example.com/wait"]);
    lab.post(CONFIG_MAPS, &object).await.expect(201);
    let path = format!("{CONFIG_MAPS}/held?propagationPolicy=Foreground");
    let waiting = lab.delete(&path).await.expect(200);
    assert_eq!(
        waiting["metadata"]["finalizers"],
        json!(["example.com/wait", "foregroundDeletion"])
    );
    let path = format!("{CONFIG_MAPS}/held");
    lab.merge(
        &path,
        &json!({"metadata": {"finalizers": ["foregroundDeletion"]}}),
    )
    .await
    .expect(200);
    lab.get(&path).await.expect(200);
    lab.merge(&path, &json!({"metadata": {"finalizers": null}}))
        .await
        .expect(200);
    lab.get(&path).await.expect(404);
}

#[tokio::test]
async fn a_namespace_ends_by_its_finalizer() {
    let lab = Lab::start().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}});
    lab.post("/api/v1/namespaces", &namespace).await.expect(201);
    lab.get("/api/v1/namespaces/x/serviceaccounts/default")
        .await
        .expect(200);
    let marked = lab.delete("/api/v1/namespaces/x").await.expect(200);
    assert_eq!(marked["status"]["phase"], "Terminating");
    let refused = lab
        .post("/api/v1/namespaces/x/configmaps", &config_map("a"))
        .await
        .expect(403);
    assert_eq!(
        refused["details"]["causes"][0]["reason"],
        "NamespaceTerminating"
    );
    let mut finished = marked;
    finished["spec"]["finalizers"] = json!([]);
    lab.put("/api/v1/namespaces/x/finalize", &finished)
        .await
        .expect(200);
    lab.get("/api/v1/namespaces/x").await.expect(404);
    lab.delete("/api/v1/namespaces/default").await.expect(403);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let lab = Lab::start().await;
    for name in ["a", "b"] {
        lab.post(CONFIG_MAPS, &config_map(name)).await.expect(201);
    }
    let list = lab
        .delete(&format!("{CONFIG_MAPS}?labelSelector=app%3Da"))
        .await
        .expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    lab.get(&format!("{CONFIG_MAPS}/a")).await.expect(404);
    lab.get(&format!("{CONFIG_MAPS}/b")).await.expect(200);
}

#[tokio::test]
async fn replicas_through_scale() {
    let lab = Lab::start().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "nginx"}]}},
        },
    });
    lab.post(deployments, &deployment).await.expect(201);
    let path = format!("{deployments}/web/scale");
    let mut scale = lab.get(&path).await.expect(200);
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"]),
        (&json!("Scale"), &json!(2))
    );
    scale["spec"]["replicas"] = json!(5);
    lab.put(&path, &scale).await.expect(200);
    lab.put(&path, &scale).await.expect(409);
    lab.merge(&path, &json!({"spec": {"replicas": 4}}))
        .await
        .expect(200);
    let stored = lab.get(&format!("{deployments}/web")).await.expect(200);
    assert_eq!(stored["spec"]["replicas"], 4);
    assert_eq!(stored["metadata"]["generation"], 3);
}
