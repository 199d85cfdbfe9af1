//! iptables' older kernel side, which is not read: what to type instead. Pure.

use super::chains;

/// The command that takes kube-proxy's rules out of iptables-legacy, for a family
/// whose tables are in use; `names` is what the kernel says of them.
pub(super) fn command(program: &str, names: &str) -> Option<String> {
    let used = |table: &str| names.lines().any(|name| name.trim() == table);
    ["nat", "filter", "mangle"].into_iter().any(used).then(|| {
        let chains = pattern();
        format!(
            "{program}-legacy-save | grep -vE -- '(^:|-A |-j |-g )({chains})( |$)' | {program}-legacy-restore"
        )
    })
}

/// The chains to be left out, as an extended regular expression; kubelet's stay.
fn pattern() -> String {
    let whole = chains::names().into_iter().map(str::to_owned);
    let begun = chains::NAT_OF_SERVICES.iter();
    let begun = begun.map(|beginning| format!("{beginning}[A-Z0-9]+"));
    whole.chain(begun).collect::<Vec<_>>().join("|")
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn tables_that_are_not_in_use_need_no_command() {
        assert_eq!(command("iptables", ""), None);
        assert_eq!(command("iptables", "raw\n"), None);
        assert!(command("ip6tables", "nat\nfilter\n").is_some());
    }

    #[test]
    fn the_command_leaves_what_is_not_kube_proxys() {
        let saved = "\
*nat
:PREROUTING ACCEPT [0:0]
:DOCKER - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-ERIFXISQEP7F7OF4 - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-MARK-DROP - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -j KUBE-SVC-ERIFXISQEP7F7OF4
-A KUBE-SVC-ERIFXISQEP7F7OF4 -j RETURN
COMMIT
";
        let command = command("iptables", "nat\n").unwrap();
        let filter = command.split(" | ").nth(1).unwrap();
        let mut shell = Command::new("sh")
            .args(["-c", filter])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = shell.stdin.take().unwrap();
        stdin.write_all(saved.as_bytes()).unwrap();
        drop(stdin);
        let left = String::from_utf8(shell.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(
            left,
            "\
*nat
:PREROUTING ACCEPT [0:0]
:DOCKER - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-MARK-DROP - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000
COMMIT
"
        );
    }
}
