//! Questions about users: who am I, may I, whose token is that.

use crate::common::{Lab, client, request};
use http::Method;
use serde_json::{Value, json};

const AUTHENTICATION: &str = "/apis/authentication.k8s.io/v1";
const AUTHORIZATION: &str = "/apis/authorization.k8s.io/v1";

fn question(group: &str, kind: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("{group}/v1"), "kind": kind, "spec": spec})
}

/// The token of the default service account, for these audiences.
async fn token(lab: &Lab, audiences: &[&str]) -> String {
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let wanted = question(
        "authentication.k8s.io",
        "TokenRequest",
        json!({"audiences": audiences}),
    );
    let made = lab.post(path, &wanted).await.expect(201);
    made["status"]["token"].as_str().unwrap().to_owned()
}

async fn with_token(lab: &Lab, token: &str) -> kube::Client {
    client(&lab.server.kubeconfig(&lab.url), |config| {
        config.auth_infos[0].auth_info = Some(kube::config::AuthInfo {
            token: Some(token.to_owned().into()),
            ..Default::default()
        });
    })
    .await
}

#[tokio::test]
async fn everybody_may_ask_who_they_are() {
    let lab = Lab::start().await;
    let path = format!("{AUTHENTICATION}/selfsubjectreviews");
    let asked = question("authentication.k8s.io", "SelfSubjectReview", json!({}));
    let admin = lab.post(&path, &asked).await.expect(201);
    let info = &admin["status"]["userInfo"];
    assert!(
        info["groups"]
            .as_array()
            .unwrap()
            .contains(&json!("system:masters"))
    );
    let credential = &info["extra"]["authentication.kubernetes.io/credential-id"][0];
    assert!(credential.as_str().unwrap().starts_with("X509SHA256="));
    let account = with_token(&lab, &token(&lab, &[]).await).await;
    let answer = request(&account, Method::POST, &path, Some(&asked), &[])
        .await
        .expect(201);
    let info = &answer["status"]["userInfo"];
    assert_eq!(info["username"], "system:serviceaccount:default:default");
    assert_eq!(
        info["groups"],
        json!([
            "system:serviceaccounts",
            "system:serviceaccounts:default",
            "system:authenticated"
        ])
    );
    assert!(!info["uid"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn access_reviews_answer_as_requests_are_answered() {
    let lab = Lab::start().await;
    let account = with_token(&lab, &token(&lab, &[]).await).await;
    let path = format!("{AUTHORIZATION}/selfsubjectaccessreviews");
    let may = async |client: &kube::Client, spec: Value| {
        let asked = question("authorization.k8s.io", "SelfSubjectAccessReview", spec);
        let answer = request(client, Method::POST, &path, Some(&asked), &[]).await;
        answer.expect(201)["status"]["allowed"].clone()
    };
    let pods = |verb: &str, subresource: &str| json!({"resourceAttributes": {"verb": verb, "resource": "pods", "subresource": subresource, "namespace": "default"}});
    assert_eq!(may(&lab.client, pods("delete", "")).await, true);
    assert_eq!(may(&account, pods("list", "")).await, true);
    assert_eq!(may(&account, pods("delete", "")).await, false);
    assert_eq!(may(&account, pods("create", "exec")).await, false);
    let metrics = json!({"nonResourceAttributes": {"verb": "get", "path": "/metrics"}});
    assert_eq!(may(&lab.client, metrics.clone()).await, true);
    assert_eq!(may(&account, metrics).await, false);
    let nothing = question("authorization.k8s.io", "SelfSubjectAccessReview", json!({}));
    let refused = lab.post(&path, &nothing).await.expect(422);
    assert_eq!(
        refused["details"]["causes"][0]["field"],
        "spec.resourceAttributes"
    );
    // Others are asked about by those who may do everything.
    let others = format!("{AUTHORIZATION}/subjectaccessreviews");
    let spec = json!({"user": "x", "groups": ["system:masters"], "resourceAttributes": {"verb": "get", "resource": "nodes"}});
    let asked = question("authorization.k8s.io", "SubjectAccessReview", spec);
    let answer = lab.post(&others, &asked).await.expect(201);
    assert_eq!(answer["status"]["allowed"], true);
    request(&account, Method::POST, &others, Some(&asked), &[])
        .await
        .expect(403);
}

#[tokio::test]
async fn token_reviews_know_audiences() {
    let lab = Lab::start().await;
    let path = format!("{AUTHENTICATION}/tokenreviews");
    let token = token(&lab, &["vault", "other"]).await;
    let review = async |spec: Value| {
        let asked = question("authentication.k8s.io", "TokenReview", spec);
        lab.post(&path, &asked).await.expect(201)["status"].clone()
    };
    let good = review(json!({"token": token, "audiences": ["vault", "x"]})).await;
    assert_eq!(
        (&good["authenticated"], &good["audiences"]),
        (&json!(true), &json!(["vault"]))
    );
    assert_eq!(
        good["user"]["username"],
        "system:serviceaccount:default:default"
    );
    // The token is for others, not for this server.
    let ours = review(json!({"token": token})).await;
    assert_eq!(ours["authenticated"], false);
    let account = with_token(&lab, &token).await;
    request(&account, Method::GET, "/api", None, &[])
        .await
        .expect(401);
    let broken = review(json!({"token": "x.y.z"})).await;
    assert_eq!(broken["authenticated"], false);
}

#[tokio::test]
async fn questions_are_not_stored_and_not_listed() {
    let lab = Lab::start().await;
    let path = format!("{AUTHORIZATION}/selfsubjectrulesreviews");
    let asked = question(
        "authorization.k8s.io",
        "SelfSubjectRulesReview",
        json!({"namespace": "default"}),
    );
    let answer = lab.post(&path, &asked).await.expect(201);
    assert_eq!(
        answer["status"]["resourceRules"][0],
        json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*", "*/*"]})
    );
    lab.get(&path).await.expect(405);
    let listed = lab.get(AUTHORIZATION).await.expect(200);
    assert_eq!(listed["resources"][0]["verbs"], json!(["create"]));
}
