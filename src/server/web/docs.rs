//! `/docs`: a reader of our own description of the API, rendered here, with nothing from elsewhere.

use std::sync::LazyLock;

use askama::Template;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use serde_json::Value;

use crate::server::http::openapi::document;
use crate::server::http::problem::{self, Kind};

#[derive(Template)]
#[template(path = "pages/docs.html")]
struct Docs {
    title: String,
    /// HTML.
    description: String,
    groups: Vec<Group>,
    problems: &'static [&'static Kind],
    schemas: Vec<Schema>,
}

struct Group {
    anchor: String,
    name: String,
    routes: Vec<Route>,
}

struct Route {
    name: String,
    method: String,
    verb: String,
    path: String,
    /// HTML.
    summary: String,
    /// HTML.
    description: String,
    parameters: Vec<Field>,
    bodies: Vec<Body>,
    answers: Vec<Reply>,
}

struct Field {
    name: String,
    place: String,
    /// HTML: a type, with links to schemas.
    kind: String,
    /// HTML.
    description: String,
    required: bool,
}

struct Body {
    media_type: String,
    /// HTML.
    kind: String,
}

struct Reply {
    status: String,
    bodies: Vec<Body>,
}

struct Schema {
    name: String,
    /// HTML.
    description: String,
    /// HTML; empty for objects.
    kind: String,
    fields: Vec<Field>,
}

/// The order in which a newcomer needs them; other groups come after.
const ORDER: [&str; 8] = [
    "Signing in",
    "Account",
    "Plans",
    "Tenants",
    "Deploying",
    "Secrets",
    "Operations",
    "Server",
];

static PAGE: LazyLock<String> = LazyLock::new(|| match serde_json::to_value(document()) {
    Ok(document) => read(&document).render().unwrap_or_else(|error| error.to_string()),
    Err(error) => error.to_string(),
});

/// The page.
pub(super) async fn show_docs() -> impl IntoResponse {
    (
        [(header::CACHE_CONTROL, "public, max-age=300")],
        Html(PAGE.as_str()),
    )
}

fn read(document: &Value) -> Docs {
    let mut groups: Vec<Group> = Vec::new();
    for (path, item) in entries(&document["paths"]) {
        for (method, operation) in entries(item) {
            let route = read_route(path, method, operation);
            let name = operation["tags"][0].as_str().unwrap_or("Other");
            match groups.iter_mut().find(|group| group.name == name) {
                Some(group) => group.routes.push(route),
                None => groups.push(Group {
                    anchor: format!("group-{}", name.to_lowercase().replace(' ', "-")),
                    name: name.to_owned(),
                    routes: vec![route],
                }),
            }
        }
    }
    groups.sort_by_key(|group| {
        ORDER
            .iter()
            .position(|name| *name == group.name)
            .unwrap_or(ORDER.len())
    });
    Docs {
        title: text(&document["info"]["title"]),
        description: prose(&document["info"]["description"]),
        groups,
        problems: problem::ALL,
        schemas: entries(&document["components"]["schemas"])
            .map(|(name, schema)| read_schema(name, schema))
            .collect(),
    }
}

fn read_route(path: &str, method: &str, operation: &Value) -> Route {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    Route {
        name: text(&operation["operationId"]),
        method: method.to_uppercase(),
        verb: method.to_owned(),
        path: path.to_owned(),
        summary: prose(&operation["summary"]),
        description: prose(&operation["description"]),
        parameters: parameters
            .map(|parameter| Field {
                name: text(&parameter["name"]),
                place: text(&parameter["in"]),
                kind: kind_of(&parameter["schema"]),
                description: prose(&parameter["description"]),
                required: parameter["required"].as_bool().unwrap_or(false),
            })
            .collect(),
        bodies: bodies(&operation["requestBody"]["content"]),
        answers: entries(&operation["responses"])
            .map(|(status, response)| Reply {
                status: status.to_owned(),
                bodies: bodies(&response["content"]),
            })
            .collect(),
    }
}

fn bodies(content: &Value) -> Vec<Body> {
    entries(content)
        .map(|(media_type, content)| Body {
            media_type: media_type.to_owned(),
            kind: kind_of(&content["schema"]),
        })
        .collect()
}

fn read_schema(name: &str, schema: &Value) -> Schema {
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let fields: Vec<Field> = entries(&schema["properties"])
        .map(|(name, property)| Field {
            name: name.to_owned(),
            place: String::new(),
            kind: kind_of(property),
            description: prose(&property["description"]),
            required: required.contains(&name),
        })
        .collect();
    Schema {
        name: name.to_owned(),
        description: prose(&schema["description"]),
        kind: if fields.is_empty() {
            kind_of(schema)
        } else {
            String::new()
        },
        fields,
    }
}

/// A type in a few words of HTML; names of schemas lead to them.
fn kind_of(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        let name = escape(name);
        return format!("<a class=\"mono\" href=\"#schema-{name}\">{name}</a>");
    }
    for list in ["oneOf", "anyOf", "allOf"] {
        if let Some(choices) = schema[list].as_array() {
            let kinds: Vec<String> = choices
                .iter()
                .map(kind_of)
                .filter(|kind| !kind.is_empty())
                .collect();
            return kinds.join(" or ");
        }
    }
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<String> = words
            .iter()
            .filter_map(Value::as_str)
            .map(|word| format!("<code>{}</code>", escape(word)))
            .collect();
        return words.join(" ");
    }
    let names: Vec<&str> = match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => return String::new(),
    };
    let shown: Vec<String> = names
        .into_iter()
        .map(|name| match name {
            "array" => format!("list of {}", kind_of(&schema["items"])),
            "object" if schema["additionalProperties"].is_object() => {
                format!("map to {}", kind_of(&schema["additionalProperties"]))
            }
            other => escape(other),
        })
        .collect();
    let format = schema["format"]
        .as_str()
        .map(|format| format!(" <small>{}</small>", escape(format)));
    format!("{}{}", shown.join(" or "), format.unwrap_or_default())
}

fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value
        .as_object()
        .into_iter()
        .flat_map(|map| map.iter().map(|(name, value)| (name.as_str(), value)))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A description as HTML: backticks become code.
fn prose(value: &Value) -> String {
    let escaped = escape(value.as_str().unwrap_or_default());
    let mut html = String::with_capacity(escaped.len());
    for (index, part) in escaped.split('`').enumerate() {
        html.push_str(match (index, index % 2) {
            (0, _) => "",
            (_, 1) => "<code>",
            _ => "</code>",
        });
        html.push_str(part);
    }
    html
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::{PAGE, kind_of, prose};
    use crate::api::routes::ALL;
    use serde_json::json;

    #[test]
    fn every_route_is_on_the_page() {
        for route in ALL.iter().filter(|route| route.path != "/docs") {
            assert!(
                PAGE.contains(&format!(">{}</span>", route.path)),
                "{} is missing",
                route.path
            );
        }
    }

    #[test]
    fn every_link_of_the_page_leads_somewhere() {
        for part in PAGE.split("href=\"#").skip(1) {
            let anchor = part.split('"').next().expect("an anchor");
            assert!(
                PAGE.contains(&format!("id=\"{anchor}\"")),
                "#{anchor} leads nowhere"
            );
        }
    }

    #[test]
    fn backticks_become_code() {
        assert_eq!(
            prose(&json!("send `A` & `B`")),
            "send <code>A</code> &amp; <code>B</code>"
        );
        assert_eq!(prose(&json!("`A`")), "<code>A</code>");
    }

    #[test]
    fn types_are_said_in_a_few_words() {
        assert_eq!(kind_of(&json!({"type": ["string", "null"]})), "string or null");
        assert_eq!(
            kind_of(&json!({"type": "array", "items": {"$ref": "#/components/schemas/Plan"}})),
            "list of <a class=\"mono\" href=\"#schema-Plan\">Plan</a>"
        );
    }
}
