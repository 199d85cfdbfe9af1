//! Pods as kubectl sees them: what their containers get, how they start, serve
//! and end.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use portolan_conformance::Lab;

const SOON: Duration = Duration::from_secs(60);

/// Objects that pods refer to, and pods.
const GIVEN: &str = include_str!("../kubectl/pods.yaml");

fn lab() -> Result<Lab> {
    let lab = Lab::start(2, &[])?;
    fs::write(lab.data_dir().join("pods.yaml"), GIVEN)?;
    let file = lab.data_dir().join("pods.yaml");
    lab.run(&format!("kubectl apply -f {}", file.display()))?;
    Ok(lab)
}

fn ready(lab: &Lab, pods: &[&str]) -> Result<()> {
    let pods: Vec<String> = pods.iter().map(|pod| format!("pod/{pod}")).collect();
    lab.run(&format!(
        "kubectl wait --for=condition=Ready --timeout=60s {}",
        pods.join(" ")
    ))?;
    Ok(())
}

/// What a line prints, errors included, whatever its end.
fn says(lab: &Lab, line: &str) -> Result<String> {
    let out = lab
        .shell(lab.data_dir(), &format!("exec 2>&1; timeout 60 {line}"))
        .output()?;
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// A column of `kubectl get pod`, until it is as expected.
fn shows(lab: &Lab, pod: &str, expected: &str) -> Result<String> {
    lab.until(
        SOON,
        &format!("kubectl get pod {pod} --no-headers"),
        |row| row.contains(expected),
    )
    .with_context(|| format!("{pod}: {expected}"))
}

fn path(lab: &Lab, pod: &str, path: &str) -> Result<String> {
    lab.run(&format!("kubectl get pod {pod} -o jsonpath='{path}'"))
}

#[test]
fn containers_get_what_their_pod_says() -> Result<()> {
    let lab = lab()?;
    ready(&lab, &["given", "peer", "onhost"])?;
    let ip = path(&lab, "given", "{.status.podIP}")?;
    let node = path(&lab, "given", "{.spec.nodeName}")?;
    for (command, expected) in [
        ("printenv GREETING", "hello\n"),
        ("printenv P_greeting", "hello\n"),
        ("printenv WORD", "open sesame\n"),
        ("printenv ADDRESS", &format!("{ip}\n")),
        ("printenv NODE", &format!("{node}\n")),
        ("printenv TIER", "front\n"),
        ("cat /conf/greeting", "hello"),
        ("cat /renamed/deep/name", "hello"),
        (
            "sha256sum /conf/raw.bin",
            "bdb741a36359afac0ef65dbc4bf1357808396a0974ac6b83f684a086fe91dcce  /conf/raw.bin\n",
        ),
        ("stat -L -c %a /secret/word", "400\n"),
        ("cat /down/labels-tier /all/word", "frontopen sesame"),
        ("sh -c 'cat /shared/from-init'", "made by init\n"),
        ("hostname", "custom\n"),
        ("hostname -f", "custom.peers.default.svc.cluster.local\n"),
        (
            "sh -c 'getent hosts far.example | tr -s \" \"'",
            "192.0.2.7 far.example\n",
        ),
    ] {
        let said = says(&lab, &format!("kubectl exec given -c main -- {command}"))?;
        ensure!(said == expected, "{command}: {said:?}, not {expected:?}");
    }
    // The other container shares the folder and the network.
    let said = says(&lab, "kubectl exec given -c side -- cat /shared/from-init")?;
    ensure!(said == "made by init\n", "{said}");
    let token = "kubectl exec given -c main -- sh -c 'test -s /var/run/secrets/kubernetes.io/serviceaccount/token && cat /var/run/secrets/kubernetes.io/serviceaccount/namespace'";
    ensure!(says(&lab, token)? == "default", "no token");
    let own = "kubectl exec given -c main -- sh -c 'cut -d. -f2 /all/token | tr -- -_ +/ | base64 -d 2>/dev/null | grep -c vault'";
    ensure!(
        says(&lab, own)?.trim() == "1",
        "the token has its own audience"
    );
    ensure!(
        says(&lab, "kubectl exec peer -- hostname")? == "peer.peers.default.svc.cluster.local\n"
    );
    let host = path(&lab, "onhost", "{.status.hostIP}")?;
    ensure!(path(&lab, "onhost", "{.status.podIP}")? == host);
    // An edit arrives in the folder, all at once, without a restart.
    lab.run("kubectl patch configmap conf -p '{\"data\":{\"greeting\":\"moin\"}}'")?;
    lab.until(
        SOON,
        "kubectl exec given -c main -- cat /conf/greeting",
        |text| text == "moin",
    )?;
    ensure!(says(&lab, "kubectl exec given -c main -- printenv GREETING")? == "hello\n");
    Ok(())
}

#[test]
fn pods_start_in_order_and_say_what_they_wait_for() -> Result<()> {
    let lab = lab()?;
    ready(&lab, &["ordered"])?;
    ensure!(lab.run("kubectl exec ordered -- cat /shared/order")? == "one\ntwo\n");
    // The sidecar goes on running beside the container.
    shows(&lab, "ordered", "2/2")?;
    shows(&lab, "badinit", "Init:CrashLoopBackOff")?;
    shows(&lab, "failinit", "Init:Error")?;
    shows(&lab, "noconf", "CreateContainerConfigError")?;
    let message = path(
        &lab,
        "noconf",
        "{.status.containerStatuses[0].state.waiting.message}",
    )?;
    ensure!(message == "configmap \"later\" not found", "{message}");
    shows(&lab, "novolume", "ContainerCreating")?;
    lab.until(SOON, "kubectl get events --field-selector involvedObject.name=novolume,reason=FailedMount -o jsonpath='{.items[*].message}'", |text| {
        text.contains("MountVolume.SetUp failed for volume \"v\" : configmap \"later\" not found")
    })?;
    shows(&lab, "noimage", "ImagePullBackOff")?;
    lab.run("kubectl create configmap later --from-literal=a=b")?;
    ready(&lab, &["noconf", "novolume"])?;
    ensure!(lab.run("kubectl exec noconf -- printenv A")? == "b\n");
    Ok(())
}

#[test]
fn pods_end_as_they_should() -> Result<()> {
    let lab = lab()?;
    shows(&lab, "done", "Completed")?;
    ensure!(path(&lab, "done", "{.status.phase}")? == "Succeeded");
    shows(&lab, "failed", "Error")?;
    ensure!(path(&lab, "failed", "{.status.phase}")? == "Failed");
    let last = "{.status.containerStatuses[0].state.terminated.exitCode} {.status.containerStatuses[0].state.terminated.message}";
    ensure!(path(&lab, "failed", last)? == "3 out of cheese\n");
    lab.until(
        SOON,
        "kubectl get pod limited -o jsonpath='{.status.phase} {.status.reason}'",
        |text| text == "Failed DeadlineExceeded",
    )?;
    shows(&lab, "crashes", "CrashLoopBackOff")?;
    lab.until(SOON, "kubectl get pod crashes --no-headers", |row| {
        // RESTARTS says when: `2 (5s ago)`.
        row.contains("s ago)")
    })?;
    let previous = lab.until(SOON, "kubectl logs crashes --previous", |text| {
        text.contains("about to fall")
    })?;
    ensure!(previous == "about to fall\n", "{previous}");
    ensure!(lab.run("kubectl logs counting --tail=2")? == "9\n10\n");
    ensure!(
        lab.run("kubectl logs counting --tail=1 --limit-bytes=1")?
            .trim_end()
            == "1"
    );
    let stamped = lab.run("kubectl logs counting --timestamps --tail=1")?;
    ensure!(
        stamped.contains('T') && stamped.ends_with(" 10\n"),
        "{stamped}"
    );
    ensure!(lab.run("kubectl logs counting --since=1h | wc -l")?.trim() == "10");
    let hooked = "kubectl get events --field-selector involvedObject.name=badhook,reason=FailedPostStartHook -o name";
    lab.until(SOON, hooked, |text| text.contains("event/"))?;
    Ok(())
}

/// Deleted, a pod still serves until its grace ends.
#[test]
fn a_terminating_pod_keeps_serving() -> Result<()> {
    let lab = lab()?;
    ready(&lab, &["slow", "client"])?;
    let ip = path(&lab, "slow", "{.status.podIP}")?;
    let get = format!(
        "kubectl exec client -- curl -s -m 5 -o /dev/null -w '%{{http_code}}' http://{ip}/"
    );
    ensure!(lab.run(&get)? == "200");
    lab.run("kubectl delete pod slow --wait=false")?;
    shows(&lab, "slow", "Terminating")?;
    ensure!(
        lab.run(&get)? == "200",
        "it should serve until its preStop is over"
    );
    let conditions = "kubectl get endpointslices -l kubernetes.io/service-name=slow -o jsonpath='{.items[0].endpoints[0].conditions}'";
    let said = lab.until(SOON, conditions, |text| {
        text.contains("\"terminating\":true")
    })?;
    ensure!(
        said.contains("\"ready\":false") && said.contains("\"serving\":true"),
        "{said}"
    );
    ensure!(path(&lab, "slow", "{.status.podIP}")? == ip);
    lab.run("kubectl exec slow -- touch /tmp/go")?;
    lab.run("kubectl wait --for=delete pod/slow --timeout=60s")?;
    Ok(())
}

#[test]
fn run_attaches_and_cleans_up() -> Result<()> {
    let lab = lab()?;
    let said = lab.run(
        "echo hi there | kubectl run once --image=host --restart=Never --rm -i --quiet -- cat",
    )?;
    ensure!(said.starts_with("hi there\n"), "{said}");
    lab.until(
        SOON,
        "kubectl get pod once --ignore-not-found",
        str::is_empty,
    )?;
    let code = says(
        &lab,
        "sh -c 'kubectl run ends --image=host --restart=Never --rm -i --quiet -- sh -c \"echo bye; exit 4\"; echo code $?'",
    )?;
    ensure!(
        code.contains("bye\n") && code.ends_with("code 4\n"),
        "{code}"
    );
    // A terminal of its own: `script` gives kubectl one.
    let typed = says(
        &lab,
        "script -qec \"kubectl run tmp --rm -it --quiet --image=host --restart=Never -- sh -c 'tty; stty size'\" /dev/null < /dev/null",
    );
    let typed = typed?;
    ensure!(typed.contains("/dev/pts/0"), "{typed:?}");
    Ok(())
}
