//! Owners and what they own: what goes when, across kinds and scopes.

use std::time::Duration;

use anyhow::Result;
use portolan_agent::cluster::ClusterConfig;
use portolan_client::{CONFIG_MAPS, DEPLOYMENTS, NAMESPACES, NODES, PODS, Propagation, Resource};
use serde_json::{Value, json};

use crate::NS;
use crate::bed::{Bed, deployment};

const DEFINITIONS: Resource = Resource {
    group: std::borrow::Cow::Borrowed("apiextensions.k8s.io"),
    version: std::borrow::Cow::Borrowed("v1"),
    plural: std::borrow::Cow::Borrowed("customresourcedefinitions"),
    kind: std::borrow::Cow::Borrowed("CustomResourceDefinition"),
    namespaced: false,
};

const WIDGETS: Resource = Resource {
    group: std::borrow::Cow::Borrowed("example.com"),
    version: std::borrow::Cow::Borrowed("v1"),
    plural: std::borrow::Cow::Borrowed("widgets"),
    kind: std::borrow::Cow::Borrowed("Widget"),
    namespaced: true,
};

/// A bed that finds new kinds fast.
async fn bed() -> Result<Bed> {
    let behaviour = ClusterConfig {
        discovery_interval: Duration::from_millis(200),
        ..ClusterConfig::default()
    };
    Bed::start_with(1, behaviour).await
}

async fn define_widgets(bed: &Bed) -> Result<()> {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object",
                    "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    });
    bed.create(&DEFINITIONS, "", &definition).await?;
    bed.until("the definition in force", &DEFINITIONS, "", |all| {
        all.iter()
            .filter_map(|d| d["status"]["conditions"].as_array())
            .flatten()
            .any(|c| c["type"] == "Established" && c["status"] == "True")
    })
    .await?;
    Ok(())
}

fn widget(name: &str, owner: Option<Value>) -> Value {
    let mut widget = json!({"apiVersion": "example.com/v1", "kind": "Widget",
        "metadata": {"name": name}});
    if let Some(owner) = owner {
        widget["metadata"]["ownerReferences"] = json!([owner]);
    }
    widget
}

fn config_map(name: &str, owner: Option<Value>) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    if let Some(owner) = owner {
        object["metadata"]["ownerReferences"] = json!([owner]);
    }
    object
}

/// A reference to an object that the server answered with.
fn owner(object: &Value) -> Value {
    json!({
        "apiVersion": object["apiVersion"], "kind": object["kind"],
        "name": object["metadata"]["name"], "uid": object["metadata"]["uid"],
        "blockOwnerDeletion": true,
    })
}

fn has(all: &[Value], name: &str) -> bool {
    all.iter().any(|object| object["metadata"]["name"] == name)
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_custom_kinds_own_and_are_owned() -> Result<()> {
    let bed = bed().await?;
    define_widgets(&bed).await?;
    let root = bed
        .create(&CONFIG_MAPS, NS, &config_map("root", None))
        .await?;
    let owned = bed
        .create(&WIDGETS, NS, &widget("owned", Some(owner(&root))))
        .await?;
    let mut web = deployment("web", 1);
    web["metadata"]["ownerReferences"] = json!([owner(&owned)]);
    bed.create(&DEPLOYMENTS, NS, &web).await?;
    bed.until("a pod", &PODS, NS, |all| all.len() == 1).await?;
    bed.delete(&CONFIG_MAPS, NS, "root").await?;
    bed.until("no widget", &WIDGETS, NS, |all| all.is_empty())
        .await?;
    bed.until("no pods", &PODS, NS, |all| all.is_empty())
        .await?;
    bed.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_owner_waits_for_what_it_owns_when_told_to() -> Result<()> {
    let bed = bed().await?;
    define_widgets(&bed).await?;
    let root = bed.create(&WIDGETS, NS, &widget("root", None)).await?;
    let mut held = config_map("held", Some(owner(&root)));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    bed.create(&CONFIG_MAPS, NS, &held).await?;
    bed.delete_as(&WIDGETS, NS, "root", Propagation::Foreground)
        .await?;
    bed.until("the owned one told to go", &CONFIG_MAPS, NS, |all| {
        all.iter().any(|c| {
            c["metadata"]["name"] == "held" && c["metadata"]["deletionTimestamp"].is_string()
        })
    })
    .await?;
    let widgets = bed.list(&WIDGETS, NS).await?;
    assert!(has(&widgets, "root"), "it waits");
    let release = json!({"metadata": {"finalizers": null}});
    bed.patch(&CONFIG_MAPS, NS, "held", &release).await?;
    bed.until("no widget", &WIDGETS, NS, |all| all.is_empty())
        .await?;
    bed.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_with_its_custom_objects() -> Result<()> {
    let bed = bed().await?;
    define_widgets(&bed).await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    bed.create(&NAMESPACES, "", &namespace).await?;
    bed.create(&WIDGETS, "shop", &widget("one", None)).await?;
    bed.create(&WIDGETS, NS, &widget("other", None)).await?;
    bed.delete(&NAMESPACES, "", "shop").await?;
    bed.until("the namespace gone", &NAMESPACES, "", |all| {
        !has(all, "shop")
    })
    .await?;
    assert!(bed.list(&WIDGETS, "shop").await?.is_empty());
    assert!(has(&bed.list(&WIDGETS, NS).await?, "other"));
    bed.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_without_a_namespace_count_and_those_of_another_do_not() -> Result<()> {
    let bed = bed().await?;
    let node = bed.list(&NODES, "").await?.remove(0);
    let mut of_node = owner(&node);
    of_node["apiVersion"] = "v1".into();
    of_node["kind"] = "Node".into();
    bed.create(&CONFIG_MAPS, NS, &config_map("of-node", Some(of_node)))
        .await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    bed.create(&NAMESPACES, "", &namespace).await?;
    let stranger = bed
        .create(&CONFIG_MAPS, "shop", &config_map("stranger", None))
        .await?;
    bed.create(
        &CONFIG_MAPS,
        NS,
        &config_map("misled", Some(owner(&stranger))),
    )
    .await?;
    bed.until("the misled one gone", &CONFIG_MAPS, NS, |all| {
        !has(all, "misled")
    })
    .await?;
    let left = bed.list(&CONFIG_MAPS, NS).await?;
    assert!(has(&left, "of-node"), "its node is there");
    assert!(has(&bed.list(&CONFIG_MAPS, "shop").await?, "stranger"));
    bed.delete(&NODES, "", "node-1").await?;
    bed.until("what the node owned gone", &CONFIG_MAPS, NS, |all| {
        !has(all, "of-node")
    })
    .await?;
    bed.stop().await
}
