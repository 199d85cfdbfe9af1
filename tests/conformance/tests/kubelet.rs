//! What the kubelet does with containers: users, probes, back-off, last words.

use std::time::Duration;

use anyhow::{Context, Result};
use portolan_conformance::Lab;

const SOON: Duration = Duration::from_secs(60);

fn apply(lab: &Lab, manifest: &str) -> Result<()> {
    let line = format!("kubectl apply -f - <<'END'\n{manifest}\nEND");
    lab.run(&line).map(drop)
}

/// A pod of one container `c` that runs a shell script; `spec` and `container`
/// are lines of YAML in flow style.
fn script(name: &str, spec: &str, container: &str, text: &str) -> String {
    let spec = if spec.is_empty() {
        "restartPolicy: Never"
    } else {
        spec
    };
    let more = if container.is_empty() {
        String::new()
    } else {
        format!(", {container}")
    };
    format!(
        "\
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}, x: why}}}}
spec:
  terminationGracePeriodSeconds: 1
  {spec}
  containers:
    - {{name: c, image: host, command: [sh, -c, {text:?}]{more}}}
"
    )
}

/// One field of a pod, when it has come to what is expected.
fn field(lab: &Lab, pod: &str, path: &str, holds: impl Fn(&str) -> bool) -> Result<String> {
    let line = format!("kubectl get pod {pod} -o jsonpath='{{{path}}}'");
    lab.until(SOON, &line, holds)
        .with_context(|| pod.to_owned())
}

fn over(lab: &Lab, pod: &str, phase: &str) -> Result<()> {
    field(lab, pod, ".status.phase", |found| found == phase).map(drop)
}

/// The STATUS column.
fn column(lab: &Lab, pod: &str, holds: impl Fn(&str) -> bool) -> Result<()> {
    let line = format!("kubectl get pod {pod} --no-headers");
    lab.until(SOON, &line, holds).map(drop)
}

fn logs(lab: &Lab, pod: &str) -> Result<String> {
    lab.run(&format!("kubectl logs {pod}"))
}

/// An event of that reason on the pod, whose message is returned.
fn event(lab: &Lab, pod: &str, reason: &str, text: &str) -> Result<()> {
    let line = format!(
        "kubectl get events --field-selector involvedObject.name={pod},reason={reason} -o jsonpath='{{.items[*].message}}'"
    );
    lab.until(SOON, &line, |found| found.contains(text))
        .map(drop)
}

fn state(lab: &Lab, pod: &str, path: &str, expected: &str) -> Result<()> {
    let path = format!(".status.containerStatuses[0].{path}");
    let holds = |found: &str| match expected.strip_suffix('*') {
        Some(part) => found.contains(part),
        None => found == expected,
    };
    field(lab, pod, &path, holds).map(drop)
}

/// Labs are slow to start: what does not disturb each other shares one.
#[test]
fn containers_are_started_watched_and_restarted_as_by_the_kubelet() -> Result<()> {
    let lab = Lab::start(1, &[])?;
    last_words(&lab).context("last words")?;
    probes(&lab).context("probes")?;
    loops(&lab).context("crash loops")?;
    users(&lab).context("users")?;
    fields(&lab).context("fields")?;
    Ok(())
}

fn last_words(lab: &Lab) -> Result<()> {
    let message = "state.terminated.message";
    apply(
        lab,
        &script("word", "", "", "printf bye > /dev/termination-log; exit 1"),
    )?;
    let own = "terminationMessagePath: /tmp/last/words";
    apply(
        lab,
        &script("own", "", own, "printf mine > /tmp/last/words"),
    )?;
    let logs = "terminationMessagePolicy: FallbackToLogsOnError";
    apply(lab, &script("fall", "", logs, "echo out of luck; exit 1"))?;
    apply(lab, &script("fine", "", logs, "echo all well"))?;
    state(lab, "word", message, "bye")?;
    state(lab, "own", message, "mine")?;
    state(lab, "fall", message, "out of luck\n")?;
    over(lab, "fine", "Succeeded")?;
    state(lab, "fine", message, "")
}

fn probes(lab: &Lab) -> Result<()> {
    let exec = "readinessProbe: {exec: {command: [test, -e, /tmp/ready]}, periodSeconds: 1}";
    apply(lab, &script("ready", "", exec, "sleep 600"))?;
    let dead = "livenessProbe: {exec: {command: ['false']}, periodSeconds: 1, failureThreshold: 1}";
    apply(
        lab,
        &script("dead", "restartPolicy: Always", dead, "sleep 600"),
    )?;
    let grpc = "readinessProbe: {grpc: {port: 9}, periodSeconds: 1}";
    apply(lab, &script("grpc", "", grpc, "sleep 600"))?;
    column(lab, "ready", |line| {
        line.contains("0/1") && line.contains("Running")
    })?;
    lab.run("kubectl exec ready -- touch /tmp/ready")?;
    column(lab, "ready", |line| {
        line.contains("1/1") && line.contains("Running")
    })?;
    event(lab, "dead", "Unhealthy", "Liveness probe failed")?;
    event(
        lab,
        "dead",
        "Killing",
        "failed liveness probe, will be restarted",
    )?;
    column(lab, "dead", |line| line.contains("s ago)"))?;
    event(
        lab,
        "grpc",
        "Unhealthy",
        "timeout: failed to connect service",
    )?;
    lab.run("kubectl delete pod dead grpc ready --wait=false")
        .map(drop)
}

fn loops(lab: &Lab) -> Result<()> {
    apply(
        lab,
        &script(
            "loop",
            "restartPolicy: Always",
            "",
            "echo once more; exit 1",
        ),
    )?;
    column(lab, "loop", |line| line.contains("CrashLoopBackOff"))?;
    state(
        lab,
        "loop",
        "state.waiting.message",
        "back-off 10s restarting failed container=c*",
    )?;
    state(
        lab,
        "loop",
        "state.waiting.message",
        "back-off 20s restarting failed container=c*",
    )?;
    assert_eq!(lab.run("kubectl logs loop --previous")?, "once more\n");
    event(
        lab,
        "loop",
        "BackOff",
        "Back-off restarting failed container c in pod loop_default(",
    )?;
    let hook = "lifecycle: {postStart: {exec: {command: ['false']}}}";
    apply(lab, &script("hook", "", hook, "sleep 600"))?;
    event(lab, "hook", "FailedPostStartHook", "PostStartHook failed")?;
    over(lab, "hook", "Failed")?;
    lab.run("kubectl delete pod loop --wait=false").map(drop)
}

fn users(lab: &Lab) -> Result<()> {
    let own = "restartPolicy: Never\n  volumes: [{name: v, emptyDir: {}}]";
    let user = "securityContext: {runAsUser: 1234, runAsGroup: 77}, volumeMounts: [{name: v, mountPath: /v}]";
    apply(
        lab,
        &script("user", own, user, "touch /v/x && echo $(id -u):$(id -g)"),
    )?;
    let root = "securityContext: {runAsNonRoot: true}";
    apply(lab, &script("root", "", root, "true"))?;
    let fixed =
        "securityContext: {readOnlyRootFilesystem: true}, volumeMounts: [{name: v, mountPath: /v}]";
    let text = "touch /tmp/x /etc/x /new 2>/dev/null; ls /tmp/x /etc/x /new 2>/dev/null; touch /v/x && echo volume";
    apply(lab, &script("fixed", own, fixed, text))?;
    if nix::unistd::geteuid().is_root() {
        over(lab, "user", "Succeeded")?;
        assert_eq!(logs(lab, "user")?, "1234:77\n");
    } else {
        state(lab, "user", "state.terminated.reason", "StartError")?;
        event(lab, "user", "Failed", "this lab has no user but its own")?;
    }
    state(
        lab,
        "root",
        "state.waiting.reason",
        "CreateContainerConfigError",
    )?;
    let why = "container has runAsNonRoot and image will run as root (pod: \"root_default(*";
    state(lab, "root", "state.waiting.message", why)?;
    over(lab, "fixed", "Succeeded")?;
    assert_eq!(logs(lab, "fixed")?, "volume\n");
    Ok(())
}

/// Limits as variables, in the unit that is asked for.
fn fields(lab: &Lab) -> Result<()> {
    let container = "resources: {limits: {cpu: 250m, memory: 64Mi}}, env: [\
        {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}, \
        {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory}}}]";
    apply(lab, &script("fields", "", container, "echo $CPU $MEMORY"))?;
    over(lab, "fields", "Succeeded")?;
    assert_eq!(logs(lab, "fields")?, "250 67108864\n");
    Ok(())
}
