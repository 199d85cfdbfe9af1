//! Warning headers.

use super::{SERVICES, V4, V6, cluster, create, patch, path, service, spec, warned};
use http::Method;
use serde_json::{Value, json};

const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints";
const DEPRECATED: &str =
    "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";

#[tokio::test]
async fn s11_services_on_create_and_update() {
    let lab = cluster(&[V4, V6]).await;
    let ips = json!(["192.0.2.1"]);
    let cases: [(&str, Value, &[&str]); 6] = [
        (
            "ClusterIP",
            json!({"externalIPs": ips}),
            &["spec.externalIPs is deprecated"],
        ),
        (
            "ClusterIP",
            json!({"externalIPs": ips, "clusterIP": "None", "loadBalancerIP": "192.0.2.2", "sessionAffinity": "ClientIP"}),
            &[
                "spec.loadBalancerIP is ignored for headless services",
                "spec.externalIPs is ignored for headless services",
                "spec.SessionAffinity is ignored for headless services",
            ],
        ),
        (
            "ExternalName",
            json!({"externalName": "a.b", "externalIPs": ips}),
            &["spec.externalIPs is ignored when spec.type is \"ExternalName\""],
        ),
        (
            "NodePort",
            json!({"externalName": "a.b"}),
            &["spec.externalName is ignored when spec.type is not \"ExternalName\""],
        ),
        (
            "ClusterIP",
            json!({"trafficDistribution": "PreferClose"}),
            &["spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\""],
        ),
        (
            "LoadBalancer",
            json!({"clusterIP": "FD00:10:96::20", "loadBalancerIP": "2001:DB8::1"}),
            &[
                "spec.clusterIPs[0]: IPv6 address \"FD00:10:96::20\" should be in RFC 5952 canonical format (\"fd00:10:96::20\")",
                "spec.loadBalancerIP: IPv6 address \"2001:DB8::1\" should be in RFC 5952 canonical format (\"2001:db8::1\")",
            ],
        ),
    ];
    for (kind, fields, want) in cases {
        let object = service("web", &spec(kind, &fields));
        let made = lab.post(SERVICES, &object).await;
        made.expect(201);
        assert_eq!(warned(&made), want, "{fields}");
        let again = lab.put(&path("web"), &object).await;
        again.expect(200);
        assert_eq!(warned(&again), want, "{fields}");
        let patched = patch(&lab, "web", &json!({"publishNotReadyAddresses": true})).await;
        patched.expect(200);
        assert_eq!(warned(&patched), want, "{fields}");
        assert!(warned(&lab.get(&path("web")).await).is_empty());
        lab.delete(&path("web")).await.expect(200);
    }
    create(&lab, "plain", &spec("ClusterIP", &json!({}))).await;
    let plain = patch(&lab, "plain", &json!({"sessionAffinity": "ClientIP"})).await;
    assert!(warned(&plain).is_empty());
}

#[tokio::test]
async fn e18_every_answer_about_endpoints() {
    let lab = cluster(&[V4, V6]).await;
    let object = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web"},
        "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80}]}]});
    let one = format!("{ENDPOINTS}/web");
    let patch = json!({"metadata": {"labels": {"a": "b"}}});
    for (method, at, body) in [
        (Method::POST, ENDPOINTS, Some(&object)),
        (Method::GET, ENDPOINTS, None),
        (Method::GET, &one, None),
        (Method::PUT, &one, Some(&object)),
        (Method::DELETE, &one, None),
        (Method::GET, &one, None),
    ] {
        let got = lab.request(method.clone(), at, body).await;
        assert_eq!(warned(&got), [DEPRECATED], "{method} {at}");
    }
    lab.post(ENDPOINTS, &object).await.expect(201);
    assert_eq!(warned(&lab.merge(&one, &patch).await), [DEPRECATED]);
    let mut odd = object.clone();
    odd["subsets"][0]["addresses"][0]["ip"] = json!("2001:DB8::1");
    let mut want = warned(&lab.put(&one, &odd).await);
    want.sort();
    assert_eq!(
        want,
        [
            "subsets[0].addresses[0].ip: IPv6 address \"2001:DB8::1\" should be in RFC 5952 canonical format (\"2001:db8::1\")",
            DEPRECATED,
        ]
    );
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    assert!(warned(&lab.get(slices).await).is_empty());
}
