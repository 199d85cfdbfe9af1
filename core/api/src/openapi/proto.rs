//! OpenAPI v2 as protobuf: the messages of gnostic's `openapi.v2` package, as
//! far as the documents use them.

use crate::value::{bool_at, list_at, map_at, str_at};
use prost::Message;
use serde_json::Value;

#[derive(Clone, PartialEq, Message)]
struct Document {
    #[prost(string, tag = "1")]
    swagger: String,
    #[prost(message, optional, tag = "2")]
    info: Option<Info>,
    #[prost(message, optional, tag = "8")]
    paths: Option<Paths>,
    #[prost(message, optional, tag = "9")]
    definitions: Option<NamedSchemas>,
}

#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(string, tag = "1")]
    title: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "2")]
    yaml: String,
}

#[derive(Clone, PartialEq, Message)]
struct NamedAny {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Any>,
}

/// `Definitions` and `Properties` alike.
#[derive(Clone, PartialEq, Message)]
struct NamedSchemas {
    #[prost(message, repeated, tag = "1")]
    additional_properties: Vec<NamedSchema>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedSchema {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct Schema {
    #[prost(string, tag = "1")]
    reference: String,
    #[prost(string, tag = "2")]
    format: String,
    #[prost(string, tag = "4")]
    description: String,
    #[prost(string, repeated, tag = "19")]
    required: Vec<String>,
    #[prost(message, optional, boxed, tag = "21")]
    additional_properties: Option<Box<OneSchema>>,
    #[prost(message, optional, tag = "22")]
    kind: Option<TypeItem>,
    #[prost(message, optional, tag = "23")]
    items: Option<ItemsItem>,
    #[prost(message, optional, tag = "25")]
    properties: Option<NamedSchemas>,
    #[prost(message, repeated, tag = "31")]
    vendor_extension: Vec<NamedAny>,
}

/// `AdditionalPropertiesItem` and `SchemaItem`, whose first choice is a schema.
#[derive(Clone, PartialEq, Message)]
struct OneSchema {
    #[prost(message, optional, boxed, tag = "1")]
    schema: Option<Box<Schema>>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeItem {
    #[prost(string, repeated, tag = "1")]
    value: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct ItemsItem {
    #[prost(message, repeated, tag = "1")]
    schema: Vec<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct Paths {
    #[prost(message, repeated, tag = "2")]
    path: Vec<NamedPathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedPathItem {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<PathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct PathItem {
    #[prost(message, optional, tag = "2")]
    get: Option<Operation>,
    #[prost(message, optional, tag = "3")]
    put: Option<Operation>,
    #[prost(message, optional, tag = "4")]
    post: Option<Operation>,
    #[prost(message, optional, tag = "5")]
    delete: Option<Operation>,
    #[prost(message, optional, tag = "8")]
    patch: Option<Operation>,
    #[prost(message, repeated, tag = "9")]
    parameters: Vec<ParametersItem>,
}

#[derive(Clone, PartialEq, Message)]
struct Operation {
    #[prost(string, tag = "5")]
    operation_id: String,
    #[prost(string, repeated, tag = "6")]
    produces: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    consumes: Vec<String>,
    #[prost(message, repeated, tag = "8")]
    parameters: Vec<ParametersItem>,
    #[prost(message, optional, tag = "9")]
    responses: Option<Responses>,
    #[prost(message, repeated, tag = "13")]
    vendor_extension: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
struct ParametersItem {
    #[prost(message, optional, tag = "1")]
    parameter: Option<Parameter>,
}

#[derive(Clone, PartialEq, Message)]
struct Parameter {
    #[prost(message, optional, tag = "1")]
    body: Option<BodyParameter>,
    #[prost(message, optional, tag = "2")]
    other: Option<OtherParameter>,
}

#[derive(Clone, PartialEq, Message)]
struct BodyParameter {
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    place: String,
    #[prost(bool, tag = "4")]
    required: bool,
    #[prost(message, optional, tag = "5")]
    schema: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct OtherParameter {
    #[prost(message, optional, tag = "3")]
    query: Option<QueryParameter>,
    #[prost(message, optional, tag = "4")]
    path: Option<PathParameter>,
}

#[derive(Clone, PartialEq, Message)]
struct QueryParameter {
    #[prost(string, tag = "2")]
    place: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "6")]
    kind: String,
    #[prost(bool, tag = "20")]
    unique_items: bool,
}

#[derive(Clone, PartialEq, Message)]
struct PathParameter {
    #[prost(bool, tag = "1")]
    required: bool,
    #[prost(string, tag = "2")]
    place: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "5")]
    kind: String,
    #[prost(bool, tag = "19")]
    unique_items: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Responses {
    #[prost(message, repeated, tag = "1")]
    response_code: Vec<NamedResponse>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedResponse {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<ResponseValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ResponseValue {
    #[prost(message, optional, tag = "1")]
    response: Option<Response>,
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(string, tag = "1")]
    description: String,
    #[prost(message, optional, tag = "2")]
    schema: Option<OneSchema>,
}

/// The bytes of a v2 document.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    let paths = map_at(document, "paths")
        .into_iter()
        .flatten()
        .map(|(name, item)| NamedPathItem {
            name: name.clone(),
            value: Some(path_item(item)),
        })
        .collect();
    let message = Document {
        swagger: str_at(document, "swagger").to_owned(),
        info: Some(Info {
            title: str_at(document, "info.title").to_owned(),
            version: str_at(document, "info.version").to_owned(),
        }),
        paths: Some(Paths { path: paths }),
        definitions: named_schemas(document.get("definitions")),
    };
    message.encode_to_vec()
}

fn named_schemas(map: Option<&Value>) -> Option<NamedSchemas> {
    let additional_properties = map?
        .as_object()?
        .iter()
        .map(|(name, value)| NamedSchema {
            name: name.clone(),
            value: Some(schema(value)),
        })
        .collect();
    Some(NamedSchemas {
        additional_properties,
    })
}

fn schema(value: &Value) -> Schema {
    let text = |key: &str| str_at(value, key).to_owned();
    let kind = text("type");
    Schema {
        reference: text("$ref"),
        format: text("format"),
        description: text("description"),
        required: list_at(value, "required")
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        additional_properties: value
            .get("additionalProperties")
            .filter(|value| value.is_object())
            .map(|value| Box::new(one(value))),
        kind: (!kind.is_empty()).then(|| TypeItem { value: vec![kind] }),
        items: value.get("items").map(|items| ItemsItem {
            schema: vec![schema(items)],
        }),
        properties: named_schemas(value.get("properties")),
        vendor_extension: extensions(value),
    }
}

fn one(value: &Value) -> OneSchema {
    OneSchema {
        schema: Some(Box::new(schema(value))),
    }
}

/// `x-…` fields, as YAML, of which JSON is a part.
fn extensions(value: &Value) -> Vec<NamedAny> {
    value
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| key.starts_with("x-"))
        .map(|(key, value)| NamedAny {
            name: key.clone(),
            value: Some(Any {
                yaml: format!("{value}\n"),
            }),
        })
        .collect()
}

fn path_item(value: &Value) -> PathItem {
    let method = |name: &str| value.get(name).map(operation);
    PathItem {
        get: method("get"),
        put: method("put"),
        post: method("post"),
        delete: method("delete"),
        patch: method("patch"),
        parameters: list_at(value, "parameters").iter().map(parameter).collect(),
    }
}

fn operation(value: &Value) -> Operation {
    let texts = |key: &str| {
        list_at(value, key)
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let responses = map_at(value, "responses")
        .into_iter()
        .flatten()
        .map(|(code, response)| NamedResponse {
            name: code.clone(),
            value: Some(ResponseValue {
                response: Some(Response {
                    description: str_at(response, "description").to_owned(),
                    schema: response.get("schema").map(one),
                }),
            }),
        });
    Operation {
        operation_id: str_at(value, "operationId").to_owned(),
        produces: texts("produces"),
        consumes: texts("consumes"),
        parameters: list_at(value, "parameters").iter().map(parameter).collect(),
        responses: Some(Responses {
            response_code: responses.collect(),
        }),
        vendor_extension: extensions(value),
    }
}

fn parameter(value: &Value) -> ParametersItem {
    let text = |key: &str| str_at(value, key).to_owned();
    let required = bool_at(value, "required");
    let unique_items = bool_at(value, "uniqueItems");
    let (place, name, kind) = (text("in"), text("name"), text("type"));
    let mut other = OtherParameter::default();
    let mut body = None;
    match place.as_str() {
        "body" => {
            body = Some(BodyParameter {
                name,
                place,
                required,
                schema: value.get("schema").map(schema),
            })
        }
        "path" => {
            other.path = Some(PathParameter {
                required,
                place,
                name,
                kind,
                unique_items,
            })
        }
        _ => {
            other.query = Some(QueryParameter {
                place,
                name,
                kind,
                unique_items,
            })
        }
    }
    let other = body.is_none().then_some(other);
    ParametersItem {
        parameter: Some(Parameter { body, other }),
    }
}

/// The names of the definitions in a document's bytes.
#[cfg(test)]
pub(super) fn definition_names(bytes: &[u8]) -> Vec<String> {
    let document = Document::decode(bytes).unwrap();
    let definitions = document
        .definitions
        .unwrap_or_default()
        .additional_properties;
    definitions
        .into_iter()
        .map(|definition| definition.name)
        .collect()
}
