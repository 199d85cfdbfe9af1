//! From a log file to `kubectl logs`.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

use bytes::Bytes;
use futures::{Stream, stream::BoxStream};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use super::{Line, LogError, LogOptions};

/// Pieces of a log as they come.
pub type LogStream = BoxStream<'static, io::Result<Bytes>>;

/// Bytes that are handed on at a time.
const CHUNK: usize = 32 * 1024;

/// Opens a log. `live` tells of writes while the container runs.
pub(super) fn open(
    path: PathBuf,
    live: Option<watch::Receiver<u64>>,
    options: LogOptions,
) -> Result<LogStream, LogError> {
    let failed = |cause| LogError::File {
        action: "read",
        path: path.clone(),
        cause,
    };
    let since = options.since.and_then(|age| {
        let age = SignedDuration::try_from(age).ok()?;
        Timestamp::now().checked_sub(age).ok()
    });
    let wanted = Wanted {
        since: since.max(options.since_time),
        keep: options.tail_lines,
    };
    let mut first = VecDeque::new();
    if let Ok(mut older) = Place::open(path.with_extension("log.1")) {
        older.lines(&wanted, &mut first).map_err(failed)?;
    }
    let mut place = Place::open(path.clone()).map_err(failed)?;
    place.lines(&wanted, &mut first).map_err(failed)?;
    let tail = Tail {
        place,
        wanted: Wanted {
            keep: None,
            ..wanted
        },
        timestamps: options.timestamps,
        left: options.limit_bytes,
        at_line_start: true,
    };
    Ok(Box::pin(stream(
        tail,
        first,
        live.filter(|_| options.follow),
    )))
}

fn stream(
    tail: Tail,
    first: VecDeque<Vec<u8>>,
    live: Option<watch::Receiver<u64>>,
) -> impl Stream<Item = io::Result<Bytes>> {
    futures::stream::unfold(
        (tail, first, live),
        |(mut tail, mut lines, mut live)| async move {
            loop {
                let mut chunk = Vec::new();
                while chunk.len() < CHUNK
                    && let Some(line) = lines.pop_front()
                {
                    tail.show(&line, &mut chunk);
                }
                if !chunk.is_empty() {
                    return Some((Ok(Bytes::from(chunk)), (tail, lines, live)));
                }
                if tail.left == Some(0) {
                    return None;
                }
                // After the last write one more look is due.
                let ended = live.as_mut()?.changed().await.is_err();
                if ended {
                    live = None;
                }
                if let Err(cause) = tail.more(&mut lines) {
                    return Some((Err(cause), (tail, VecDeque::new(), None)));
                }
                if ended && lines.is_empty() {
                    return None;
                }
            }
        },
    )
}

/// Which lines are wanted.
struct Wanted {
    since: Option<Timestamp>,
    keep: Option<u64>,
}

/// How lines are shown, and where the reader is.
struct Tail {
    place: Place,
    wanted: Wanted,
    timestamps: bool,
    left: Option<u64>,
    at_line_start: bool,
}

impl Tail {
    /// What was written since the last look.
    fn more(&mut self, lines: &mut VecDeque<Vec<u8>>) -> io::Result<()> {
        self.place.lines(&self.wanted, lines)?;
        if let Some(newer) = self.place.moved_on()? {
            self.place = newer;
            self.place.lines(&self.wanted, lines)?;
        }
        Ok(())
    }

    /// Appends a stored line as the user sees it.
    fn show(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(line) = Line::parse(line) else {
            return;
        };
        let mut text = Vec::with_capacity(line.text.len() + 32);
        if self.timestamps && self.at_line_start {
            text.extend_from_slice(format!("{:.9} ", line.time).as_bytes());
        }
        text.extend_from_slice(line.text);
        if line.full {
            text.push(b'\n');
        }
        self.at_line_start = line.full;
        if let Some(left) = &mut self.left {
            text.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= text.len() as u64;
        }
        out.extend_from_slice(&text);
    }
}

/// A place in a file that may be set aside while it is read.
struct Place {
    path: PathBuf,
    file: File,
    at: u64,
}

impl Place {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::open(&path)?;
        Ok(Self { path, file, at: 0 })
    }

    /// Reads whole lines to the end of what is there; an unfinished one is
    /// read next time. Keeps the last ones if only those are wanted.
    fn lines(&mut self, wanted: &Wanted, lines: &mut VecDeque<Vec<u8>>) -> io::Result<()> {
        let keep = wanted.keep.map_or(usize::MAX, |keep| {
            usize::try_from(keep).unwrap_or(usize::MAX)
        });
        let mut file = BufReader::new(&self.file);
        file.seek(SeekFrom::Start(self.at))?;
        let mut whole = lines.iter().filter(|line| ends(line)).count();
        loop {
            let mut line = Vec::new();
            let read = file.read_until(b'\n', &mut line)?;
            if line.pop() != Some(b'\n') {
                return Ok(());
            }
            self.at += read as u64;
            let Some(parsed) = Line::parse(&line) else {
                continue;
            };
            if wanted.since.is_some_and(|since| parsed.time < since) {
                continue;
            }
            whole += usize::from(parsed.full);
            lines.push_back(line);
            while whole > keep {
                let Some(old) = lines.pop_front() else { break };
                whole -= usize::from(ends(&old));
            }
        }
    }

    /// The start of the file that has the name now, if it is another one.
    fn moved_on(&self) -> io::Result<Option<Self>> {
        match Self::open(self.path.clone()) {
            Ok(now) if now.file.metadata()?.ino() == self.file.metadata()?.ino() => Ok(None),
            Ok(now) => Ok(Some(now)),
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(cause),
        }
    }
}

fn ends(line: &[u8]) -> bool {
    Line::parse(line).is_some_and(|line| line.full)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use futures::{StreamExt, TryStreamExt};
    use tokio::io::AsyncWriteExt;

    use super::super::{LogKey, Logs};
    use super::*;

    struct Case {
        logs: Arc<Logs>,
        dir: PathBuf,
        key: LogKey,
    }

    impl Case {
        fn new(name: &str) -> Self {
            let dir =
                std::env::temp_dir().join(format!("portolan-logs-{name}-{}", std::process::id()));
            let key = LogKey {
                namespace: "shop".into(),
                pod: "web-0".into(),
                uid: Some("u1".into()),
                container: "web".into(),
            };
            Self {
                logs: Arc::new(Logs::new(dir.clone())),
                dir,
                key,
            }
        }

        /// Records one instance that writes `text` and ends.
        async fn write(&self, number: u32, text: &str) {
            let done = self
                .logs
                .record(&self.key, number, io_of(text), tokio::io::empty());
            done.unwrap().await.unwrap();
        }

        async fn read(&self, options: LogOptions) -> String {
            let stream = self.logs.read(&self.key, options).unwrap();
            let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
            String::from_utf8(chunks.concat()).unwrap()
        }
    }

    impl Drop for Case {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.dir).unwrap_or_default();
        }
    }

    fn io_of(text: &str) -> std::io::Cursor<Vec<u8>> {
        std::io::Cursor::new(text.as_bytes().to_vec())
    }

    fn all() -> LogOptions {
        LogOptions::default()
    }

    #[tokio::test]
    async fn options_choose_lines() {
        let case = Case::new("options");
        case.write(0, "one\ntwo\nthree").await;
        let hour = Some(Duration::from_secs(3600));
        let later = Some("9000-01-01T00:00:00Z".parse().unwrap());
        let tail = |lines| LogOptions {
            tail_lines: Some(lines),
            ..all()
        };
        for (options, text) in [
            (all(), "one\ntwo\nthree\n"),
            (tail(0), ""),
            (tail(1), "three\n"),
            (tail(2), "two\nthree\n"),
            (tail(9), "one\ntwo\nthree\n"),
            (
                LogOptions {
                    limit_bytes: Some(5),
                    ..all()
                },
                "one\nt",
            ),
            (
                LogOptions {
                    since: hour,
                    ..all()
                },
                "one\ntwo\nthree\n",
            ),
            (
                LogOptions {
                    since_time: later,
                    ..all()
                },
                "",
            ),
        ] {
            assert_eq!(case.read(options.clone()).await, text, "{options:?}");
        }
        let stamped = case
            .read(LogOptions {
                timestamps: true,
                ..all()
            })
            .await;
        assert!(
            stamped
                .lines()
                .all(|line| line.len() > 30 && line.contains("Z ")),
            "{stamped}"
        );
    }

    #[tokio::test]
    async fn the_instance_before_is_kept_and_no_more() {
        let case = Case::new("previous");
        let previous = || LogOptions {
            previous: true,
            ..all()
        };
        let missing = case.logs.read(&case.key, all()).err().unwrap().to_string();
        assert!(
            missing.ends_with("is waiting to start: ContainerCreating"),
            "{missing}"
        );
        case.write(0, "old\n").await;
        let missing = case
            .logs
            .read(&case.key, previous())
            .err()
            .unwrap()
            .to_string();
        assert_eq!(
            missing,
            "previous terminated container \"web\" in pod \"web-0\" not found"
        );
        case.write(1, "now\n").await;
        assert_eq!(case.read(previous()).await, "old\n");
        case.write(2, "new\n").await;
        assert_eq!(case.read(previous()).await, "now\n");
        let newest = LogKey {
            uid: None,
            ..case.key.clone()
        };
        assert!(case.logs.read(&newest, all()).is_ok());
        case.logs.remove("shop", "web-0", "u1");
        assert!(case.logs.read(&case.key, all()).is_err());
    }

    #[tokio::test]
    async fn a_long_line_is_kept_in_pieces_and_shown_as_one() {
        let case = Case::new("long");
        let long = "x".repeat(40_000);
        case.write(0, &format!("{long}\nend\n")).await;
        assert_eq!(
            case.read(LogOptions::default()).await,
            format!("{long}\nend\n")
        );
        let tail = LogOptions {
            tail_lines: Some(2),
            ..LogOptions::default()
        };
        assert_eq!(case.read(tail).await, format!("{long}\nend\n"));
    }

    #[tokio::test]
    async fn following_ends_with_the_container() {
        let case = Case::new("follow");
        let (mut pipe, end) = tokio::io::duplex(64);
        let recording = case
            .logs
            .record(&case.key, 0, end, tokio::io::empty())
            .unwrap();
        pipe.write_all(b"first\n").await.unwrap();
        let follow = LogOptions {
            follow: true,
            ..LogOptions::default()
        };
        let mut stream = case.logs.read(&case.key, follow).unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "first\n");
        pipe.write_all(b"second\n").await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "second\n");
        drop(pipe);
        recording.await.unwrap();
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn a_full_file_is_set_aside_and_still_read() {
        let case = Case::new("full");
        let line = "y".repeat(1023) + "\n";
        let lines = 12 * 1024;
        case.write(0, &line.repeat(lines)).await;
        let text = case.read(LogOptions::default()).await;
        assert!(text.len() > 9 * 1024 * 1024, "{}", text.len());
        assert_eq!(text.len(), line.len() * lines);
    }
}
