//! Lists: keyset pages with the cursor of the next in the body and in `Link` (RFC 8288).

use std::str::FromStr;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use crate::api::page::{DEFAULT_LIMIT, MAX_LIMIT, Page, PageQuery};
use crate::server::http::error::ApiError;

/// Which entries are wanted.
pub struct Wanted {
    /// How many.
    pub limit: u32,
    /// The key of the last entry of the page before, as the handler wrote it.
    after: Option<String>,
}

impl Wanted {
    /// From the query.
    ///
    /// # Errors
    /// The limit is out of range or the cursor is not one of ours.
    pub fn new(query: &PageQuery) -> Result<Self, ApiError> {
        let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(ApiError::invalid(
                "limit",
                format!("must be 1 to {MAX_LIMIT}, not {limit}"),
            ));
        }
        let after = match &query.cursor {
            None => None,
            Some(cursor) => Some(
                URL_SAFE_NO_PAD
                    .decode(cursor)
                    .ok()
                    .and_then(|bytes| String::from_utf8(bytes).ok())
                    .ok_or_else(|| ApiError::invalid("cursor", "is not one that this server gave out"))?,
            ),
        };
        Ok(Self { limit, after })
    }

    /// The key of the last entry of the page before, as the list's handler understands it.
    ///
    /// # Errors
    /// The cursor is one of another list.
    pub fn after<T: FromStr>(&self) -> Result<Option<T>, ApiError> {
        let Some(after) = &self.after else {
            return Ok(None);
        };
        match after.parse() {
            Ok(key) => Ok(Some(key)),
            Err(_) => Err(ApiError::invalid("cursor", "is not one of this list")),
        }
    }

    /// How many rows to read: one more than wanted tells whether there is a next page.
    #[must_use]
    pub const fn rows(&self) -> u32 {
        self.limit + 1
    }

    /// The page of a list that was read whole: what follows the entry whose key is the cursor.
    pub fn window<T>(&self, path: &str, entries: Vec<T>, key: impl Fn(&T) -> String) -> Paged<T> {
        let skipped = match &self.after {
            None => 0,
            Some(after) => entries
                .iter()
                .position(|entry| key(entry) == *after)
                .map_or(entries.len(), |index| index + 1),
        };
        let rest = entries
            .into_iter()
            .skip(skipped)
            .take(self.rows() as usize)
            .collect();
        self.page(path, rest, key)
    }

    /// The page of `entries`, read as [`Wanted::rows`] says; `key` is what the next page begins after.
    pub fn page<T>(&self, path: &str, mut entries: Vec<T>, key: impl Fn(&T) -> String) -> Paged<T> {
        let more = entries.len() > self.limit as usize;
        entries.truncate(self.limit as usize);
        let next_cursor = entries
            .last()
            .filter(|_| more)
            .map(|last| URL_SAFE_NO_PAD.encode(key(last)));
        let joint = if path.contains('?') { "&" } else { "?" };
        let link = next_cursor.as_ref().map(|cursor| {
            format!(
                "<{path}{joint}limit={}&cursor={cursor}>; rel=\"next\"",
                self.limit
            )
        });
        Paged {
            page: Page {
                data: entries,
                next_cursor,
            },
            link,
        }
    }
}

/// One page and its `Link`.
pub struct Paged<T> {
    page: Page<T>,
    link: Option<String>,
}

impl<T> Paged<T> {
    /// The same page with every entry turned into its wire form.
    pub fn map<U>(self, form: impl FnMut(T) -> U) -> Paged<U> {
        Paged {
            page: Page {
                data: self.page.data.into_iter().map(form).collect(),
                next_cursor: self.page.next_cursor,
            },
            link: self.link,
        }
    }
}

impl<T: Serialize> IntoResponse for Paged<T> {
    fn into_response(self) -> Response {
        let mut response = axum::Json(self.page).into_response();
        if let Some(link) = self.link.and_then(|link| HeaderValue::from_str(&link).ok()) {
            response.headers_mut().insert(header::LINK, link);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::Wanted;
    use crate::api::page::PageQuery;

    fn wanted(limit: u32, cursor: Option<&str>) -> PageQuery {
        PageQuery {
            limit: Some(limit),
            cursor: cursor.map(str::to_owned),
        }
    }

    #[test]
    fn the_cursor_leads_on_until_the_end() {
        let Ok(first) = Wanted::new(&wanted(2, None)) else {
            panic!("refused")
        };
        let page = first.page("/x", vec!["a", "b", "c"], |entry| (*entry).to_owned());
        assert_eq!(page.page.data, ["a", "b"]);
        let cursor = page.page.next_cursor.expect("there is more");
        assert_eq!(
            page.link.expect("a link"),
            format!("</x?limit=2&cursor={cursor}>; rel=\"next\"")
        );
        let Ok(second) = Wanted::new(&wanted(2, Some(&cursor))) else {
            panic!("refused")
        };
        assert_eq!(second.after.as_deref(), Some("b"));
        assert!(
            second
                .page("/x", vec!["c"], |entry| (*entry).to_owned())
                .page
                .next_cursor
                .is_none()
        );
    }

    #[test]
    fn limits_and_foreign_cursors_are_refused() {
        assert!(Wanted::new(&wanted(0, None)).is_err());
        assert!(Wanted::new(&wanted(201, None)).is_err());
        assert!(Wanted::new(&wanted(1, Some("%%%"))).is_err());
    }

    #[test]
    fn outside_bytes_as_cursor() {
        use base64::Engine as _;
        let encode = |text: &str| super::URL_SAFE_NO_PAD.encode(text);
        let seeds = [
            encode("ten_01m7yf8m6vebvts9qd0abfmdcn"),
            encode("42"),
            encode("A_KEY"),
            "!".to_owned(),
        ];
        let seeds: Vec<&[u8]> = seeds.iter().map(String::as_bytes).collect();
        crate::mutation::torment(&seeds, |bytes| {
            // As it stands, and as somebody would forge it.
            for cursor in [
                String::from_utf8_lossy(bytes).into_owned(),
                super::URL_SAFE_NO_PAD.encode(bytes),
            ] {
                let query = crate::api::page::PageQuery {
                    limit: None,
                    cursor: Some(cursor),
                };
                if let Ok(wanted) = super::Wanted::new(&query) {
                    let _ = wanted.after::<crate::api::id::TenantId>();
                    let _ = wanted.after::<u64>();
                    let _ = wanted.after::<crate::api::name::SecretKey>();
                }
            }
        });
    }
}
