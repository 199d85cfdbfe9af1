//! portolan's own client verbs: they print what kubectl prints, and do what it does.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use portolan_conformance::{Lab, tools};

const SOON: Duration = Duration::from_secs(60);
/// Ages are the same for a second: a few tries find one.
const SAME: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(100);

/// Something of every kind that `describe` has a page for.
const TOWN: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}, annotations: {note: hello}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}, matchExpressions: [{key: app, operator: In, values: [web]}]}
  template:
    metadata: {labels: {app: web}, annotations: {a: b}}
    spec:
      containers:
        - name: nginx
          image: nginx:1.27
          ports: [{containerPort: 80}]
          readinessProbe: {httpGet: {path: /healthz, port: 80}, periodSeconds: 1}
          resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 64Mi}}
          env:
            - {name: LEVEL, valueFrom: {configMapKeyRef: {name: settings, key: level}}}
            - {name: WORD, valueFrom: {secretKeyRef: {name: words, key: word, optional: true}}}
            - {name: ME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
          envFrom: [{configMapRef: {name: settings}}]
          volumeMounts: [{name: scratch, mountPath: /scratch}, {name: files, mountPath: /files, readOnly: true}]
      volumes:
        - {name: scratch, emptyDir: {}}
        - {name: files, configMap: {name: settings}}
---
apiVersion: v1
kind: Service
metadata: {name: web, annotations: {"two": "line one\nline two"}}
spec:
  type: NodePort
  selector: {app: web}
  sessionAffinity: ClientIP
  ports: [{port: 80}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {level: high, file: "one\ntwo\n"}
binaryData: {raw: AAEC}
---
apiVersion: v1
kind: Secret
metadata: {name: words}
stringData: {word: hunter2}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: guard}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  ingress:
    - from:
        - podSelector: {matchLabels: {app: client}}
          namespaceSelector: {matchLabels: {team: a}}
        - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}
      ports: [{port: 80}, {port: 8000, endPort: 9000, protocol: UDP}]
    - {}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 1
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: db, image: "postgres:16"}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: everywhere}
spec:
  selector: {matchLabels: {app: everywhere}}
  template:
    metadata: {labels: {app: everywhere}}
    spec: {containers: [{name: c, image: "registry.k8s.io/pause:3.10"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - {name: main, image: "busybox:1.36", command: [sleep, "3600"]}
    - {name: side, image: "busybox:1.36", command: [sleep, "3600"]}
"#;

fn town(lab: &Lab) -> Result<()> {
    let file = lab.data_dir().join("town.yaml");
    fs::write(&file, TOWN)?;
    lab.run(&format!("portolan apply -f {}", file.display()))?;
    lab.run("kubectl rollout status deployment/web --timeout=60s")?;
    lab.run("kubectl rollout status daemonset/everywhere --timeout=60s")?;
    lab.run("kubectl rollout status statefulset/db --timeout=60s")?;
    lab.run("kubectl wait --for=condition=Ready pod/client --timeout=60s")?;
    Ok(())
}

/// Until both say the same: ages differ from one second to the next.
fn same(lab: &Lab, arguments: &str) -> Result<()> {
    let end = Instant::now() + SAME;
    loop {
        let kubectl = lab.run(&format!("kubectl {arguments} 2>&1"))?;
        let portolan = lab.run(&format!("portolan {arguments} 2>&1"))?;
        if kubectl == portolan {
            return Ok(());
        }
        if Instant::now() >= end {
            let lines = kubectl.lines().zip(portolan.lines());
            let odd: Vec<String> = lines
                .filter(|(k, p)| k != p)
                .map(|(k, p)| format!("kubectl:  {k}\nportolan: {p}"))
                .collect();
            bail!("{arguments}\n{}\n{portolan}", odd.join("\n"));
        }
        std::thread::sleep(LOOK);
    }
}

#[test]
fn describe_prints_what_kubectl_prints() -> Result<()> {
    let lab = Lab::start(2, &[])?;
    town(&lab)?;
    for target in [
        "service web",
        "svc/kubernetes",
        "pod client",
        "pods -l app=web",
        "pods web-",
        "deployment web",
        "replicasets",
        "statefulset db",
        // kubectl 1.32 forgets the namespace of a DaemonSet; later ones do not.
        "daemonset everywhere | grep -v ^Namespace:",
        "endpointslices -l kubernetes.io/service-name=web",
        "endpoints kubernetes",
        "networkpolicy guard",
        "configmap settings",
        "secret words",
        "serviceaccount default",
        "namespace default",
        "lease -n kube-node-lease",
    ] {
        same(&lab, &format!("describe {target}"))?;
    }
    let node = lab.run("portolan describe node node-1")?;
    for line in [
        "PodCIDR:",
        "Non-terminated Pods:",
        "everywhere-",
        "InternalIP:",
    ] {
        assert!(node.contains(line), "{line} in {node}");
    }
    let secret = lab.run("portolan describe secret words")?;
    assert!(!secret.contains("hunter2"), "{secret}");
    same(&lab, "get all")?;
    let said = lab.run("portolan describe pod nobody 2>&1; true")?;
    assert_eq!(
        said,
        "Error from server (NotFound): pods \"nobody\" not found\n"
    );
    Ok(())
}

#[test]
fn c14_expose_makes_the_service_that_kubectl_makes() -> Result<()> {
    let lab = Lab::start(1, &[])?;
    town_without_pods(&lab)?;
    for arguments in [
        "deployment web --port=80",
        "deployment/web --port=80 --target-port=http --type=NodePort",
        "deployment web",
        "deployment web --port=53,80 --protocol=UDP --session-affinity=ClientIP",
        "pod client --port=7000 --labels=x=y --selector=a=b",
        "service first --port=81 --cluster-ip=None",
        "replicaset rs --port=80 --external-ip=192.0.2.1",
    ] {
        let make = |program: &str| {
            let line = format!("{program} expose {arguments} --name=made --dry-run=server -o json");
            let made = lab.run(&format!("{line} | tee /dev/stderr"))?;
            let mut made: serde_json::Value = serde_json::from_str(&made).context(line)?;
            // What the server makes up anew for each.
            let metadata = made["metadata"].as_object_mut().context("metadata")?;
            for field in ["uid", "creationTimestamp", "managedFields"] {
                metadata.remove(field);
            }
            let spec = made["spec"].as_object_mut().context("spec")?;
            for field in ["clusterIP", "clusterIPs"] {
                let headless = spec
                    .get(field)
                    .is_some_and(|v| v.to_string().contains("None"));
                if !headless {
                    spec.remove(field);
                }
            }
            for port in spec
                .get_mut("ports")
                .and_then(|p| p.as_array_mut())
                .into_iter()
                .flatten()
            {
                if let Some(port) = port.as_object_mut() {
                    port.remove("nodePort");
                }
            }
            anyhow::Ok(made)
        };
        assert_eq!(make("portolan")?, make("kubectl")?, "{arguments}");
    }
    let said = lab.run("portolan expose deployment web --port=80 --name=seen")?;
    assert_eq!(said, "service/seen exposed\n");
    for arguments in ["node node-1 --port=80", "configmap settings --port=80"] {
        let said = lab.run(&format!("portolan expose {arguments} 2>&1; true"))?;
        assert!(said.starts_with("error: cannot expose a "), "{said}");
    }
    Ok(())
}

fn town_without_pods(lab: &Lab) -> Result<()> {
    let file = lab.data_dir().join("few.yaml");
    let template = "template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: nginx, ports: [{containerPort: 80}, {containerPort: 53, protocol: UDP}]}]}}";
    let text = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, labels: {{app: web}}}}\n\
         spec: {{replicas: 0, selector: {{matchLabels: {{app: web}}}}, {template}}}\n---\n\
         apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {{name: rs}}\n\
         spec: {{replicas: 0, selector: {{matchLabels: {{app: web}}}}, {template}}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: first}}\nspec: {{selector: {{a: b}}, ports: [{{port: 80}}]}}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {{name: client, labels: {{app: client}}}}\nspec: {{containers: [{{name: c, image: pause}}], nodeSelector: {{no: node}}}}\n---\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\n"
    );
    fs::write(&file, text)?;
    lab.run(&format!("portolan apply -f {}", file.display()))?;
    Ok(())
}

#[test]
fn exec_run_and_port_forward_reach_into_pods() -> Result<()> {
    let lab = Lab::start(1, &[])?;
    town(&lab)?;
    commands(&lab)?;
    terminals(&lab)?;
    pods_that_end(&lab)?;
    forwards(&lab)
}

/// What a line prints on both outputs, and its exit code.
fn typed(lab: &Lab, line: &str) -> Result<(String, i32)> {
    let text = lab.run(&format!("({line}) 2>&1; echo \"code $?\""))?;
    let (text, code) = text.trim_end().rsplit_once("code ").context("a code")?;
    Ok((text.to_owned(), code.parse()?))
}

fn commands(lab: &Lab) -> Result<()> {
    let defaulted = "Defaulted container \"main\" out of: main, side\n";
    for program in ["portolan", "kubectl"] {
        for (line, shown, code) in [
            ("exec client -c side -- echo a b", "a b\n".to_owned(), 0),
            ("exec client -- echo a", format!("{defaulted}a\n"), 0),
            (
                "exec client -c main -- sh -c 'echo out; echo err >&2; exit 9'",
                "out\nerr\ncommand terminated with exit code 9\n".to_owned(),
                9,
            ),
            (
                "exec -i client -c main -- cat <<< hello",
                "hello\n".to_owned(),
                0,
            ),
            (
                "exec nobody -- ls",
                "Error from server (NotFound): pods \"nobody\" not found\n".to_owned(),
                1,
            ),
            (
                "exec client -c other -- ls",
                "Error from server (BadRequest): container other is not valid for pod client\n"
                    .to_owned(),
                1,
            ),
        ] {
            let got = typed(lab, &format!("{program} {line}"))?;
            // The two outputs are two streams: they may arrive in either order.
            let sorted = |text: &str| {
                let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
                lines.sort();
                lines
            };
            assert_eq!(
                (sorted(&got.0), got.1),
                (sorted(&shown), code),
                "{program} {line}"
            );
        }
    }
    let (host, code) = typed(lab, "portolan exec deployment/web -- hostname")?;
    assert!(host.starts_with("web-") && code == 0, "{host}");
    let (host, _) = typed(lab, "portolan exec svc/web -- hostname")?;
    assert!(host.starts_with("web-"), "{host}");
    let much = lab.run("portolan exec client -c main -- head -c 3000000 /dev/zero | wc -c")?;
    assert_eq!(much.trim(), "3000000");
    let back = lab.run("head -c 3000000 /dev/zero | portolan exec -i client -c main -- wc -c")?;
    assert_eq!(back.trim(), "3000000");
    Ok(())
}

/// What a script prints at a terminal of its own.
fn at_a_terminal(lab: &Lab, inside: &str) -> Result<String> {
    let file = lab.data_dir().join("typed.sh");
    fs::write(&file, inside)?;
    let file = file.display();
    lab.run(&format!("script -qefc 'bash {file}' /dev/null < /dev/null"))
}

/// A real terminal: it has a size, and is given back as it was.
fn terminals(lab: &Lab) -> Result<()> {
    let inside = "stty rows 31 cols 99; before=$(stty -g); \
        portolan exec -it client -c main -- \
        sh -c 'until stty size | grep 31.99; do sleep 0.05; done; tty; exit 4'; echo \"ended with $?\"; \
        [ \"$before\" = \"$(stty -g)\" ] && echo restored";
    let seen = at_a_terminal(lab, inside)?;
    for part in ["31 99", "/dev/pts/", "ended with 4", "restored"] {
        assert!(seen.contains(part), "{part} in {seen}");
    }
    let inside = "before=$(stty -g); timeout --foreground -s TERM 2 portolan exec -it client -c main -- sleep 60; \
        [ \"$before\" = \"$(stty -g)\" ] && echo restored";
    let seen = at_a_terminal(lab, inside)?;
    assert!(seen.contains("restored"), "{seen}");
    let (said, code) = typed(lab, "portolan exec -it client -c main -- echo plain")?;
    assert!(
        said.contains("Unable to use a TTY") && said.contains("plain"),
        "{said}"
    );
    assert_eq!(code, 0);
    Ok(())
}

fn pods_that_end(lab: &Lab) -> Result<()> {
    for (line, shown, code) in [
        (
            "run once --rm -i --restart=Never --image=busybox -- echo said",
            &["said\n", "pod \"once\" deleted"][..],
            0,
        ),
        (
            "run once --rm -i --restart=Never --image=busybox -- sh -c 'cat; exit 6' <<< input",
            &["input\n", "terminated (Error)", "pod \"once\" deleted"],
            6,
        ),
        (
            "run made --image=nginx --port=80 --expose",
            &["service/made created\npod/made created"],
            0,
        ),
    ] {
        let got = typed(lab, &format!("portolan {line}"))?;
        assert_eq!(got.1, code, "{line}: {}", got.0);
        for part in shown {
            assert!(got.0.contains(part), "{part:?} in {}", got.0);
        }
    }
    let inside =
        "portolan run tmp --rm -it --restart=Never --image=busybox -- sh -c 'tty; stty size'";
    let seen = at_a_terminal(lab, inside)?;
    assert!(
        seen.contains("/dev/pts/") && seen.contains("pod \"tmp\" deleted"),
        "{seen}"
    );
    let yaml = lab.run("portolan run x --image=nginx --dry-run=client -o yaml")?;
    assert!(
        yaml.contains("run: x") && yaml.contains("image: nginx"),
        "{yaml}"
    );
    Ok(())
}

/// One HTTP request to a port of this machine.
fn asked(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(b"GET /hostname HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn forwards(lab: &Lab) -> Result<()> {
    let (one, two) = (tools::free_port()?, tools::free_port()?);
    let cases = [
        ("portolan", "service/web"),
        ("portolan", "deployment/web"),
        ("kubectl", "deployment/web"),
    ];
    for (number, (program, target)) in cases.into_iter().enumerate() {
        // A file of its own: what an earlier one said must not be taken for this.
        let log = lab.data_dir().join(format!("forward-{number}.log"));
        let line = format!(
            "exec {program} port-forward {target} {one}:80 {two}:80 > {} 2>&1",
            log.display()
        );
        let mut child = lab
            .shell(lab.data_dir(), &line)
            .stdout(Stdio::null())
            .spawn()?;
        let said = lab.until(SOON, &format!("cat {}", log.display()), |text| {
            text.contains(&format!("Forwarding from 127.0.0.1:{two} -> 80"))
        })?;
        assert!(
            said.contains(&format!("Forwarding from 127.0.0.1:{one} -> 80")),
            "{said}"
        );
        for port in [one, two, one] {
            let answer = asked(port)?;
            assert!(
                answer.starts_with("HTTP/1.1 200") && answer.contains("web-"),
                "{answer}"
            );
        }
        let said = fs::read_to_string(&log)?;
        assert!(
            said.contains(&format!("Handling connection for {one}")),
            "{said}"
        );
        child.kill()?;
        child.wait()?;
    }
    let said = typed(lab, "portolan port-forward service/web 8080:81")?;
    assert_eq!(
        said,
        (
            "error: Service web does not have a service port 81\n".to_owned(),
            1
        )
    );
    Ok(())
}
