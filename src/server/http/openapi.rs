//! `/openapi.json`: generated from the handlers; what holds for all routes is added here from the table of routes.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Required, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::problem::{CONTENT_TYPE, Problem};
use crate::api::routes::{ALL, Access, Route};
use crate::server::http::App;

const BEARER: &str = "bearer";

/// The document, built once.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    document()
        .to_pretty_json()
        .unwrap_or_else(|error| error.to_string())
});

/// The route of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_openapi))
}

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "Server",
    responses((status = 200, body = serde_json::Value))
)]
async fn get_openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
}

/// The description of every route.
#[must_use]
pub fn document() -> OpenApi {
    let base = OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("systemprompt management API")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(
                    "Isolated stacks for customer projects: create, deploy, look after. Errors are \
                     problem documents (RFC 9457); work that takes time answers 202 with an operation; \
                     every change takes an `Idempotency-Key`.",
                )),
        )
        .build();
    let mut document = OpenApiRouter::with_openapi(base)
        .merge(crate::server::http::every_route())
        .into_openapi();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(
        BEARER,
        SecurityScheme::Http(
            HttpBuilder::new()
                .scheme(HttpAuthScheme::Bearer)
                .description(Some(
                    "An access token of `systemprompt login`, or an API token (`spt_…`)",
                ))
                .build(),
        ),
    );
    let mut schemas = Vec::new();
    <Problem as utoipa::ToSchema>::schemas(&mut schemas);
    schemas.push(("Problem".to_owned(), <Problem as utoipa::PartialSchema>::schema()));
    components.schemas.extend(schemas);
    for route in ALL {
        if let Some(operation) = find_operation(&mut document, route.method, route.path) {
            complete(operation, route);
        }
    }
    document
}

/// The name of every operation, by method and path.
#[must_use]
pub fn operation_names() -> BTreeMap<(String, String), String> {
    let mut document = document();
    let named = ALL.iter().filter_map(|route| {
        let operation = find_operation(&mut document, route.method, route.path)?;
        let name = operation.operation_id.clone()?;
        Some(((route.method.to_owned(), route.path.to_owned()), name))
    });
    named.collect()
}

fn find_operation<'a>(document: &'a mut OpenApi, method: &str, path: &str) -> Option<&'a mut Operation> {
    let item = document.paths.paths.get_mut(path)?;
    match method {
        "GET" => item.get.as_mut(),
        "POST" => item.post.as_mut(),
        "PATCH" => item.patch.as_mut(),
        "PUT" => item.put.as_mut(),
        "DELETE" => item.delete.as_mut(),
        _ => None,
    }
}

fn complete(operation: &mut Operation, route: &Route) {
    let (method, path, access) = (route.method, route.path, route.access);
    let parameters = operation.parameters.get_or_insert_default();
    for (index, name) in path.split('{').skip(1).enumerate() {
        let name = name.split('}').next().unwrap_or_default();
        parameters.insert(index, RefOr::T(path_parameter(name)));
    }
    let signed_in = !matches!(access, Access::Open | Access::Loopback);
    if signed_in && method != "GET" {
        parameters.push(RefOr::T(idempotency_key()));
    }
    if parameters.is_empty() {
        operation.parameters = None;
    }
    let who = match access {
        Access::Open => None,
        Access::SignedIn => Some("Needs a signed-in caller.".to_owned()),
        Access::Tenant(scope) => Some(format!(
            "Needs the role `{}` in the tenant and the scope `{scope}`.",
            route.needs()
        )),
        Access::Operator => Some("Needs an operator.".to_owned()),
        Access::Loopback => Some("Answers this machine only.".to_owned()),
    };
    if let Some(who) = who {
        let told = operation.description.take().map(|text| format!("{text} {who}"));
        operation.description = Some(told.unwrap_or(who));
    }
    if signed_in {
        let none: [&str; 0] = [];
        operation.security = Some(vec![SecurityRequirement::new(BEARER, none)]);
    }
    let problem = ResponseBuilder::new()
        .description("A problem (RFC 9457)")
        .content(CONTENT_TYPE, Content::new(Some(Ref::from_schema_name("Problem"))))
        .build();
    operation
        .responses
        .responses
        .insert("default".to_owned(), RefOr::T(problem));
}

fn path_parameter(name: &str) -> Parameter {
    let pattern = match name {
        "tenant_id" => Some("^ten_[0-9a-hjkmnp-tv-z]{26}$"),
        "operation_id" => Some("^op_[0-9a-hjkmnp-tv-z]{26}$"),
        "checkout_id" => Some("^chk_[0-9a-hjkmnp-tv-z]{26}$"),
        "account_id" => Some("^acc_[0-9a-hjkmnp-tv-z]{26}$"),
        "rule_id" => Some("^tru_[0-9a-hjkmnp-tv-z]{26}$"),
        "grant_id" => Some("^sup_[0-9a-hjkmnp-tv-z]{26}$"),
        "token_id" => Some("^tok_[0-9a-hjkmnp-tv-z]{26}$"),
        "key" => Some("^[A-Z][A-Z0-9_]{0,127}$"),
        _ => None,
    };
    let kind = if name == "number" {
        Type::Integer
    } else {
        Type::String
    };
    let schema = ObjectBuilder::new().schema_type(kind).pattern(pattern).build();
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .schema(Some(Schema::Object(schema)))
        .build()
}

fn idempotency_key() -> Parameter {
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .max_length(Some(255))
        .build();
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "The same key and body within 24 hours is answered again and not done again",
        ))
        .schema(Some(Schema::Object(schema)))
        .build()
}

#[cfg(test)]
mod tests {
    use super::document;
    use crate::api::routes::ALL;
    use std::collections::BTreeSet;

    #[test]
    fn the_document_and_the_table_of_routes_agree() {
        let document = document();
        let mut described = BTreeSet::new();
        for (path, item) in &document.paths.paths {
            let methods = [
                ("GET", &item.get),
                ("POST", &item.post),
                ("PATCH", &item.patch),
                ("PUT", &item.put),
                ("DELETE", &item.delete),
            ];
            for (method, operation) in methods {
                if operation.is_some() {
                    described.insert(format!("{method} {path}"));
                }
            }
        }
        let table: BTreeSet<String> = ALL
            .iter()
            // The reader of this document is a page, not a route of the API.
            .filter(|route| route.path != "/docs")
            .map(|route| format!("{} {}", route.method, route.path))
            .collect();
        assert_eq!(described, table);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let json = serde_json::to_value(document()).expect("a document");
        let text = json.to_string();
        for part in text.split("\"#/components/schemas/").skip(1) {
            let name = part.split('"').next().expect("a name");
            assert!(
                json["components"]["schemas"].get(name).is_some(),
                "no schema `{name}`"
            );
        }
    }

    #[test]
    fn every_operation_has_its_own_name_and_a_summary() {
        let json = serde_json::to_value(document()).expect("a document");
        let mut names = BTreeSet::new();
        for (path, item) in json["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("operations") {
                let name = operation["operationId"].as_str().expect("a name");
                assert!(names.insert(name.to_owned()), "`{name}` names two operations");
                assert!(operation["summary"].is_string(), "{method} {path} has no summary");
            }
        }
    }
}
