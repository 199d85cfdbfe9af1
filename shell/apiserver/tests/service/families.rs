//! Address families on single-stack and dual-stack clusters.

use super::{V4, V6, cluster, create, patch, refused, remove, replace, spec, stored, texts};
use crate::common::Lab;
use serde_json::{Value, json};

fn family(address: &str) -> &'static str {
    match address.contains(':') {
        true => "IPv6",
        false => "IPv4",
    }
}

/// Policy and families of a Service whose addresses fit them.
#[track_caller]
fn families(spec: &Value) -> (String, Vec<String>) {
    let families = texts(&spec["ipFamilies"]);
    let ips = texts(&spec["clusterIPs"]);
    if ips != ["None"] {
        let of_ips: Vec<&str> = ips.iter().map(|ip| family(ip)).collect();
        assert_eq!(of_ips, families);
    }
    assert_eq!(spec["clusterIP"], ips[0].as_str());
    let policy = spec["ipFamilyPolicy"].as_str().unwrap();
    (policy.to_owned(), families)
}

const FOUR: &[&str] = &["IPv4"];
const SIX: &[&str] = &["IPv6"];
const FOUR_SIX: &[&str] = &["IPv4", "IPv6"];
const SIX_FOUR: &[&str] = &["IPv6", "IPv4"];

/// Fields of a Service and the policy and families that they come to.
type Case = (Value, &'static str, &'static [&'static str]);

async fn gives(ranges: &[&str], cases: &[Case]) {
    let lab = cluster(ranges).await;
    for (fields, policy, want) in cases {
        let made = create(&lab, "web", &spec("ClusterIP", fields)).await;
        let got = families(&made["spec"]);
        assert_eq!(got.0, *policy, "{ranges:?} {fields}");
        assert_eq!(got.1, *want, "{ranges:?} {fields}");
        // The manifest once more changes nothing, but for one that names fewer
        // families than the Service has by now.
        let again = replace(&lab, "web", &spec("ClusterIP", fields)).await;
        let named = fields["ipFamilies"].as_array().map_or(want.len(), Vec::len);
        if named < want.len() {
            let message = format!(
                "FieldValueInvalid spec.ipFamilyPolicy: Invalid value: \"{policy}\": must be 'SingleStack' to release the secondary IP family"
            );
            refused(&again, &[&message]);
        } else {
            assert_eq!(again.expect(200), made, "{ranges:?} {fields}");
        }
        remove(&lab, "web").await;
    }
}

#[tokio::test]
async fn s21_s24_s26_single_stack_clusters_give_their_family() {
    let (selector, none) = (json!({"a": "b"}), "None");
    let cases = |own: &'static [&'static str], both: &'static [&'static str]| -> Vec<Case> {
        vec![
            (json!({}), "SingleStack", own),
            (json!({"ipFamilies": own}), "SingleStack", own),
            (
                json!({"ipFamilyPolicy": "PreferDualStack"}),
                "PreferDualStack",
                own,
            ),
            (
                json!({"clusterIP": none, "selector": selector}),
                "SingleStack",
                own,
            ),
            (json!({"clusterIP": none}), "RequireDualStack", both),
            (
                json!({"clusterIP": none, "ipFamilyPolicy": "SingleStack"}),
                "SingleStack",
                own,
            ),
            (
                json!({"clusterIP": none, "ipFamilyPolicy": "RequireDualStack", "ipFamilies": both}),
                "RequireDualStack",
                both,
            ),
        ]
    };
    gives(&[V4], &cases(FOUR, FOUR_SIX)).await;
    gives(&[V6], &cases(SIX, SIX_FOUR)).await;
}

#[tokio::test]
async fn s21_s24_dual_stack_clusters_give_what_is_asked() {
    let (selector, none) = (json!({"a": "b"}), "None");
    let cases = |first: &'static [&'static str],
                 second: &'static [&'static str],
                 both: &'static [&'static str],
                 reversed: &'static [&'static str]|
     -> Vec<Case> {
        vec![
            (json!({}), "SingleStack", first),
            (json!({"ipFamilies": second}), "SingleStack", second),
            (
                json!({"ipFamilyPolicy": "PreferDualStack"}),
                "PreferDualStack",
                both,
            ),
            (
                json!({"ipFamilyPolicy": "RequireDualStack"}),
                "RequireDualStack",
                both,
            ),
            (
                json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": second}),
                "RequireDualStack",
                reversed,
            ),
            (
                json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": reversed}),
                "PreferDualStack",
                reversed,
            ),
            (
                json!({"clusterIP": none, "selector": selector}),
                "SingleStack",
                first,
            ),
            (json!({"clusterIP": none}), "RequireDualStack", both),
            (
                json!({"clusterIP": none, "selector": selector, "ipFamilyPolicy": "PreferDualStack"}),
                "PreferDualStack",
                both,
            ),
        ]
    };
    gives(&[V4, V6], &cases(FOUR, SIX, FOUR_SIX, SIX_FOUR)).await;
    gives(&[V6, V4], &cases(SIX, FOUR, SIX_FOUR, FOUR_SIX)).await;
}

#[tokio::test]
async fn s21_addresses_tell_the_family() {
    gives(
        &[V4, V6],
        &[
            (json!({"clusterIP": "fd00:10:96::99"}), "SingleStack", SIX),
            (json!({"clusterIPs": ["10.96.0.99", "fd00:10:96::99"], "clusterIP": "10.96.0.99", "ipFamilyPolicy": "RequireDualStack"}), "RequireDualStack", FOUR_SIX),
            (json!({"clusterIP": "fd00:10:96::99", "ipFamilyPolicy": "PreferDualStack"}), "PreferDualStack", SIX_FOUR),
        ],
    )
    .await;
}

/// Refused on create, and the same on replace and patch of a plain Service.
async fn wrong(lab: &Lab, fields: &Value, want: &[&str], update: &[&str]) {
    let made = lab
        .post(
            super::SERVICES,
            &super::service("bad", &spec("ClusterIP", fields)),
        )
        .await;
    refused(&made, want);
    create(lab, "web", &spec("ClusterIP", &json!({}))).await;
    refused(
        &replace(lab, "web", &spec("ClusterIP", fields)).await,
        update,
    );
    refused(&patch(lab, "web", fields).await, update);
    remove(lab, "web").await;
}

#[tokio::test]
async fn s24_s26_what_a_single_stack_cluster_refuses() {
    for (range, own, other, foreign) in [
        (V4, "IPv4", "IPv6", "fd00:10:96::9"),
        (V6, "IPv6", "IPv4", "10.96.0.9"),
    ] {
        let lab = cluster(&[range]).await;
        let dual = "FieldValueInvalid spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services";
        let fields = json!({"ipFamilyPolicy": "RequireDualStack"});
        wrong(&lab, &fields, &[dual], &[dual]).await;
        let first = format!(
            "FieldValueInvalid spec.ipFamilies[0]: Invalid value: \"{other}\": not configured on this cluster"
        );
        let got = lab
            .post(
                super::SERVICES,
                &super::service("bad", &spec("ClusterIP", &json!({"ipFamilies": [other]}))),
            )
            .await;
        refused(&got, &[&first]);
        let second = format!(
            "FieldValueInvalid spec.ipFamilies[1]: Invalid value: \"{other}\": not configured on this cluster"
        );
        let fields = json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": [own, other]});
        wrong(&lab, &fields, &[&second], &[&second]).await;
        let address = format!(
            "FieldValueInvalid spec.clusterIPs[0]: Invalid value: [\"{foreign}\"]: {other} is not configured on this cluster"
        );
        let got = lab
            .post(
                super::SERVICES,
                &super::service("bad", &spec("ClusterIP", &json!({"clusterIP": foreign}))),
            )
            .await;
        refused(&got, &[&address]);
    }
}

#[tokio::test]
async fn s19_s23_what_no_cluster_takes() {
    let lab = cluster(&[V4, V6]).await;
    let policy = "FieldValueInvalid spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple";
    let families = format!("{policy} IP families are specified");
    let fields = json!({"ipFamilies": ["IPv4", "IPv6"]});
    wrong(&lab, &fields, &[&families], &[&families]).await;
    let unknown = "FieldValueNotSupported spec.ipFamilies[0]: Unsupported value: \"IPv5\": supported values: \"IPv4\", \"IPv6\"";
    let twice = "FieldValueDuplicate spec.ipFamilies[1]: Duplicate value: \"IPv4\"";
    let both = "FieldValueNotSupported spec.ipFamilyPolicy: Unsupported value: \"Both\": supported values: \"PreferDualStack\", \"RequireDualStack\", \"SingleStack\"";
    for (fields, want) in [
        (json!({"ipFamilies": ["IPv4", "IPv4"]}), twice),
        (json!({"ipFamilyPolicy": "Both"}), both),
    ] {
        wrong(&lab, &fields, &[want], &[want]).await;
    }
    for (fields, want) in [
        (json!({"ipFamilies": ["IPv5"]}), unknown.to_owned()),
        (
            json!({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00:10:96::9"]}),
            format!("{policy} cluster IPs are specified"),
        ),
        (
            json!({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.8"]}),
            "FieldValueInvalid spec.clusterIPs: Invalid value: [\"10.96.0.8\"]: first value must match `clusterIP`".to_owned(),
        ),
        (
            json!({"clusterIPs": ["10.96.0.8"]}),
            "FieldValueInvalid spec.clusterIPs: Invalid value: [\"10.96.0.8\"]: must be empty when `clusterIP` is not specified".to_owned(),
        ),
        (
            json!({"clusterIP": "None", "clusterIPs": ["None", "10.96.0.9"]}),
            "FieldValueInvalid spec.clusterIPs: Invalid value: [\"None\",\"10.96.0.9\"]: 'None' must be the first and only value".to_owned(),
        ),
        (
            json!({"clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.8", "10.96.0.9"], "ipFamilyPolicy": "PreferDualStack"}),
            "FieldValueInvalid spec.clusterIPs: Invalid value: [\"10.96.0.8\",\"10.96.0.9\"]: may specify no more than one IP for each IP family".to_owned(),
        ),
        (
            json!({"clusterIP": "10.96.0.8", "ipFamilies": ["IPv6"]}),
            "FieldValueInvalid spec.clusterIPs[0]: Invalid value: \"10.96.0.8\": expected an IPv6 value as indicated by `ipFamilies[0]`".to_owned(),
        ),
        (
            json!({"clusterIP": "010.96.0.8"}),
            "FieldValueInvalid spec.clusterIPs[0]: Invalid value: \"010.96.0.8\": must not have leading 0s".to_owned(),
        ),
        (
            json!({"clusterIP": "web"}),
            "FieldValueInvalid spec.clusterIPs[0]: Invalid value: \"web\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned(),
        ),
    ] {
        let got = lab
            .post(super::SERVICES, &super::service("bad", &spec("ClusterIP", &fields)))
            .await;
        refused(&got, &[&want]);
    }
}

#[tokio::test]
async fn s22_up_to_two_families_and_back() {
    for (ranges, both) in [([V4, V6], FOUR_SIX), ([V6, V4], SIX_FOUR)] {
        let lab = cluster(&ranges).await;
        for policy in ["PreferDualStack", "RequireDualStack"] {
            let made = create(&lab, "web", &spec("ClusterIP", &json!({}))).await;
            let up = patch(&lab, "web", &json!({"ipFamilyPolicy": policy})).await;
            let up = up.expect(200)["spec"].clone();
            assert_eq!(families(&up), (policy.to_owned(), texts(&json!(both))));
            assert_eq!(up["clusterIPs"][0], made["spec"]["clusterIP"]);
            let down = patch(&lab, "web", &json!({"ipFamilyPolicy": "SingleStack"})).await;
            let down = down.expect(200)["spec"].clone();
            assert_eq!(down["clusterIPs"], made["spec"]["clusterIPs"]);
            assert_eq!(down["ipFamilies"], made["spec"]["ipFamilies"]);
            // The second address is free again.
            let free = json!({"clusterIP": up["clusterIPs"][1]});
            create(&lab, "other", &spec("ClusterIP", &free)).await;
            remove(&lab, "other").await;
            remove(&lab, "web").await;
        }
    }
}

#[tokio::test]
async fn s22_the_second_entries_go_with_single_stack_only() {
    let lab = cluster(&[V4, V6]).await;
    let dual = spec("ClusterIP", &json!({"ipFamilyPolicy": "PreferDualStack"}));
    let made = create(&lab, "web", &dual).await["spec"].clone();
    let head = "FieldValueInvalid spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be 'SingleStack' to release the secondary";
    let first = json!([made["clusterIP"]]);
    let got = patch(&lab, "web", &json!({"clusterIPs": first})).await;
    refused(&got, &[&format!("{head} cluster IP")]);
    let got = patch(&lab, "web", &json!({"ipFamilies": ["IPv4"]})).await;
    refused(&got, &[&format!("{head} IP family")]);
    let fields =
        json!({"clusterIPs": first, "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"});
    let down = patch(&lab, "web", &fields).await.expect(200);
    assert_eq!(
        families(&down["spec"]),
        ("SingleStack".to_owned(), texts(&json!(FOUR)))
    );
}

#[tokio::test]
async fn s25_preferring_two_families_is_not_looked_at_again() {
    let lab = cluster(&[V4]).await;
    let prefer = spec("ClusterIP", &json!({"ipFamilyPolicy": "PreferDualStack"}));
    create(&lab, "web", &prefer).await;
    let dir = lab.stop().await;
    // The directory's next server is dual-stack.
    let lab = Lab::start_in(dir).await;
    let before = stored(&lab, "web").await;
    let labelled = lab
        .merge(
            &super::path("web"),
            &json!({"metadata": {"labels": {"a": "b"}}}),
        )
        .await
        .expect(200);
    assert_eq!(labelled["spec"], before);
    assert_eq!(texts(&before["ipFamilies"]), FOUR);
    let up = patch(&lab, "web", &json!({"ipFamilyPolicy": "RequireDualStack"})).await;
    assert_eq!(families(&up.expect(200)["spec"]).1, FOUR_SIX);
}

#[tokio::test]
async fn s20_the_first_address_and_family_stay() {
    for (ranges, own, other, wanted) in [
        ([V4, V6], "IPv4", "IPv6", "10.96.0.77"),
        ([V6, V4], "IPv6", "IPv4", "fd00:10:96::77"),
    ] {
        let lab = cluster(&ranges).await;
        create(
            &lab,
            "taker",
            &spec("ClusterIP", &json!({"clusterIP": wanted})),
        )
        .await;
        create(&lab, "web", &spec("ClusterIP", &json!({}))).await;
        let once = "may not change once set";
        // Who has the address that is wanted, or whether it is in range, does
        // not matter.
        for address in [wanted, "192.0.2.1", "None"] {
            if address == "192.0.2.1" && own == "IPv6" {
                continue;
            }
            let got = patch(&lab, "web", &json!({"clusterIP": address})).await;
            refused(
                &got,
                &[&format!(
                    "FieldValueInvalid spec.clusterIPs[0]: Invalid value: [\"{address}\"]: {once}"
                )],
            );
        }
        let old = stored(&lab, "web").await["clusterIP"].clone();
        let got = patch(&lab, "web", &json!({"ipFamilies": [other]})).await;
        refused(
            &got,
            &[&format!(
                "FieldValueInvalid spec.clusterIPs[0]: Invalid value: {old}: expected an {other} value as indicated by `ipFamilies[0]`"
            )],
        );
        create(
            &lab,
            "none",
            &spec("ClusterIP", &json!({"clusterIP": "None"})),
        )
        .await;
        let got = patch(
            &lab,
            "none",
            &json!({"clusterIP": wanted, "ipFamilies": [own], "ipFamilyPolicy": "SingleStack"}),
        )
        .await;
        refused(
            &got,
            &[&format!(
                "FieldValueInvalid spec.clusterIPs[0]: Invalid value: [\"{wanted}\"]: {once}"
            )],
        );
    }
}
