//! Patches, what is wrong with them, and the bodies of subresources: codes and
//! texts as clients of Kubernetes know them.

use crate::common::{Got, Lab, request};
use http::Method;
use serde_json::{Value, json};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// What clients see of a patch that does not fit its object.
const REJECTED: &str = "the server rejected our request due to an error in our request";

async fn send(lab: &Lab, format: &str, path: &str, patch: &Value) -> Got {
    let headers = [("content-type", format)];
    request(&lab.client, Method::PATCH, path, Some(patch), &headers).await
}

async fn refused(lab: &Lab, format: &str, path: &str, patch: &Value, code: u16) -> String {
    let status = send(lab, format, path, patch).await.expect(code);
    status["message"].as_str().unwrap().to_owned()
}

fn warnings(got: &Got) -> Vec<&str> {
    let all = got.headers.get_all("warning").iter();
    all.map(|value| value.to_str().unwrap()).collect()
}

/// A lab with the Service `web`, and its path.
async fn with_service() -> (Lab, String) {
    let lab = Lab::start().await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    lab.post(SERVICES, &service).await.expect(201);
    (lab, format!("{SERVICES}/web"))
}

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "nginx"}]}}}})
}

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "nginx"}]}})
}

#[tokio::test]
async fn json_patches_that_are_refused() {
    let (lab, path) = with_service().await;
    let cases = [
        (
            json!({}),
            400,
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
        ),
        (json!([{"op": "jump", "path": "/spec"}]), 422, REJECTED),
        (
            json!([{"op": "remove", "path": "/spec/nothing"}]),
            422,
            REJECTED,
        ),
        (
            json!([{"op": "test", "path": "/spec/type", "value": "x"}]),
            422,
            REJECTED,
        ),
        (
            Value::from(vec![
                json!({"op": "test", "path": "/kind", "value": "Service"});
                10_001
            ]),
            413,
            "Request entity is too large: The allowed maximum operations in a JSON patch is 10000, got 10001",
        ),
    ];
    for (patch, code, text) in cases {
        assert_eq!(refused(&lab, JSON, &path, &patch, code).await, text);
    }
    // Copies of copies would fill the memory.
    let copies: Vec<Value> = (0..64)
        .map(|step| json!({"op": "copy", "from": "", "path": format!("/metadata/x{step}")}))
        .collect();
    let message = refused(&lab, JSON, &path, &copies.into(), 422).await;
    assert_eq!(message, REJECTED);
    let last = json!([{"op": "replace", "path": "/spec/ports/-1/targetPort", "value": 8080}]);
    let after = send(&lab, JSON, &path, &last).await.expect(200);
    assert_eq!(after["spec"]["ports"][0]["targetPort"], 8080);
}

#[tokio::test]
async fn merge_patches_that_are_refused() {
    let (lab, path) = with_service().await;
    let no_map = "json: cannot unmarshal array into Go value of type map[string]interface {}";
    let message = refused(&lab, MERGE, &path, &json!([]), 400).await;
    assert_eq!(message, format!("error decoding patch: {no_map}"));
    assert_eq!(
        refused(&lab, STRATEGIC, &path, &json!([]), 400).await,
        no_map
    );
    let cases = [
        (
            json!({"metadata": {"uid": "other"}}),
            422,
            "Service \"web\" is invalid: metadata.uid: Invalid value: \"other\": field is immutable",
        ),
        (
            json!({"metadata": {"namespace": "other"}}),
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            json!({"metadata": {"name": "other"}}),
            400,
            "the name of the object (other) does not match the name on the URL (web)",
        ),
        (
            json!({"metadata": {"name": null}}),
            400,
            "the name of the object (web based on URL) was undeterminable: name must be provided",
        ),
        (
            json!({"metadata": {"resourceVersion": "1"}}),
            409,
            "Operation cannot be fulfilled on services \"web\": the object has been modified; please apply your changes to the latest version and try again",
        ),
    ];
    for (patch, code, text) in cases {
        for format in [MERGE, STRATEGIC] {
            assert_eq!(refused(&lab, format, &path, &patch, code).await, text);
        }
    }
}

#[tokio::test]
async fn strategic_directives_that_are_refused() {
    let lab = Lab::start().await;
    lab.post(DEPLOYMENTS, &deployment()).await.expect(201);
    let path = format!("{DEPLOYMENTS}/web");
    let of_pod = |spec: Value| json!({"spec": {"template": {"spec": spec}}});
    let cases = [
        (
            of_pod(json!({"containers": [{"image": "x"}]})),
            500,
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (
            of_pod(json!({"containers": [{"name": "a", "$patch": "merge"}]})),
            500,
            "merging lists cannot yet be specified in the patch",
        ),
        (
            of_pod(json!({"$patch": "jump"})),
            500,
            "unknown patch type: jump in map: map[$patch:jump]",
        ),
        (
            json!({"spec": {"strategy": {"$retainKeys": ["rollingUpdate"], "type": "Recreate"}}}),
            400,
            "invalid patch format of retainKeys",
        ),
        (
            of_pod(json!({"$setElementOrder/containers": "a"})),
            400,
            "invalid patch format of setElementOrder list",
        ),
    ];
    for (patch, code, text) in cases {
        assert_eq!(refused(&lab, STRATEGIC, &path, &patch, code).await, text);
    }
}

#[tokio::test]
async fn fields_are_validated_in_every_format() {
    let (lab, path) = with_service().await;
    let strict = format!("{path}?fieldValidation=Strict");
    let ignore = format!("{path}?fieldValidation=Ignore");
    let merge = json!({"spec": {"foo": 1}});
    let json = json!([{"op": "add", "path": "/spec/foo", "value": 1}]);
    for (format, patch) in [(MERGE, &merge), (STRATEGIC, &merge), (JSON, &json)] {
        let message = refused(&lab, format, &strict, patch, 422).await;
        assert!(
            message.starts_with(" \"\" is invalid: patch: Invalid value: "),
            "{message}"
        );
        assert!(
            message.ends_with(": strict decoding error: unknown field \"spec.foo\""),
            "{message}"
        );
        let warned = send(&lab, format, &path, patch).await;
        assert_eq!(warned.code, 200);
        assert_eq!(
            warnings(&warned),
            ["299 - \"unknown field \\\"spec.foo\\\"\""]
        );
        let silent = send(&lab, format, &ignore, patch).await;
        assert_eq!((silent.code, warnings(&silent)), (200, vec![]));
        assert!(silent.json()["spec"].get("foo").is_none());
        let odd = format!("{path}?fieldValidation=Odd");
        assert_eq!(
            refused(&lab, format, &odd, patch, 422).await,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"Odd\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
        );
    }
    let message = refused(&lab, STRATEGIC, &strict, &merge, 422).await;
    assert!(message.contains("\"map[spec:map[foo:1]]\""), "{message}");
    let member = json!([{"op": "test", "path": "/kind", "value": "Service", "why": 1}]);
    assert_eq!(
        warnings(&send(&lab, JSON, &path, &member).await),
        ["299 - \"json patch unknown field \\\"[0].why\\\"\""]
    );
    // A wrong type is a fault of the patch, whatever is asked for.
    let mistyped = json!({"spec": {"ports": "none"}});
    let message = refused(&lab, MERGE, &ignore, &mistyped, 422).await;
    assert!(
        message.contains("json: cannot unmarshal string into Go struct field"),
        "{message}"
    );
}

#[tokio::test]
async fn writes_without_a_change_leave_version_and_times() {
    let (lab, path) = with_service().await;
    let before = lab.get(&path).await.expect(200);
    let same = json!({"spec": {"type": "ClusterIP"}, "metadata": {"labels": {"gone": null}}});
    for format in [MERGE, STRATEGIC] {
        let answer = send(&lab, format, &path, &same).await.expect(200);
        assert_eq!(answer, before);
    }
    let test = json!([{"op": "test", "path": "/kind", "value": "Service"}]);
    assert_eq!(send(&lab, JSON, &path, &test).await.expect(200), before);
    let mut put = before.clone();
    put["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("managedFields");
    assert_eq!(lab.put(&path, &put).await.expect(200), before);
    assert_eq!(lab.get(&path).await.expect(200), before);
}

#[tokio::test]
async fn managed_fields_are_forgotten_on_request_only() {
    let (lab, path) = with_service().await;
    let owners = |object: &Value| object["metadata"].get("managedFields").cloned();
    let before = owners(&lab.get(&path).await.expect(200)).unwrap();
    let forget = |value: Value| json!({"metadata": {"managedFields": value}});
    let kept = lab.merge(&path, &forget(Value::Null)).await.expect(200);
    assert_eq!(owners(&kept), Some(before.clone()));
    // A subresource does not forget.
    let status = lab
        .merge(&format!("{path}/status"), &forget(json!([{}])))
        .await
        .expect(200);
    assert_eq!(owners(&status), Some(before));
    let gone = lab.merge(&path, &forget(json!([]))).await.expect(200);
    assert_eq!(owners(&gone), None);
}

#[tokio::test]
async fn a_put_names_its_object() {
    let (lab, path) = with_service().await;
    let nameless = json!({"spec": {"ports": [{"port": 80}]}});
    assert_eq!(
        lab.put(&path, &nameless).await.expect(400)["message"],
        "the name of the object (web based on URL) was undeterminable: name must be provided"
    );
    let elsewhere = json!({"metadata": {"name": "web", "namespace": "other"}});
    assert_eq!(
        lab.put(&path, &elsewhere).await.expect(400)["message"],
        "the namespace of the provided object does not match the namespace sent on the request"
    );
}

#[tokio::test]
async fn a_scale_is_typed_like_any_body() {
    let lab = Lab::start().await;
    lab.post(DEPLOYMENTS, &deployment()).await.expect(201);
    let path = format!("{DEPLOYMENTS}/web/scale");
    let scale =
        |replicas: Value| json!({"metadata": {"name": "web"}, "spec": {"replicas": replicas}});
    let untyped = lab.put(&path, &scale(json!(3))).await.expect(200);
    assert_eq!(untyped["spec"]["replicas"], 3);
    let cases = [
        (
            json!({"spec": {"replicas": 1}}),
            "the name of the object (web based on URL) was undeterminable: name must be provided",
        ),
        (
            scale(json!("x")),
            "Scale in version \"v1\" cannot be handled as a Scale: json: cannot unmarshal string into Go struct field",
        ),
        (
            deployment(),
            "Deployment in version \"v1\" cannot be handled as a Scale",
        ),
    ];
    for (body, text) in cases {
        let status = lab.put(&path, &body).await.expect(400);
        let message = status["message"].as_str().unwrap();
        assert!(message.contains(text), "{message}");
    }
    let mut gone = scale(json!(1));
    gone["metadata"]["uid"] = json!("other");
    lab.put(&path, &gone).await.expect(409);
    let strict = format!("{path}?fieldValidation=Strict");
    let message = refused(&lab, MERGE, &strict, &json!({"spec": {"foo": 1}}), 422).await;
    assert!(message.contains("unknown field \"spec.foo\""), "{message}");
    let forced = format!("{path}?force=true");
    let message = refused(&lab, MERGE, &forced, &json!({}), 422).await;
    assert!(message.contains("may not be specified for non-apply patch"));
}

#[tokio::test]
async fn bodies_of_other_subresources_are_typed_too() {
    let lab = Lab::start().await;
    lab.post(PODS, &pod()).await.expect(201);
    let path = format!("{PODS}/p");
    let token = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let made = lab.post(token, &json!({})).await.expect(201);
    assert_eq!(
        (&made["apiVersion"], &made["kind"]),
        (&json!("authentication.k8s.io/v1"), &json!("TokenRequest"))
    );
    let message = |status: Value| status["message"].as_str().unwrap().to_owned();
    for (path, kind) in [
        (token.to_owned(), "TokenRequest"),
        (format!("{path}/binding"), "Binding"),
        (format!("{path}/eviction"), "Eviction"),
    ] {
        let text = message(lab.post(&path, &pod()).await.expect(400));
        let head = format!("Pod in version \"v1\" cannot be handled as a {kind}");
        assert!(text.starts_with(&head), "{text}");
    }
    for kind in ["Binding", "Eviction"] {
        let to = format!("{path}/{}", kind.to_lowercase());
        let text = message(
            lab.post(&to, &json!({"metadata": {"name": "q"}}))
                .await
                .expect(400),
        );
        assert_eq!(
            text,
            format!("name in URL does not match name in {kind} object")
        );
    }
    let options = lab
        .request(Method::DELETE, &path, Some(&pod()))
        .await
        .expect(400);
    assert_eq!(
        message(options),
        "decoded object cannot be converted to DeleteOptions"
    );
    let evict = json!({"metadata": {"name": "p"}});
    lab.post(&format!("{path}/eviction"), &evict)
        .await
        .expect(201);
    lab.get(&path).await.expect(404);
}
