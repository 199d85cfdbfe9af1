//! The syntax of a Corefile: words, blocks, comments, quotes and snippets, as Caddy
//! reads them.

/// A line of a server block with what is in its braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    /// 1-based.
    pub(super) line: usize,
    pub(super) words: Vec<String>,
    pub(super) block: Vec<Directive>,
}

impl Directive {
    pub(super) fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The words after the first.
    pub(super) fn arguments(&self) -> Vec<&str> {
        self.words.iter().skip(1).map(String::as_str).collect()
    }

    /// As it was written, but for spaces.
    pub(super) fn text(&self) -> String {
        self.words.join(" ")
    }
}

/// What is answered together: the zones, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) line: usize,
    pub(super) keys: Vec<String>,
    pub(super) directives: Vec<Directive>,
}

/// A text without a sense as a Corefile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) why: &'static str,
}

/// Blocks within blocks; CoreDNS has none deeper than three.
const DEEPEST: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    line: usize,
    text: String,
    quoted: bool,
}

/// All server blocks of a text, snippets put in where they are imported.
pub(super) fn servers(text: &str) -> Result<Vec<Server>, SyntaxError> {
    let words = words(text)?;
    let mut rest = words.as_slice();
    let mut servers: Vec<Server> = Vec::new();
    let mut snippets: Vec<(String, Vec<Directive>)> = Vec::new();
    while let Some(first) = rest.first() {
        let (line, mut keys) = (first.line, Vec::new());
        let mut last_line = line;
        while let Some((word, tail)) = rest.split_first() {
            let is_brace = !word.quoted && word.text == "{";
            let continued = keys.last().is_none_or(|key: &String| key.ends_with(','));
            if is_brace || (word.line != last_line && !continued) {
                break;
            }
            last_line = word.line;
            keys.push(word.text.clone());
            rest = tail;
        }
        let braced = rest.first().is_some_and(|word| word.text == "{");
        let directives = if braced {
            rest = rest.get(1..).unwrap_or_default();
            block(&mut rest, line, 1)?
        } else {
            // Without braces the rest of the file is the one block.
            lines_to_end(&mut rest)?
        };
        let keys: Vec<String> = keys
            .iter()
            .flat_map(|key| key.split(','))
            .filter(|key| !key.is_empty())
            .map(str::to_owned)
            .collect();
        match keys.as_slice() {
            [name] if name.starts_with('(') && name.ends_with(')') => {
                let name = name.trim_matches(['(', ')']).to_owned();
                snippets.push((name, put_in(directives, &snippets)));
            }
            _ => servers.push(Server {
                line,
                keys,
                directives: put_in(directives, &snippets),
            }),
        }
    }
    Ok(servers)
}

/// Snippets in place of the lines that import them.
fn put_in(directives: Vec<Directive>, snippets: &[(String, Vec<Directive>)]) -> Vec<Directive> {
    let mut out = Vec::new();
    for directive in directives {
        let snippet = match directive.words.as_slice() {
            [import, name] if import == "import" => {
                snippets.iter().find(|(known, _)| known == name)
            }
            _ => None,
        };
        match snippet {
            Some((_, lines)) => out.extend(lines.iter().cloned()),
            None => out.push(directive),
        }
    }
    out
}

fn lines_to_end(rest: &mut &[Word]) -> Result<Vec<Directive>, SyntaxError> {
    let mut out = Vec::new();
    while let Some(first) = rest.first() {
        out.push(directive(rest, first.line, 1)?);
    }
    Ok(out)
}

/// The lines up to the closing brace.
fn block(rest: &mut &[Word], line: usize, depth: usize) -> Result<Vec<Directive>, SyntaxError> {
    if depth > DEEPEST {
        let why = "too many blocks within each other";
        return Err(SyntaxError { line, why });
    }
    let mut out = Vec::new();
    loop {
        let Some((first, tail)) = rest.split_first() else {
            let why = "a block that begins here has no closing brace";
            return Err(SyntaxError { line, why });
        };
        if !first.quoted && first.text == "}" {
            *rest = tail;
            return Ok(out);
        }
        out.push(directive(rest, first.line, depth)?);
    }
}

/// One line, and the block at its end.
fn directive(rest: &mut &[Word], line: usize, depth: usize) -> Result<Directive, SyntaxError> {
    let mut this = Directive {
        line,
        words: Vec::new(),
        block: Vec::new(),
    };
    while let Some((word, tail)) = rest.split_first() {
        if word.line != line || (!word.quoted && word.text == "}") {
            break;
        }
        *rest = tail;
        if !word.quoted && word.text == "{" {
            this.block = block(rest, line, depth + 1)?;
            break;
        }
        this.words.push(word.text.clone());
    }
    if this.words.is_empty() && this.block.is_empty() {
        // A brace where none can be.
        *rest = rest.get(1..).unwrap_or_default();
        let why = "a brace that closes nothing";
        return Err(SyntaxError { line, why });
    }
    Ok(this)
}

fn words(text: &str) -> Result<Vec<Word>, SyntaxError> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    let mut line = 1;
    while let Some(&next) = chars.peek() {
        match next {
            '\n' => {
                line += 1;
                chars.next();
            }
            '#' => while chars.next_if(|&c| c != '\n').is_some() {},
            '"' => {
                chars.next();
                let start = line;
                let mut word = String::new();
                loop {
                    match chars.next() {
                        None => {
                            let why = "a quotation mark without its other";
                            return Err(SyntaxError { line: start, why });
                        }
                        Some('"') => break,
                        Some('\\') if chars.peek() == Some(&'"') => {
                            word.extend(chars.next());
                        }
                        Some(other) => {
                            line += usize::from(other == '\n');
                            word.push(other);
                        }
                    }
                }
                out.push(Word {
                    line: start,
                    text: word,
                    quoted: true,
                });
            }
            space if space.is_whitespace() => {
                chars.next();
            }
            _ => {
                let mut word = String::new();
                while let Some(plain) = chars.next_if(|c| !c.is_whitespace()) {
                    word.push(plain);
                }
                out.push(Word {
                    line,
                    text: word,
                    quoted: false,
                });
            }
        }
    }
    Ok(out)
}
