//! Other people's resolvers in a namespace that looks as a pod does: each asks for
//! every kind of record that it knows, by short names through the search list too.

mod place;

use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use place::Place;
use portolan_netns::namespace::inside;

/// How long a program may take to begin.
const DEADLINE: Duration = Duration::from_secs(60);

/// A question as a program's words, and what is in all that it prints, in any order.
/// The answer to what does not exist begins with the code that the program ends with.
type Asked = (&'static str, &'static [&'static str]);

/// Short names, which only a resolver with the search list finds (D19), and others.
const SHORT_AND_LONG: [Asked; 2] = [("web", &["10.96.7.1"]), ("far.shop", &["10.96.7.8"])];

fn check(place: &Place, program: &Path, before: &str, asked: &[Asked]) -> Result<()> {
    for (words, expected) in asked {
        let words = format!("{before} {words}");
        let (code, text) = place.run(program, &words)?;
        let about = format!("{} {words}: {code}: {text}", program.display());
        for part in *expected {
            match part.strip_prefix("exit ") {
                Some(number) => ensure!(code == number.parse::<i32>()?, "{about}"),
                None => ensure!(text.contains(part), "no {part:?} in {about}"),
            }
        }
    }
    Ok(())
}

fn in_a_pod(test: &str, work: impl FnOnce(&Place) -> Result<()>) {
    if !inside(test) {
        return;
    }
    let done = Place::new().and_then(|place| work(&place));
    done.unwrap_or_else(|error| panic!("{error:?}"));
}

/// Every kind of record by its whole name, for programs that print records as zone
/// files do.
const RECORDS: [Asked; 16] = [
    ("A web.default.svc.cluster.local", &["10.96.7.1"]),
    ("A 1st.default.svc.cluster.local", &["10.96.7.9"]),
    ("A both.default.svc.cluster.local", &["10.96.7.2"]),
    ("AAAA both.default.svc.cluster.local", &["fd00:10:96::72"]),
    ("AAAA six.default.svc.cluster.local", &["fd00:10:96::66"]),
    (
        "A db.default.svc.cluster.local",
        &["10.244.1.3", "10.244.1.4"],
    ),
    ("A db-0.db.default.svc.cluster.local", &["10.244.1.3"]),
    ("A 10-244-1-4.db.default.svc.cluster.local", &["10.244.1.4"]),
    (
        "SRV _http._tcp.both.default.svc.cluster.local",
        &["0 50 80 both.default.svc.cluster.local."],
    ),
    (
        "SRV _sql._tcp.db.default.svc.cluster.local",
        &["0 50 5432 db-0.db.default.svc.cluster.local."],
    ),
    (
        "PTR 1.7.96.10.in-addr.arpa",
        &["web.default.svc.cluster.local."],
    ),
    (
        "PTR 3.1.244.10.in-addr.arpa",
        &["db-0.db.default.svc.cluster.local."],
    ),
    (
        "PTR 2.7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa",
        &["both.default.svc.cluster.local."],
    ),
    ("CNAME out.default.svc.cluster.local", &["www.example.com."]),
    (
        "A out.default.svc.cluster.local",
        &["www.example.com.", "192.0.2.7"],
    ),
    ("TXT dns-version.cluster.local", &["1.1.0"]),
];

#[test]
fn d3_d19_dig_and_nslookup_resolve_every_kind_of_record() {
    let test = "d3_d19_dig_and_nslookup_resolve_every_kind_of_record";
    in_a_pod(test, |place| {
        check(place, Path::new("dig"), "+tries=1 +timeout=20 -t", &RECORDS)?;
        check(
            place,
            Path::new("dig"),
            "+tries=1 +search +short",
            &SHORT_AND_LONG,
        )?;
        let missing: &[Asked] = &[("missing", &["status: NXDOMAIN"])];
        check(place, Path::new("dig"), "+tries=1 +search", missing)?;
        check(place, Path::new("nslookup"), "", &SHORT_AND_LONG)?;
        let others: &[Asked] = &[
            ("10.96.7.1", &["name = web.default.svc.cluster.local."]),
            ("www.example.com", &["192.0.2.7", "2001:db8::7"]),
            ("missing", &["NXDOMAIN", "exit 1"]),
        ];
        check(place, Path::new("nslookup"), "", others)
    });
}

#[test]
fn d3_d19_kdig_drill_and_delv_resolve_every_kind_of_record() {
    let test = "d3_d19_kdig_drill_and_delv_resolve_every_kind_of_record";
    in_a_pod(test, |place| {
        let missing: &[Asked] = &[("A missing.default.svc.cluster.local", &["NXDOMAIN"])];
        for (program, before) in [("kdig", "+timeout=20 +retry=0 -t"), ("drill", "")] {
            check(place, Path::new(program), before, &RECORDS)?;
            check(place, Path::new(program), before, missing)?;
        }
        check(place, Path::new("delv"), "-i -t", &RECORDS)?;
        let missing: &[Asked] = &[("A missing.default.svc.cluster.local", &["ncache nxdomain"])];
        check(place, Path::new("delv"), "-i -t", missing)
    });
}

#[test]
fn d3_d19_nslookup_of_busybox_resolves_every_kind_of_record() {
    let test = "d3_d19_nslookup_of_busybox_resolves_every_kind_of_record";
    in_a_pod(test, |place| {
        let busybox = Path::new("busybox");
        // It takes names with a dot as they are, whatever ndots says.
        let asked: &[Asked] = &[
            ("web", &["10.96.7.1"]),
            ("both", &["10.96.7.2", "fd00:10:96::72"]),
            ("six", &["fd00:10:96::66"]),
            ("db", &["10.244.1.3", "10.244.1.4"]),
            ("db-0.db.default.svc.cluster.local", &["10.244.1.3"]),
            ("far.shop.svc.cluster.local", &["10.96.7.8"]),
            ("www.example.com", &["192.0.2.7", "2001:db8::7"]),
            ("10.96.7.1", &["web.default.svc.cluster.local"]),
            ("10.244.1.3", &["db-0.db.default.svc.cluster.local"]),
            ("fd00:10:96::72", &["both.default.svc.cluster.local"]),
            ("192.0.2.7", &["www.example.com"]),
            ("missing", &["NXDOMAIN", "exit 1"]),
        ];
        check(place, busybox, "nslookup", asked)?;
        let asked: &[Asked] = &[
            (
                "srv _http._tcp.web.default.svc.cluster.local",
                &["0 100 80 web.default.svc.cluster.local"],
            ),
            (
                "cname out.default.svc.cluster.local",
                &["canonical name = www.example.com"],
            ),
            ("txt dns-version.cluster.local", &["1.1.0"]),
            ("a alias.default.svc.cluster.local", &["10.96.7.2"]),
            ("ns cluster.local", &["nameserver = ns.dns.cluster.local"]),
            ("soa cluster.local", &["origin = ns.dns.cluster.local"]),
        ];
        for (words, expected) in asked {
            let (rtype, name) = words.split_once(' ').context("type and name")?;
            let words = format!("nslookup -type={rtype} {name}");
            let (code, text) = place.run(busybox, &words)?;
            for part in *expected {
                ensure!(
                    text.contains(part),
                    "no {part:?} in {words}: {code}: {text}"
                );
            }
        }
        Ok(())
    });
}

#[test]
fn d3_d19_glibc_resolves_names_and_addresses() {
    let test = "d3_d19_glibc_resolves_names_and_addresses";
    in_a_pod(test, |place| {
        let getent = Path::new("getent");
        let asked: &[Asked] = &[
            (
                "hosts web",
                &["10.96.7.1 ", "web.default.svc.cluster.local"],
            ),
            ("hosts far.shop", &["10.96.7.8"]),
            ("hosts web.default.svc", &["10.96.7.1"]),
            ("hosts web.default.svc.cluster.local", &["10.96.7.1"]),
            ("hosts web.default.svc.cluster.local.", &["10.96.7.1"]),
            ("hosts 1st", &["10.96.7.9"]),
            ("hosts both", &["fd00:10:96::72"]),
            ("ahosts both", &["10.96.7.2", "fd00:10:96::72"]),
            ("ahostsv4 both", &["10.96.7.2"]),
            ("ahostsv6 six", &["fd00:10:96::66"]),
            ("ahostsv4 db", &["10.244.1.3", "10.244.1.4"]),
            ("hosts db-0.db", &["10.244.1.3"]),
            (
                "ahosts alias",
                &[
                    "10.96.7.2",
                    "fd00:10:96::72",
                    "both.default.svc.cluster.local",
                ],
            ),
            (
                "ahosts out",
                &["192.0.2.7", "2001:db8::7", "www.example.com"],
            ),
            ("ahosts www.example.com", &["192.0.2.7", "2001:db8::7"]),
            ("hosts 10.96.7.1", &["web.default.svc.cluster.local"]),
            ("hosts 10.244.1.3", &["db-0.db.default.svc.cluster.local"]),
            ("hosts fd00:10:96::72", &["both.default.svc.cluster.local"]),
            ("hosts 192.0.2.7", &["www.example.com"]),
            ("hosts missing", &["exit 2"]),
            ("ahosts missing.example.com", &["exit 2"]),
            ("hosts 10.96.99.99", &["exit 2"]),
            ("ahostsv6 web", &["::ffff:10.96.7.1"]),
        ];
        check(place, getent, "", asked)
    });
}

/// The program that is linked to musl; whoever runs the tests may not read our sources.
const MUSL: &str = include_str!("musl.c");

/// Builds it.
fn musl(folder: &Path) -> Result<PathBuf> {
    let program = folder.join("musl");
    let mut compiler = Command::new("musl-gcc")
        .args(["-static", "-O1", "-Wall", "-x", "c", "-", "-o"])
        .arg(&program)
        .stdin(Stdio::piped())
        .spawn()
        .context("musl-gcc, of the package musl-tools: cargo xtask setup")?;
    let mut input = compiler.stdin.take().context("standard input")?;
    input.write_all(MUSL.as_bytes())?;
    drop(input);
    let ended = compiler.wait()?;
    ensure!(ended.success(), "musl-gcc: {ended}");
    Ok(program)
}

#[test]
fn d3_d19_a_static_musl_program_resolves_every_kind_of_record() {
    let test = "d3_d19_a_static_musl_program_resolves_every_kind_of_record";
    in_a_pod(test, |place| {
        let folder = tempfile::tempdir()?;
        let program = musl(folder.path())?;
        let asked: &[Asked] = &[
            ("addresses 0 web", &["10.96.7.1", "exit 0"]),
            ("addresses 4 web", &["10.96.7.1", "exit 0"]),
            ("addresses 6 web", &["EAI_NONAME"]),
            ("addresses 0 far.shop", &["10.96.7.8"]),
            ("addresses 0 1st.default.svc", &["10.96.7.9"]),
            ("addresses 0 both", &["10.96.7.2", "fd00:10:96::72"]),
            ("addresses 6 six", &["fd00:10:96::66"]),
            ("addresses 0 db", &["10.244.1.3", "10.244.1.4"]),
            ("addresses 0 db-0.db", &["10.244.1.3"]),
            ("addresses 0 alias", &["10.96.7.2", "fd00:10:96::72"]),
            ("addresses 0 out", &["192.0.2.7", "2001:db8::7"]),
            ("addresses 0 www.example.com", &["192.0.2.7", "2001:db8::7"]),
            ("addresses 0 missing", &["EAI_NONAME"]),
            ("addresses 0 missing.example.com", &["EAI_NONAME"]),
            ("name 10.96.7.1", &["web.default.svc.cluster.local"]),
            ("name 10.244.1.3", &["db-0.db.default.svc.cluster.local"]),
            ("name fd00:10:96::72", &["both.default.svc.cluster.local"]),
            ("name 192.0.2.7", &["www.example.com"]),
            ("name 10.96.99.99", &["EAI_NONAME"]),
            (
                "record SRV _sql._tcp.db.default.svc.cluster.local",
                &["SRV 0 50 5432 db-0.db.default.svc.cluster.local"],
            ),
            ("record TXT dns-version.cluster.local", &["TXT 1.1.0"]),
            (
                "record CNAME out.default.svc.cluster.local",
                &["CNAME www.example.com"],
            ),
            (
                "record A out.default.svc.cluster.local",
                &["CNAME www.example.com", "A 192.0.2.7"],
            ),
            (
                "record A nope.default.svc.cluster.local",
                &["HOST_NOT_FOUND"],
            ),
            ("record SRV six.shop.svc.cluster.local", &["HOST_NOT_FOUND"]),
            ("record TXT web.default.svc.cluster.local", &["NO_DATA"]),
        ];
        check(place, &program, "", asked)
    });
}

/// Where systemd-resolved asks, and nobody else.
const RESOLVED_CONF: &str = "[Resolve]\nDNS=10.96.0.10\nFallbackDNS=\nDomains=~.\n\
    LLMNR=no\nMulticastDNS=no\nDNSSEC=no\nDNSOverTLS=no\nReadEtcHosts=no\n";
/// Dresses it, and gives it a place for what it writes.
const RESOLVED: &str = r#"mount -t overlay overlay -o "lowerdir=$1:/etc" /etc &&
    mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/resolve && shift && exec "$@""#;
/// Where it answers.
const STUB: &str = "127.0.0.53:53";

/// systemd-resolved without systemd and without a bus; it ends with the test. It gives
/// up its rights only where it begins as root, which a namespace of one user does not
/// let it do.
fn resolved(place: &Place) -> Result<Ends> {
    let root = std::env::var_os("PORTOLAN_ROOT").map(PathBuf::from);
    let root = root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    let folder = root.join("target/tools/systemd-resolved");
    let program = folder.join("lib/systemd/systemd-resolved");
    ensure!(
        program.is_file(),
        "{} is missing: cargo xtask setup",
        program.display()
    );
    place.file("systemd/resolved.conf", RESOLVED_CONF)?;
    // It has no right over the network: its port is one that everybody may take.
    std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?;
    let user = [
        "--user",
        "--map-user=1000",
        "--map-group=1000",
        "--keep-caps",
    ];
    let libraries = std::fs::read_dir(folder.join("usr/lib"))?
        .next()
        .context("libraries")??;
    let child = place
        .command(&user, RESOLVED)
        .arg(program)
        .env("LD_LIBRARY_PATH", libraries.path().join("systemd"))
        .env("SYSTEMD_LOG_TARGET", "console")
        .env("SYSTEMD_LOG_LEVEL", "warning")
        .spawn()?;
    Ok(Ends(child))
}

/// A process that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn d3_d19_systemd_resolved_passes_every_kind_of_record_on() {
    let test = "d3_d19_systemd_resolved_passes_every_kind_of_record_on";
    in_a_pod(test, |place| {
        let mut running = resolved(place)?;
        let end = Instant::now() + DEADLINE;
        while TcpStream::connect(STUB).is_err() {
            let ended = running.0.try_wait()?;
            ensure!(ended.is_none(), "systemd-resolved ended: {ended:?}");
            ensure!(Instant::now() < end, "systemd-resolved does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        let before = "@127.0.0.53 +tries=1 +timeout=20 -t";
        check(place, Path::new("dig"), before, &RECORDS)?;
        let missing: &[Asked] = &[("A missing.default.svc.cluster.local", &["NXDOMAIN"])];
        check(place, Path::new("dig"), before, missing)?;
        // As on a machine that has it: programs of glibc ask it.
        place.file(
            "resolv.conf",
            "nameserver 127.0.0.53\noptions edns0 trust-ad\n",
        )?;
        let asked: &[Asked] = &[
            (
                "ahosts both.default.svc.cluster.local",
                &["10.96.7.2", "fd00:10:96::72"],
            ),
            ("ahosts www.example.com", &["192.0.2.7", "2001:db8::7"]),
            ("hosts 10.96.7.1", &["web.default.svc.cluster.local"]),
            ("hosts missing.default.svc.cluster.local", &["exit 2"]),
        ];
        check(place, Path::new("getent"), "", asked)
    });
}
