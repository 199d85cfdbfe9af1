"""Watches: from now, from a version, with bookmarks, until a timeout, and after 410."""

import threading
import time

from kubernetes import client, informer, watch

from support import NAMESPACE, equal, expect, run, until

core = client.CoreV1Api()


def configmap(name, **labels):
    return {"metadata": {"name": name, "labels": {"watched": "yes", **labels}}}


def version():
    return core.list_namespaced_config_map(NAMESPACE).metadata.resource_version


def follow(count, **options):
    """The first `count` events."""
    seen = []
    stream = watch.Watch()
    for event in stream.stream(core.list_namespaced_config_map, NAMESPACE, **options):
        seen.append(event)
        if len(seen) == count:
            stream.stop()
    return seen


def from_a_version():
    """every change after a version, in order"""
    since = version()
    core.create_namespaced_config_map(NAMESPACE, configmap("one"))
    core.patch_namespaced_config_map("one", NAMESPACE, {"data": {"a": "b"}},
                                     _content_type="application/merge-patch+json")
    core.delete_namespaced_config_map("one", NAMESPACE)
    seen = follow(3, resource_version=since, label_selector="watched", timeout_seconds=20)
    equal([e["type"] for e in seen], ["ADDED", "MODIFIED", "DELETED"], "types")
    equal(seen[1]["object"].data, {"a": "b"}, "the object as it was then")
    versions = [int(e["object"].metadata.resource_version) for e in seen]
    equal(versions, sorted(set(versions)), "versions grow")


def without_a_version():
    """what is there comes first, as ADDED"""
    core.create_namespaced_config_map(NAMESPACE, configmap("there"))
    seen = follow(1, label_selector="watched", timeout_seconds=20)
    equal((seen[0]["type"], seen[0]["object"].metadata.name), ("ADDED", "there"), "first event")
    core.delete_namespaced_config_map("there", NAMESPACE)


def selected_objects_come_and_go():
    """an object that begins to match is ADDED, one that no longer does is DELETED"""
    core.create_namespaced_config_map(NAMESPACE, configmap("turn", side="a"))
    since = version()
    for side in ["b", "a"]:
        core.patch_namespaced_config_map("turn", NAMESPACE, {"metadata": {"labels": {"side": side}}},
                                         _content_type="application/merge-patch+json")
    seen = follow(2, resource_version=since, label_selector="side=b", timeout_seconds=20)
    equal([e["type"] for e in seen], ["ADDED", "DELETED"], "types")
    core.delete_namespaced_config_map("turn", NAMESPACE)


def timeouts():
    """timeoutSeconds ends a quiet watch"""
    begin = time.monotonic()
    seen = list(watch.Watch().stream(core.list_namespaced_config_map, NAMESPACE,
                                     resource_version=version(), timeout_seconds=1))
    took = time.monotonic() - begin
    equal(seen, [], "events")
    expect(0.8 < took < 15, f"it took {took} s")


def bookmarks():
    """allowWatchBookmarks and sendInitialEvents: a bookmark says that the list is complete"""
    core.create_namespaced_config_map(NAMESPACE, configmap("marked"))
    response = core.api_client.call_api(
        "GET", core.api_client.configuration.host
        + f"/api/v1/namespaces/{NAMESPACE}/configmaps?watch=true&allowWatchBookmarks=true"
        "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&labelSelector=watched"
        "&timeoutSeconds=3")
    response.read()
    import json
    events = [json.loads(line) for line in response.data.decode().splitlines() if line]
    equal([e["type"] for e in events][:2], ["ADDED", "BOOKMARK"], "types")
    marked = events[1]["object"]["metadata"]
    equal(marked["annotations"], {"k8s.io/initial-events-end": "true"}, "annotations")
    expect(int(marked["resourceVersion"]) > 0, "a bookmark has a version")
    core.delete_namespaced_config_map("marked", NAMESPACE)


def too_old():
    """a version from long ago is Expired, and a client that lists again goes on"""
    try:
        follow(1, resource_version="1", timeout_seconds=5)
    except client.ApiException as error:
        equal(error.status, 410, "status")
        expect(error.reason.startswith("Expired: "), error.reason)
    else:
        # A server that has just started may still have every event since its first.
        print("   version 1 is still in the window", flush=True)
    since = version()
    core.create_namespaced_config_map(NAMESPACE, configmap("again"))
    seen = follow(1, resource_version=since, timeout_seconds=20)
    equal(seen[0]["object"].metadata.name, "again", "after a relist")
    core.delete_namespaced_config_map("again", NAMESPACE)


def informers():
    """the shared informer keeps a copy that follows"""
    shared = informer.SharedInformer(
        list_func=core.list_namespaced_config_map, namespace=NAMESPACE, label_selector="watched")
    added = []
    shared.add_event_handler(informer.ADDED, lambda o: added.append(o.metadata.name))
    shared.start()
    try:
        core.create_namespaced_config_map(NAMESPACE, configmap("informed"))
        until("the informer saw it", lambda: "informed" in added)
        core.delete_namespaced_config_map("informed", NAMESPACE)
        until("the informer forgot it",
              lambda: "informed" not in [o.metadata.name for o in shared.cache.list()])
    finally:
        shared.stop()


def many_watchers():
    """twenty watches see the same events"""
    since, results = version(), [None] * 20
    def look(n):
        results[n] = [e["object"].metadata.name for e in follow(
            5, resource_version=since, label_selector="watched", timeout_seconds=30)]
    threads = [threading.Thread(target=look, args=[n]) for n in range(len(results))]
    for thread in threads:
        thread.start()
    names = [f"many-{n}" for n in range(5)]
    for name in names:
        core.create_namespaced_config_map(NAMESPACE, configmap(name))
    for thread in threads:
        thread.join()
    equal(results, [names] * len(results), "what each saw")
    core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="watched")


run([from_a_version, without_a_version, selected_objects_come_and_go, timeouts, bookmarks,
     too_old, informers, many_watchers])
