"""Refusals: the Status in an ApiException's body, with causes by field."""

from kubernetes import client

from support import NAMESPACE, equal, expect, refused, run

core = client.CoreV1Api()
apps = client.AppsV1Api()


def service(name, **spec):
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}


def causes_by_field():
    """S: every cause has a field, a reason and a message"""
    body = refused(422, core.create_namespaced_service, NAMESPACE,
                   service("Bad_Name", type="Odd", sessionAffinity="Never"))
    equal(body["reason"], "Invalid", "reason")
    equal(body["details"]["kind"], "Service", "kind")
    fields = {c["field"]: c["reason"] for c in body["details"]["causes"]}
    equal(fields.get("metadata.name"), "FieldValueInvalid", "metadata.name")
    equal(fields.get("spec.type"), "FieldValueNotSupported", "spec.type")
    equal(fields.get("spec.sessionAffinity"), "FieldValueNotSupported", "spec.sessionAffinity")
    expect(body["message"].startswith('Service "Bad_Name" is invalid: ['), body["message"])


def missing_and_doubled():
    """what is required, and what is there twice"""
    body = refused(422, core.create_namespaced_service, NAMESPACE,
                   {"metadata": {"name": "x"}, "spec": {"ports": [{"port": 80}, {"port": 81}]}})
    reasons = {c["field"]: c["reason"] for c in body["details"]["causes"]}
    equal(reasons.get("spec.ports[0].name"), "FieldValueRequired", "spec.ports[0].name")
    equal(reasons.get("spec.ports[1].name"), "FieldValueRequired", "spec.ports[1].name")
    body = refused(422, core.create_namespaced_service, NAMESPACE,
                   {"metadata": {"name": "x"},
                    "spec": {"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]}})
    equal(body["details"]["causes"][0]["reason"], "FieldValueDuplicate", "reason")


def not_found():
    """404 names kind and name"""
    body = refused(404, core.read_namespaced_pod, "nobody", NAMESPACE)
    equal(body["message"], 'pods "nobody" not found', "message")
    equal(body["details"], {"name": "nobody", "kind": "pods"}, "details")
    body = refused(404, core.create_namespaced_config_map, "nowhere", {"metadata": {"name": "x"}})
    equal(body["message"], 'namespaces "nowhere" not found', "message")


def already_there():
    """409 AlreadyExists"""
    core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "once"}})
    body = refused(409, core.create_namespaced_config_map, NAMESPACE, {"metadata": {"name": "once"}})
    equal(body["reason"], "AlreadyExists", "reason")
    equal(body["message"], 'configmaps "once" already exists', "message")
    core.delete_namespaced_config_map("once", NAMESPACE)


def preconditions():
    """a delete with another uid or version is a conflict"""
    made = core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "guarded"}})
    for condition in [{"uid": "11111111-2222-3333-4444-555555555555"}, {"resourceVersion": "1"}]:
        body = refused(409, core.delete_namespaced_config_map, "guarded", NAMESPACE,
                       body={"preconditions": condition})
        equal(body["reason"], "Conflict", "reason")
    core.delete_namespaced_config_map("guarded", NAMESPACE,
                                      body={"preconditions": {"uid": made.metadata.uid}})


def immutable_fields():
    """what cannot change says so"""
    core.create_namespaced_service(NAMESPACE, service("fixed"))
    body = refused(422, core.patch_namespaced_service, "fixed", NAMESPACE,
                   {"spec": {"clusterIP": "10.96.77.77", "clusterIPs": ["10.96.77.77"]}},
                   _content_type="application/merge-patch+json")
    fields = [c["field"] for c in body["details"]["causes"]]
    expect("spec.clusterIPs[0]" in fields, f"fields {fields}")
    core.delete_namespaced_service("fixed", NAMESPACE)
    core.create_namespaced_config_map(
        NAMESPACE, {"metadata": {"name": "stone"}, "immutable": True, "data": {"a": "b"}})
    body = refused(422, core.patch_namespaced_config_map, "stone", NAMESPACE,
                   {"data": {"a": "c"}}, _content_type="application/merge-patch+json")
    expect("field is immutable when `immutable` is set" in body["message"], body["message"])
    core.delete_namespaced_config_map("stone", NAMESPACE)


def unknown_fields():
    """fieldValidation=Strict names the field by its path; Warn tells it in a header"""
    # The typed client would refuse to send this: it goes as it is.
    odd = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "odd"},
           "spec": {"ports": [{"port": 80, "color": "red"}]}}
    def send(validation):
        host = core.api_client.configuration.host
        path = f"/api/v1/namespaces/{NAMESPACE}/services?dryRun=All&fieldValidation={validation}"
        response = core.api_client.call_api(
            "POST", host + path, header_params={"Content-Type": "application/json"}, body=odd)
        response.read()
        return response
    strict = send("Strict")
    equal(strict.status, 400, "status")
    expect(b'unknown field \\"spec.ports[0].color\\"' in strict.data, strict.data)
    warned = send("Warn")
    equal(warned.status, 201, "status")
    equal(warned.getheader("Warning"),
          '299 - "unknown field \\"spec.ports[0].color\\""', "Warning")
    equal(send("Ignore").getheader("Warning"), None, "no Warning")
    refused(404, core.read_namespaced_service, "odd", NAMESPACE)


def patches_that_cannot_be():
    """a test that fails, a path that is not there, a media type nobody knows"""
    core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "patched"}, "data": {"a": "b"}})
    def patch(body, media):
        return core.patch_namespaced_config_map("patched", NAMESPACE, body, _content_type=media)
    test = [{"op": "test", "path": "/data/a", "value": "other"}]
    refused(422, patch, test, "application/json-patch+json")
    gone = [{"op": "remove", "path": "/data/nothing"}]
    refused(422, patch, gone, "application/json-patch+json")
    body = refused(415, patch, {"data": {"a": "c"}}, "application/json")
    equal(body["reason"], "UnsupportedMediaType", "reason")
    core.delete_namespaced_config_map("patched", NAMESPACE)


def queries_that_cannot_be():
    """selectors, limits and versions that make no sense"""
    refused(400, core.list_namespaced_config_map, NAMESPACE, label_selector="a in (")
    refused(400, core.list_namespaced_config_map, NAMESPACE, field_selector="spec.nothing=a")
    refused(400, core.list_namespaced_config_map, NAMESPACE, _continue="nonsense")


def selectors_of_workloads():
    """a template that its selector does not match"""
    body = refused(422, apps.create_namespaced_deployment, NAMESPACE, {
        "metadata": {"name": "split"},
        "spec": {"selector": {"matchLabels": {"a": "b"}},
                 "template": {"metadata": {"labels": {"a": "c"}},
                              "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
    fields = [c["field"] for c in body["details"]["causes"]]
    equal(fields, ["spec.template.metadata.labels"], "fields")


run([causes_by_field, missing_and_doubled, not_found, already_there, preconditions,
     immutable_fields, unknown_fields, patches_that_cannot_be, queries_that_cannot_be,
     selectors_of_workloads])
