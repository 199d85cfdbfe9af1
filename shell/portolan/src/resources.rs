//! What `pods`, `svc` or `deploy/web` means: names of resources, resolved by the
//! server's own discovery documents, so that it works against any cluster.

use anyhow::{Result, bail};
use serde_json::Value;

use crate::connect::{Call, Session};

/// One kind of resource that the server serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resource {
    /// API group; empty for core.
    pub(crate) group: String,
    /// Version, such as v1.
    pub(crate) version: String,
    /// Plural name, as in paths.
    pub(crate) plural: String,
    /// Singular name.
    pub(crate) singular: String,
    /// Kind.
    pub(crate) kind: String,
    /// Short names, such as svc.
    pub(crate) short_names: Vec<String>,
    /// Whether objects live in namespaces.
    pub(crate) namespaced: bool,
    /// Sets of kinds that it belongs to, such as `all`.
    pub(crate) categories: Vec<String>,
}

impl Resource {
    /// The path of the collection, or of one object in it.
    pub(crate) fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let mut path = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        if let Some(namespace) = namespace.filter(|_| self.namespaced) {
            path.push_str(&format!("/namespaces/{namespace}"));
        }
        path.push('/');
        path.push_str(&self.plural);
        if let Some(name) = name {
            path.push('/');
            path.push_str(name);
        }
        path
    }

    /// `v1`, `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `service/web`, `deployment.apps/web`: how results name an object.
    pub(crate) fn named(&self, name: &str) -> String {
        if self.group.is_empty() {
            format!("{}/{name}", self.singular)
        } else {
            format!("{}.{}/{name}", self.singular, self.group)
        }
    }
}

/// Everything that the server serves.
pub(crate) struct Resources(Vec<Resource>);

impl Resources {
    /// Asks the server (aggregated discovery, two requests).
    pub(crate) async fn discover(session: &Session) -> Result<Self> {
        let mut found = Vec::new();
        for path in ["/api", "/apis"] {
            let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
            let call = Call {
                accept,
                ..Call::get(path)
            };
            found.extend(read_discovery(&session.call(&call).await?.body));
        }
        Ok(Self(found))
    }

    /// The resource called `word`: plural, singular, kind, short name, with or without the group.
    pub(crate) fn find(&self, word: &str) -> Result<&Resource> {
        let lower = word.to_lowercase();
        let (name, group) = lower
            .split_once('.')
            .map_or((lower.as_str(), None), |(n, g)| (n, Some(g)));
        let hit = self.0.iter().find(|r| {
            let named = r.plural == name
                || r.singular == name
                || r.kind.to_lowercase() == name
                || r.short_names.iter().any(|s| s == name);
            named && group.is_none_or(|g| r.group == g || g == format!("{}.{}", r.version, r.group))
        });
        match hit {
            Some(resource) => Ok(resource),
            None => bail!("error: the server doesn't have a resource type {word:?}"),
        }
    }

    /// The resources that `word` stands for: one, or a category such as `all`.
    fn find_all(&self, word: &str) -> Result<Vec<&Resource>> {
        let set: Vec<&Resource> = self
            .0
            .iter()
            .filter(|r| r.categories.iter().any(|c| c == word))
            .collect();
        if set.is_empty() {
            return Ok(vec![self.find(word)?]);
        }
        Ok(set)
    }

    /// The resource of a manifest's apiVersion and kind.
    pub(crate) fn of_manifest(&self, object: &Value) -> Result<&Resource> {
        let api_version = object["apiVersion"].as_str().unwrap_or_default();
        let kind = object["kind"].as_str().unwrap_or_default();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let hit = self
            .0
            .iter()
            .find(|r| r.group == group && r.version == version && r.kind == kind);
        match hit {
            Some(resource) => Ok(resource),
            None => bail!("no matches for kind {kind:?} in version {api_version:?}"),
        }
    }

    /// `pods a b`, `pods,svc`, `deploy/web svc/web`: resources with an optional name each.
    pub(crate) fn parse(&self, words: &[String]) -> Result<Vec<(Resource, Option<String>)>> {
        let mut targets = Vec::new();
        if words.iter().any(|w| w.contains('/')) {
            for word in words {
                let Some((kind, name)) = word.split_once('/') else {
                    bail!(
                        "error: there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'portolan get resource/<resource_name>' instead of 'portolan get resource resource/<resource_name>'"
                    );
                };
                targets.push((self.find(kind)?.clone(), Some(name.to_owned())));
            }
            return Ok(targets);
        }
        let Some((kinds, names)) = words.split_first() else {
            return Ok(targets);
        };
        for kind in kinds.split(',').filter(|k| !k.is_empty()) {
            for resource in self.find_all(kind)? {
                if names.is_empty() {
                    targets.push((resource.clone(), None));
                }
                targets.extend(names.iter().map(|n| (resource.clone(), Some(n.clone()))));
            }
        }
        Ok(targets)
    }
}

/// Reads an APIGroupDiscoveryList; what is malformed is passed over.
fn read_discovery(list: &Value) -> Vec<Resource> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let mut found = Vec::new();
    for group in list["items"].as_array().into_iter().flatten() {
        for version in group["versions"].as_array().into_iter().flatten() {
            for resource in version["resources"].as_array().into_iter().flatten() {
                let short = resource["shortNames"].as_array().into_iter().flatten();
                let categories = resource["categories"].as_array().into_iter().flatten();
                found.push(Resource {
                    group: text(&group["metadata"]["name"]),
                    version: text(&version["version"]),
                    plural: text(&resource["resource"]),
                    singular: text(&resource["singularResource"]),
                    kind: text(&resource["responseKind"]["kind"]),
                    short_names: short.map(text).collect(),
                    namespaced: resource["scope"] == "Namespaced",
                    categories: categories.map(text).collect(),
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resources() -> Resources {
        Resources(read_discovery(&json!({"items": [
            {"metadata": {}, "versions": [{"version": "v1", "resources": [
                {"resource": "services", "singularResource": "service", "scope": "Namespaced",
                 "responseKind": {"kind": "Service"}, "shortNames": ["svc"], "categories": ["all"]}]}]},
            {"metadata": {"name": "apps"}, "versions": [{"version": "v1", "resources": [
                {"resource": "deployments", "singularResource": "deployment", "scope": "Namespaced",
                 "responseKind": {"kind": "Deployment"}, "shortNames": ["deploy"], "categories": ["all"]}]}]}
        ]})))
    }

    #[test]
    fn every_name_of_a_resource_finds_it() {
        let all = resources();
        for word in ["svc", "service", "services", "Service"] {
            assert_eq!(all.find(word).unwrap().plural, "services");
        }
        for word in ["deploy", "deployments.apps", "deployment.v1.apps"] {
            assert_eq!(all.find(word).unwrap().plural, "deployments");
        }
        let error = all.find("gizmos").unwrap_err().to_string();
        assert_eq!(
            error,
            "error: the server doesn't have a resource type \"gizmos\""
        );
    }

    #[test]
    fn words_become_targets() {
        let all = resources();
        let words = |w: &[&str]| w.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let named: Vec<_> = all
            .parse(&words(&["svc,deploy"]))
            .unwrap()
            .into_iter()
            .map(|(r, n)| (r.plural, n))
            .collect();
        assert_eq!(
            named,
            [
                ("services".to_owned(), None),
                ("deployments".to_owned(), None)
            ]
        );
        assert_eq!(all.parse(&words(&["all"])).unwrap().len(), 2);
        let slashed = all.parse(&words(&["deploy/web"])).unwrap();
        assert_eq!(slashed[0].0.named("web"), "deployment.apps/web");
        assert_eq!(
            slashed[0].0.path(Some("default"), Some("web")),
            "/apis/apps/v1/namespaces/default/deployments/web"
        );
        assert!(all.parse(&words(&["svc", "deploy/web"])).is_err());
    }
}
