//! BIRD, and its client without a process for each question.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, ensure};
use portolan_kernel::netns::NetNs;
use portolan_peers::bird::Bird;

use crate::objects::{NODES_AS, ROUTER_AS};
use crate::town::{CLIENT, address, pool_address};

/// A BIRD that is asked over one connection.
pub(crate) struct Router {
    _bird: Bird,
    control: BufReader<UnixStream>,
}

/// What a router's BGP is like beside the usual.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    /// Seconds.
    pub(crate) hold: u16,
    /// Whether it watches the nodes with BFD.
    pub(crate) bfd: bool,
    /// Whether the kernel gets the routes, over all paths.
    pub(crate) routes: bool,
}

impl Router {
    /// The router of so many nodes, which connect to it. Its sessions are called
    /// `node0` and so on.
    ///
    /// # Errors
    /// If BIRD does not start.
    pub(crate) fn start(netns: &NetNs, nodes: usize, manner: Manner) -> Result<Self> {
        let mut config = String::new();
        if manner.bfd {
            config
                .push_str("protocol bfd { interface \"*\" { interval 100 ms; multiplier 3; }; }\n");
        }
        if manner.routes {
            config.push_str("protocol kernel { ipv4 { export all; }; merge paths on; }\n");
        }
        let (hold, bfd) = (manner.hold, if manner.bfd { "on" } else { "off" });
        for node in 0..nodes {
            let at = address(node)?;
            writeln!(
                config,
                "protocol bgp node{node} {{ local {CLIENT} as {ROUTER_AS}; \
                 neighbor {at} as {NODES_AS}; passive; hold time {hold}; bfd {bfd}; \
                 error wait time 1, 1; ipv4 {{ import all; export none; }}; }}"
            )?;
        }
        Self::of(Bird::start(netns, &config)?)
    }

    /// A node's BIRD that tells the router of as many addresses of the pool.
    ///
    /// # Errors
    /// If BIRD does not start.
    pub(crate) fn start_teller(netns: &NetNs, at: Ipv4Addr, routes: usize) -> Result<Self> {
        let mut config = String::from("protocol static { ipv4; ");
        for number in 0..routes {
            write!(config, "route {}/32 blackhole; ", pool_address(number)?)?;
        }
        writeln!(
            config,
            "}}\nprotocol bgp upward {{ router id {at}; local {at} as {NODES_AS}; \
             neighbor {CLIENT} as {ROUTER_AS}; connect delay time 1; connect retry time 1; \
             error wait time 1, 1; ipv4 {{ import none; export all; next hop self; }}; }}"
        )?;
        Self::of(Bird::start(netns, &config)?)
    }

    fn of(bird: Bird) -> Result<Self> {
        let control = UnixStream::connect(bird.control()).context("BIRD's control socket")?;
        let mut router = Self {
            _bird: bird,
            control: BufReader::new(control),
        };
        router.reply()?;
        Ok(router)
    }

    /// A reply, whose last line has a number and a space.
    fn reply(&mut self) -> Result<String> {
        let mut text = String::new();
        loop {
            let begin = text.len();
            let read = self.control.read_line(&mut text)?;
            ensure!(read > 0, "BIRD has ended");
            let line = text.get(begin..).unwrap_or_default();
            let (code, rest) = line.split_at_checked(4).unwrap_or((line, ""));
            if code.bytes().all(|byte| byte.is_ascii_digit()) && rest.starts_with(' ') {
                return Ok(text);
            }
        }
    }

    /// What it says to a command.
    ///
    /// # Errors
    /// If it has ended.
    pub(crate) fn ask(&mut self, words: &str) -> Result<String> {
        self.control
            .get_mut()
            .write_all(format!("{words}\n").as_bytes())?;
        self.reply()
    }

    /// How many routes it has of a session; none while that is not up.
    ///
    /// # Errors
    /// If it has ended.
    pub(crate) fn imported(&mut self, session: &str) -> Result<Option<usize>> {
        let said = self.ask(&format!("show protocols all {session}"))?;
        if !said.contains("Established") {
            return Ok(None);
        }
        let routes = said.split("Routes:").nth(1).unwrap_or_default();
        let count = routes.split_whitespace().next().unwrap_or_default();
        Ok(Some(count.parse().with_context(|| said.clone())?))
    }
}
