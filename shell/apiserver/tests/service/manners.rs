//! How the Service resource answers requests that are out of the ordinary.

use super::{
    SERVICES, V4, V6, causes, cluster, create, create_dry, path, refused, replace, service, spec,
};
use crate::common::request;
use http::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn a_put_to_a_missing_service_makes_it() {
    for ranges in [&[V4][..], &[V6, V4]] {
        let lab = cluster(ranges).await;
        let plain = spec("ClusterIP", &json!({}));
        let made = replace(&lab, "web", &plain).await.expect(201);
        assert!(made["spec"]["clusterIP"].is_string());
        let mut object = service("other", &plain);
        object["metadata"]["resourceVersion"] = json!("12345");
        lab.put(&path("other"), &object).await.expect(201);
        let mut object = service("third", &plain);
        object["metadata"]["uid"] = json!("7a6f0e66-6a2c-4a0e-9f0b-0b5a4ad8f0a1");
        let got = lab.put(&path("third"), &object).await.expect(409);
        assert_eq!(got["reason"], "Conflict");
        // A refused one takes nothing.
        let wanted = json!({"clusterIP": if ranges[0] == V4 { "10.96.0.44" } else { "fd00:10:96::44" }, "sessionAffinity": "x"});
        replace(&lab, "bad", &spec("ClusterIP", &wanted))
            .await
            .expect(422);
        let wanted = json!({"clusterIP": wanted["clusterIP"]});
        create(&lab, "good", &spec("ClusterIP", &wanted)).await;
    }
}

#[tokio::test]
async fn a_service_without_a_name_fails_on_its_address() {
    let lab = cluster(&[V4]).await;
    let mut object = service("x", &spec("ClusterIP", &json!({})));
    object["metadata"] = json!({});
    let status = lab.post(SERVICES, &object).await.expect(422);
    let fields: Vec<String> = causes(&status);
    assert_eq!(fields.len(), 1);
    assert!(
        fields[0].starts_with("FieldValueInvalid spec.clusterIPs: "),
        "{fields:?}"
    );
    object["metadata"] = json!({"generateName": "web-"});
    let made = lab.post(SERVICES, &object).await.expect(201);
    assert!(
        made["metadata"]["name"]
            .as_str()
            .unwrap()
            .starts_with("web-")
    );
}

#[tokio::test]
async fn a9_a_dry_create_with_a_held_address_is_created() {
    let lab = cluster(&[V6]).await;
    let fields = json!({"clusterIP": "fd00:10:96::50"});
    create(&lab, "held", &spec("ClusterIP", &fields)).await;
    let got = create_dry(&lab, "web", &spec("ClusterIP", &fields)).await;
    assert_eq!(got.expect(201)["spec"]["clusterIP"], "fd00:10:96::50");
}

#[tokio::test]
async fn a_deletion_returns_the_service() {
    let lab = cluster(&[V4]).await;
    let made = create(&lab, "web", &spec("ClusterIP", &json!({}))).await;
    let gone = lab.delete(&path("web")).await.expect(200);
    assert_eq!(gone["kind"], "Service");
    assert_eq!(gone["metadata"]["uid"], made["metadata"]["uid"]);
}

#[tokio::test]
async fn versions_that_are_no_versions() {
    let lab = cluster(&[V4]).await;
    let plain = spec("ClusterIP", &json!({}));
    let mut object = service("web", &plain);
    object["metadata"]["resourceVersion"] = json!("1");
    let got = lab.post(SERVICES, &object).await.expect(500);
    assert_eq!(
        got["message"],
        "resourceVersion should not be set on objects to be created"
    );
    create(&lab, "web", &plain).await;
    object["metadata"]["resourceVersion"] = json!("garbage");
    lab.put(&path("web"), &object).await.expect(500);
    lab.get(&format!("{SERVICES}?watch=1&resourceVersion=garbage"))
        .await
        .expect(500);
    lab.get(&format!("{SERVICES}?resourceVersion=garbage"))
        .await
        .expect(400);
}

#[tokio::test]
async fn s30_the_manifest_once_more_changes_nothing() {
    for ranges in [&[V4][..], &[V6], &[V4, V6]] {
        let lab = cluster(ranges).await;
        for (kind, fields) in [
            ("ClusterIP", json!({})),
            ("ClusterIP", json!({"clusterIP": "None"})),
            (
                "ClusterIP",
                json!({"clusterIP": "None", "selector": {"a": "b"}, "ipFamilyPolicy": "PreferDualStack"}),
            ),
            ("NodePort", json!({"sessionAffinity": "ClientIP"})),
            ("LoadBalancer", json!({"externalTrafficPolicy": "Local"})),
            ("ExternalName", json!({"externalName": "a.b"})),
        ] {
            let made = create(&lab, "web", &spec(kind, &fields)).await;
            let again = replace(&lab, "web", &spec(kind, &fields)).await;
            assert_eq!(again.expect(200), made, "{kind} {fields}");
            lab.delete(&path("web")).await.expect(200);
        }
    }
}

#[tokio::test]
async fn strict_validation_of_fields() {
    let lab = cluster(&[V4]).await;
    let strict = |at: &str| format!("{at}?fieldValidation=Strict");
    let odd = service(
        "web",
        &spec("ClusterIP", &json!({"clusterIp": "10.96.0.9"})),
    );
    let got = lab.post(&strict(SERVICES), &odd).await.expect(400);
    assert!(
        got["message"]
            .as_str()
            .unwrap()
            .contains("unknown field \"spec.clusterIp\""),
        "{got}"
    );
    create(&lab, "web", &spec("ClusterIP", &json!({}))).await;
    lab.put(&strict(&path("web")), &odd).await.expect(400);
    let body = json!({"spec": {"clusterIp": "10.96.0.9"}});
    lab.merge(&strict(&path("web")), &body).await.expect(422);
}

#[tokio::test]
async fn server_side_apply_of_what_is_not_declared() {
    let lab = cluster(&[V4]).await;
    let apply = async |object: Value| {
        let headers = [("content-type", "application/apply-patch+yaml")];
        let at = format!("{}?fieldManager=test", path("web"));
        request(&lab.client, Method::PATCH, &at, Some(&object), &headers).await
    };
    let odd = service(
        "web",
        &spec("ClusterIP", &json!({"clusterIp": "10.96.0.9"})),
    );
    apply(odd).await.expect(500);
    let twice = json!({"ports": [{"name": "a", "port": 80, "protocol": "TCP"}, {"name": "b", "port": 80, "protocol": "TCP"}]});
    apply(service("web", &spec("ClusterIP", &twice)))
        .await
        .expect(500);
    let both = json!({"ports": [{"name": "a", "port": 53, "protocol": "TCP"}, {"name": "b", "port": 53, "protocol": "UDP"}]});
    apply(service("web", &spec("ClusterIP", &both)))
        .await
        .expect(201);
    let one = json!({"ports": [{"name": "b", "port": 53, "protocol": "UDP", "targetPort": 5353}]});
    let got = apply(service("web", &spec("ClusterIP", &one)))
        .await
        .expect(200);
    assert_eq!(got["spec"]["ports"].as_array().unwrap().len(), 1);
    assert_eq!(got["spec"]["ports"][0]["targetPort"], 5353);
}

#[tokio::test]
async fn s14_causes_may_repeat() {
    let lab = cluster(&[V4]).await;
    create(&lab, "web", &spec("ClusterIP", &json!({}))).await;
    let want = "FieldValueInvalid spec.loadBalancerClass: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    let fields = json!({"loadBalancerClass": "a b"});
    let got = replace(&lab, "web", &spec("LoadBalancer", &fields)).await;
    refused(&got, &[want, want]);
    // The message says it once.
    let message = got.json()["message"].as_str().unwrap().to_owned();
    assert_eq!(
        message.matches("spec.loadBalancerClass").count(),
        1,
        "{message}"
    );
}
