//! What the edge answers by itself: a page for people, a problem document for programs. Pure: no calls.

use serde_json::{Value, json};

/// One answer of the edge's own.
pub(super) struct Page {
    /// Status code, or a placeholder for it.
    pub(super) status: &'static str,
    /// When to come back, in seconds.
    pub(super) retry_after: Option<&'static str>,
    /// The heading.
    pub(super) title: &'static str,
    /// What it means for who reads it.
    pub(super) text: &'static str,
}

/// Nobody has this name.
pub(super) const UNKNOWN: Page = Page {
    status: "404",
    retry_after: None,
    title: "There is nothing here",
    text: "No site answers under this name. Look at the address again.",
};

/// Somebody suspended the tenant.
pub(super) const SUSPENDED: Page = Page {
    status: "503",
    retry_after: Some("600"),
    title: "This site is paused",
    text: "It was suspended for now. Nothing of it is lost: it comes back as it was.",
};

/// The tenant has no running release.
pub(super) const NOBODY: Page = Page {
    status: "503",
    retry_after: Some("30"),
    title: "This site is not running yet",
    text: "It has its place, but no running release. Try again in a moment.",
};

/// The requests were held for longer than anybody shall wait.
pub(super) const HELD: Page = Page {
    status: "503",
    retry_after: Some("5"),
    title: "This site will be right back",
    text: "It is changing to a new release, and that takes longer than usual. Try again in a moment.",
};

/// A release serves, and does not answer.
pub(super) const SILENT: Page = Page {
    status: "{http.error.status_code}",
    retry_after: Some("5"),
    title: "This site does not answer",
    text: "It may be starting again. Try again in a moment.",
};

/// Who visits cannot be found out.
pub(super) const ASKING: Page = Page {
    status: "503",
    retry_after: Some("5"),
    title: "Nobody can be let in at the moment",
    text: "This site asks who you are, and who could tell does not answer. Try again in a moment.",
};

const LOOK: &str = include_str!("page.css");

/// The handler that answers with it, in the form that is asked for.
pub(super) fn answer(page: &Page) -> Value {
    let problem = json!({ "type": "about:blank", "title": page.title, "detail": page.text });
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"robots\" content=\"noindex\">\n<title>{title}</title>\n<style>\n{LOOK}</style>\n</head>\n\
         <body>\n<main>\n<h1>{title}</h1>\n<p>{text}</p>\n</main>\n</body>\n</html>\n",
        title = page.title,
        text = page.text,
    );
    json!({
        "handler": "subroute",
        "routes": [
            {
                "match": [{ "header": { "Accept": ["*json*"] } }],
                "handle": [written(page, "application/problem+json", &format!("{problem}\n"))],
                "terminal": true,
            },
            { "handle": [written(page, "text/html; charset=utf-8", &html)] },
        ],
    })
}

fn written(page: &Page, kind: &str, body: &str) -> Value {
    let mut headers = json!({ "Content-Type": [kind], "Cache-Control": ["no-store"] });
    if let Some(seconds) = page.retry_after {
        headers["Retry-After"] = json!([seconds]);
    }
    json!({
        "handler": "static_response",
        "status_code": page.status,
        "headers": headers,
        "body": body,
    })
}

#[cfg(test)]
mod tests {
    use super::{SUSPENDED, answer};

    #[test]
    fn people_and_programs_are_told_the_same() {
        let answer = answer(&SUSPENDED);
        let [problem, html] = [0, 1].map(|at| answer["routes"][at]["handle"][0].clone());
        for told in [&problem, &html] {
            assert_eq!(told["status_code"], "503");
            assert_eq!(told["headers"]["Retry-After"][0], "600");
            let body = told["body"].as_str().expect("text");
            assert!(
                body.contains(SUSPENDED.title) && body.contains(SUSPENDED.text),
                "{body}"
            );
        }
    }
}
