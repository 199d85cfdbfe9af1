//! The way to a node's [`Gate`] from other processes: a Unix socket, for the CNI
//! plugin (`portolan cni`).
//!
//! A question is one line of JSON, and so is its answer, `{"done":true}` or
//! `{"error":"…"}`; a connection is for one question. Whoever goes away is not waited
//! for any more.
//!
//! | `verb` | with | answered |
//! |---|---|---|
//! | `attach` | `container`, `namespace`, `name`, `uid`, `addresses` | when the pod's policies hold |
//! | `detach` | `container` | at once |
//! | `keep` | `containers`: all that there are | at once |
//! | `status` | | when the kernel holds what the API server says |
//!
//! What was attached is kept as a file each, beside the socket, so that the next agent
//! knows it before it decides anything. The folder is for root alone.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{IpAddr, Shutdown};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portolan_model::{Attachment, PodKey, Uid};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::node::Gate;

/// Where plugins look for the agent, if nobody says otherwise.
pub const SOCKET: &str = "/run/portolan/agent.sock";

/// No question is longer.
const LONGEST: u64 = 64 * 1024;
/// The folder of what was attached, beside the socket.
const ATTACHED: &str = "attached";
/// How a file of it begins until it is whole.
const PARTIAL: &str = ".";
/// The pause after a connection that could not be taken.
const PAUSE: Duration = Duration::from_millis(100);

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("listen for the CNI plugin at {}", path.display())]
pub struct SocketError {
    path: PathBuf,
    #[source]
    cause: io::Error,
}

/// A socket that is served until this is dropped. Its file stays, so that a plugin
/// finds nobody there and says so; the next agent takes its place.
#[derive(Debug)]
pub struct GateSocket {
    task: JoinHandle<()>,
}

impl Drop for GateSocket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Who is attached, by container and interface.
struct Book {
    gate: Gate,
    dir: PathBuf,
    attached: Mutex<BTreeMap<String, Attachment>>,
}

/// Serves a gate at a path, after telling it what was attached before.
///
/// # Errors
/// If there can be no such socket.
pub fn serve(path: &Path, gate: Gate) -> Result<GateSocket, SocketError> {
    let failed = |cause| SocketError {
        path: path.to_owned(),
        cause,
    };
    let dir = path.parent().unwrap_or(Path::new("/")).join(ATTACHED);
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir);
    made.map_err(failed)?;
    let listener = listen(path).map_err(failed)?;
    let book = Arc::new(Book {
        gate,
        dir,
        attached: Mutex::default(),
    });
    book.recall().map_err(failed)?;
    let task = tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(talk(stream, Arc::clone(&book)))),
                Err(error) => {
                    tracing::warn!(%error, "a CNI plugin could not be listened to");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    });
    Ok(GateSocket { task })
}

/// Takes the place of an older socket at once: at no time there is none.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}", std::process::id()));
    let new = PathBuf::from(new);
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&new, path)?;
    Ok(listener)
}

async fn talk(stream: UnixStream, book: Arc<Book>) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = tokio::io::BufReader::new(reader.take(LONGEST));
    let mut line = String::new();
    if reader.read_line(&mut line).await.is_err() {
        return;
    }
    let answered = async {
        match serde_json::from_str::<Value>(&line) {
            Ok(question) => book.answer(&question).await,
            Err(error) => Err(format!("not JSON: {error}")),
        }
    };
    let mut rest = Vec::new();
    let answer = tokio::select! {
        answer = answered => answer,
        // Nothing comes behind a question but the end.
        _ = reader.read_to_end(&mut rest) => return,
    };
    let answer = match answer {
        Ok(()) => json!({"done": true}),
        Err(error) => json!({"error": error}),
    };
    // Whoever is gone needs no answer.
    drop(writer.write_all(format!("{answer}\n").as_bytes()).await);
}

fn text<'q>(question: &'q Value, field: &str) -> Result<&'q str, String> {
    let text = question.get(field).and_then(Value::as_str);
    text.filter(|text| !text.is_empty())
        .ok_or_else(|| format!("{field} is missing"))
}

/// What a question says of a pod's network.
fn attachment(question: &Value) -> Result<Attachment, String> {
    let addresses = question.get("addresses").and_then(Value::as_array);
    let addresses = addresses.into_iter().flatten().map(|address| {
        let parsed = address.as_str().and_then(|text| text.parse().ok());
        parsed.ok_or_else(|| format!("{address} is not an IP address"))
    });
    let addresses: Vec<IpAddr> = addresses.collect::<Result<_, _>>()?;
    if addresses.is_empty() {
        return Err("addresses is missing".to_owned());
    }
    let uid = question.get("uid").and_then(Value::as_str);
    Ok(Attachment {
        pod: PodKey::new(text(question, "namespace")?, text(question, "name")?),
        uid: Uid::of(uid.unwrap_or_default()),
        addresses,
    })
}

impl Book {
    async fn answer(&self, question: &Value) -> Result<(), String> {
        match text(question, "verb")? {
            "attach" => {
                let attachment = attachment(question)?;
                let container = text(question, "container")?;
                let kept = self.keep(container, question, &attachment);
                kept.map_err(|error| format!("cannot keep what was attached: {error}"))?;
                self.gate.attach(attachment).await;
            }
            "detach" => self.detach(text(question, "container")?),
            "keep" => {
                let list = question.get("containers").and_then(Value::as_array);
                let list = list.ok_or("containers is missing")?.iter();
                let valid: BTreeSet<&str> = list.filter_map(Value::as_str).collect();
                let known: Vec<String> = self.lock().keys().cloned().collect();
                for gone in known.iter().filter(|own| !valid.contains(own.as_str())) {
                    self.detach(gone);
                }
            }
            "status" => self.gate.ready().await,
            other => return Err(format!("{other:?} is not known")),
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Attachment>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file name for a container and its interface.
    fn file(&self, container: &str) -> PathBuf {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let name: String = container
            .bytes()
            .map(|byte| {
                if plain(byte) {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02x}")
                }
            })
            .collect();
        self.dir.join(name)
    }

    fn keep(&self, container: &str, question: &Value, attachment: &Attachment) -> io::Result<()> {
        let file = self.file(container);
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let partial = self.dir.join(format!("{PARTIAL}{name}"));
        std::fs::write(&partial, question.to_string())?;
        std::fs::rename(&partial, &file)?;
        let mut attached = self.lock();
        attached.insert(container.to_owned(), attachment.clone());
        Ok(())
    }

    /// Tells of what earlier agents were told.
    fn recall(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
                continue;
            }
            let said = std::fs::read_to_string(entry.path())?;
            let question = serde_json::from_str::<Value>(&said).unwrap_or_default();
            match (text(&question, "container"), attachment(&question)) {
                (Ok(container), Ok(attachment)) => {
                    self.gate.tell(attachment.clone());
                    self.lock().insert(container.to_owned(), attachment);
                }
                (Err(error), _) | (_, Err(error)) => {
                    let file = entry.path();
                    tracing::warn!(file = %file.display(), error, "a file of pods' networks is of no use");
                }
            }
        }
        Ok(())
    }

    /// A network is gone; its pod's, if it has no other.
    fn detach(&self, container: &str) {
        let mut attached = self.lock();
        let Some(gone) = attached.remove(container) else {
            return;
        };
        if let Err(error) = std::fs::remove_file(self.file(container)) {
            tracing::warn!(%error, container, "the file of a pod's network stays");
        }
        let same = |other: &&Attachment| (&other.pod, other.uid) == (&gone.pod, gone.uid);
        // A pod's network may be made anew before the old one is taken away.
        match attached.values().rfind(same) {
            Some(other) => self.gate.tell(other.clone()),
            None => self.gate.detach(gone.pod, gone.uid),
        }
    }
}

/// Why an agent gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there, or no longer.
    #[error("no agent answers at {}", path.display())]
    Away {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// It was not in time.
    #[error("the agent at {} gave no answer in {}s", path.display(), within.as_secs())]
    Late {
        /// Where.
        path: PathBuf,
        /// What was in time.
        within: Duration,
    },
    /// It said no.
    #[error("the agent says: {0}")]
    Refused(String),
}

/// Asks the agent at a path and waits for so long.
///
/// # Errors
/// If it is away, says no, or is not in time.
pub fn ask(path: &Path, question: &Value, within: Duration) -> Result<(), AskError> {
    let failed = |cause: io::Error| {
        let path = path.to_owned();
        if matches!(cause.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
            AskError::Late { path, within }
        } else {
            AskError::Away { path, cause }
        }
    };
    let end = Instant::now() + within;
    let mut stream = std::os::unix::net::UnixStream::connect(path).map_err(failed)?;
    let left = || Some(end.saturating_duration_since(Instant::now()).max(PAUSE));
    stream.set_write_timeout(left()).map_err(failed)?;
    let line = format!("{question}\n");
    stream.write_all(line.as_bytes()).map_err(failed)?;
    stream.set_read_timeout(left()).map_err(failed)?;
    let mut answer = String::new();
    let mut reader = BufReader::new(&stream);
    if reader.read_line(&mut answer).map_err(failed)? == 0 {
        return Err(failed(ErrorKind::UnexpectedEof.into()));
    }
    // It is the last word; nothing depends on how the connection ends.
    stream.shutdown(Shutdown::Both).ok();
    let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
    match (answer.get("done"), answer.get("error")) {
        (Some(Value::Bool(true)), None) => Ok(()),
        (_, Some(Value::String(error))) => Err(AskError::Refused(error.clone())),
        _ => Err(AskError::Refused(answer.to_string())),
    }
}
