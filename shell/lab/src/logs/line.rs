//! One line of a log in the format of the container runtime interface:
//! `2016-10-06T00:17:09.669794202Z stdout F text`.

use jiff::Timestamp;

/// Which of its outputs a container wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line, or the piece of one that was too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// When it was written.
    pub time: Timestamp,
    /// Where it was written to.
    pub source: Source,
    /// Whether the line ends here; else the next one of this source goes on.
    pub full: bool,
    /// The text, without its line feed.
    pub text: &'a [u8],
}

impl<'a> Line<'a> {
    /// Appends the line to `out`, with a line feed.
    pub fn write(&self, out: &mut Vec<u8>) {
        let source = match self.source {
            Source::Stdout => "stdout",
            Source::Stderr => "stderr",
        };
        let tag = if self.full { "F" } else { "P" };
        let head = format!("{:.9} {source} {tag} ", self.time);
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(self.text);
        out.push(b'\n');
    }

    /// Reads a line without its line feed; `None` if it is none of ours.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
        let source = match parts.next()? {
            b"stdout" => Source::Stdout,
            b"stderr" => Source::Stderr,
            _ => return None,
        };
        let full = match parts.next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        let text = parts.next()?;
        Some(Self {
            time,
            source,
            full,
            text,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_written_and_read_in_the_runtime_interfaces_format() {
        let time = "2026-10-06T00:17:09.669794202Z".parse().unwrap();
        for (line, text) in [
            (
                Line {
                    time,
                    source: Source::Stdout,
                    full: true,
                    text: b"hello  world",
                },
                "2026-10-06T00:17:09.669794202Z stdout F hello  world\n",
            ),
            (
                Line {
                    time,
                    source: Source::Stderr,
                    full: false,
                    text: b"",
                },
                "2026-10-06T00:17:09.669794202Z stderr P \n",
            ),
        ] {
            let mut out = Vec::new();
            line.write(&mut out);
            assert_eq!(String::from_utf8_lossy(&out), text);
            assert_eq!(
                Line::parse(text.trim_end_matches('\n').as_bytes()),
                Some(line)
            );
        }
        let mut out = Vec::new();
        let whole = Line {
            time: Timestamp::UNIX_EPOCH,
            source: Source::Stdout,
            full: true,
            text: b"x",
        };
        whole.write(&mut out);
        assert_eq!(out, b"1970-01-01T00:00:00.000000000Z stdout F x\n");
        for bad in [
            "",
            "now stdout F x",
            "2026-10-06T00:17:09Z console F x",
            "2026-10-06T00:17:09Z stdout",
        ] {
            assert_eq!(Line::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
