//! The texts of a pod's own files under `/etc`, and the expansion of `$(NAME)`.

use std::{collections::BTreeMap, fmt::Write, net::IpAddr};

/// Head line of a hosts file that the pod manager keeps, kubelet's words.
const HOSTS_HEAD: &str = "# Kubernetes-managed hosts file.\n";
/// Head line of the part that `spec.hostAliases` adds.
const ALIASES_HEAD: &str = "\n# Entries added by HostAliases.\n";

/// `/etc/hosts` as kubelet writes it. `aliases` are `spec.hostAliases`.
pub fn hosts(
    ips: &[IpAddr],
    hostname: &str,
    domain: Option<&str>,
    aliases: &[(String, Vec<String>)],
) -> String {
    let mut text = HOSTS_HEAD.to_owned();
    text.push_str(concat!(
        "127.0.0.1\tlocalhost\n",
        "::1\tlocalhost ip6-localhost ip6-loopback\n",
        "fe00::\tip6-localnet\n",
        "fe00::\tip6-mcastprefix\n",
        "fe00::1\tip6-allnodes\n",
        "fe00::2\tip6-allrouters\n",
    ));
    for ip in ips {
        let names = match domain {
            Some(domain) => format!("{hostname}.{domain}\t{hostname}"),
            None => hostname.to_owned(),
        };
        writeln!(text, "{ip}\t{names}").unwrap_or_default();
    }
    if !aliases.is_empty() {
        text.push_str(ALIASES_HEAD);
        for (ip, names) in aliases {
            writeln!(text, "{ip}\t{}", names.join("\t")).unwrap_or_default();
        }
    }
    text
}

/// The parts of `/etc/resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// `nameserver` lines.
    pub servers: Vec<String>,
    /// The `search` line.
    pub search: Vec<String>,
    /// The `options` line.
    pub options: Vec<String>,
}

impl Resolver {
    /// dnsPolicy ClusterFirst: the cluster's DNS and its search list (D19).
    pub fn cluster_first(servers: &[IpAddr], namespace: &str, cluster_domain: &str) -> Self {
        Self {
            servers: servers.iter().map(ToString::to_string).collect(),
            search: vec![
                format!("{namespace}.svc.{cluster_domain}"),
                format!("svc.{cluster_domain}"),
                cluster_domain.to_owned(),
            ],
            options: vec!["ndots:5".to_owned()],
        }
    }

    /// Reads a resolv.conf; later `search` and `options` lines win, as in glibc.
    pub fn parse(text: &str) -> Self {
        let mut all = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => all.servers.extend(words.next()),
                Some("search") => all.search = words.collect(),
                Some("options") => all.options = words.collect(),
                _ => {}
            }
        }
        all
    }

    /// `spec.dnsConfig` on top: servers and search domains are added without
    /// repeats, an option replaces one of the same name.
    pub fn extend(&mut self, more: Resolver) {
        let add = |to: &mut Vec<String>, from: Vec<String>| {
            for value in from {
                if !to.contains(&value) {
                    to.push(value);
                }
            }
        };
        add(&mut self.servers, more.servers);
        add(&mut self.search, more.search);
        let name = |option: &str| option.split(':').next().unwrap_or_default().to_owned();
        for option in more.options {
            self.options.retain(|old| name(old) != name(&option));
            self.options.push(option);
        }
    }

    /// The file's text, in kubelet's order.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if !self.search.is_empty() {
            writeln!(text, "search {}", self.search.join(" ")).unwrap_or_default();
        }
        for server in &self.servers {
            writeln!(text, "nameserver {server}").unwrap_or_default();
        }
        if !self.options.is_empty() {
            writeln!(text, "options {}", self.options.join(" ")).unwrap_or_default();
        }
        text
    }
}

/// The host's `nsswitch.conf` with host names looked up in the pod's files and
/// DNS only: other sources talk to daemons of the host.
pub fn nsswitch(host: &str) -> String {
    let mut text: String = host
        .lines()
        .filter(|line| !line.trim_start().starts_with("hosts:"))
        .flat_map(|line| [line, "\n"])
        .collect();
    text.push_str("hosts: files dns\n");
    text
}

/// Expands `$(NAME)` as Kubernetes does: `$$` is a dollar sign, an unknown name
/// and anything else after a dollar sign stay as they are.
pub fn expand(text: &str, vars: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let after = from.strip_prefix('$').unwrap_or_default();
        if let Some(left) = after.strip_prefix('$') {
            out.push('$');
            rest = left;
            continue;
        }
        let reference = after
            .strip_prefix('(')
            .and_then(|inside| inside.split_once(')'));
        match reference {
            Some((name, left)) => {
                match vars.get(name) {
                    Some(value) => out.push_str(value),
                    None => write!(out, "$({name})").unwrap_or_default(),
                }
                rest = left;
            }
            None => {
                out.push('$');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_is_what_kubelet_writes() {
        let ips = [
            "10.244.1.7".parse().unwrap(),
            "fd00:10:244:1::7".parse().unwrap(),
        ];
        let aliases = [(
            "10.1.2.3".to_owned(),
            vec!["foo.remote".to_owned(), "bar".to_owned()],
        )];
        let text = hosts(
            &ips,
            "web-0",
            Some("web.default.svc.cluster.local"),
            &aliases,
        );
        assert_eq!(
            text,
            "# Kubernetes-managed hosts file.\n\
             127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::\tip6-localnet\n\
             fe00::\tip6-mcastprefix\n\
             fe00::1\tip6-allnodes\n\
             fe00::2\tip6-allrouters\n\
             10.244.1.7\tweb-0.web.default.svc.cluster.local\tweb-0\n\
             fd00:10:244:1::7\tweb-0.web.default.svc.cluster.local\tweb-0\n\
             \n# Entries added by HostAliases.\n\
             10.1.2.3\tfoo.remote\tbar\n"
        );
        assert!(hosts(&ips[..1], "web", None, &[]).ends_with("10.244.1.7\tweb\n"));
    }

    #[test]
    fn d19_resolv_conf_has_the_search_list_and_ndots() {
        let servers = ["10.96.0.10".parse().unwrap()];
        let mut conf = Resolver::cluster_first(&servers, "shop", "cluster.local");
        assert_eq!(
            conf.text(),
            "search shop.svc.cluster.local svc.cluster.local cluster.local\n\
             nameserver 10.96.0.10\n\
             options ndots:5\n"
        );
        assert_eq!(Resolver::parse(&conf.text()), conf);
        conf.extend(Resolver {
            servers: vec!["10.96.0.10".into(), "1.1.1.1".into()],
            search: vec!["example.com".into()],
            options: vec!["ndots:2".into(), "edns0".into()],
        });
        assert_eq!(
            conf.text(),
            "search shop.svc.cluster.local svc.cluster.local cluster.local example.com\n\
             nameserver 10.96.0.10\n\
             nameserver 1.1.1.1\n\
             options ndots:2 edns0\n"
        );
    }

    #[test]
    fn only_files_and_dns_answer_for_hosts() {
        let host = "passwd: files systemd\nhosts: files mymachines resolve [!UNAVAIL=return] dns\n";
        assert_eq!(nsswitch(host), "passwd: files systemd\nhosts: files dns\n");
        assert_eq!(nsswitch(""), "hosts: files dns\n");
    }

    #[test]
    fn references_expand_as_in_kubernetes() {
        let vars = BTreeMap::from([
            ("A".to_owned(), "1".to_owned()),
            ("B".to_owned(), "$(A)".to_owned()),
        ]);
        for (text, expanded) in [
            ("plain", "plain"),
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$(B)", "$(A)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(MISSING)", "$(MISSING)"),
            ("$(A", "$(A"),
            ("$A", "$A"),
            ("cost: 5$", "cost: 5$"),
            ("$()", "$()"),
            ("ü$(A)ü", "ü1ü"),
        ] {
            assert_eq!(expand(text, &vars), expanded, "{text}");
        }
    }
}
