//! Reading other people's tables, as far as one must to take a part of them away.

use portolan_nft::netlink::{Foreign, Lead, Request};
use portolan_nft::{Family, TableId};

use super::{Nft, ReadError};

impl Nft {
    /// Every table of a family with its chains, whose ever they are.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer.
    pub fn foreign(&mut self, family: Family) -> Result<Foreign, ReadError> {
        let mut found = Foreign::default();
        for request in [Request::Tables(family), Request::Chains(family)] {
            self.ask_each(&request, |message| found.take(message))?;
        }
        Ok(found)
    }

    /// The rules of a table that lead to other chains.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer.
    pub fn leads(&mut self, table: &TableId) -> Result<Vec<Lead>, ReadError> {
        let mut found = Foreign::default();
        let request = Request::Rules(table.clone());
        self.ask_each(&request, |message| found.take(message))?;
        Ok(found.leads.remove(table).unwrap_or_default())
    }
}
