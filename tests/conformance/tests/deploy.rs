//! The manifests for real clusters: kubectl can apply them, and they allow an agent
//! exactly what it asks for.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use portolan_agent::announce;
use portolan_agent::cluster::load_balancer;
use portolan_client::{Resource, facts};
use portolan_conformance::{Lab, tools};
use portolan_model::Kind;
use serde_json::Value;

const NAMESPACE: &str = include_str!("../../../deploy/namespace.yaml");
const BALANCER_RBAC: &str = include_str!("../../../deploy/load-balancer/rbac.yaml");
const ANNOUNCER_RBAC: &str = include_str!("../../../deploy/load-balancer/announce.yaml");
const CLIENT_RBAC: &str = include_str!("../../../deploy/client-address/rbac.yaml");
const RBAC: &str = include_str!("../../../deploy/rbac.yaml");
const POLICY_RBAC: &str = include_str!("../../../deploy/network-policy.yaml");
const AGENT: &str = include_str!("../../../deploy/agent.yaml");
const KUSTOMIZATION: &str = include_str!("../../../deploy/kustomization.yaml");

const DNS: &str = include_str!("../../../deploy/dns/dns.yaml");
const DNS_RBAC: &str = include_str!("../../../deploy/dns/rbac.yaml");

/// The objects of a file.
fn objects(text: &str) -> Result<Vec<Value>> {
    text.split("\n---\n")
        .map(|part| serde_saphyr::from_str(part).context("YAML"))
        .collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Result<&'a Value> {
    let mut found = objects.iter().filter(|object| object["kind"] == kind);
    found.next().with_context(|| format!("no {kind}"))
}

fn texts(list: &Value) -> impl Iterator<Item = String> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|text| text.as_str().map(str::to_owned))
}

/// What the role of a file allows to list and watch, if that is all that it allows.
fn allowed(text: &str) -> Result<BTreeSet<(String, String)>> {
    let (allowed, more) = rights(text)?;
    assert_eq!(more, BTreeSet::new());
    Ok(allowed)
}

type Rights = BTreeSet<(String, String)>;

/// What the role of a file allows to list and watch, and what else: verbs and resources.
fn rights(text: &str) -> Result<(Rights, Rights)> {
    let objects = objects(text)?;
    let role = of_kind(&objects, "ClusterRole")?;
    let rules = role["rules"].as_array().context("rules")?;
    let (mut allowed, mut more) = (BTreeSet::new(), BTreeSet::new());
    for rule in rules {
        ensure!(rule["resourceNames"].is_null() && rule["nonResourceURLs"].is_null());
        let mut verbs: BTreeSet<String> = texts(&rule["verbs"]).collect();
        let reads = ["list", "watch"].map(|verb| verbs.remove(verb));
        assert_eq!(reads[0], reads[1], "{rule}");
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                more.extend(verbs.iter().map(|verb| (verb.clone(), resource.clone())));
                let is_new = !reads[0] || allowed.insert((group.clone(), resource));
                assert!(is_new, "allowed twice: {rule}");
            }
        }
    }
    Ok((allowed, more))
}

fn asked(kinds: &[Kind]) -> BTreeSet<(String, String)> {
    let asked = kinds.iter().map(|&kind| {
        let resource = facts::resource(kind);
        (resource.group.to_string(), resource.plural.to_string())
    });
    asked.collect()
}

#[test]
fn an_agent_may_do_exactly_what_it_asks_for() -> Result<()> {
    assert_eq!(allowed(RBAC)?, asked(&Kind::ALL));
    Ok(())
}

/// What may be listed and watched by a manifest, and all else that it allows.
fn split(manifest: &str) -> Result<(Rights, Vec<String>)> {
    let all = objects(manifest)?;
    let mut watched = BTreeSet::new();
    let mut others = Vec::new();
    let rules = all.iter().filter(|object| object["rules"].is_array());
    for rule in rules.flat_map(|role| role["rules"].as_array().into_iter().flatten()) {
        let verbs: Vec<String> = texts(&rule["verbs"]).collect();
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                match verbs == ["list", "watch"] {
                    true => ensure!(watched.insert((group.clone(), resource)), "{rule}"),
                    false => others.push(format!("{} {resource}", verbs.join(","))),
                }
            }
        }
    }
    Ok((watched, others))
}

fn named(resources: &[&Resource]) -> Rights {
    let names = resources.iter().map(|resource| {
        let name = resource.plural.to_string();
        (resource.group.to_string(), name)
    });
    names.collect()
}

/// Reading is what it watches; writing is Services' finalizers and status, the status
/// of pools, events, and its Lease.
#[test]
fn l2_the_load_balancer_may_do_what_it_does() -> Result<()> {
    let (watched, written) = split(BALANCER_RBAC)?;
    assert_eq!(watched, named(&load_balancer::WATCHED));
    assert_eq!(
        written,
        [
            "patch services",
            "patch services/status",
            "patch addresspools/status",
            "create,patch events",
            "get,create,update leases",
        ]
    );
    Ok(())
}

/// Reading is what it watches, and passwords; writing is the status of peers, events,
/// and its Lease.
#[test]
fn l8_an_announcer_may_do_what_it_does() -> Result<()> {
    let (watched, written) = split(ANNOUNCER_RBAC)?;
    assert_eq!(watched, named(&announce::WATCHED));
    assert_eq!(
        written,
        [
            "get bgppeers",
            "update bgppeers/status",
            "patch l2announcements/status",
            "patch bgpannouncements/status",
            "create,patch events",
            "get,list,watch,create,update leases",
            "get secrets",
        ]
    );
    Ok(())
}

#[test]
fn an_agent_that_enforces_policies_may_read_them_and_pods() -> Result<()> {
    let kinds = [Kind::Pod, Kind::Policy, Kind::ClusterPolicy];
    let (allowed, more) = rights(POLICY_RBAC)?;
    assert_eq!(allowed, asked(&kinds));
    // Events of what policies deny are about pods.
    let told = [("create", "events"), ("get", "pods"), ("patch", "events")];
    let told = told.map(|(verb, resource)| (verb.to_owned(), resource.to_owned()));
    assert_eq!(more, told.into());
    Ok(())
}

#[test]
fn d22_the_dns_server_alone_may_do_exactly_what_it_asks_for() -> Result<()> {
    assert_eq!(
        allowed(DNS_RBAC)?,
        asked(&portolan_agent::names_alone::KINDS)
    );
    let rbac = objects(DNS_RBAC)?;
    let all = objects(DNS)?;
    let account = &of_kind(&all, "ServiceAccount")?["metadata"];
    let subject = &of_kind(&rbac, "ClusterRoleBinding")?["subjects"][0];
    assert_eq!(
        (&subject["name"], &subject["namespace"]),
        (&account["name"], &account["namespace"])
    );
    let pod = &of_kind(&all, "Deployment")?["spec"]["template"];
    assert_eq!(pod["spec"]["serviceAccountName"], account["name"]);
    let service = of_kind(&all, "Service")?;
    let selector = service["spec"]["selector"]
        .as_object()
        .context("a selector")?;
    for (name, value) in selector {
        assert_eq!(&pod["metadata"]["labels"][name], value);
    }
    let added: Vec<_> =
        texts(&pod["spec"]["containers"][0]["securityContext"]["capabilities"]["add"]).collect();
    assert_eq!(added, ["NET_BIND_SERVICE"]);
    Ok(())
}

/// The manifest's configuration can be used, and its flags are flags that there are.
#[test]
fn d22_the_dns_server_takes_its_manifest() -> Result<()> {
    let all = objects(DNS)?;
    let text = &of_kind(&all, "ConfigMap")?["data"]["dns.yaml"];
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("dns.yaml");
    std::fs::write(&file, text.as_str().context("dns.yaml")?)?;
    let program = tools::portolan()?;
    let checked = std::process::Command::new(&program)
        .args(["dns", "check"])
        .arg(&file)
        .output()?;
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
    let container = &of_kind(&all, "Deployment")?["spec"]["template"]["spec"]["containers"][0];
    let mut command = std::process::Command::new(program);
    command.args(texts(&container["command"]).skip(1));
    command.args(texts(&container["args"]));
    command.args(["--zone-from-kubeconfig", "/nonexistent/kubeconfig"]);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("/nonexistent/kubeconfig"), "{said}");
    Ok(())
}

/// What nodes tell each other by is all that the flag asks for.
#[test]
fn p7_who_keeps_clients_addresses_may_write_leases_there() -> Result<()> {
    let all = objects(CLIENT_RBAC)?;
    let (role, binding) = (of_kind(&all, "Role")?, of_kind(&all, "RoleBinding")?);
    let account = objects(NAMESPACE)?;
    let account = of_kind(&account, "ServiceAccount")?;
    for object in [role, binding] {
        assert_eq!(
            object["metadata"]["namespace"],
            account["metadata"]["namespace"]
        );
    }
    assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
    assert_eq!(binding["subjects"][0]["name"], account["metadata"]["name"]);
    let rules = role["rules"].as_array().context("rules")?;
    assert_eq!(rules.len(), 1);
    let parts = ["apiGroups", "resources", "verbs"].map(|part| texts(&rules[0][part]));
    let parts = parts.map(|texts| texts.collect::<Vec<_>>().join(","));
    let verbs = "list,watch,create,patch,delete";
    assert_eq!(parts, ["coordination.k8s.io", "leases", verbs]);
    Ok(())
}

#[test]
fn the_manifests_belong_together() -> Result<()> {
    let (first, rbac, agent) = (objects(NAMESPACE)?, objects(RBAC)?, objects(AGENT)?);
    let account = of_kind(&first, "ServiceAccount")?;
    let daemon = of_kind(&agent, "DaemonSet")?;
    let binding = of_kind(&rbac, "ClusterRoleBinding")?;
    let name = &account["metadata"]["name"];
    let namespace = &of_kind(&first, "Namespace")?["metadata"]["name"];
    assert_eq!(&account["metadata"]["namespace"], namespace);
    assert_eq!(&daemon["metadata"]["namespace"], namespace);
    let pod = &daemon["spec"]["template"]["spec"];
    assert_eq!(&pod["serviceAccountName"], name);
    assert_eq!(&binding["subjects"][0]["name"], name);
    assert_eq!(&binding["subjects"][0]["namespace"], namespace);
    let role = &of_kind(&rbac, "ClusterRole")?["metadata"]["name"];
    assert_eq!(&binding["roleRef"]["name"], role);
    assert_eq!(pod["hostNetwork"], true);
    assert_eq!(pod["priorityClassName"], "system-node-critical");
    let capabilities = &pod["containers"][0]["securityContext"]["capabilities"];
    let added: Vec<_> = texts(&capabilities["add"]).collect();
    assert_eq!(added, ["NET_ADMIN"]);
    let files: Vec<_> = texts(&objects(KUSTOMIZATION)?[0]["resources"]).collect();
    assert_eq!(
        files,
        [
            "namespace.yaml",
            "rbac.yaml",
            "network-policy.yaml",
            "agent.yaml"
        ]
    );
    Ok(())
}

/// The flags in the manifest are flags that there are.
#[test]
fn the_agent_takes_the_flags_of_the_manifest() -> Result<()> {
    let agent = objects(AGENT)?;
    let container = &of_kind(&agent, "DaemonSet")?["spec"]["template"]["spec"]["containers"][0];
    let mut command = std::process::Command::new(tools::portolan()?);
    // What comes after `portolan`, and a file that is not there.
    command.args(texts(&container["command"]).skip(1));
    command.args(texts(&container["args"]));
    command.args([
        "--kubeconfig",
        "/nonexistent/kubeconfig",
        "--node-name",
        "n",
    ]);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("/nonexistent/kubeconfig"), "{said}");
    Ok(())
}

/// The patch is one of the agent's DaemonSet, and what it runs puts the plugin where
/// the example has it.
#[test]
fn n16_the_plugin_is_installed_as_the_example_shows() -> Result<()> {
    const PATCH: &str = include_str!("../../../deploy/cni/agent.yaml");
    const EXAMPLE: &str = include_str!("../../../deploy/cni/example.conflist");
    let (agent, patch) = (objects(AGENT)?, objects(PATCH)?);
    let (agent, patch) = (of_kind(&agent, "DaemonSet")?, of_kind(&patch, "DaemonSet")?);
    assert_eq!(agent["metadata"]["name"], patch["metadata"]["name"]);
    assert_eq!(
        agent["metadata"]["namespace"],
        patch["metadata"]["namespace"]
    );
    let own = &agent["spec"]["template"]["spec"]["containers"][0];
    let first = &patch["spec"]["template"]["spec"]["initContainers"][0];
    assert_eq!(own["image"], first["image"]);
    let mut list: Value = serde_json::from_str(EXAMPLE)?;
    let dir = tempfile::tempdir()?;
    let plugins = list["plugins"].as_array_mut().context("plugins")?;
    let plugin = plugins.pop().context("a plugin")?;
    let socket = format!(
        "--cni-socket={}",
        plugin["socket"].as_str().context("socket")?
    );
    assert!(texts(&own["args"]).any(|flag| flag == socket), "{own}");
    let conf = dir.path().join("10-example.conflist");
    std::fs::write(&conf, list.to_string())?;
    let mut command = std::process::Command::new(tools::portolan()?);
    command.args(texts(&first["command"]).skip(1));
    command.args(texts(&first["args"]));
    for flag in ["--bin-dir", "--conf-dir"] {
        command.arg(flag).arg(dir.path());
    }
    assert!(command.status()?.success());
    let made: Value = serde_json::from_str(&std::fs::read_to_string(&conf)?)?;
    assert_eq!(made, serde_json::from_str::<Value>(EXAMPLE)?);
    // The runtime calls it by its name.
    let program = dir.path().join("portolan-cni");
    let mut plugin = std::process::Command::new(program);
    plugin.env("CNI_COMMAND", "VERSION");
    plugin.stdin(std::fs::File::open(&conf)?);
    let output = plugin.output()?;
    assert!(output.status.success());
    let told: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(told["cniVersion"], "1.0.0");
    Ok(())
}

/// kubectl applies all that the embedded server serves; it has no kinds of
/// rbac.authorization.k8s.io yet.
#[test]
fn kubectl_applies_the_manifests() -> Result<()> {
    let lab = Lab::start(1, &[])?;
    let kubectl = tools::kubectl()?;
    let kubectl = kubectl.display();
    // A lab has its own kube-dns, which nobody moves to another selector.
    let (dns, _service) = DNS.rsplit_once("\n---\n").context("the Service")?;
    for (name, text) in [
        ("namespace.yaml", NAMESPACE),
        ("agent.yaml", AGENT),
        ("dns.yaml", dns),
    ] {
        let file = lab.data_dir().join(name);
        std::fs::write(&file, text)?;
        let file = file.display();
        let said = lab.run(&format!("{kubectl} apply -f {file} 2>&1"))?;
        assert!(
            said.contains(" created") && !said.contains("Warning"),
            "{said}"
        );
        let again = lab.run(&format!("{kubectl} apply -f {file} 2>&1"))?;
        assert!(
            again.contains(" unchanged") && !again.contains(" configured"),
            "{again}"
        );
        let server_side = format!(
            "{kubectl} apply --server-side --force-conflicts --dry-run=server --validate=strict -f {file} 2>&1"
        );
        let said = lab.run(&server_side)?;
        assert!(said.contains("serverside-applied"), "{said}");
    }
    Ok(())
}
