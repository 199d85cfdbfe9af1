"""Leader election on a Lease: one leads, and another takes over."""

import threading
import time

from kubernetes import client
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

from support import NAMESPACE, equal, expect, run, until

coordination = client.CoordinationV1Api()


def candidate(name, led):
    """A candidate that notes when it leads, and gives up when told to."""
    def lead():
        led.append(name)
        while name not in stopped:
            time.sleep(0.05)
        raise RuntimeError("told to stop")
    config = electionconfig.Config(
        LeaseLock("election", NAMESPACE, name), lease_duration=3, renew_deadline=2,
        retry_period=1, onstarted_leading=lead, onstopped_leading=lambda: None)
    thread = threading.Thread(target=leaderelection.LeaderElection(config).run, daemon=True)
    thread.start()
    return thread


stopped = set()


def one_leads():
    """two stand, one leads; when it stops the other follows"""
    led = []
    candidate("first", led)
    until("the first leads", lambda: led == ["first"])
    candidate("second", led)
    lease = coordination.read_namespaced_lease("election", NAMESPACE)
    equal(lease.spec.holder_identity, "first", "holder")
    renewed = lease.spec.renew_time
    until("it is renewed",
          lambda: coordination.read_namespaced_lease("election", NAMESPACE).spec.renew_time > renewed)
    equal(led, ["first"], "leaders so far")
    stopped.add("first")
    until("the second leads", lambda: led == ["first", "second"])
    held = coordination.read_namespaced_lease("election", NAMESPACE)
    equal(held.spec.holder_identity, "second", "holder")
    expect(int(held.metadata.resource_version) > int(lease.metadata.resource_version), "version")
    stopped.add("second")
    coordination.delete_namespaced_lease("election", NAMESPACE)


run([one_leads])
