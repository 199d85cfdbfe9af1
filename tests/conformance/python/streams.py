"""Streams into pods: exec, attach, port-forward, logs that are followed, the proxy."""

import json

from kubernetes import client, watch
from kubernetes.stream import portforward, stream
from kubernetes.stream.ws_client import ERROR_CHANNEL

from support import NAMESPACE, equal, expect, pod, refused, run, running, until

core = client.CoreV1Api()


def started():
    """a pod to speak to, and one that serves"""
    core.create_namespaced_pod(NAMESPACE, pod("talk", ["sleep", "600"]))
    core.create_namespaced_pod(NAMESPACE, pod("serve", None, image="nginx:1.27"))
    running("talk")
    running("serve")


def execute(command, **options):
    return stream(core.connect_get_namespaced_pod_exec, "talk", NAMESPACE, command=command,
                  stdout=True, stderr=True, stdin=options.pop("stdin", False),
                  tty=options.pop("tty", False), **options)


def a_command():
    """its output, as one text"""
    equal(execute(["sh", "-c", "echo out"]), "out\n", "output")


def outputs_and_exit_codes():
    """stdout, stderr and the exit code are apart"""
    session = execute(["sh", "-c", "echo out; echo err >&2; exit 7"], _preload_content=False)
    session.run_forever(timeout=20)
    equal(session.read_stdout(), "out\n", "stdout")
    equal(session.read_stderr(), "err\n", "stderr")
    equal(session.returncode, 7, "exit code")


def input_line_by_line():
    """what is written comes back"""
    session = execute(["cat"], stdin=True, _preload_content=False)
    for line in ["one\n", "two\n"]:
        session.write_stdin(line)
        equal(session.readline_stdout(timeout=20), line.strip(), "echo")
    session.close()


def a_terminal():
    """a tty has a size, and is one"""
    session = execute(["sh"], stdin=True, tty=True, _preload_content=False)
    session.write_channel(4, json.dumps({"Width": 101, "Height": 33}))
    # The size comes on a stream of its own: it may be later than the command.
    session.write_stdin("until stty size | grep 33.101; do sleep 0.1; done; tty; exit\n")
    session.run_forever(timeout=20)
    text = session.read_stdout()
    expect("33 101" in text, f"the size in {text!r}")
    expect("/dev/pts/" in text, f"a terminal in {text!r}")


def much_output():
    """a megabyte arrives whole"""
    session = execute(["sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' a"], _preload_content=False)
    total = 0
    while session.is_open():
        session.update(timeout=10)
        total += len(session.read_stdout(timeout=0) or "")
    total += len(session.read_stdout(timeout=0) or "")
    equal(total, 1000000, "bytes")


def commands_that_cannot_be():
    """a pod that is not there, a program that is not there"""
    try:
        stream(core.connect_get_namespaced_pod_exec, "nobody", NAMESPACE, command=["ls"], stdout=True)
    except client.ApiException as error:
        # The client keeps what the handshake was refused with in the reason.
        expect("404" in error.reason and 'pods \\"nobody\\" not found' in error.reason, error.reason)
    else:
        raise AssertionError("a pod that is not there was exec'd into")
    session = execute(["no-such-program"], _preload_content=False)
    session.run_forever(timeout=20)
    # No exit code, since nothing ran: the Status says why.
    status = json.loads(session.read_channel(ERROR_CHANNEL))
    equal(status["status"], "Failure", "status")
    expect("no-such-program" in status["message"], status)


def forwarded():
    """an HTTP request through port-forward"""
    ports = portforward(core.connect_get_namespaced_pod_portforward, "serve", NAMESPACE, ports="80")
    connection = ports.socket(80)
    connection.setblocking(True)
    connection.sendall(b"GET /hostname HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = b""
    while part := connection.recv(1024):
        answer += part
    connection.close()
    equal(ports.error(80), None, "error of the port")
    expect(answer.startswith(b"HTTP/1.1 200"), answer)
    expect(answer.endswith(b"serve") or b"serve" in answer, answer)


def followed_logs():
    """lines as they are written, and the last of them"""
    script = "for i in 1 2 3; do echo line $i; sleep 0.2; done"
    core.create_namespaced_pod(NAMESPACE, pod("chat", ["sh", "-c", script], restartPolicy="Never"))
    until("it began", lambda: core.read_namespaced_pod("chat", NAMESPACE).status.phase != "Pending")
    lines = [line for line in watch.Watch().stream(core.read_namespaced_pod_log, "chat", NAMESPACE)]
    equal(lines, ["line 1", "line 2", "line 3"], "lines")
    equal(core.read_namespaced_pod_log("chat", NAMESPACE, tail_lines=1), "line 3\n", "the last line")
    body = refused(400, core.read_namespaced_pod_log, "chat", NAMESPACE, container="other")
    expect("container other is not valid for pod chat" in body["message"], body["message"])


def proxied():
    """the proxy subresource of a pod and of a Service"""
    core.create_namespaced_service(NAMESPACE, {
        "metadata": {"name": "serve"},
        "spec": {"selector": {"app": "serve"}, "ports": [{"port": 8000, "targetPort": 80}]}})
    expect("serve" in core.connect_get_namespaced_pod_proxy_with_path("serve:80", NAMESPACE, "hostname"),
           "by pod")
    def answered():
        try:
            return core.connect_get_namespaced_service_proxy_with_path(
                "serve:8000", NAMESPACE, "hostname")
        except client.ApiException as error:
            equal(error.status, 503, "status before there are endpoints")
            return None
    expect("serve" in until("the Service answers", answered), "by Service")


def cleaned_up():
    """the pods go"""
    for name in ["talk", "serve", "chat"]:
        core.delete_namespaced_pod(name, NAMESPACE, grace_period_seconds=0)
    core.delete_namespaced_service("serve", NAMESPACE)


run([started, a_command, outputs_and_exit_codes, input_line_by_line, a_terminal, much_output,
     commands_that_cannot_be, forwarded, followed_logs, proxied, cleaned_up])
