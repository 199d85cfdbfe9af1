//! The page that `describe` prints: indented lines whose cells line up.
//!
//! kubectl writes through Go's text/tabwriter: a cell ends with a tab, and the
//! cells of one column in consecutive lines form a block of one width. The text
//! after a line's last tab belongs to no column. The same rule gives the same page.

use serde_json::Value;

/// Spaces between the widest cell of a block and the next column.
const PADDING: usize = 2;

/// Lines of tab-terminated cells.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
}

impl Page {
    /// One line, indented by `level` steps of two spaces.
    pub(super) fn line(&mut self, level: usize, text: impl std::fmt::Display) {
        self.text.push_str(&"  ".repeat(level));
        self.text.push_str(&text.to_string());
        self.text.push('\n');
    }

    /// `Label:` and its value.
    pub(super) fn field(&mut self, level: usize, label: &str, value: impl std::fmt::Display) {
        self.line(level, format_args!("{label}:\t{value}"));
    }

    /// `Label:` and its value, unless that is empty.
    pub(super) fn field_if(&mut self, level: usize, label: &str, value: &str) {
        if !value.is_empty() {
            self.field(level, label, value);
        }
    }

    /// Name, namespace, labels and annotations: how most descriptions begin.
    pub(super) fn metadata(&mut self, object: &Value) {
        let metadata = &object["metadata"];
        self.field(0, "Name", text(&metadata["name"]));
        self.field_if(0, "Namespace", text(&metadata["namespace"]));
        self.labels(0, "Labels", &metadata["labels"]);
        self.annotations(&metadata["annotations"]);
    }

    /// `key=value`, one to a line.
    pub(super) fn labels(&mut self, level: usize, label: &str, labels: &Value) {
        let pairs = sorted(labels);
        if pairs.is_empty() {
            self.field(level, label, "<none>");
        }
        for (i, (key, value)) in pairs.iter().enumerate() {
            let head = if i == 0 {
                format!("{label}:")
            } else {
                String::new()
            };
            self.line(level, format_args!("{head}\t{key}={}", text(value)));
        }
    }

    /// `key: value`, one to a line; long or multi-line values below their key.
    pub(super) fn annotations(&mut self, annotations: &Value) {
        /// A key and a value together longer than this get two lines.
        const ONE_LINE: usize = 140;
        let pairs: Vec<(&String, &Value)> = sorted(annotations)
            .into_iter()
            .filter(|(k, _)| *k != "kubectl.kubernetes.io/last-applied-configuration")
            .collect();
        if pairs.is_empty() {
            self.field(0, "Annotations", "<none>");
        }
        for (i, (key, value)) in pairs.iter().enumerate() {
            let head = if i == 0 { "Annotations:" } else { "" };
            let value = text(value).trim_end_matches('\n');
            if value.len() + key.len() + 2 < ONE_LINE && !value.contains('\n') {
                self.line(0, format_args!("{head}\t{key}: {value}"));
                continue;
            }
            self.line(0, format_args!("{head}\t{key}:"));
            for line in value.lines() {
                let cut: String = line.chars().take(ONE_LINE - 2).collect();
                let dots = if cut.len() < line.len() { "..." } else { "" };
                self.line(0, format_args!("\t  {cut}{dots}"));
            }
        }
    }

    /// The table of an object's conditions; nothing where there are none.
    pub(super) fn conditions(&mut self, conditions: &[Value]) {
        if conditions.is_empty() {
            return;
        }
        self.line(0, "Conditions:");
        self.line(1, "Type\tStatus\tLastTransitionTime\tReason\tMessage");
        self.line(1, "----\t------\t------------------\t------\t-------");
        for c in conditions {
            let row = [
                text(&c["type"]).to_owned(),
                text(&c["status"]).to_owned(),
                time(&c["lastTransitionTime"]),
                text(&c["reason"]).to_owned(),
                text(&c["message"]).to_owned(),
            ];
            self.line(1, row.join("\t"));
        }
    }

    /// The page with its columns lined up.
    pub(super) fn render(&self) -> String {
        let lines: Vec<Vec<&str>> = self.text.lines().map(|l| l.split('\t').collect()).collect();
        let mut out = String::new();
        align(&lines, &mut Vec::new(), &mut out);
        out
    }
}

/// Prints `lines`; `widths` are those of the columns left of the one that is looked at.
fn align(lines: &[Vec<&str>], widths: &mut Vec<usize>, out: &mut String) {
    let column = widths.len();
    let has_cell = |line: &Vec<&str>| column + 1 < line.len();
    let mut rest = lines;
    while !rest.is_empty() {
        let plain = rest.iter().take_while(|l| !has_cell(l)).count();
        let (before, after) = rest.split_at(plain);
        for line in before {
            write_line(line, widths, out);
        }
        let block = after.iter().take_while(|l| has_cell(l)).count();
        let (block, after) = after.split_at(block);
        if !block.is_empty() {
            let cells = block.iter().filter_map(|l| l.get(column));
            let widest = cells.map(|c| c.chars().count()).max().unwrap_or(0);
            widths.push(widest + PADDING);
            align(block, widths, out);
            widths.pop();
        }
        rest = after;
    }
}

fn write_line(cells: &[&str], widths: &[usize], out: &mut String) {
    for (i, cell) in cells.iter().enumerate() {
        out.push_str(cell);
        if let Some(width) = widths.get(i) {
            out.push_str(&" ".repeat(width.saturating_sub(cell.chars().count())));
        }
    }
    out.push('\n');
}

/// A string, or nothing.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The members of a list; none when it is none.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A string without quotes, a number or a truth value as it is written.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => "<nil>".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// The members of a map, by key.
pub(super) fn sorted(map: &Value) -> Vec<(&String, &Value)> {
    let mut pairs: Vec<_> = map.as_object().into_iter().flatten().collect();
    pairs.sort_by_key(|(k, _)| *k);
    pairs
}

/// A selector of either form, or `<none>`.
pub(super) fn selector(of: &Value) -> String {
    or_none(crate::verbs::selector::written(of))
}

/// The text, or `<none>` when it is empty.
pub(super) fn or_none(text: String) -> String {
    if text.is_empty() {
        "<none>".to_owned()
    } else {
        text
    }
}

/// `Sat, 21 Nov 2026 03:29:43 +0000`: RFC 1123 with a numeric zone, in local time as kubectl shows it.
pub(super) fn time(stamp: &Value) -> String {
    let Ok(at) = text(stamp).parse::<jiff::Timestamp>() else {
        return "<unset>".to_owned();
    };
    at.to_zoned(jiff::tz::TimeZone::system())
        .strftime("%a, %d %b %Y %H:%M:%S %z")
        .to_string()
}

/// `5s`, `3m12s`, `4d`: the time since a stamp.
pub(super) fn age(stamp: &Value, now: jiff::Timestamp) -> String {
    portolan_api::table::since(text(stamp), now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn blocks_of_cells_line_up_as_gos_tabwriter_does() {
        let mut page = Page::default();
        page.field(0, "Name", "web");
        page.field(0, "Session Affinity", "None");
        page.line(0, "Ports:");
        page.line(1, "Name\tPort");
        page.line(1, "a-long-one\t80");
        page.field(0, "Events", "<none>");
        assert_eq!(
            page.render(),
            "Name:              web\n\
             Session Affinity:  None\n\
             Ports:\n  \
             Name        Port\n  \
             a-long-one  80\n\
             Events:       <none>\n"
        );
    }

    #[test]
    fn labels_and_annotations_have_a_line_each() {
        let mut page = Page::default();
        page.metadata(
            &json!({"metadata": {"name": "x", "labels": {"b": "2", "a": "1"},
            "annotations": {"note": "one\ntwo"}}}),
        );
        assert_eq!(
            page.render(),
            "Name:         x\n\
             Labels:       a=1\n              b=2\n\
             Annotations:  note:\n                one\n                two\n"
        );
    }
}
