//! Patches of the address fields, as old and new clients send them.

use super::{V4, V6, cluster, create, patch, refused, remove, replace, spec, stored, strategic};
use serde_json::{Value, json};

#[tokio::test]
async fn s30_null_and_empty_are_filled_from_the_old_object() {
    for ranges in [&[V4][..], &[V6], &[V4, V6]] {
        let lab = cluster(ranges).await;
        for fields in [
            json!({}),
            json!({"clusterIP": "None"}),
            json!({"clusterIP": "None", "selector": {"a": "b"}}),
            json!({"ipFamilyPolicy": "PreferDualStack"}),
        ] {
            create(&lab, "web", &spec("ClusterIP", &fields)).await;
            let before = stored(&lab, "web").await;
            let version =
                lab.get(&super::path("web")).await.json()["metadata"]["resourceVersion"].clone();
            for change in [
                json!({"clusterIP": null, "clusterIPs": null}),
                json!({"clusterIP": "", "clusterIPs": []}),
                json!({"ipFamilies": null}),
                json!({"ipFamilyPolicy": null}),
                json!({"clusterIP": null, "clusterIPs": null, "ipFamilies": null, "ipFamilyPolicy": null}),
            ] {
                let got = patch(&lab, "web", &change).await.expect(200);
                assert_eq!(got["spec"], before, "{ranges:?} {fields} {change}");
                // Unless its writer gives up a field that is its own.
                if fields == json!({}) {
                    assert_eq!(got["metadata"]["resourceVersion"], version, "{change}");
                }
            }
            remove(&lab, "web").await;
        }
    }
}

#[tokio::test]
async fn s19_s20_a_change_of_one_field_of_two() {
    let lab = cluster(&[V4, V6]).await;
    let once = "may not change once set";
    let at = "FieldValueInvalid spec.clusterIPs[0]: Invalid value:";
    create(
        &lab,
        "web",
        &spec("ClusterIP", &json!({"clusterIP": "10.96.0.40"})),
    )
    .await;
    // The singular alone stands for both.
    let want = format!("{at} [\"10.96.0.41\"]: {once}");
    for got in [
        patch(&lab, "web", &json!({"clusterIP": "10.96.0.41"})).await,
        strategic(&lab, "web", &json!({"clusterIP": "10.96.0.41"})).await,
        replace(
            &lab,
            "web",
            &spec("ClusterIP", &json!({"clusterIP": "10.96.0.41"})),
        )
        .await,
        patch(
            &lab,
            "web",
            &json!({"clusterIP": "10.96.0.41", "clusterIPs": ["10.96.0.41"]}),
        )
        .await,
    ] {
        refused(&got, &[&want]);
    }
    // The plural alone does not agree with the singular.
    let got = patch(&lab, "web", &json!({"clusterIPs": ["10.96.0.41"]})).await;
    refused(
        &got,
        &[
            "FieldValueInvalid spec.clusterIPs: Invalid value: [\"10.96.0.41\"]: first value must match `clusterIP`",
        ],
    );
    assert_eq!(
        stored(&lab, "web").await["clusterIPs"],
        json!(["10.96.0.40"])
    );
}

#[tokio::test]
async fn s20_s22_changes_of_the_second_address() {
    for (ranges, policy, second, third) in [
        (
            [V4, V6],
            "RequireDualStack",
            "fd00:10:96::40",
            "fd00:10:96::41",
        ),
        ([V6, V4], "PreferDualStack", "10.96.0.40", "10.96.0.41"),
    ] {
        let lab = cluster(&ranges).await;
        let made = create(&lab, "web", &spec("ClusterIP", &json!({}))).await;
        let first = made["spec"]["clusterIP"].clone();
        let ips = |second: &str| json!([first, second]);
        // Two addresses need a policy that allows them.
        let got = patch(&lab, "web", &json!({"clusterIPs": ips(second)})).await;
        refused(
            &got,
            &[
                "FieldValueInvalid spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified",
            ],
        );
        let fields = json!({"clusterIPs": ips(second), "ipFamilyPolicy": policy});
        let got = patch(&lab, "web", &fields).await.expect(200);
        assert_eq!(got["spec"]["clusterIPs"], ips(second));
        let got = patch(&lab, "web", &json!({"clusterIPs": ips(third)})).await;
        let want = format!(
            "FieldValueInvalid spec.clusterIPs[1]: Invalid value: {}: may not change once set",
            ips(third)
        );
        refused(&got, &[&want]);
        let families: Vec<Value> = got_families(&stored(&lab, "web").await);
        let reversed = json!([families[1], families[0]]);
        let got = patch(&lab, "web", &json!({"ipFamilies": reversed})).await;
        got.expect(422);
        // Down, and the address is free for another.
        patch(&lab, "web", &json!({"ipFamilyPolicy": "SingleStack"}))
            .await
            .expect(200);
        create(
            &lab,
            "heir",
            &spec("ClusterIP", &json!({"clusterIP": second})),
        )
        .await;
        let fields = json!({"clusterIPs": ips(second), "ipFamilyPolicy": policy});
        let got = patch(&lab, "web", &fields).await;
        let want = format!(
            "FieldValueInvalid spec.clusterIPs: Invalid value: {}: failed to allocate IP {second}: provided IP is already allocated",
            ips(second)
        );
        refused(&got, &[&want]);
    }
}

fn got_families(spec: &Value) -> Vec<Value> {
    spec["ipFamilies"].as_array().unwrap().clone()
}

#[tokio::test]
async fn s20_headless_families_may_change() {
    let lab = cluster(&[V4, V6]).await;
    let fields = json!({"clusterIP": "None", "selector": {"a": "b"}});
    create(&lab, "web", &spec("ClusterIP", &fields)).await;
    for (change, want) in [
        (
            json!({"ipFamilyPolicy": "PreferDualStack"}),
            json!(["IPv4", "IPv6"]),
        ),
        (json!({"ipFamilyPolicy": "SingleStack"}), json!(["IPv4"])),
        (json!({"ipFamilies": ["IPv6"]}), json!(["IPv6"])),
        (
            json!({"ipFamilyPolicy": "RequireDualStack"}),
            json!(["IPv6", "IPv4"]),
        ),
    ] {
        let got = patch(&lab, "web", &change).await.expect(200);
        assert_eq!(got["spec"]["ipFamilies"], want, "{change}");
        assert_eq!(got["spec"]["clusterIPs"], json!(["None"]));
    }
}

#[tokio::test]
async fn s8_strategic_patches_find_ports_by_number_alone() {
    let lab = cluster(&[V4]).await;
    let ports =
        json!([{"name": "udp", "port": 53, "protocol": "UDP"}, {"name": "tcp", "port": 53}]);
    create(&lab, "dns", &spec("ClusterIP", &json!({"ports": ports}))).await;
    // The first entry with the number is meant, which is not the TCP one.
    let change = json!({"ports": [{"port": 53, "protocol": "TCP", "targetPort": 5353}]});
    strategic(&lab, "dns", &change).await.expect(422);
    let whole = json!({"ports": [ports[0], {"name": "tcp", "port": 53, "targetPort": 5353}]});
    let got = patch(&lab, "dns", &whole).await.expect(200);
    assert_eq!(got["spec"]["ports"][1]["targetPort"], 5353);
}
