"""Every kind: created, read, listed, patched, replaced, deleted, through typed clients."""

from kubernetes import client

from support import NAMESPACE, equal, expect, refused, run, until

core = client.CoreV1Api()
apps = client.AppsV1Api()
discovery = client.DiscoveryV1Api()
coordination = client.CoordinationV1Api()
networking = client.NetworkingV1Api()
events = client.EventsV1Api()

TEMPLATE = {
    "metadata": {"labels": {"app": "crud"}},
    "spec": {"containers": [{"name": "c", "image": "nginx"}]},
}
WORKLOAD = {"selector": {"matchLabels": {"app": "crud"}}, "template": TEMPLATE}
REGARDING = {"apiVersion": "v1", "kind": "Pod", "name": "nobody", "namespace": NAMESPACE}

# client, name in its methods, kind, and what makes the object more than a name
NAMESPACED = [
    (core, "config_map", "v1", "ConfigMap", {"data": {"a": "b"}}),
    (core, "secret", "v1", "Secret", {"stringData": {"a": "b"}}),
    (core, "service_account", "v1", "ServiceAccount", {}),
    (core, "service", "v1", "Service", {"spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}}),
    (core, "endpoints", "v1", "Endpoints",
     {"subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80}]}]}),
    (core, "pod", "v1", "Pod",
     {"spec": {"nodeSelector": {"no": "node"}, "terminationGracePeriodSeconds": 0,
               "containers": [{"name": "c", "image": "nginx"}]}}),
    (core, "event", "v1", "Event",
     {"involvedObject": REGARDING, "reason": "Why", "message": "m", "type": "Normal"}),
    (apps, "deployment", "apps/v1", "Deployment", {"spec": {"replicas": 0, **WORKLOAD}}),
    (apps, "replica_set", "apps/v1", "ReplicaSet", {"spec": {"replicas": 0, **WORKLOAD}}),
    (apps, "stateful_set", "apps/v1", "StatefulSet",
     {"spec": {"replicas": 0, "serviceName": "s", **WORKLOAD}}),
    (apps, "daemon_set", "apps/v1", "DaemonSet",
     {"spec": {**WORKLOAD, "template": {**TEMPLATE, "spec": {
         **TEMPLATE["spec"], "nodeSelector": {"no": "node"}}}}}),
    (apps, "controller_revision", "apps/v1", "ControllerRevision",
     {"revision": 1, "data": {"a": "b"}}),
    (discovery, "endpoint_slice", "discovery.k8s.io/v1", "EndpointSlice",
     {"addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"]}],
      "ports": [{"name": "http", "port": 80}]}),
    (coordination, "lease", "coordination.k8s.io/v1", "Lease",
     {"spec": {"holderIdentity": "me", "leaseDurationSeconds": 10}}),
    (networking, "network_policy", "networking.k8s.io/v1", "NetworkPolicy",
     {"spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}),
    (networking, "ingress", "networking.k8s.io/v1", "Ingress",
     {"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}),
    (events, "event", "events.k8s.io/v1", "Event",
     {"eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "me/it",
      "reportingInstance": "here", "action": "Do", "reason": "Why", "note": "n", "type": "Normal",
      "regarding": REGARDING}),
]

CLUSTERED = [
    (core, "namespace", "v1", "Namespace", {}),
    (core, "node", "v1", "Node", {"spec": {"unschedulable": True}}),
    (networking, "ingress_class", "networking.k8s.io/v1", "IngressClass",
     {"spec": {"controller": "example.com/none"}}),
    (networking, "service_cidr", "networking.k8s.io/v1", "ServiceCIDR",
     {"spec": {"cidrs": ["10.99.0.0/24"]}}),
]


def methods(api, noun, scope):
    """The typed calls for one kind, with the namespace filled in."""
    def method(verb, rest=""):
        found = getattr(api, f"{verb}_{'namespaced_' if scope else ''}{noun}{rest}")
        return lambda *arguments, **options: found(*arguments, *scope, **options)
    return method


def written(api_version, kind, name, content):
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, **content}


def every_verb(api, noun, api_version, kind, content, scope):
    """One object of a kind through its whole life."""
    name = "crud-" + kind.lower()
    call = methods(api, noun, scope)
    make = getattr(api, f"create_{'namespaced_' if scope else ''}{noun}")
    made = make(*scope, written(api_version, kind, name, content))
    equal(made.metadata.name, name, f"{kind}: name")
    expect(made.metadata.uid and made.metadata.resource_version, f"{kind}: uid and resourceVersion")
    equal(call("read")(name).metadata.uid, made.metadata.uid, f"{kind}: uid")
    # By name: other people's events have no eventTime, which the typed client insists on.
    listed = getattr(api, f"list_{'namespaced_' if scope else ''}{noun}")(
        *scope, field_selector=f"metadata.name={name}")
    equal([o.metadata.name for o in listed.items], [name], f"{kind}: listed")
    for media, body in [
        ("application/merge-patch+json", {"metadata": {"labels": {"merge": "1"}}}),
        ("application/strategic-merge-patch+json", {"metadata": {"labels": {"strategic": "1"}}}),
        ("application/json-patch+json",
         [{"op": "add", "path": "/metadata/labels/json", "value": "1"}]),
    ]:
        patch = getattr(api, f"patch_{'namespaced_' if scope else ''}{noun}")
        patched = patch(name, *scope, body, _content_type=media)
    equal({k: v for k, v in patched.metadata.labels.items() if v == "1"},
          {"merge": "1", "strategic": "1", "json": "1"}, f"{kind}: labels")
    replace = getattr(api, f"replace_{'namespaced_' if scope else ''}{noun}")
    def put():
        held = call("read")(name)
        held.metadata.labels["replaced"] = "1"
        try:
            return replace(name, *scope, held)
        except client.ApiException as error:
            # A controller may write its status in between: then it is read again.
            equal(error.status, 409, f"{kind}: status of a replace")
            return None
    equal(until(f"{kind} is replaced", put).metadata.labels["replaced"], "1", f"{kind}: replaced")
    stale = call("read")(name)
    stale.metadata.resource_version = made.metadata.resource_version
    refused(409, replace, name, *scope, stale)
    call("delete")(name)
    until(f"{kind} is gone", lambda: gone(call, name))


def gone(call, name):
    try:
        call("read")(name)
    except client.ApiException as error:
        equal(error.status, 404, "status once it is gone")
        return True
    return False


def namespaced_kinds():
    """kinds that live in namespaces"""
    for api, noun, api_version, kind, content in NAMESPACED:
        print("  ", api_version, kind, flush=True)
        every_verb(api, noun, api_version, kind, content, [NAMESPACE])


def clustered_kinds():
    """kinds of the whole cluster"""
    for api, noun, api_version, kind, content in CLUSTERED:
        print("  ", api_version, kind, flush=True)
        every_verb(api, noun, api_version, kind, content, [])


def addresses_of_services():
    """an IPAddress stands for each ClusterIP"""
    service = core.read_namespaced_service("kubernetes", NAMESPACE)
    found = networking.read_ip_address(service.spec.cluster_ip)
    equal(found.spec.parent_ref.name, "kubernetes", "parentRef")
    equal(found.spec.parent_ref.resource, "services", "parentRef's resource")


def who_am_i():
    """SelfSubjectReview"""
    review = client.AuthenticationV1Api().create_self_subject_review(
        {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})
    expect("system:authenticated" in review.status.user_info.groups, "groups of a client")
    may = client.AuthorizationV1Api().create_self_subject_access_review(
        {"spec": {"resourceAttributes": {"verb": "create", "resource": "pods"}}})
    expect(may.status.allowed, "the administrator may create pods")


def a_token():
    """a token for a service account, bound to an audience"""
    made = core.create_namespaced_service_account_token(
        "default", NAMESPACE, {"spec": {"audiences": ["me"], "expirationSeconds": 600}})
    expect(made.status.token.count(".") == 2, "a JWT")
    review = client.AuthenticationV1Api().create_token_review(
        {"spec": {"token": made.status.token, "audiences": ["me"]}})
    expect(review.status.authenticated, "the token is good")
    equal(review.status.user.username, "system:serviceaccount:default:default", "its user")


def deletes_of_collections():
    """deletecollection by label"""
    for name in ["a", "b", "c"]:
        core.create_namespaced_config_map(
            NAMESPACE, {"metadata": {"name": f"many-{name}", "labels": {"many": name}}})
    core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="many in (a, b)")
    left = core.list_namespaced_config_map(NAMESPACE, label_selector="many")
    equal([c.metadata.name for c in left.items], ["many-c"], "left")
    core.delete_namespaced_config_map("many-c", NAMESPACE)


def chunked_lists():
    """limit and continue give every object once, and all from one moment"""
    names = [f"chunk-{n}" for n in range(7)]
    for name in names:
        core.create_namespaced_config_map(
            NAMESPACE, {"metadata": {"name": name, "labels": {"chunk": "y"}}})
    seen, token, versions = [], None, set()
    while True:
        part = core.list_namespaced_config_map(
            NAMESPACE, label_selector="chunk=y", limit=3, _continue=token)
        seen += [c.metadata.name for c in part.items]
        versions.add(part.metadata.resource_version)
        if len(seen) == 3:
            core.create_namespaced_config_map(
                NAMESPACE, {"metadata": {"name": "chunk-late", "labels": {"chunk": "y"}}})
        token = part.metadata._continue
        if not token:
            break
    equal(seen, names, "names in order")
    equal(len(versions), 1, "one resourceVersion for all parts")
    core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="chunk=y")


run([namespaced_kinds, clustered_kinds, addresses_of_services, who_am_i, a_token,
     deletes_of_collections, chunked_lists])
