//! Each mistake alone: what is found, where, and what mends it.

mod reach;

use serde_json::{Value, json};

use super::testbed::{Bed, dns, pod, unready};
use super::{Answer, Checkup, Finding, Kernel, KernelState, Mark, Severity, Step};

/// The one finding above a note.
fn only(checkup: &Checkup) -> &Finding {
    let all: Vec<&Finding> = checkup
        .findings()
        .filter(|f| f.severity > Severity::Note)
        .collect();
    assert_eq!(all.len(), 1, "{checkup:#?}");
    all[0]
}

/// What is found, as `severity object field: message`, with the command.
fn told(bed: &Bed) -> (String, Option<String>) {
    let checkup = bed.examine();
    let Finding {
        severity,
        object,
        field,
        message,
        mend,
        ..
    } = only(&checkup);
    let command = mend.as_ref().and_then(|mend| mend.command.clone());
    (
        format!("{} {object} {field}: {message}", severity.name()),
        command,
    )
}

fn patch(patch: &str) -> Option<String> {
    Some(format!(
        "kubectl patch service web -n shop --type=merge -p '{patch}'"
    ))
}

fn replace(pointer: &str, value: &str) -> Option<String> {
    Some(format!(
        r#"kubectl patch service web -n shop --type=json -p '[{{"op":"replace","path":"{pointer}","value":{value}}}]'"#
    ))
}

fn mark(checkup: &Checkup, step: Step) -> Mark {
    let step = checkup.steps.iter().find(|checked| checked.step == step);
    step.map_or(Mark::Skipped, super::Checked::mark)
}

#[test]
fn c17_nothing_is_wrong_with_a_healthy_service() {
    let checkup = Bed::healthy().examine();
    assert_eq!(checkup.findings().count(), 0, "{checkup:#?}");
    assert_eq!(checkup.title, "ClusterIP 10.96.1.1 80/TCP");
    let skipped: Vec<Step> = checkup
        .steps
        .iter()
        .filter(|s| s.mark() != Mark::Ok)
        .map(|s| s.step)
        .collect();
    assert_eq!(skipped, [Step::Kernel], "nobody asked the nodes");
    let json = checkup.json();
    assert_eq!(
        (&json["healthy"], &json["steps"][0]["result"]),
        (&json!(true), &json!("ok"))
    );
}

#[test]
fn c17_a_label_that_is_mistyped() {
    let typed = |selector: Value| {
        let mut bed = Bed::healthy().without_endpoints();
        bed.service["spec"]["selector"] = selector;
        told(&bed)
    };
    assert_eq!(
        typed(json!({"app": "wbe"})),
        (
            "fault service/web spec.selector.app: no pod has app=wbe; 2 pods have app=web".into(),
            patch(r#"{"spec":{"selector":{"app":"web"}}}"#)
        )
    );
    assert_eq!(
        typed(json!({"ap": "web"})),
        (
            "fault service/web spec.selector.ap: no pod has ap=web; 2 pods have app=web".into(),
            patch(r#"{"spec":{"selector":{"ap":null,"app":"web"}}}"#)
        )
    );
    assert_eq!(
        typed(json!({"app": "web", "tier": "front"})),
        (
            "fault service/web spec.selector.tier: no pod has app=web,tier=front; 2 pods have app=web but not tier=front".into(),
            patch(r#"{"spec":{"selector":{"tier":null}}}"#)
        )
    );
    assert_eq!(
        typed(json!({"app": "postgres"})),
        (
            "fault service/web spec.selector: no pod has app=postgres; the pods of namespace shop have app=web (2 pods)".into(),
            None
        )
    );
}

#[test]
fn c17_pods_that_are_not_there() {
    let mut bed = Bed::healthy().without_endpoints();
    bed.pods.clear();
    let (told_of, command) = told(&bed);
    assert_eq!(
        told_of,
        "fault service/web spec.selector: no pod has app=web; there is no pod at all in namespace shop"
    );
    assert_eq!(command, None);

    let template = json!({"metadata": {"labels": {"app": "web"}}});
    let metadata = json!({"name": "web", "namespace": "shop"});
    bed.deployments =
        vec![json!({"metadata": metadata, "spec": {"replicas": 0, "template": template}})];
    assert_eq!(
        told(&bed),
        (
            "fault deployment/web spec.replicas: no pod has app=web; deployment/web is scaled to 0"
                .into(),
            Some("kubectl scale deployment web -n shop --replicas=1".into())
        )
    );

    let mut bed = Bed::healthy().without_endpoints();
    for pod in &mut bed.pods {
        pod["metadata"]["namespace"] = "other".into();
    }
    assert_eq!(
        told(&bed).0,
        "fault service/web metadata.namespace: no pod of namespace shop has app=web; 2 pods of namespace other have, and a Service selects only pods of its own namespace"
    );

    let mut bed = Bed::healthy().without_endpoints();
    for pod in &mut bed.pods {
        pod["status"]["phase"] = "Succeeded".into();
    }
    assert_eq!(
        told(&bed).0,
        "fault service/web spec.selector: no running pod has app=web; 2 pods that have it came to the end"
    );
}

#[test]
fn c17_a_probe_that_never_passes() {
    let mut bed = Bed::healthy().without_endpoints();
    let probe = json!({"httpGet": {"path": "/nope", "port": 80}});
    for pod in &mut bed.pods {
        *pod = unready(pod.take());
        pod["spec"]["containers"][0]["readinessProbe"] = probe.clone();
    }
    let message = "Readiness probe failed: HTTP probe failed with statuscode: 404";
    bed.events = vec![
        json!({"reason": "Unhealthy", "message": message, "type": "Warning",
        "involvedObject": {"kind": "Pod", "namespace": "shop", "name": "web-abc-1", "uid": "web-abc-1"}}),
    ];
    assert_eq!(
        told(&bed),
        (
            format!(
                "fault deployment/web spec.template.spec.containers[0].readinessProbe.httpGet.path: the readiness probe of container nginx in pod/web-abc-1 never passes: GET /nope at port 80 ({message}), and so it is in 1 pod more"
            ),
            None
        )
    );
    // One that is ready is enough to answer, but not for all.
    bed.pods[1] = pod("web-abc-2", "node-2", "10.244.2.2");
    bed.slices = Bed::healthy().slices;
    assert!(told(&bed).0.starts_with("warning deployment/web"));
}

#[test]
fn c17_a_probe_of_the_wrong_port() {
    let mut bed = Bed::healthy().without_endpoints();
    for pod in &mut bed.pods {
        *pod = unready(pod.take());
        pod["spec"]["containers"][0]["readinessProbe"] = json!({"tcpSocket": {"port": 8080}});
    }
    let (told_of, command) = told(&bed);
    assert!(
        told_of.contains("readinessProbe.tcpSocket.port: "),
        "{told_of}"
    );
    assert!(
        told_of.contains("a connection to port 8080; the container lists only port 80"),
        "{told_of}"
    );
    assert_eq!(
        command.as_deref(),
        Some(
            r#"kubectl patch deployment web -n shop --type=json -p '[{"op":"replace","path":"/spec/template/spec/containers/0/readinessProbe/tcpSocket/port","value":80}]'"#
        )
    );
}

#[test]
fn c17_pods_that_do_not_run() {
    let said = |change: &dyn Fn(&mut Value)| {
        let mut bed = Bed::healthy().without_endpoints();
        for pod in &mut bed.pods {
            *pod = unready(pod.take());
            change(pod);
        }
        told(&bed).0
    };
    let waiting =
        |reason: &str, message: &str| json!({"waiting": {"reason": reason, "message": message}});
    let container =
        |state: Value| said(&|pod| pod["status"]["containerStatuses"][0]["state"] = state.clone());
    let image = container(waiting("ErrImagePull", "not found"));
    assert!(
        image.starts_with("fault deployment/web spec.template.spec.containers[0].image: the image \"nginx:1.27\" of container nginx in pod/web-abc-1 cannot be had: ErrImagePull: not found"),
        "{image}"
    );
    let crash = container(waiting("CrashLoopBackOff", ""));
    assert!(crash.contains("ends again and again"), "{crash}");
    let ended = container(json!({"terminated": {"exitCode": 3}}));
    assert!(ended.contains("ended with code 3"), "{ended}");
    let pending = said(&|pod| {
        pod["spec"]["nodeName"] = "".into();
        pod["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "False",
            "message": "0/3 nodes are available"}]);
    });
    assert!(
        pending.contains("pod/web-abc-1 is on no node: 0/3 nodes are available"),
        "{pending}"
    );
    let gated = said(&|pod| {
        pod["status"]["containerStatuses"][0]["ready"] = true.into();
        pod["spec"]["readinessGates"] = json!([{"conditionType": "example.com/in"}]);
    });
    assert!(
        gated.contains("the readiness gate example.com/in of pod/web-abc-1 is not true"),
        "{gated}"
    );
    let lost = said(&|pod| {
        pod["status"]["containerStatuses"][0]["ready"] = true.into();
        pod["status"]["conditions"][0]["reason"] = "NodeNotReady".into();
    });
    assert!(
        lost.contains("pod/web-abc-1 on node-1 is not ready: NodeNotReady"),
        "{lost}"
    );
}

#[test]
fn c17_a_target_port_where_nothing_listens() {
    let mut bed = Bed::healthy();
    bed.service["spec"]["ports"][0]["targetPort"] = 8080.into();
    bed.slices[0]["ports"][0]["port"] = 8080.into();
    let mend = replace("/spec/ports/0/targetPort", "80");
    // Lists are only information: without a connection it is a warning.
    let (told_of, command) = told(&bed);
    assert_eq!(
        told_of,
        "warning service/web spec.ports[0].targetPort: no container of pod/web-abc-1 lists port 8080/TCP; container nginx lists port 80/TCP \"http\"; it may listen there all the same, no connection was tried"
    );
    assert_eq!(command, mend);
    let knocks: Vec<(String, u16)> = bed
        .worth_trying()
        .into_iter()
        .map(|k| (k.pod, k.port))
        .collect();
    assert_eq!(
        knocks,
        [("web-abc-1".into(), 8080), ("web-abc-2".into(), 8080)]
    );

    let refused = "dial tcp 10.244.1.2:8080: connect: connection refused";
    let tried = bed
        .clone()
        .tried("web-abc-1", 8080, Answer::Refused(refused.into()));
    let (told_of, command) = told(&tried);
    assert_eq!(
        told_of,
        format!(
            "fault service/web spec.ports[0].targetPort: nothing listens at port 8080 of pod/web-abc-1: {refused}; container nginx lists port 80/TCP \"http\""
        )
    );
    assert_eq!(command, mend);
    assert_eq!(mark(&tried.examine(), Step::Ports), Mark::Fault);

    let answered = bed.tried("web-abc-1", 8080, Answer::Accepted).examine();
    assert_eq!(answered.findings().count(), 0, "{answered:#?}");

    // A port that is listed and dead has another cause.
    let deaf = Bed::healthy().tried("web-abc-1", 80, Answer::Refused("refused".into()));
    assert!(
        told(&deaf)
            .0
            .contains("although a container lists that port")
    );
    // What a probe got through to need not be tried.
    let mut probed = Bed::healthy();
    for pod in &mut probed.pods {
        pod["spec"]["containers"][0]["readinessProbe"] = json!({"httpGet": {"port": "http"}});
    }
    assert_eq!(probed.worth_trying(), []);
}

#[test]
fn c17_a_named_port_that_is_not_there() {
    let named = |name: &str, protocol: &str| {
        let mut bed = Bed::healthy();
        bed.service["spec"]["ports"][0]["targetPort"] = name.into();
        bed.service["spec"]["ports"][0]["protocol"] = protocol.into();
        bed.slices[0]["ports"] = json!([]);
        told(&bed)
    };
    assert_eq!(
        named("HTTP", "TCP"),
        (
            "fault service/web spec.ports[0].targetPort: no container of the 2 pods has a port named \"HTTP\" for TCP; container nginx names its port 80 \"http\"".into(),
            replace("/spec/ports/0/targetPort", r#""http""#)
        )
    );
    assert_eq!(
        named("http", "UDP"),
        (
            "fault service/web spec.ports[0].protocol: no container of the 2 pods has a port named \"http\" for UDP; container nginx names TCP port 80 so".into(),
            replace("/spec/ports/0/protocol", r#""TCP""#)
        )
    );
    let mut nameless = Bed::healthy();
    nameless.service["spec"]["ports"][0]["targetPort"] = "http".into();
    nameless.slices[0]["ports"] = json!([]);
    for pod in &mut nameless.pods {
        pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80}]);
    }
    assert_eq!(told(&nameless).1, replace("/spec/ports/0/targetPort", "80"));
}

#[test]
fn c17_all_endpoints_are_on_other_nodes() {
    let mut bed = Bed::healthy();
    bed.service["spec"]["internalTrafficPolicy"] = "Local".into();
    assert_eq!(
        told(&bed),
        (
            "fault service/web spec.internalTrafficPolicy: internalTrafficPolicy is Local: node-3 has no ready endpoint, so what is sent to the cluster address there gets no answer; endpoints are on node-1 and node-2".into(),
            patch(r#"{"spec":{"internalTrafficPolicy":"Cluster"}}"#)
        )
    );
    let outer = |kind: &str| {
        let mut bed = Bed::healthy();
        bed.service["spec"]["type"] = kind.into();
        bed.service["spec"]["externalTrafficPolicy"] = "Local".into();
        bed.service["spec"]["ports"][0]["nodePort"] = 30080.into();
        bed.service["status"] = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}});
        told(&bed)
    };
    let (told_of, command) = outer("NodePort");
    assert!(
        told_of.starts_with("fault service/web spec.externalTrafficPolicy: externalTrafficPolicy is Local: node-3 has no ready endpoint, so its address does not answer from outside"),
        "{told_of}"
    );
    assert_eq!(
        command,
        patch(r#"{"spec":{"externalTrafficPolicy":"Cluster"}}"#)
    );
    assert!(
        outer("LoadBalancer").0.starts_with("warning "),
        "a load balancer asks which nodes have one"
    );
    // Where every node has one, Local is well.
    let mut every = Bed::healthy();
    every.service["spec"]["internalTrafficPolicy"] = "Local".into();
    every.nodes.pop();
    assert_eq!(every.examine().findings().count(), 0);
}

#[test]
fn c17_a_service_without_a_selector() {
    let mut bed = Bed::healthy();
    bed.service["spec"]["selector"] = json!({});
    bed.pods.clear();
    for endpoint in bed.slices[0]["endpoints"].as_array_mut().unwrap() {
        endpoint["targetRef"] = Value::Null;
    }
    assert_eq!(bed.examine().findings().count(), 0, "{:#?}", bed.examine());
    bed.slices[0]["ports"][0]["name"] = "pg".into();
    assert_eq!(
        told(&bed).0,
        "fault service/web spec.ports[0].name: no EndpointSlice has a port named \"\" for TCP; the names there are \"pg\" (80/TCP)"
    );
    bed.slices.clear();
    assert_eq!(
        told(&bed).0,
        "fault service/web spec.selector: the Service has no selector, and nobody wrote an EndpointSlice for it"
    );
}

#[test]
fn c17_endpoints_that_are_behind() {
    let behind = told(&Bed::healthy().without_endpoints()).0;
    assert!(
        behind.starts_with(
            "fault service/web endpoints: pod/web-abc-1 and pod/web-abc-2 are ready and no endpoint"
        ),
        "{behind}"
    );
    let mut gone = Bed::healthy();
    gone.pods.pop();
    assert_eq!(
        told(&gone).0,
        "warning service/web endpoints: 10.244.2.2 is the address of a pod that is gone"
    );
    let mut six = Bed::healthy();
    six.service["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
    assert_eq!(
        told(&six).0,
        "warning service/web spec.ipFamilies[1]: the Service has an IPv6 address, and no ready pod has one"
    );
}

#[test]
fn c17_names_and_types() {
    let mut alias = Bed::healthy();
    alias.service["spec"] = json!({"type": "ExternalName", "externalName": "db.example.com"});
    assert_eq!(alias.examine().findings().count(), 0);
    alias.service["spec"]["externalName"] = "203.0.113.7".into();
    assert!(
        told(&alias)
            .0
            .contains("203.0.113.7 is an address, and an alias leads only to a name")
    );
    alias.service["spec"]["externalName"] = "web.prod.svc.cluster.local".into();
    assert!(told(&alias).0.contains("there is no Service prod/web"));

    let mut headless = Bed::healthy();
    headless.service["spec"]["clusterIP"] = "None".into();
    headless.service["spec"]["clusterIPs"] = json!(["None"]);
    headless.service["spec"]["ports"][0]["port"] = 8080.into();
    let (told_of, command) = told(&headless);
    assert!(
        told_of.contains("clients must connect to 80, not to 8080"),
        "{told_of}"
    );
    assert_eq!(command, replace("/spec/ports/0/port", "80"));

    let mut namesake = Bed::healthy();
    namesake
        .others
        .push(json!({"metadata": {"name": "web", "namespace": "other"}}));
    let checkup = namesake.examine();
    let notes: Vec<&str> = checkup.findings().map(|f| f.message.as_str()).collect();
    assert_eq!(
        notes,
        ["in namespace other the name web means the Service there, not this one"]
    );

    let mut nameless = Bed::healthy();
    nameless.others.clear();
    assert!(
        told(&nameless)
            .0
            .starts_with("warning service/kube-dns metadata.name: ")
    );

    let mut other = Bed::healthy();
    other.service["metadata"]["labels"] =
        json!({"service.kubernetes.io/service-proxy-name": "mesh"});
    assert!(
        told(&other)
            .0
            .contains("the label leaves the Service to the proxy \"mesh\"")
    );
}

#[test]
fn c17_nodes_answer_for_names_themselves() {
    let mut bed = Bed::healthy();
    bed.service = dns();
    bed.service["spec"]["selector"] = json!({"k8s-app": "kube-dns"});
    bed.others.clear();
    let checkup = bed.examine();
    assert!(!checkup.has_faults(), "{checkup:#?}");
}

#[test]
fn c17_what_nodes_say_of_their_kernels() {
    let said = |state: KernelState| {
        let mut bed = Bed::healthy();
        bed.kernels = vec![Kernel {
            node: "node-1".into(),
            state,
        }];
        bed.examine()
    };
    let holds = said(KernelState::Holds("2026-01-02T03:04:05Z".into()));
    assert_eq!(mark(&holds, Step::Kernel), Mark::Ok);
    let fails = said(KernelState::Fails("no memory".into()));
    assert_eq!(
        (only(&fails).object.as_str(), fails.has_faults()),
        ("node/node-1", true)
    );
    let silent = said(KernelState::Silent("connection refused".into()));
    assert_eq!(only(&silent).severity, Severity::Warning);
    let unasked = said(KernelState::NotAsked("forbidden".into()));
    assert_eq!(mark(&unasked, Step::Kernel), Mark::Skipped);
    let kernel = unasked.steps.last().unwrap();
    assert_eq!(kernel.summary, "not looked at: forbidden");
}
