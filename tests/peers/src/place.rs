//! Two namespaces and a link between them.

use std::process::Command;

use anyhow::{Context, Result};
use portolan_kernel::link::{LinkIndex, Links, VethEnd};
use portolan_kernel::netns::NetNs;

/// Our side of the link, and its number there.
pub const OURS: &str = "ours";
/// The neighbour's side of the link.
pub const THEIRS: &str = "theirs";
/// The link-layer address of our side.
pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The link-layer address of theirs.
pub const THEIR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Two network namespaces with a link: 192.0.2.1 and 2001:db8::1 are ours, 192.0.2.2 and
/// 2001:db8::2 the neighbour's.
#[derive(Debug)]
pub struct Place {
    /// Where our machine runs.
    pub ours: NetNs,
    /// Where the neighbour runs.
    pub theirs: NetNs,
    /// The link on our side.
    pub link: LinkIndex,
}

impl Place {
    /// Makes both, and the link.
    ///
    /// # Errors
    /// If the kernel refuses any of it.
    pub fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let (ours, theirs) = (NetNs::create()?, NetNs::create()?);
            let (here, there) = (Links::open(&ours)?, Links::open(&theirs)?);
            let end = |name, mac| VethEnd {
                name,
                mac: Some(mac),
            };
            let (near, far) = (end(OURS, OUR_MAC), end(THEIRS, THEIR_MAC));
            let link = here.add_veth(near, far, &there, None).await?;
            let other = there.index(THEIRS).await?;
            for address in ["192.0.2.1/24", "2001:db8::1/64"] {
                here.add_address(link, address.parse()?).await?;
            }
            for address in ["192.0.2.2/24", "2001:db8::2/64"] {
                there.add_address(other, address.parse()?).await?;
            }
            Ok(Self { ours, theirs, link })
        })
    }

    /// What a program says that runs at the neighbour's.
    ///
    /// # Errors
    /// If it cannot be started. That it fails is no error.
    pub fn there(&self, words: &[&str]) -> Result<String> {
        let (program, args) = words.split_first().context("a program")?;
        let output = self
            .theirs
            .run(|| Command::new(program).args(args).output())?
            .with_context(|| format!("start {program}"))?;
        let text = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
