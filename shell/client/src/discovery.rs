//! What the server serves: the kinds that garbage collection and namespace
//! deletion have to walk.

use std::borrow::Cow;

use kube::Client;
use serde::Deserialize;

use crate::{RequestError, Resource};

/// A served resource and what may be done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Where it lives.
    pub resource: Resource,
    /// The verbs that the server announces.
    pub verbs: Vec<String>,
}

impl Served {
    /// Whether the server announces all these verbs.
    pub fn can(&self, verbs: &[&str]) -> bool {
        verbs
            .iter()
            .all(|verb| self.verbs.iter().any(|v| v == verb))
    }
}

/// Every resource of every group, without subresources: each in its group's
/// preferred version, or in the first that has it.
///
/// A group whose discovery fails (an aggregated server that is down) is left
/// out with a warning: one dead extension must not stop the rest.
pub async fn discover(client: &Client) -> Result<Vec<Served>, RequestError> {
    let mut served = Vec::new();
    let core: ResourceList = get(client, "/api/v1".to_owned()).await?;
    push_all(&mut served, "", "v1", core);
    let groups: GroupList = get(client, "/apis".to_owned()).await?;
    for group in groups.groups {
        for version in group.in_order() {
            match get::<ResourceList>(client, format!("/apis/{}/{version}", group.name)).await {
                Ok(list) => push_all(&mut served, &group.name, version, list),
                Err(error) => tracing::warn!(group = group.name, %error, "discovery failed"),
            }
        }
    }
    served.sort_by(|a, b| a.resource.cmp(&b.resource));
    Ok(served)
}

fn push_all(served: &mut Vec<Served>, group: &str, version: &str, list: ResourceList) {
    for entry in list.resources {
        let known = |s: &Served| s.resource.group == group && s.resource.plural == entry.name;
        if entry.name.contains('/') || served.iter().any(known) {
            continue;
        }
        served.push(Served {
            resource: Resource {
                group: Cow::Owned(group.to_owned()),
                version: Cow::Owned(version.to_owned()),
                plural: Cow::Owned(entry.name),
                kind: Cow::Owned(entry.kind),
                namespaced: entry.namespaced,
            },
            verbs: entry.verbs,
        });
    }
}

async fn get<T: serde::de::DeserializeOwned>(
    client: &Client,
    path: String,
) -> Result<T, RequestError> {
    let answer = match http::Request::get(&path).body(Vec::new()) {
        Ok(request) => client.request(request).await,
        Err(error) => Err(kube::Error::HttpError(error)),
    };
    answer.map_err(|source| RequestError {
        verb: "discover",
        path,
        source: Box::new(source),
    })
}

#[derive(Deserialize)]
struct GroupList {
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    name: String,
    preferred_version: Version,
    #[serde(default)]
    versions: Vec<Version>,
}

impl Group {
    /// Its versions, the preferred one first.
    fn in_order(&self) -> impl Iterator<Item = &str> {
        let preferred = self.preferred_version.version.as_str();
        let others = self.versions.iter().map(|version| version.version.as_str());
        std::iter::once(preferred).chain(others.filter(move |version| *version != preferred))
    }
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct ResourceList {
    #[serde(default)]
    resources: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    kind: String,
    #[serde(default)]
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
}
