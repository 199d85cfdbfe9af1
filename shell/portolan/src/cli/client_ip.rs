//! `portolan agent --preserve-client-ip`: what goes with it and what does not.

use anyhow::{Result, bail};
use portolan_agent::replies::ReplyPath;
use portolan_plan::{Detector, NodeView};

use super::AgentArgs;

impl AgentArgs {
    /// Whether clients keep their addresses, and how nodes tell each other of it.
    pub(crate) fn reply_path(&self) -> ReplyPath {
        ReplyPath {
            on: self.preserve_client_ip,
            namespace: self.leader_elect_resource_namespace.clone(),
            mask: self.preserve_client_ip_mask,
        }
    }

    /// Whether clients can keep their addresses as asked for.
    pub(crate) fn client_ip(&self, given: &NodeView) -> Result<()> {
        if !self.preserve_client_ip {
            return Ok(());
        }
        if given.detector != Detector::ClusterCidr || given.cluster_pod_cidrs.is_empty() {
            bail!(
                "--preserve-client-ip goes with --cluster-cidr, by which pods are told from clients"
            );
        }
        let mask = self.preserve_client_ip_mask;
        let others = [
            ("--masquerade-bit", given.masquerade_bit),
            ("--established-mark-bit", given.cut_bit.unwrap_or(0)),
        ];
        for (flag, bit) in others {
            if mask & bit != 0 {
                bail!(
                    "--preserve-client-ip-mask {mask:#010x} and {flag} have bit {bit:#x} in common"
                );
            }
        }
        Ok(())
    }
}

/// Two adjacent bits or more, as a number.
pub(super) fn reply_mask(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0x").map(|hex| (hex, 16));
    let (digits, radix) = digits.unwrap_or((text, 10));
    let mask = u32::from_str_radix(digits, radix).map_err(|error| error.to_string())?;
    let bits = mask.count_ones();
    if !(2..=16).contains(&bits) || mask.leading_zeros() + bits + mask.trailing_zeros() != u32::BITS
    {
        return Err("expected 2 to 16 adjacent bits, such as 0x00ff0000".to_owned());
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_adjacent_bits() {
        for (text, mask) in [("0x00ff0000", 0xff_0000), ("0xc0000000", 3 << 30), ("3", 3)] {
            assert_eq!(reply_mask(text), Ok(mask));
        }
        for text in [
            "0",
            "1",
            "0x00ff00ff",
            "0x1ffff",
            "0xf0f",
            "ff",
            "0x1ffffffff",
            "",
        ] {
            assert!(reply_mask(text).is_err(), "{text}");
        }
    }
}
