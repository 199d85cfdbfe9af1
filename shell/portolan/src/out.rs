//! Where the product speaks to people: the only place that prints.
//!
//! Colour only on a terminal (anstream strips it elsewhere and honours
//! NO_COLOR); a closed pipe ends the program quietly, as `head` expects.

use std::io::Write;

use anstyle::{AnsiColor, Style};

/// For what went well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default().bold();
/// For what did not.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// For a step's heading.
pub(crate) const HEAD: Style = AnsiColor::Cyan.on_default().bold();
/// For what is less important.
pub(crate) const DIM: Style = Style::new().dimmed();

/// Writes one line to standard output.
pub(crate) fn line(text: impl std::fmt::Display) {
    let mut out = anstream::stdout().lock();
    if writeln!(out, "{text}").is_err() {
        // The reader went away: there is nobody left to tell.
        std::process::exit(0);
    }
}

/// Writes text as it is to standard output.
pub(crate) fn raw(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Writes one line to standard error.
pub(crate) fn note(text: impl std::fmt::Display) {
    let mut err = anstream::stderr().lock();
    // A note that cannot be written has no other place to go.
    drop(writeln!(err, "{text}"));
}

/// `text` in `style`.
pub(crate) fn styled(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Columns padded to their widest cell, three spaces apart, as kubectl prints them.
pub(crate) fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let columns = head.len().max(rows.iter().map(Vec::len).max().unwrap_or(0));
    let cell = |row: &[String], i: usize| row.get(i).map_or("", String::as_str).to_owned();
    let widths: Vec<usize> = (0..columns)
        .map(|i| {
            rows.iter()
                .map(|r| cell(r, i).chars().count())
                .chain([cell(head, i).chars().count()])
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in std::iter::once(head)
        .filter(|h| !h.is_empty())
        .chain(rows.iter().map(Vec::as_slice))
    {
        let mut line = String::new();
        for (i, width) in widths.iter().enumerate() {
            line.push_str(&format!("{:<width$}   ", cell(row, i)));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let head = vec!["NAME".to_owned(), "AGE".to_owned()];
        let rows = vec![
            vec!["a-long-name".to_owned(), "1s".to_owned()],
            vec!["b".to_owned()],
        ];
        assert_eq!(
            table(&head, &rows),
            "NAME          AGE\na-long-name   1s\nb\n"
        );
    }
}
