//! The text form of label selectors.

use super::{Operator, Requirement, SelectorError};
use crate::validate::names;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `=`, `==`, `!=`, `!`, `<`, `>`, `(`, `)`, `,`
    Sign(&'static str),
}

/// `a=b,c!=d,e in (f,g),h,!i,j>1`.
pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens };
    let mut requirements = Vec::new();
    while !parser.tokens.is_empty() {
        let requirement = parser.requirement()?;
        check(&requirement)?;
        requirements.push(requirement);
        if !parser.tokens.is_empty() && !parser.take(",") {
            return Err(parser.unexpected("',' or 'end of string'"));
        }
    }
    requirements.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(requirements)
}

fn tokens(text: &str) -> Result<Vec<Token>, SelectorError> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let sign = ["==", "!=", "=", "!", "<", ">", "(", ")", ","]
            .into_iter()
            .find(|sign| rest.starts_with(sign));
        let length = match sign {
            Some(sign) => {
                tokens.push(Token::Sign(sign));
                sign.len()
            }
            None => {
                let end = rest
                    .find(|char: char| char.is_whitespace() || "=!<>(),".contains(char))
                    .unwrap_or(rest.len());
                if end == 0 {
                    return Err(SelectorError::new(format!(
                        "unable to parse requirement: unexpected {first:?}"
                    )));
                }
                tokens.push(Token::Word(rest[..end].to_owned()));
                end
            }
        };
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

struct Parser<'a> {
    tokens: &'a [Token],
}

impl Parser<'_> {
    fn take(&mut self, sign: &str) -> bool {
        match self.tokens.first() {
            Some(Token::Sign(found)) if *found == sign => {
                self.tokens = &self.tokens[1..];
                true
            }
            Some(_) | None => false,
        }
    }

    fn word(&mut self) -> Option<String> {
        let Some(Token::Word(word)) = self.tokens.first() else {
            return None;
        };
        self.tokens = &self.tokens[1..];
        Some(word.clone())
    }

    fn unexpected(&self, wanted: &str) -> SelectorError {
        let found = match self.tokens.first() {
            Some(Token::Word(word)) => word.as_str(),
            Some(Token::Sign(sign)) => sign,
            None => "",
        };
        SelectorError::new(format!(
            "unable to parse requirement: found '{found}', expected: {wanted}"
        ))
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if self.take("!") {
            let key = self.word().ok_or_else(|| self.unexpected("identifier"))?;
            return Ok(Requirement {
                key,
                operator: Operator::DoesNotExist,
            });
        }
        let key = self
            .word()
            .ok_or_else(|| self.unexpected("!, identifier, or 'end of string'"))?;
        let operator = self.operator()?;
        Ok(Requirement { key, operator })
    }

    fn operator(&mut self) -> Result<Operator, SelectorError> {
        if self.take("=") || self.take("==") {
            return Ok(Operator::In(vec![self.word().unwrap_or_default()]));
        }
        if self.take("!=") {
            return Ok(Operator::NotIn(vec![self.word().unwrap_or_default()]));
        }
        if self.take(">") {
            return Ok(Operator::GreaterThan(self.number()?));
        }
        if self.take("<") {
            return Ok(Operator::LessThan(self.number()?));
        }
        match self.tokens.first() {
            None | Some(Token::Sign(",")) => Ok(Operator::Exists),
            Some(Token::Word(word)) if word == "in" => {
                self.tokens = &self.tokens[1..];
                Ok(Operator::In(self.values()?))
            }
            Some(Token::Word(word)) if word == "notin" => {
                self.tokens = &self.tokens[1..];
                Ok(Operator::NotIn(self.values()?))
            }
            Some(Token::Word(_) | Token::Sign(_)) => {
                Err(self.unexpected("in, notin, =, ==, !=, gt, lt"))
            }
        }
    }

    fn number(&mut self) -> Result<i64, SelectorError> {
        let word = self.word().unwrap_or_default();
        word.parse().ok().ok_or_else(|| {
            SelectorError::new(format!(
                "for 'Gt', 'Lt' operators, the value must be an integer: {word:?}"
            ))
        })
    }

    /// `(a,b)`; an empty place is the empty value.
    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        if !self.take("(") {
            return Err(self.unexpected("'('"));
        }
        let mut values = Vec::new();
        loop {
            values.push(self.word().unwrap_or_default());
            if self.take(")") {
                values.sort();
                values.dedup();
                return Ok(values);
            }
            if !self.take(",") {
                return Err(self.unexpected("',' or ')'"));
            }
        }
    }
}

fn check(requirement: &Requirement) -> Result<(), SelectorError> {
    let fail = |what: &str, text: &str, messages: Vec<String>| match messages.first() {
        Some(message) => Err(SelectorError::new(format!(
            "{what}: Invalid value: {text:?}: {message}"
        ))),
        None => Ok(()),
    };
    fail(
        "key",
        &requirement.key,
        names::qualified_name(&requirement.key),
    )?;
    match &requirement.operator {
        Operator::In(values) | Operator::NotIn(values) => values
            .iter()
            .try_for_each(|value| fail("values", value, names::label_value(value))),
        Operator::Exists
        | Operator::DoesNotExist
        | Operator::GreaterThan(_)
        | Operator::LessThan(_) => Ok(()),
    }
}
