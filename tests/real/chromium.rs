//! A Chromium without a window, told what to do over a pipe (Chrome DevTools Protocol).

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

/// One page of a browser of its own.
pub(crate) struct Chromium {
    child: Child,
    to: File,
    from: BufReader<File>,
    number: u64,
    session: Option<String>,
    _folder: tempfile::TempDir,
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Chromium {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (into, out) = (folder.path().join("in"), folder.path().join("out"));
        for pipe in [&into, &out] {
            assert!(
                Command::new("mkfifo")
                    .arg(pipe)
                    .status()
                    .expect("mkfifo")
                    .success()
            );
        }
        // It reads from descriptor 3 and writes to 4.
        let child = Command::new("sh")
            .args(["-c", "exec chromium \"$@\" 3<\"$IN\" 4>\"$OUT\"", "sh"])
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ])
            .args([
                "--no-first-run",
                "--no-proxy-server",
                "--remote-debugging-pipe",
                "--window-size=900,900",
            ])
            .arg(format!(
                "--user-data-dir={}",
                folder.path().join("profile").display()
            ))
            .env("IN", &into)
            .env("OUT", &out)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromium starts");
        let to = File::options().write(true).open(&into).expect("a pipe");
        let from = BufReader::new(File::open(&out).expect("a pipe"));
        let mut browser = Self {
            child,
            to,
            from,
            number: 0,
            session: None,
            _folder: folder,
        };
        let page = browser.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let of = json!({ "targetId": page["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", &of);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Network"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        browser
    }

    /// One command, and its result.
    pub(crate) fn call(&mut self, method: &str, parameters: &Value) -> Value {
        let answer = self.ask(method, parameters);
        answer.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    fn ask(&mut self, method: &str, parameters: &Value) -> Result<Value, Value> {
        self.number += 1;
        let mut message = json!({ "id": self.number, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).expect("chromium listens");
        loop {
            let mut answer = Vec::new();
            let read = self.from.read_until(0, &mut answer).expect("chromium answers");
            assert!(read > 0, "chromium has ended");
            answer.pop();
            let mut answer: Value = serde_json::from_slice(&answer).expect("JSON");
            if answer["id"] == self.number {
                if !answer["error"].is_null() {
                    return Err(answer["error"].take());
                }
                return Ok(answer["result"].take());
            }
        }
    }

    /// What an expression comes to on the page.
    pub(crate) fn run(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true, "userGesture": true });
        let mut answer = self.call("Runtime.evaluate", &parameters);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true; pages may change meanwhile.
    pub(crate) fn until(&mut self, expression: &str) {
        let began = Instant::now();
        let parameters = json!({ "expression": format!("!!({expression})"), "returnByValue": true });
        // A page that goes away while it is asked has no answer.
        let is_true = |answer: Value| answer["result"]["value"] == true;
        while !self.ask("Runtime.evaluate", &parameters).is_ok_and(is_true) {
            assert!(began.elapsed() < PATIENCE, "never true: {expression}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Opens a page, and waits until it is there with everything in it.
    pub(crate) fn go(&mut self, url: &str) {
        self.run("window.left = true");
        let gone = self.call("Page.navigate", &json!({ "url": url }));
        assert!(gone["errorText"].is_null(), "{url}: {gone}");
        self.until("!window.left && document.readyState === 'complete'");
    }

    /// The addresses of the page and of the frames in it, also of those that have a process of their own.
    pub(crate) fn frames(&mut self) -> Vec<String> {
        let tree = self.call("Page.getFrameTree", &json!({}))["frameTree"].take();
        let url = |frame: &Value| frame["frame"]["url"].as_str().unwrap_or_default().to_owned();
        let children = tree["childFrames"].as_array().cloned().unwrap_or_default();
        let mut all: Vec<String> = std::iter::once(url(&tree))
            .chain(children.iter().map(url))
            .collect();
        let page = self.session.take();
        let targets = self.call("Target.getTargets", &json!({}))["targetInfos"].take();
        self.session = page;
        let targets = targets.as_array().cloned().unwrap_or_default();
        for apart in targets.iter().filter(|target| target["type"] == "iframe") {
            all.push(self.inside(apart));
        }
        all
    }

    /// Where a frame that has a process of its own is: its target tells what was asked for, also where nothing is shown.
    fn inside(&mut self, frame: &Value) -> String {
        let page = self.session.take();
        let of = json!({ "targetId": frame["targetId"], "flatten": true });
        let attached = self.call("Target.attachToTarget", &of);
        self.session = attached["sessionId"].as_str().map(str::to_owned);
        let url = self.run("location.href");
        self.session = page;
        url.as_str().unwrap_or_default().to_owned()
    }
}
