"""Custom resources, from their definition to a watch, by the typed and the dynamic client."""

from kubernetes import client, dynamic, watch

from support import NAMESPACE, equal, expect, refused, run, until

extensions = client.ApiextensionsV1Api()
custom = client.CustomObjectsApi()
WHERE = ("py.example.com", "v1", NAMESPACE, "gizmos")

DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "gizmos.py.example.com"},
    "spec": {
        "group": "py.example.com",
        "scope": "Namespaced",
        "names": {"plural": "gizmos", "singular": "gizmo", "kind": "Gizmo", "shortNames": ["gz"]},
        "versions": [{
            "name": "v1", "served": True, "storage": True,
            "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {
                    "spec": {"type": "object", "required": ["size"], "properties": {
                        "size": {"type": "integer", "minimum": 1},
                        "colour": {"type": "string", "default": "blue"}}},
                    "status": {"type": "object",
                               "properties": {"ready": {"type": "boolean"}}}}}},
        }],
    },
}


def gizmo(name, **spec):
    return {"apiVersion": "py.example.com/v1", "kind": "Gizmo", "metadata": {"name": name},
            "spec": spec}


def established():
    """a definition is accepted and served"""
    extensions.create_custom_resource_definition(DEFINITION)
    def ready():
        held = extensions.read_custom_resource_definition("gizmos.py.example.com")
        conditions = {c.type: c.status for c in held.status.conditions or []}
        return conditions.get("Established") == "True"
    until("the definition is established", ready)
    until("its kind is served", served)


def served():
    try:
        return custom.list_namespaced_custom_object(*WHERE) is not None
    except client.ApiException as error:
        equal(error.status, 404, "status before it is served")
        return False


def objects():
    """defaults, validation, pruning, status apart"""
    made = custom.create_namespaced_custom_object(*WHERE, gizmo("one", size=2, extra="x"))
    equal(made["spec"], {"size": 2, "colour": "blue"}, "defaulted and pruned")
    body = refused(422, custom.create_namespaced_custom_object, *WHERE, gizmo("two", size=0))
    equal(body["details"]["causes"][0]["field"], "spec.size", "field")
    body = refused(422, custom.create_namespaced_custom_object, *WHERE, gizmo("two"))
    equal(body["details"]["causes"][0]["reason"], "FieldValueRequired", "reason")
    custom.patch_namespaced_custom_object_status(
        *WHERE, "one", {"status": {"ready": True}, "spec": {"size": 9}},
        _content_type="application/merge-patch+json")
    held = custom.get_namespaced_custom_object(*WHERE, "one")
    equal((held["status"], held["spec"]["size"]), ({"ready": True}, 2), "status apart from spec")


def watched():
    """custom objects are watched like all others"""
    since = custom.list_namespaced_custom_object(*WHERE)["metadata"]["resourceVersion"]
    custom.create_namespaced_custom_object(*WHERE, gizmo("seen", size=1))
    stream = watch.Watch()
    for event in stream.stream(custom.list_namespaced_custom_object, *WHERE,
                               resource_version=since, timeout_seconds=20):
        equal((event["type"], event["object"]["metadata"]["name"]), ("ADDED", "seen"), "event")
        stream.stop()


def by_the_dynamic_client():
    """the dynamic client finds the new kind"""
    found = dynamic.DynamicClient(extensions.api_client)
    kind = until("the kind is discovered",
                 lambda: found.resources.search(api_version="py.example.com/v1", kind="Gizmo"))[0]
    equal(kind.get(name="seen", namespace=NAMESPACE).spec.size, 1, "size")
    kind.server_side_apply(gizmo("seen", size=3), name="seen", namespace=NAMESPACE,
                           field_manager="py", force_conflicts=True)
    equal(kind.get(name="seen", namespace=NAMESPACE).spec.size, 3, "applied size")


def removed():
    """the definition's end is that of its objects"""
    extensions.delete_custom_resource_definition("gizmos.py.example.com")
    def gone():
        try:
            custom.list_namespaced_custom_object(*WHERE)
        except client.ApiException as error:
            return error.status == 404
        return False
    until("the kind is gone", gone)
    expect(not [c for c in extensions.list_custom_resource_definition().items
                if c.spec.group == "py.example.com"], "the definition is gone")


run([established, objects, watched, by_the_dynamic_client, removed])
