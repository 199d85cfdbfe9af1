"""Server-side apply: ownership, conflicts, force, removal, status; typed and dynamic client."""

import yaml
from kubernetes import client, dynamic

from support import NAMESPACE, equal, expect, refused, run

core = client.CoreV1Api()
apps = client.AppsV1Api()
APPLY = "application/apply-patch+yaml"


def configmap(**data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": data}


def apply(body, manager, **options):
    return core.patch_namespaced_config_map(
        "applied", NAMESPACE, body, field_manager=manager, _content_type=APPLY, **options)


def owned(made, manager):
    for entry in made.metadata.managed_fields:
        if entry.manager == manager:
            equal(entry.operation, "Apply", f"operation of {manager}")
            return entry.fields_v1
    return None


def ownership():
    """what is applied is created and owned; what is no longer applied goes"""
    made = apply(configmap(a="1", b="1"), "one")
    equal(made.data, {"a": "1", "b": "1"}, "data")
    equal(owned(made, "one"), {"f:data": {"f:a": {}, "f:b": {}}}, "fields of one")
    made = apply(configmap(a="1"), "one")
    equal(made.data, {"a": "1"}, "b is gone")
    again = apply(configmap(a="1"), "one")
    equal(again.metadata.resource_version, made.metadata.resource_version, "no change, no version")


def conflicts():
    """another manager's field is a conflict, shared when equal, taken with force"""
    apply(configmap(a="1", c="2"), "two")
    body = refused(409, apply, configmap(a="other"), "two")
    equal(body["reason"], "Conflict", "reason")
    equal(body["message"], 'Apply failed with 1 conflict: conflict with "one": .data.a', "message")
    equal(body["details"]["causes"], [{"reason": "FieldManagerConflict",
                                       "message": 'conflict with "one"', "field": ".data.a"}],
          "causes")
    made = apply(configmap(a="other"), "two", force=True)
    equal(made.data, {"a": "other"}, "data")
    equal(owned(made, "one"), None, "one has nothing left")
    core.delete_namespaced_config_map("applied", NAMESPACE)


def lists_by_key():
    """ports of a Service are owned one by one; what others set stays"""
    def service(ports):
        return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "listed"},
                "spec": {"ports": ports, "selector": {"a": "b"}}}
    def send(ports, manager):
        return core.patch_namespaced_service("listed", NAMESPACE, service(ports),
                                             field_manager=manager, _content_type=APPLY)
    send([{"port": 80, "name": "a", "protocol": "TCP"}], "one")
    made = send([{"port": 81, "name": "b", "protocol": "TCP"}], "two")
    equal([p.port for p in made.spec.ports], [80, 81], "ports")
    made = send([{"port": 82, "name": "c", "protocol": "TCP"}], "two")
    equal([p.port for p in made.spec.ports], [80, 82], "81 went with its owner")
    core.delete_namespaced_service("listed", NAMESPACE)


def what_cannot_be_applied():
    """a manager is required; so are apiVersion and kind; managedFields must be nil"""
    body = refused(422, core.patch_namespaced_config_map, "applied", NAMESPACE, configmap(),
                   _content_type=APPLY)
    equal(body["message"], 'PatchOptions.meta.k8s.io "" is invalid: '
          'fieldManager: Required value: is required for apply patch', "message")
    claimed = configmap(a="1")
    claimed["metadata"]["managedFields"] = [
        {"manager": "x", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
         "fieldsV1": {"f:data": {}}}]
    body = refused(400, apply, claimed, "one")
    equal(body["message"], "metadata.managedFields must be nil", "message")


def status_apart():
    """an apply to status owns status, and cannot touch the spec"""
    text = yaml.safe_load("""
      apiVersion: apps/v1
      kind: Deployment
      metadata: {name: applied}
      spec:
        replicas: 0
        selector: {matchLabels: {app: applied}}
        template:
          metadata: {labels: {app: applied}}
          spec: {containers: [{name: c, image: nginx}]}
    """)
    apps.patch_namespaced_deployment("applied", NAMESPACE, text, field_manager="one",
                                     _content_type=APPLY)
    status = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "applied"},
              "status": {"conditions": [{"type": "Mine", "status": "True"}]}}
    made = apps.patch_namespaced_deployment_status("applied", NAMESPACE, status,
                                                   field_manager="status", _content_type=APPLY)
    expect("Mine" in [c.type for c in made.status.conditions], "the condition is there")
    entry = [e for e in made.metadata.managed_fields if e.manager == "status"][0]
    equal(entry.subresource, "status", "subresource")
    apps.delete_namespaced_deployment("applied", NAMESPACE)


def by_the_dynamic_client():
    """discovery, apply and delete without types"""
    dynamic_client = dynamic.DynamicClient(core.api_client)
    services = dynamic_client.resources.get(api_version="v1", kind="Service")
    made = services.server_side_apply(
        namespace=NAMESPACE, field_manager="dynamic", body={
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "dynamic"},
            "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}})
    equal(made.spec.ports[0].targetPort, 80, "a default")
    equal(made.metadata.managedFields[0].manager, "dynamic", "manager")
    services.delete(name="dynamic", namespace=NAMESPACE)
    kinds = {(r.group_version, r.kind) for r in dynamic_client.resources.search()}
    for wanted in [("v1", "Pod"), ("apps/v1", "Deployment"), ("discovery.k8s.io/v1", "EndpointSlice")]:
        expect(wanted in kinds, f"{wanted} is discovered")


run([ownership, conflicts, lists_by_key, what_cannot_be_applied, status_apart,
     by_the_dynamic_client])
