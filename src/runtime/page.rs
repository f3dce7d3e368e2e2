//! The front page: the project's own `index.html` with the tenant's numbers filled in, so that it reads without scripts.

use std::fmt::Write as _;

use crate::runtime::routes::Site;

/// Fills `{{name}}` places of `template`; a place that means nothing here stays as it is.
#[must_use]
pub fn render(template: &str, site: &Site) -> String {
    let mut page = String::with_capacity(template.len() + 1024);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        page.push_str(before);
        match after
            .split_once("}}")
            .and_then(|(name, after)| Some((fill(name.trim(), site)?, after)))
        {
            Some((text, after)) => {
                page.push_str(&text);
                rest = after;
            }
            None => {
                page.push_str("{{");
                rest = after;
            }
        }
    }
    page.push_str(rest);
    page
}

fn fill(name: &str, site: &Site) -> Option<String> {
    // A dash where the database does not answer: the page is shown all the same.
    let number = |number: Option<i64>| number.map_or_else(|| "–".to_owned(), |number| number.to_string());
    Some(match name {
        "tenant_name" => escape(&site.tenant.name),
        "tenant_id" => escape(&site.tenant.id),
        "release" => site
            .release
            .as_deref()
            .map_or_else(|| "local".to_owned(), |release| format!("v{}", escape(release))),
        "version" => escape(site.version),
        "visits_total" => number(site.visits.map(|visits| visits.total)),
        "visits_today" => number(site.visits.map(|visits| visits.today)),
        "agents" => site.catalog.agents.iter().fold(String::new(), |mut list, agent| {
            let _ = write!(
                list,
                "<li><h3>{}</h3><p>{}</p><p class=\"tags\">{}</p></li>",
                escape(&agent.name),
                escape(&agent.description),
                agent
                    .skills
                    .iter()
                    .map(|skill| format!("<span>{}</span>", escape(skill)))
                    .collect::<String>()
            );
            list
        }),
        "skills" => site.catalog.skills.iter().fold(String::new(), |mut list, skill| {
            let _ = write!(
                list,
                "<li><h3>{}</h3><p>{}</p></li>",
                escape(&skill.name),
                escape(&skill.description)
            );
            list
        }),
        _ => return None,
    })
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::render;
    use crate::runtime::catalog::Catalog;
    use crate::runtime::database::Visits;
    use crate::runtime::routes::{Site, TenantName};

    fn site(name: &str, visits: Option<Visits>) -> Site {
        Site {
            tenant: TenantName {
                id: "ten_1".to_owned(),
                name: name.to_owned(),
            },
            release: Some("3".to_owned()),
            version: "1.0.0",
            visits,
            catalog: Catalog::default(),
        }
    }

    #[test]
    fn values_are_filled_in_once_and_escaped() {
        let page = render(
            "<b>{{tenant_name}}</b> {{ release }} {{visits_total}} {{other}} {{",
            &site("<i>{{version}}</i>", Some(Visits { today: 1, total: 42 })),
        );
        assert_eq!(page, "<b>&lt;i&gt;{{version}}&lt;/i&gt;</b> v3 42 {{other}} {{");
    }

    #[test]
    fn a_database_that_is_away_is_a_dash() {
        assert_eq!(render("{{visits_total}}", &site("a", None)), "–");
    }
}
