"""What every script of this folder needs: a client, and words for expectations."""

import json
import time

from kubernetes import client, config
from kubernetes.client.rest import ApiException

config.load_kube_config()

SOON = 30
NAMESPACE = "default"


def expect(condition, what):
    """Fails with `what` unless `condition` holds."""
    if not condition:
        raise AssertionError(what)


def equal(got, wanted, what):
    """Fails unless both are equal."""
    expect(got == wanted, f"{what}: got {got!r}, wanted {wanted!r}")


def refused(status, call, *arguments, **options):
    """The Status that a call is refused with; fails when it is not, or with another code."""
    try:
        call(*arguments, **options)
    except ApiException as error:
        equal(error.status, status, f"status of {getattr(call, '__name__', call)}: {error.body}")
        body = json.loads(error.body)
        equal(body["kind"], "Status", "kind of an error's body")
        equal(body["apiVersion"], "v1", "apiVersion of an error's body")
        equal(body["status"], "Failure", "status of an error's body")
        equal(body["code"], status, "code of an error's body")
        return body
    raise AssertionError(f"{getattr(call, '__name__', call)} was not refused")


def until(what, condition):
    """Waits until `condition()` is true, and returns its value."""
    end = time.monotonic() + SOON
    while True:
        value = condition()
        if value:
            return value
        expect(time.monotonic() < end, f"not in {SOON} s: {what}")
        time.sleep(0.05)


def pod(name, command, image="busybox:1.36", **spec):
    """A pod of one container."""
    container = {"name": "main", "image": image}
    if command:
        container["command"] = command
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container], **spec},
    }


def running(name, namespace=NAMESPACE):
    """Waits until a pod runs."""
    core = client.CoreV1Api()
    return until(
        f"pod {name} runs",
        lambda: (p := core.read_namespaced_pod(name, namespace)).status.phase == "Running" and p,
    )


def run(functions):
    """Runs each function, in order; the first that fails ends the program."""
    for function in functions:
        print(f"{function.__name__}: {function.__doc__}", flush=True)
        function()
