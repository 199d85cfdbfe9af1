//! From an image and a container's command, args and ports to what runs.

use super::table::{Arguments, Image, Serves};
use crate::container::PROGRAM;

/// A port that a container declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// `containerPort`
    pub number: u16,
    /// `UDP` rather than TCP.
    pub udp: bool,
    /// `name`; one that begins with `tcp` asks for lines instead of HTTP.
    pub name: String,
}

/// What a container says about what to run, references expanded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `command`
    pub command: Vec<String>,
    /// `args`
    pub args: Vec<String>,
    /// `ports`
    pub ports: Vec<Port>,
}

/// Ports on which the application listens.
#[derive(Default)]
struct Listens {
    http: Vec<u16>,
    tcp: Vec<u16>,
    udp: Vec<u16>,
    text: Option<String>,
}

impl Image {
    /// The program and its arguments.
    pub fn argv(&self, wanted: &Wanted) -> Vec<String> {
        let Wanted {
            command,
            args,
            ports,
        } = wanted;
        match (self.serves, self.arguments) {
            // agnhost's command names agnhost itself.
            (Serves::Echo, Arguments::Agnhost) => {
                let own = command
                    .first()
                    .is_none_or(|program| program.ends_with("agnhost"));
                let rest = command.iter().skip(1).chain(args);
                match own {
                    true => agnhost(&rest.cloned().collect::<Vec<_>>(), ports),
                    false => [command.as_slice(), args].concat(),
                }
            }
            _ if !command.is_empty() => [command.as_slice(), args].concat(),
            (Serves::Host, _) => self.host(args),
            (Serves::Echo, Arguments::Echo) if !args.is_empty() => {
                let mut argv = echo();
                argv.extend_from_slice(args);
                argv
            }
            (Serves::Echo, Arguments::Echo) => Listens::declared(ports).argv(),
            (Serves::Echo, Arguments::HttpEcho) => self.http_echo(args, ports),
            (Serves::Echo, Arguments::Ignored) => self.listens(ports).argv(),
        }
    }

    fn host(&self, args: &[String]) -> Vec<String> {
        let Some(first) = args.first() else {
            return self.command.clone();
        };
        match &self.program {
            Some(program) if first.starts_with('-') || first.contains("://") => {
                let mut argv = vec![program.clone()];
                argv.extend_from_slice(args);
                argv
            }
            Some(_) | None => args.to_vec(),
        }
    }

    /// The image's own ports and those that the container declares.
    fn listens(&self, ports: &[Port]) -> Listens {
        let mut all = Listens::declared(ports);
        for (from, to) in [(&self.tcp, &mut all.tcp), (&self.http, &mut all.http)] {
            to.extend(from);
        }
        // One port has one server; the image's own kind wins.
        all.http.retain(|port| !self.tcp.contains(port));
        all
    }

    fn http_echo(&self, args: &[String], ports: &[Port]) -> Vec<String> {
        let mut all = self.listens(ports);
        if let Some(at) = flag(args, "listen") {
            let port = at.rsplit(':').next().and_then(|port| port.parse().ok());
            all.http = port.into_iter().collect();
        }
        all.text = flag(args, "text");
        all.argv()
    }
}

/// agnhost's subcommands that people use behind Services.
fn agnhost(args: &[String], ports: &[Port]) -> Vec<String> {
    let number = |name: &str| flag(args, name).and_then(|port| port.parse().ok());
    match args.first().map(String::as_str) {
        Some("netexec") => Listens {
            http: vec![number("http-port").unwrap_or(8080)],
            udp: vec![number("udp-port").unwrap_or(8081)],
            ..Listens::default()
        }
        .argv(),
        Some("serve-hostname") => Listens {
            http: vec![number("port").unwrap_or(9376)],
            ..Listens::default()
        }
        .argv(),
        None | Some("pause") => vec!["sleep".to_owned(), "infinity".to_owned()],
        Some(_) => Listens::declared(ports).argv(),
    }
}

/// The value of `-name v`, `-name=v`, `--name v` or `--name=v`.
fn flag(args: &[String], name: &str) -> Option<String> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let Some(rest) = arg.trim_start_matches('-').strip_prefix(name) else {
            continue;
        };
        match rest.strip_prefix('=') {
            Some(value) => return Some(value.trim_matches('"').to_owned()),
            None if rest.is_empty() => return args.next().cloned(),
            None => {}
        }
    }
    None
}

fn echo() -> Vec<String> {
    vec![PROGRAM.to_owned(), "echo".to_owned()]
}

impl Listens {
    fn declared(ports: &[Port]) -> Self {
        let mut all = Self::default();
        for port in ports {
            let to = match (port.udp, port.name.starts_with("tcp")) {
                (true, _) => &mut all.udp,
                (false, true) => &mut all.tcp,
                (false, false) => &mut all.http,
            };
            to.push(port.number);
        }
        all
    }

    fn argv(mut self) -> Vec<String> {
        let mut argv = echo();
        for (name, ports) in [
            ("port", &mut self.http),
            ("tcp", &mut self.tcp),
            ("udp", &mut self.udp),
        ] {
            ports.sort_unstable();
            ports.dedup();
            argv.extend(ports.iter().map(|port| format!("--{name}={port}")));
        }
        argv.extend(self.text.map(|text| format!("--text={text}")));
        argv
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Found, ImageTable};
    use super::*;

    /// `image | command | args | ports`, words separated by blanks, a port as
    /// `80`, `53/udp` or `9000:name`; `P` is the lab's program.
    const CASES: &str = "
        portolan/echo | | | => P echo
        portolan/echo | | | 80:http 53/udp => P echo --port=80 --udp=53
        portolan/echo | | | 9000:tcp-lines => P echo --tcp=9000
        portolan/echo | | client --url http://web | => P echo client --url http://web
        nginx:1.27 | | | => P echo --port=80
        nginx:1.27 | | | 80 => P echo --port=80
        nginx:1.27 | | -g daemon_off; | 8080 => P echo --port=80 --port=8080
        nginx:1.27 | sleep | 5 | => sleep 5
        postgres | | | 5432:pg => P echo --tcp=5432
        hashicorp/http-echo | | -text=hello | => P echo --port=5678 --text=hello
        hashicorp/http-echo | | -listen :80 -text hi | => P echo --port=80 --text=hi
        registry.k8s.io/e2e-test-images/agnhost:2.53 | | netexec --http-port=80 | => P echo --port=80 --udp=8081
        registry.k8s.io/e2e-test-images/agnhost:2.53 | /agnhost serve-hostname | | => P echo --port=9376
        registry.k8s.io/e2e-test-images/agnhost:2.53 | | | => sleep infinity
        registry.k8s.io/e2e-test-images/agnhost:2.53 | sh | -c true | => sh -c true
        busybox | | | => sh
        busybox | | nslookup web | => nslookup web
        curlimages/curl | | -s http://web | => curl -s http://web
        curlimages/curl | | http://web | => curl http://web
        curlimages/curl | | sh | => sh
        curlimages/curl | | curl http://web | => curl http://web
    ";

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn port(text: &str) -> Port {
        let (rest, name) = text.split_once(':').unwrap_or((text, ""));
        let number = rest.trim_end_matches("/udp");
        Port {
            number: number.parse().unwrap(),
            udp: rest.ends_with("/udp"),
            name: name.to_owned(),
        }
    }

    #[test]
    fn commands_follow_the_image() {
        let table = ImageTable::shipped().unwrap();
        for case in CASES.lines().filter(|line| line.contains("=>")) {
            let (asked, expected) = case.split_once("=>").unwrap();
            let parts: Vec<&str> = asked.split('|').map(str::trim).collect();
            let (Found::BuiltIn(row) | Found::Mapped(row)) = table.find(parts[0]) else {
                panic!("{case}: not in the table")
            };
            let argv = row.argv(&Wanted {
                command: words(parts[1]),
                args: words(parts[2]),
                ports: parts[3].split_whitespace().map(port).collect(),
            });
            assert_eq!(
                argv.join(" ").replace(PROGRAM, "P"),
                expected.trim(),
                "{case}"
            );
        }
    }
}
