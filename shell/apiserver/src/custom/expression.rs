//! Rules in the Common Expression Language, evaluated by the `cel` crate.
//!
//! Of the functions that Kubernetes adds to the language, the common ones are
//! here: those of texts, lists and numbers, and `find`, `findAll`, `sum`,
//! `isSorted`, `isURL`, `isIP`, `isCIDR`. Expressions are not type-checked when
//! they are compiled; what does not fit is an error when the rule is asked.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use cel::extractors::This;
use cel::objects::{Key, Map, OptionalValue};
use cel::{Context, Env, ExecutionError, Value as Cel, extensions};
use portolan_api::custom::rules::{Engine, Input, Output, Program};
use regex::Regex;
use serde_json::Value;

/// The language with the extensions that Kubernetes has.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib().with_optional_support(true);
    for added in [
        env.add_extension(extensions::strings),
        env.add_extension(extensions::lists),
        env.add_extension(extensions::math),
    ] {
        if let Err(error) = added {
            tracing::error!(%error, "an extension of the expression language is missing");
        }
    }
    Arc::new(env)
});

/// The engine of the server.
pub(crate) struct Expressions;

impl Engine for Expressions {
    fn compile(&self, text: &str) -> Result<Box<dyn Program>, String> {
        match ENV.compile(text) {
            Ok(program) => Ok(Box::new(Compiled(program))),
            Err(errors) => Err(errors.to_string()),
        }
    }
}

struct Compiled(cel::Program);

impl Program for Compiled {
    fn is_transition(&self) -> bool {
        self.0.references().has_variable("oldSelf")
    }

    fn run(&self, input: &Input<'_>) -> Result<Output, String> {
        let mut context = Context::with_env(Arc::clone(&ENV));
        functions(&mut context).map_err(|error| error.to_string())?;
        context.add_variable_from_value("self", value(input.value, input.schema));
        let old = input.old.map(|old| value(old, input.schema));
        match (input.optional_old, old) {
            (true, old) => {
                let optional = old.map_or_else(OptionalValue::none, OptionalValue::of);
                context.add_variable_from_value("oldSelf", Cel::Opaque(Arc::new(optional)));
            }
            (false, Some(old)) => context.add_variable_from_value("oldSelf", old),
            (false, None) => {}
        }
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "rules give truths and texts; the library adds types"
        )]
        match self.0.execute(&context).map_err(|error| said(&error))? {
            Cel::Bool(truth) => Ok(Output::Bool(truth)),
            Cel::String(text) => Ok(Output::Text(text.to_string())),
            other => Err(format!("unexpected result of type {}", other.type_of())),
        }
    }
}

/// An error as cel-go words it.
fn said(error: &ExecutionError) -> String {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the library adds errors; each of them has a text of its own"
    )]
    match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::NoSuchOverload(_) => "no such overload".to_owned(),
        ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
        ExecutionError::RemainderByZero(_) => "modulus by zero".to_owned(),
        ExecutionError::Overflow(..) => "integer overflow".to_owned(),
        other => other.to_string(),
    }
}

/// A value by its schema: the names of fields are escaped, those of maps are
/// not; whole numbers of type `number` are doubles.
fn value(json: &Value, schema: &Value) -> Cel {
    match json {
        Value::Null => Cel::Null,
        Value::Bool(truth) => Cel::Bool(*truth),
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Number(number) => match number.as_i64() {
            Some(whole) if schema["type"] != "number" => Cel::Int(whole),
            _ => Cel::Float(number.as_f64().unwrap_or_default()),
        },
        Value::Array(list) => {
            let items = list.iter().map(|item| value(item, &schema["items"]));
            Cel::List(Arc::new(items.collect()))
        }
        Value::Object(fields) => {
            let properties = &schema["properties"];
            let map: HashMap<Key, Cel> = fields
                .iter()
                .map(|(name, field)| match properties.get(name) {
                    Some(schema) => (escaped(name), value(field, schema)),
                    None => (name.clone(), value(field, &schema["additionalProperties"])),
                })
                .map(|(name, field)| (Key::String(Arc::new(name)), field))
                .collect();
            Cel::Map(Map { map: Arc::new(map) })
        }
    }
}

/// A field name as an identifier (`x-prop` is `x__dash__prop`).
fn escaped(name: &str) -> String {
    const RESERVED: &[&str] = &[
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    name.replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
}

/// Functions that Kubernetes adds.
fn functions(context: &mut Context<'_, '_>) -> Result<(), cel::DeclarationError> {
    context.add_function(
        "find",
        |This(text): This<Arc<String>>, pattern: Arc<String>| {
            let found = compiled(&pattern, "find")?;
            let found = found.find(&text).map_or("", |found| found.as_str());
            Ok::<Cel, ExecutionError>(Cel::from(found))
        },
    )?;
    context.add_function(
        "findAll",
        |This(text): This<Arc<String>>, pattern: Arc<String>| {
            let found = compiled(&pattern, "findAll")?;
            let all: Vec<Cel> = found
                .find_iter(&text)
                .map(|found| Cel::from(found.as_str()))
                .collect();
            Ok::<Cel, ExecutionError>(Cel::List(Arc::new(all)))
        },
    )?;
    context.add_function("isSorted", |This(list): This<Arc<Vec<Cel>>>| {
        list.is_sorted_by(|one, next| one.partial_cmp(next).is_some_and(|order| order.is_le()))
    })?;
    context.add_function("sum", |This(list): This<Arc<Vec<Cel>>>| sum(&list))?;
    context.add_function("isIP", |text: Arc<String>| text.parse::<IpAddr>().is_ok())?;
    context.add_function("isCIDR", |text: Arc<String>| {
        text.parse::<ipnet::IpNet>().is_ok()
    })?;
    context.add_function("isURL", |text: Arc<String>| {
        let absolute = text
            .parse::<http::Uri>()
            .is_ok_and(|uri| uri.scheme().is_some() && uri.host().is_some());
        absolute || text.starts_with('/')
    })
}

fn compiled(pattern: &str, function: &str) -> Result<Regex, ExecutionError> {
    Regex::new(pattern).map_err(|error| ExecutionError::function_error(function, error))
}

fn sum(list: &[Cel]) -> Result<Cel, ExecutionError> {
    let mut whole: i64 = 0;
    let mut float = 0.0;
    let mut is_float = false;
    for item in list {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "only numbers have a sum; the library adds types"
        )]
        match item {
            Cel::Int(number) => {
                let sum = whole.checked_add(*number);
                let overflow = || ExecutionError::function_error("sum", "integer overflow");
                whole = sum.ok_or_else(overflow)?;
            }
            Cel::Float(number) => {
                is_float = true;
                float += number;
            }
            _ => return Err(ExecutionError::function_error("sum", "no such overload")),
        }
    }
    Ok(match is_float {
        true => Cel::Float(float),
        false => Cel::Int(whole),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(rule: &str, now: Value, old: Option<Value>, schema: Value) -> Result<Output, String> {
        let program = Expressions.compile(rule)?;
        program.run(&Input {
            value: &now,
            old: old.as_ref(),
            optional_old: false,
            schema: &schema,
        })
    }

    #[test]
    fn rules_that_people_write() {
        let schema = json!({"type": "object", "properties": {
            "min": {"type": "integer"}, "max": {"type": "integer"}, "load": {"type": "number"},
            "x-prop": {"type": "string"}, "namespace": {"type": "string"},
            "list": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}}}});
        let object = json!({"min": 1, "max": 3, "load": 2, "x-prop": "a", "namespace": "n",
            "list": [{"name": "a", "port": 80}, {"name": "b", "port": 443}], "labels": {"a-b": "c"}});
        let rules = [
            "self.min <= self.max",
            "self.load / 4.0 < 1.0",
            "has(self.min) && !has(self.none)",
            "self.x__dash__prop == 'a' && self.__namespace__ == 'n'",
            "self.list.all(x, x.port > 0)",
            "self.list.exists_one(x, x.name == 'a')",
            "self.list.map(x, x.port).sum() == 523",
            "self.list.map(x, x.port).isSorted()",
            "size(self.list) == 2 && 'a-b' in self.labels",
            "self.labels['a-b'].matches('^c$')",
            "'abc123'.find('[0-9]+') == '123'",
            "isIP('192.0.2.1') && isCIDR('192.0.2.0/24') && !isIP('x')",
            "isURL('https://a.example/x') && !isURL('x')",
            "duration('90m') > duration('1h')",
            "self.min > 0 ? self.max > 1 : true",
            "self.list.filter(x, x.port == 80).size() == 1",
            "'a,b'.split(',').size() == 2 && 'AB'.lowerAscii() == 'ab'",
        ];
        for rule in rules {
            let found = run(rule, object.clone(), None, schema.clone());
            assert_eq!(found, Ok(Output::Bool(true)), "{rule}");
        }
        let failed = run("self.none > 1", object.clone(), None, schema.clone());
        assert_eq!(failed, Err("no such key: none".to_owned()));
        let text = run("'max is ' + string(self.max)", object, None, schema);
        assert_eq!(text, Ok(Output::Text("max is 3".to_owned())));
        assert!(Expressions.compile("self.a >").is_err());
    }

    #[test]
    fn transitions_see_the_old_value() {
        let program = Expressions.compile("self == oldSelf").unwrap();
        assert!(program.is_transition());
        assert!(!Expressions.compile("self == 1").unwrap().is_transition());
        let schema = json!({"type": "integer"});
        let found = run("self >= oldSelf", json!(2), Some(json!(1)), schema.clone());
        assert_eq!(found, Ok(Output::Bool(true)));
        let rule = "!oldSelf.hasValue() || self > oldSelf.value()";
        let program = Expressions.compile(rule).unwrap();
        for (old, truth) in [
            (None, true),
            (Some(json!(1)), true),
            (Some(json!(3)), false),
        ] {
            let found = program.run(&Input {
                value: &json!(2),
                old: old.as_ref(),
                optional_old: true,
                schema: &schema,
            });
            assert_eq!(found, Ok(Output::Bool(truth)), "{old:?}");
        }
    }
}
