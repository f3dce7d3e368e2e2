//! The description of the API: it agrees with the table of routes in both directions, and is known whole.

use std::collections::BTreeSet;

use serde_json::Value;
use systemprompt::api::routes::{ALL, Access};

use crate::api::rig::{Api, pretty, snapshot, text};

fn described(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().expect("paths");
    let mut all = BTreeSet::new();
    for (path, item) in paths {
        for method in item.as_object().expect("operations").keys() {
            all.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    all
}

#[tokio::test]
async fn the_served_document_and_the_table_agree() {
    let api = Api::start();
    let document = api.anonymous().read("/openapi.json").await;
    let table: BTreeSet<String> = ALL
        .iter()
        // The page that shows this document is no route of the API.
        .filter(|route| route.path != "/docs")
        .map(|route| format!("{} {}", route.method, route.path))
        .collect();
    assert_eq!(described(&document), table);
}

#[tokio::test]
async fn it_says_of_every_route_who_may_call_it() {
    let api = Api::start();
    let document = api.anonymous().read("/openapi.json").await;
    for route in ALL.iter().filter(|route| route.path != "/docs") {
        let operation = &document["paths"][route.path][route.method.to_lowercase()];
        let open = matches!(route.access, Access::Open | Access::Loopback);
        assert_eq!(operation["security"].is_null(), open, "{}", route.path);
        if let Access::Tenant(scope) = route.access {
            let told = text(&operation["description"]);
            assert!(told.contains(&format!("`{scope}`")), "{}: {told}", route.path);
        }
        // A parameter is described once (OpenAPI 3.1, Operation Object).
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let names: BTreeSet<_> = parameters
            .iter()
            .map(|one| (text(&one["name"]), text(&one["in"])))
            .collect();
        assert_eq!(names.len(), parameters.len(), "{}", route.path);
    }
}

#[tokio::test]
async fn the_whole_document() {
    let api = Api::start();
    let document = api.anonymous().read("/openapi.json").await;
    snapshot("openapi", &pretty(&document));
}

#[tokio::test]
async fn the_reader_shows_every_route() {
    let api = Api::start();
    let page = api.anonymous().get("/docs").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    let document = api.anonymous().read("/openapi.json").await;
    for path in document["paths"].as_object().expect("paths").keys() {
        assert!(page.text().contains(path.as_str()), "{path} is not shown");
    }
}
