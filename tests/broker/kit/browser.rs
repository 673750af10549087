//! Headless Chromium, controlled over its debugging pipe: JSON messages, each ended by a zero byte.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::process::{outliving_shell, skipped, target_dir};
use super::wait::eventually;

const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A browser with one page.
pub struct Browser {
    child: Child,
    reaper: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    profile: std::path::PathBuf,
    session: String,
    sent: u64,
}

/// Starts the browser; prints a message and returns `None` if none is installed.
pub fn browser(name: &str) -> Option<Browser> {
    let runs = |name: &&&str| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
    let Some(program) = NAMES.iter().find(runs) else {
        let said = "no Chromium is installed: the status page is not tested (Debian: apt-get install chromium)";
        skipped(said);
        return None;
    };
    let profile = target_dir().join("tmp").join(format!("chromium-{name}-{}", std::process::id()));
    // The pipe is on descriptors 3 and 4. The sandbox does not work as root, and the browser opens only our own page.
    let script = "exec \"$0\" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars \
                  --remote-debugging-pipe --user-data-dir=\"$1\" about:blank 3<&0 4>&1 </dev/null >/dev/null 2>&1";
    let mut child = Command::new("sh")
        .args(["-c", script, program])
        .arg(&profile)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sh starts");
    let reaper = outliving_shell("read _; kill -9 \"$1\"", &[&child.id().to_string()]);
    let to = child.stdin.take().expect("a pipe");
    let from = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut browser = Browser { child, reaper, to, from, profile, session: String::new(), sent: 0 };
    let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
    let attached = browser.call("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
    browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
    browser.call("Page.enable", json!({}));
    browser.call("Runtime.enable", json!({}));
    Some(browser)
}

impl Browser {
    /// Calls a method of the protocol and waits for its response.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.sent += 1;
        let mut message = json!({ "id": self.sent, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).expect("the browser reads");
        loop {
            let mut raw = Vec::new();
            self.from.read_until(0, &mut raw).expect("the browser answers");
            assert_eq!(raw.pop(), Some(0), "the browser exited");
            let answer: Value = serde_json::from_slice(&raw).expect("JSON");
            // Other messages are events.
            if answer["id"] == self.sent {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
    }

    /// Returns the value of an expression, as JSON.
    pub fn value(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub fn until(&mut self, expression: &str, limit: Duration) {
        eventually(expression, limit, || (self.value(expression) == true).then_some(()));
    }

    /// Sets the window size, and the preferred color scheme.
    pub fn set_appearance(&mut self, width: u32, height: u32, dark: bool) {
        let mobile = width < 600;
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        self.call("Emulation.setDeviceMetricsOverride", size);
        let scheme = json!({ "name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" } });
        self.call("Emulation.setEmulatedMedia", json!({ "features": [scheme] }));
    }

    /// Saves a screenshot as a PNG in the tests' directory.
    pub fn screenshot(&mut self, name: &str) {
        use base64::Engine as _;
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        let png = base64::prelude::BASE64_STANDARD.decode(shot["data"].as_str().expect("data")).expect("base64");
        std::fs::write(target_dir().join("tmp").join(format!("{name}.png")), png).expect("a file");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.reaper.kill();
        let _ = self.reaper.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}
