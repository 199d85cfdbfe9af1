//! As whom a container runs: `securityContext` of pod and container. Pure.

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::container::User;

/// The user that the objects ask for; `None` is the lab's own root. `Err` is
/// the message of `CreateContainerConfigError`. The images of a lab run as root.
pub(super) fn user(pod: &Pod, container: &Container) -> Result<Option<User>, String> {
    let of_pod = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.clone());
    let of_pod = of_pod.unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let uid = own.run_as_user.or(of_pod.run_as_user);
    let gid = own.run_as_group.or(of_pod.run_as_group);
    if own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true) {
        let meta = &pod.metadata;
        let about = format!(
            "(pod: \"{}_{}({})\", container: {})",
            meta.name.as_deref().unwrap_or_default(),
            meta.namespace.as_deref().unwrap_or_default(),
            meta.uid.as_deref().unwrap_or_default(),
            container.name
        );
        match uid {
            Some(0) => {
                return Err(format!(
                    "container's runAsUser breaks non-root policy {about}"
                ));
            }
            Some(_) => {}
            None => {
                return Err(format!(
                    "container has runAsNonRoot and image will run as root {about}"
                ));
            }
        }
    }
    let number =
        |id: i64| u32::try_from(id).map_err(|_too_large| format!("bad user or group {id}"));
    let groups = of_pod.supplemental_groups.into_iter().flatten();
    let groups = groups.chain(of_pod.fs_group).map(number);
    let user = User {
        uid: number(uid.unwrap_or_default())?,
        gid: number(gid.unwrap_or_default())?,
        groups: groups.collect::<Result<_, _>>()?,
    };
    Ok(Some(user).filter(|user| *user != User::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_must_not_be_root_where_the_spec_says_so() {
        for (of_pod, own, expected) in [
            ("{}", "{}", Ok(None)),
            ("{runAsUser: 5, fsGroup: 7}", "{}", Ok(Some((5, 0)))),
            (
                "{runAsUser: 5}",
                "{runAsUser: 6, runAsGroup: 8}",
                Ok(Some((6, 8))),
            ),
            ("{runAsUser: 5}", "{runAsNonRoot: true}", Ok(Some((5, 0)))),
            ("{runAsNonRoot: true}", "{}", Err("image will run as root")),
            (
                "{runAsNonRoot: true}",
                "{runAsUser: 0}",
                Err("breaks non-root policy"),
            ),
            ("{runAsNonRoot: true}", "{runAsNonRoot: false}", Ok(None)),
        ] {
            let text = format!(
                "{{metadata: {{name: p}}, spec: {{securityContext: {of_pod}, containers: [{{name: c, securityContext: {own}}}]}}}}"
            );
            let pod: Pod = serde_saphyr::from_str(&text).unwrap();
            let found = user(&pod, &pod.spec.as_ref().unwrap().containers[0]);
            match (found, expected) {
                (Ok(found), Ok(expected)) => {
                    assert_eq!(found.map(|user| (user.uid, user.gid)), expected, "{text}");
                }
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
                (found, expected) => panic!("{text}: {found:?}, not {expected:?}"),
            }
        }
    }
}
