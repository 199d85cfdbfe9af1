//! nftables over netlink: reading tables and committing batches.
//!
//! A commit is one transaction up to [`TRANSACTION`] bytes, which is far more than a
//! change of a few Services needs. A start with many Services, or a list of them that
//! changed while nobody watched, goes in several: none is larger in memory, none
//! keeps other users of nftables waiting for long. `portolan_nft::diff` orders its
//! steps so that every state in between is a safe one.
//!
//! The kernel takes a transaction as one `sendmsg` or not at all. As root of the
//! machine the send buffer is made large enough. In a user namespace it can not grow
//! over `net.core.wmem_max` (the kernel asks for CAP_NET_ADMIN in the first user
//! namespace, sock_setsockopt in Linux 6.18), so transactions are smaller there.
//!
//! A commit is processed inside `sendmsg`, and only failures are answered: when the
//! answers are read nothing is waited for.
//!
//! Absent on purpose: subscriptions. One subscriber makes a bulk commit ten times
//! slower; whoever wants to know of foreign changes asks for the generation.

mod foreign;
pub(crate) mod socket;

use std::collections::BTreeMap;
use std::io;

use portolan_nft::netlink::{Dump, Message, Request, Transaction, encode, messages};
use portolan_nft::{
    Batch, Counts, Data, Key, Name, Op, Outline, Shape, Statement, Step, Table, TableId,
};

use crate::netns::{NetNs, NetNsError};
use socket::{Answer, Socket};

/// How often a dump is begun anew because somebody changed the ruleset meanwhile.
const DUMP_ATTEMPTS: usize = 20;

/// The longest transaction in bytes: some ten thousand elements.
const TRANSACTION: usize = 1 << 20;

/// The nftables of one network namespace.
#[derive(Debug)]
pub struct Nft {
    socket: Socket,
    seq: u32,
    /// The longest transaction that is sent.
    limit: usize,
    /// Transactions that were committed.
    commits: u32,
}

/// Why nftables could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No thread could enter the namespace.
    #[error("cannot enter the network namespace to open nftables")]
    Namespace(#[source] NetNsError),
    /// The kernel gave no netlink socket.
    #[error("cannot open a netlink socket for nftables")]
    Socket(#[source] io::Error),
}

/// Why a batch was not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The kernel refused an operation, and with it the whole transaction.
    #[error("nftables refused to {operation}{more}")]
    Refused {
        /// The operation, in words.
        operation: String,
        /// How many other operations were refused too, in words.
        more: String,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
    /// The kernel refused a transaction without saying which operation is at fault.
    #[error("nftables refused a transaction of {messages} operations")]
    Transaction {
        /// The number of messages in it.
        messages: usize,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
    /// The transaction could not be sent.
    #[error("cannot send {bytes} bytes to nftables")]
    Send {
        /// The length of the transaction.
        bytes: usize,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
    /// The answers could not be read.
    #[error("cannot read what nftables answered")]
    Receive(#[source] io::Error),
}

/// Why a table could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The question could not be sent or the answer not be read.
    #[error("cannot ask nftables for {what}")]
    Io {
        /// What was asked for.
        what: String,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
    /// Somebody changed the ruleset again and again while it was read.
    #[error("the ruleset changed {DUMP_ATTEMPTS} times while {0} was read")]
    Unstable(TableId),
    /// The kernel did not tell the generation.
    #[error("nftables did not tell the generation of its ruleset")]
    NoGeneration,
}

impl Nft {
    /// Open the nftables of a namespace.
    ///
    /// # Errors
    ///
    /// If the namespace cannot be entered or the kernel has no nftables.
    pub fn open(netns: &NetNs) -> Result<Self, OpenError> {
        netns.run(Self::open_here).map_err(OpenError::Namespace)?
    }

    /// Open the nftables of the calling thread's namespace.
    ///
    /// # Errors
    ///
    /// If the kernel has no nftables.
    pub fn open_here() -> Result<Self, OpenError> {
        let mut socket = Socket::open().map_err(OpenError::Socket)?;
        socket.make_room(TRANSACTION);
        Ok(Self {
            socket,
            seq: 1,
            limit: TRANSACTION,
            commits: 0,
        })
    }

    /// Send no transaction much longer than this, even where the kernel would take
    /// it.
    pub fn limit(&mut self, bytes: usize) {
        self.limit = bytes;
    }

    /// Keep so much room for answers of the kernel, in bytes, instead of a few
    /// megabytes. What does not fit is lost, which a commit survives: one refusal
    /// is enough to know of it.
    ///
    /// # Errors
    ///
    /// If the kernel does not allow it.
    pub fn hold(&mut self, bytes: usize) -> Result<(), OpenError> {
        self.socket.hold(bytes).map_err(OpenError::Socket)
    }

    /// Make the changes of a batch.
    ///
    /// A batch of up to [`TRANSACTION`] bytes is one transaction, all or nothing,
    /// where the socket's buffer may be as large.
    ///
    /// # Errors
    ///
    /// If the kernel refuses an operation. Of a batch of several transactions the
    /// ones before stay.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        self.commit_up_to(batch, self.socket.room().min(self.limit))
    }

    /// The same as one transaction, however long, where the socket's buffer may be as
    /// large: for what is made anew and must not be missed in between.
    ///
    /// # Errors
    ///
    /// As [`Nft::commit`].
    pub fn commit_at_once(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let whole = encode(batch, usize::MAX, self.seq, None);
        let longest = whole.map(|transaction| transaction.bytes.len()).max();
        self.socket.make_room(longest.unwrap_or(0));
        self.commit_up_to(batch, self.socket.room())
    }

    fn commit_up_to(&mut self, batch: &Batch, room: usize) -> Result<(), CommitError> {
        for transaction in encode(batch, room, self.seq, None) {
            self.seq = transaction.next_seq();
            // What cannot be cut may be longer.
            self.socket.make_room(transaction.bytes.len());
            self.transact(batch, &transaction)?;
        }
        Ok(())
    }

    fn transact(&mut self, batch: &Batch, transaction: &Transaction) -> Result<(), CommitError> {
        let bytes = transaction.bytes.len();
        let send = |cause| CommitError::Send { bytes, cause };
        self.socket.drain();
        self.socket.send(&transaction.bytes).map_err(send)?;
        let mut refused: BTreeMap<usize, io::Error> = BTreeMap::new();
        let mut whole = None;
        while let Some(buffer) = self.socket.receive_now().map_err(CommitError::Receive)? {
            for message in messages(buffer) {
                let Some(Answer::Failed(cause)) = socket::answer(message.kind, message.body) else {
                    continue;
                };
                match transaction.step(message.seq) {
                    Some(step) => {
                        refused.entry(step).or_insert(cause);
                    }
                    None => whole = Some(cause),
                }
            }
        }
        if let Some((step, cause)) = refused.pop_first() {
            let operation = batch.steps.get(step).map_or_else(String::new, describe);
            let more = match refused.len() {
                0 => String::new(),
                others => format!(" (and {others} more)"),
            };
            return Err(CommitError::Refused {
                operation,
                more,
                cause,
            });
        }
        let messages = transaction.len();
        if let Some(cause) = whole {
            return Err(CommitError::Transaction { messages, cause });
        }
        self.commits = self.commits.wrapping_add(1);
        Ok(())
    }

    /// How many transactions this handle has committed. Each of them moves the
    /// generation on by one.
    pub fn commits(&self) -> u32 {
        self.commits
    }

    /// Whether there is such a table, at the cost of a list of tables.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer.
    pub fn exists(&mut self, id: &TableId) -> Result<bool, ReadError> {
        let mut dump = Dump::new();
        self.ask(&Request::Tables(id.family), &mut dump)?;
        dump.keep(id);
        Ok(!dump.is_empty())
    }

    /// Read a table; none if it is not there.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer, or the ruleset does not hold still.
    pub fn read(&mut self, id: &TableId) -> Result<Option<Table>, ReadError> {
        let dump = self.read_stable(id, Dump::new)?;
        Ok(dump.finish().tables.remove(id))
    }

    /// Read a table in outline, which needs next to no memory; none if it is not
    /// there.
    ///
    /// # Errors
    ///
    /// As [`Nft::read`].
    pub fn outline(&mut self, id: &TableId) -> Result<Option<Outline>, ReadError> {
        Ok(self.read_stable(id, Dump::outlining)?.outline(id))
    }

    fn read_stable(&mut self, id: &TableId, empty: fn() -> Dump) -> Result<Dump, ReadError> {
        for _ in 0..DUMP_ATTEMPTS {
            let before = self.generation()?;
            let dump = self.read_once(id, empty())?;
            if self.generation()? == before {
                return Ok(dump);
            }
        }
        Err(ReadError::Unstable(id.clone()))
    }

    fn read_once(&mut self, id: &TableId, mut dump: Dump) -> Result<Dump, ReadError> {
        self.ask(&Request::Tables(id.family), &mut dump)?;
        dump.keep(id);
        if dump.is_empty() {
            return Ok(dump);
        }
        self.ask(&Request::Chains(id.family), &mut dump)?;
        self.ask(&Request::Rules(id.clone()), &mut dump)?;
        self.ask(&Request::Sets(id.clone()), &mut dump)?;
        for (id, set) in dump.sets() {
            self.ask(&Request::Elements(id, set), &mut dump)?;
        }
        Ok(dump)
    }

    /// The elements of one set or map, also what packets have put into a dynamic
    /// one; nothing if there is none.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer.
    pub fn learned(&mut self, id: &TableId, set: &Name) -> Result<Vec<(Key, Data)>, ReadError> {
        let mut dump = Dump::with_learned();
        self.ask(&Request::Tables(id.family), &mut dump)?;
        dump.keep(id);
        self.ask(&Request::Sets(id.clone()), &mut dump)?;
        self.ask(&Request::Elements(id.clone(), set.clone()), &mut dump)?;
        let table = dump.finish().tables.remove(id);
        let set = table.and_then(|mut table| table.sets.remove(set));
        Ok(set.map_or_else(Vec::new, |set| set.elements.into_iter().collect()))
    }

    /// What the first counter of a chain has counted; none if there is none.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer.
    pub fn counted(&mut self, id: &TableId, chain: &Name) -> Result<Option<Counts>, ReadError> {
        let mut dump = Dump::new();
        self.ask(&Request::Tables(id.family), &mut dump)?;
        dump.keep(id);
        self.ask(&Request::Chains(id.family), &mut dump)?;
        self.ask(&Request::RulesOf(id.clone(), chain.clone()), &mut dump)?;
        let table = dump.finish().tables.remove(id);
        let chain = table.and_then(|mut table| table.chains.remove(chain));
        let rules = chain.map_or_else(Vec::new, |chain| chain.rules);
        let mut statements = rules.iter().flat_map(|rule| &rule.statements);
        Ok(statements.find_map(Statement::counts))
    }

    /// Takes elements out of a dynamic set or map. One that has gone by itself
    /// meanwhile is no error.
    ///
    /// # Errors
    ///
    /// If the kernel refuses for another reason.
    pub fn forget(&mut self, id: &TableId, set: &Name, keys: Vec<Key>) -> Result<(), CommitError> {
        let batch = |keys: Vec<Key>| {
            let mut batch = Batch::new();
            let delete = Op::DeleteElements {
                set: set.clone(),
                shape: Shape::Points,
                keys,
            };
            batch.push(id, delete);
            batch
        };
        // All at once, and one by one where one of them is gone.
        if keys.is_empty() || self.commit(&batch(keys.clone())).is_ok() {
            return Ok(());
        }
        for key in keys {
            match self.commit(&batch(vec![key])) {
                Err(CommitError::Refused { cause, .. })
                    if cause.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// The number that changes with every commit in the namespace, whoever made it.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer.
    pub fn generation(&mut self) -> Result<u32, ReadError> {
        let mut dump = Dump::new();
        self.ask(&Request::Generation, &mut dump)?;
        dump.generation().ok_or(ReadError::NoGeneration)
    }

    /// Ask, and take every answer. What is gone meanwhile answers nothing.
    fn ask(&mut self, request: &Request, dump: &mut Dump) -> Result<(), ReadError> {
        self.ask_each(request, |message| dump.take(message))
    }

    /// The same, for whoever takes the messages.
    fn ask_each(
        &mut self,
        request: &Request,
        mut take: impl FnMut(&Message<'_>),
    ) -> Result<(), ReadError> {
        let failed = |cause| ReadError::Io {
            what: what(request),
            cause,
        };
        self.seq = self.seq.wrapping_add(1);
        let seq = self.seq;
        self.socket.drain();
        self.socket.send(&request.encode(seq)).map_err(failed)?;
        loop {
            let buffer = self.socket.receive().map_err(failed)?;
            for message in messages(buffer).filter(|message| message.seq == seq) {
                match socket::answer(message.kind, message.body) {
                    None => {
                        take(&message);
                        if *request == Request::Generation {
                            return Ok(());
                        }
                    }
                    Some(Answer::Done) => return Ok(()),
                    Some(Answer::Failed(cause)) if cause.kind() == io::ErrorKind::NotFound => {
                        return Ok(());
                    }
                    Some(Answer::Failed(cause)) => return Err(failed(cause)),
                }
            }
        }
    }
}

fn what(request: &Request) -> String {
    match request {
        Request::Tables(family) => format!("the tables of family {}", family.name()),
        Request::Chains(family) => format!("the chains of family {}", family.name()),
        Request::Rules(table) => format!("the rules of table {table}"),
        Request::RulesOf(table, chain) => format!("the rules of {chain} in table {table}"),
        Request::Sets(table) => format!("the sets of table {table}"),
        Request::Elements(table, set) => format!("the elements of {set} in table {table}"),
        Request::Generation => "its generation".to_owned(),
    }
}

/// An operation in words, for errors.
fn describe(step: &Step) -> String {
    let table = &step.table;
    match &step.op {
        Op::AddTable { .. } => format!("add table {table}"),
        Op::DeleteTable => format!("delete table {table}"),
        Op::AddChain { chain, .. } => format!("add chain {table} {chain}"),
        Op::FlushChain { chain } => format!("flush chain {table} {chain}"),
        Op::DeleteChain { chain } => format!("delete chain {table} {chain}"),
        Op::AddRule { chain, rule } => {
            format!("add rule {table} {chain} {}", rule.text(table.family))
        }
        Op::DeleteRule { chain, handle } => format!("delete rule {table} {chain} handle {handle}"),
        Op::AddSet { set, .. } => format!("add set {table} {set}"),
        Op::DeleteSet { set } => format!("delete set {table} {set}"),
        Op::AddElements { set, elements, .. } => {
            format!("add {} elements to {table} {set}", elements.len())
        }
        Op::DeleteElements { set, keys, .. } => {
            format!("delete {} elements of {table} {set}", keys.len())
        }
        Op::Commit => format!("end the transaction of {table}"),
    }
}
