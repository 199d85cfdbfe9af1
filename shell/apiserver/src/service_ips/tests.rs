use std::net::IpAddr;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::*;
use crate::rest::create_object;
use crate::store::{Key, Stored};
use crate::{Config, OpenError, Server};

const LIMIT: Duration = Duration::from_secs(20);

fn config(dir: &Path, cidrs: &[&str]) -> Config {
    Config {
        data_dir: dir.to_owned(),
        service_cidrs: cidrs.iter().map(|net| net.parse().unwrap()).collect(),
        dns_ips: Vec::new(),
        ..Config::default()
    }
}

/// Open, waiting for an earlier server in this process to let go of the file.
async fn open(dir: &Path, cidrs: &[&str]) -> Result<Arc<Server>, OpenError> {
    let opening = async {
        loop {
            match Server::open(config(dir, cidrs)).await {
                Err(OpenError::InUse { .. }) => tokio::time::sleep(PAUSE).await,
                other => return other,
            }
        }
    };
    tokio::time::timeout(LIMIT, opening).await.unwrap()
}

async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(LIMIT, looking).await.unwrap()
}

async fn service(context: &Context, name: &str, spec: Value) -> Value {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"ports": [{"port": 80, "protocol": "TCP"}]},
    });
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    let services = context.core("Service").unwrap();
    let made = create_object(context, &services, object, false).await;
    made.unwrap().value()
}

fn address(context: &Context, text: &str) -> (Key, Option<Arc<Stored>>) {
    let key = context
        .allocator
        .address_key(text.parse::<IpAddr>().unwrap());
    let stored = context.store.get(&key);
    (key, stored)
}

/// Reasons and messages of all Events.
fn told(context: &Context) -> Vec<(String, String)> {
    let events = context.core("Event").unwrap();
    let snapshot = context.store.cache().snapshot(events.index);
    let texts = snapshot.objects.values().map(|stored| {
        let value = stored.value();
        let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        (text("reason"), text("message"))
    });
    texts.collect()
}

#[tokio::test]
async fn a5_an_ip_address_deleted_by_hand_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let server = open(dir.path(), &["10.96.0.0/24"]).await.unwrap();
    let context = &server.context;
    service(context, "web", json!({"clusterIP": "10.96.0.9"})).await;
    let (key, stored) = address(context, "10.96.0.9");
    context
        .store
        .remove(key, stored.unwrap().revision)
        .await
        .unwrap();
    let again = until(|| address(context, "10.96.0.9").1).await.value();
    assert_eq!(again["spec"]["parentRef"]["name"], "web");
    // What was done is told afterwards.
    let reasons = until(|| Some(told(context)).filter(|told| !told.is_empty())).await;
    let expected = "Cluster IP [IPv4]: 10.96.0.9 is not allocated; repairing";
    assert_eq!(
        reasons,
        [("ClusterIPNotAllocated".to_owned(), expected.to_owned())]
    );
}

/// A look and its repairs are not one moment: what has become right meanwhile is
/// left alone.
#[tokio::test]
async fn a5_a_service_that_went_meanwhile_gets_no_ip_address() {
    let dir = tempfile::tempdir().unwrap();
    let server = open(dir.path(), &["10.96.0.0/24"]).await.unwrap();
    let context = &server.context;
    service(context, "web", json!({"clusterIP": "10.96.0.9"})).await;
    let store = &context.store;
    // The server looks too, and may mend it before: then once more.
    let mut found = Vec::new();
    while found.is_empty() {
        if let (key, Some(stored)) = address(context, "10.96.0.9") {
            store.remove(key, stored.revision).await.unwrap();
        }
        found = repair::look(context, Timestamp::now());
    }
    let services = context.core("Service").unwrap().index;
    let web = Key::new(services, "default", "web");
    let revision = store.get(&web).unwrap().revision;
    store.remove(web, revision).await.unwrap();
    if let (key, Some(stored)) = address(context, "10.96.0.9") {
        store.remove(key, stored.revision).await.unwrap();
    }
    repair::mend(context, found).await;
    assert!(address(context, "10.96.0.9").1.is_none());
}

#[tokio::test]
async fn a5_wrong_references_and_labels_are_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let server = open(dir.path(), &["10.96.0.0/24"]).await.unwrap();
    let context = &server.context;
    service(context, "web", json!({"clusterIP": "10.96.0.9"})).await;
    let changes: [fn(&mut Value); 2] = [
        |object| object["spec"]["parentRef"]["name"] = json!("nobody"),
        |object| object["metadata"]["labels"] = json!({}),
    ];
    for change in changes {
        let (key, stored) = address(context, "10.96.0.9");
        let stored = stored.unwrap();
        let mut object = stored.value();
        change(&mut object);
        context
            .store
            .replace(key, object, stored.revision)
            .await
            .unwrap();
        until(|| {
            let value = address(context, "10.96.0.9").1?.value();
            let right = value["spec"]["parentRef"]["name"] == "web"
                && value["metadata"]["labels"]["ipaddress.kubernetes.io/managed-by"]
                    == "ipallocator.k8s.io";
            right.then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a5_orphans_go_after_a_minute_and_strangers_stay() {
    let dir = tempfile::tempdir().unwrap();
    let server = open(dir.path(), &["10.96.0.0/24"]).await.unwrap();
    let context = &server.context;
    let web = json!({"metadata": {"name": "gone", "namespace": "default"}});
    for text in ["10.96.0.9", "10.96.0.10"] {
        let (key, _) = address(context, text);
        let mut object =
            crate::allocator::ip_address(text.parse().unwrap(), &web, &crate::rest::now());
        if text == "10.96.0.10" {
            object["metadata"]["labels"] = json!({});
        }
        context.store.create(key, object, None).await.unwrap();
    }
    let now = Timestamp::now();
    repair::pass(context, now + SignedDuration::from_secs(30)).await;
    assert!(address(context, "10.96.0.9").1.is_some());
    repair::pass(context, now + SignedDuration::from_secs(90)).await;
    assert!(address(context, "10.96.0.9").1.is_none());
    assert!(address(context, "10.96.0.10").1.is_some());
    assert_eq!(told(context)[0].0, "IPAddressNotAllocated");
}

#[tokio::test]
async fn a5_a_file_without_ip_addresses_gets_them_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let server = open(dir.path(), &["10.96.0.0/24"]).await.unwrap();
    service(&server.context, "web", json!({"clusterIP": "10.96.0.9"})).await;
    let places = server.context.allocator.places();
    drop(server);
    // What an older program left.
    let path = dir.path().join("state.redb");
    let store =
        until(|| crate::store::Store::open(&path, crate::context::collections()).ok()).await;
    let addresses = store.cache().snapshot(places.addresses).objects;
    for (name, stored) in &addresses {
        let key = Key {
            kind: places.addresses,
            name: name.clone(),
        };
        store.remove(key, stored.revision).await.unwrap();
    }
    drop((store, addresses));
    let server = open(dir.path(), &["10.96.0.0/24"]).await.unwrap();
    // The latter is that of default/kubernetes.
    for text in ["10.96.0.9", "10.96.0.1"] {
        until(|| address(&server.context, text).1).await;
    }
}

#[tokio::test]
async fn a6_the_default_service_cidr_follows_the_flags_to_a_second_family_only() {
    let dir = tempfile::tempdir().unwrap();
    let server = open(dir.path(), &["10.96.0.0/24"]).await.unwrap();
    let default = |server: &Server| {
        let cidrs = server.context.allocator.places().cidrs;
        server
            .context
            .store
            .get(&Key::new(cidrs, "", "kubernetes"))
            .unwrap()
            .value()
    };
    let value = default(&server);
    assert_eq!(value["spec"]["cidrs"], json!(["10.96.0.0/24"]));
    let condition = &value["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["status"]),
        (&json!("Ready"), &json!("True"))
    );
    drop(server);
    let refused = open(dir.path(), &["10.97.0.0/24"])
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("was made with --service-cidr 10.96.0.0/24, not 10.97.0.0/24"),
        "{refused}"
    );
    let server = open(dir.path(), &["10.96.0.0/24", "fd00::/112"])
        .await
        .unwrap();
    assert_eq!(
        default(&server)["spec"]["cidrs"],
        json!(["10.96.0.0/24", "fd00::/112"])
    );
    let web = service(
        &server.context,
        "web",
        json!({"ipFamilyPolicy": "RequireDualStack"}),
    )
    .await;
    assert_eq!(web["spec"]["clusterIPs"].as_array().unwrap().len(), 2);
    drop(server);
    assert!(open(dir.path(), &["10.96.0.0/24"]).await.is_err());
}

#[tokio::test]
async fn a6_a_service_cidr_in_use_waits_and_gives_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = open(dir.path(), &["10.96.0.0/30"]).await.unwrap();
    let context = &server.context;
    let cidrs = context
        .resource("networking.k8s.io", "v1", "servicecidrs")
        .unwrap();
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "more"}, "spec": {"cidrs": ["10.97.0.0/24"]},
    });
    create_object(context, &cidrs, object, false).await.unwrap();
    let key = cidrs.key("", "more");
    let ready = |status: &'static str| {
        let key = key.clone();
        move || {
            let value = context.store.get(&key)?.value();
            let guarded =
                value["metadata"]["finalizers"][0] == "networking.k8s.io/service-cidr-finalizer";
            let condition = &value["status"]["conditions"][0];
            (guarded && condition["status"] == status).then(|| condition.clone())
        }
    };
    let condition = until(ready("True")).await;
    assert_eq!(condition["message"], "Kubernetes Service CIDR is ready");
    service(context, "a", json!({})).await;
    let second = service(context, "b", json!({})).await;
    assert!(
        second["spec"]["clusterIP"]
            .as_str()
            .unwrap()
            .starts_with("10.97.0.")
    );
    let stored = context.store.get(&key).unwrap();
    let mut deleted = stored.value();
    deleted["metadata"]["deletionTimestamp"] = json!(crate::rest::now());
    context
        .store
        .replace(key.clone(), deleted, stored.revision)
        .await
        .unwrap();
    let condition = until(ready("False")).await;
    assert_eq!(condition["reason"], "Terminating");
    assert_eq!(
        condition["message"],
        "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"
    );
    let services = context.core("Service").unwrap();
    let third = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "c", "namespace": "default"},
        "spec": {"ports": [{"port": 80}]},
    });
    let full = create_object(context, &services, third, false)
        .await
        .unwrap_err();
    assert_eq!(full.code, 500);
    let (address_key, stored) = address(context, second["spec"]["clusterIP"].as_str().unwrap());
    let web = services.key("default", "b");
    let revision = context.store.get(&web).unwrap().revision;
    context.store.remove(web, revision).await.unwrap();
    context
        .store
        .remove(address_key, stored.unwrap().revision)
        .await
        .unwrap();
    until(|| context.store.get(&key).is_none().then_some(())).await;
}
