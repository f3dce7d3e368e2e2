//! A browser that can do what these tests need: pages, forms, one cookie.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// Somebody's browser, with the server's cookie.
pub(crate) struct Browser {
    port: u16,
    cookie: String,
}

impl Browser {
    /// Signs in by a one-time link.
    pub(crate) fn sign_in(port: u16, link: &str) -> Self {
        let mut browser = Self {
            port,
            cookie: String::new(),
        };
        let answer = browser.send("POST", &path_of(link), "");
        let cookie = answer
            .lines()
            .find_map(|line| line.strip_prefix("set-cookie: "))
            .unwrap_or_else(|| panic!("no cookie: {answer}"));
        browser.cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        browser
    }

    /// Looks at the page of a device login and presses a button on it.
    pub(crate) fn decide(&self, link: &str, decision: &str) -> String {
        let page = self.send("GET", &path_of(link), "");
        let field = |name: &str| {
            let begin = format!("name=\"{name}\" value=\"");
            let rest = page
                .split(&begin)
                .nth(1)
                .unwrap_or_else(|| panic!("no {name}: {page}"));
            rest.split('"').next().unwrap_or_default().to_owned()
        };
        let form = format!(
            "csrf={}&user_code={}&decision={decision}",
            field("csrf"),
            field("user_code")
        );
        self.send("POST", "/device", &form)
    }

    /// Presses the button of a page that has only one.
    pub(crate) fn press(&self, link: &str) -> String {
        self.send("POST", &path_of(link), "")
    }

    fn send(&self, method: &str, path: &str, form: &str) -> String {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).expect("connects");
        write!(
            socket,
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\ncookie: {}\r\nconnection: close\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
            self.port,
            self.cookie,
            form.len()
        )
        .expect("sends");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("answers");
        answer
    }
}

fn path_of(link: &str) -> String {
    let rest = link.split_once("://").map_or(link, |(_, rest)| rest);
    let path = rest.find('/').map_or("/", |at| &rest[at..]);
    path.trim().to_owned()
}
