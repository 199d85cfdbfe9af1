//! From a container's pipes to its log file.

use std::{fs, io, path::PathBuf, sync::Arc};

use jiff::Timestamp;
use tokio::{
    fs::File,
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    sync::watch,
};

use super::{Line, LogError, LogKey, Logs, MAX_SIZE, Source, file_of, instances};

/// A longer line is kept in pieces, as containerd does.
const MAX_LINE: u64 = 16 * 1024;
/// How many instances of a container have a log.
const KEPT: usize = 2;

impl Logs {
    /// Writes what comes from both pipes to the log of instance `number` until
    /// they end. The file exists when this returns; the work goes on in a task.
    pub fn record(
        self: &Arc<Self>,
        key: &LogKey,
        number: u32,
        stdout: impl AsyncRead + Send + Unpin + 'static,
        stderr: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<tokio::task::JoinHandle<()>, LogError> {
        let uid = key.uid.as_deref().unwrap_or_default();
        let pod = format!("{}_{}_{uid}", key.namespace, key.pod);
        let folder = self.dir.join(pod).join(&key.container);
        let path = file_of(&folder, number);
        let failed = |action, path: &PathBuf| {
            let path = path.clone();
            move |cause| LogError::File {
                action,
                path,
                cause,
            }
        };
        fs::create_dir_all(&folder).map_err(failed("make the folder", &folder))?;
        let file = fs::File::create(&path).map_err(failed("create", &path))?;
        forget_old(&folder);
        let (changed, live) = watch::channel(0);
        self.live().insert(path.clone(), live);
        let logs = self.clone();
        Ok(tokio::spawn(async move {
            let mut log = LogFile {
                path: path.clone(),
                file: File::from_std(file),
                size: 0,
                changed,
            };
            if let Err(cause) = log.record(stdout, stderr).await {
                tracing::warn!(log = %path.display(), %cause, "log not written to its end");
            }
            logs.live().remove(&path);
        }))
    }
}

fn forget_old(folder: &std::path::Path) {
    let mut numbers = instances(folder);
    numbers.truncate(numbers.len().saturating_sub(KEPT));
    for number in numbers {
        let path = file_of(folder, number);
        for path in [path.with_extension("log.1"), path] {
            // The older half exists only where the log was long.
            fs::remove_file(path).unwrap_or_default();
        }
    }
}

struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    changed: watch::Sender<u64>,
}

impl LogFile {
    async fn record(
        &mut self,
        stdout: impl AsyncRead + Unpin,
        stderr: impl AsyncRead + Unpin,
    ) -> io::Result<()> {
        let (mut stdout, mut stderr) = (Pieces::new(stdout), Pieces::new(stderr));
        while !(stdout.ended && stderr.ended) {
            let (source, piece) = tokio::select! {
                read = stdout.more(), if !stdout.ended => { read?; (Source::Stdout, stdout.take()) }
                read = stderr.more(), if !stderr.ended => { read?; (Source::Stderr, stderr.take()) }
            };
            let Some((text, full)) = piece else {
                continue;
            };
            let mut line = Vec::with_capacity(text.len() + 64);
            let time = Timestamp::now();
            Line {
                time,
                source,
                full,
                text: &text,
            }
            .write(&mut line);
            self.append(&line).await?;
        }
        Ok(())
    }

    async fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        if self.size + length > MAX_SIZE {
            tokio::fs::rename(&self.path, self.path.with_extension("log.1")).await?;
            self.file = File::create(&self.path).await?;
            self.size = 0;
        }
        self.file.write_all(line).await?;
        self.file.flush().await?;
        self.size += length;
        self.changed.send_modify(|writes| *writes += 1);
        Ok(())
    }
}

/// Lines of one pipe. Reading may be cancelled between bytes: what was read
/// stays here.
struct Pieces<R> {
    from: BufReader<R>,
    line: Vec<u8>,
    ended: bool,
}

impl<R: AsyncRead + Unpin> Pieces<R> {
    fn new(from: R) -> Self {
        Self {
            from: BufReader::new(from),
            line: Vec::new(),
            ended: false,
        }
    }

    async fn more(&mut self) -> io::Result<()> {
        let room = MAX_LINE.saturating_sub(self.line.len() as u64);
        let mut limited = (&mut self.from).take(room);
        if limited.read_until(b'\n', &mut self.line).await? == 0 {
            self.ended = true;
        }
        Ok(())
    }

    /// The piece that was read and whether it ends a line.
    fn take(&mut self) -> Option<(Vec<u8>, bool)> {
        let full = self.line.last() == Some(&b'\n');
        let long = self.line.len() as u64 >= MAX_LINE;
        if self.line.is_empty() || !(full || long || self.ended) {
            return None;
        }
        let mut text = std::mem::take(&mut self.line);
        if full {
            text.pop();
        }
        Some((text, full || self.ended))
    }
}
