//! The status page in headless Chromium. Screenshots are in target/tmp.

use std::time::Duration;

use crate::kit::browser::browser;
use crate::kit::wait::{eventually, now_s};
use crate::kit::{Case, Scheduled};

const TIMEOUT: Duration = Duration::from_secs(40);

/// Would have a visible effect if any of it were treated as markup.
const HOSTILE: &str =
    "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>\u{202e}\u{1b}[31m";

#[test]
fn the_page_updates_on_a_firing_and_escapes_hostile_keys() {
    let Some(case) = Case::new("page", 6) else { return };
    let Some(mut browser) = browser("page") else { return };
    let engine = case.engine();
    engine.ready();
    // Enough activity for every part of the page.
    for n in 0..400 {
        case.queue(&case.due_in(format!("order-{n}"), "v", n / 16));
    }
    for (n, ahead) in [40, 90, 300, 1_800, 7_200, 40_000, 90_000, 400_000].into_iter().enumerate() {
        case.queue(&case.due_in(format!("reminder-{n}"), "v", 20 + ahead));
    }
    case.queue(&Scheduled::new(HOSTILE, "v", now_s() + 21, &case.target));
    case.queue(
        &Scheduled::new("tick", "v", 0, &case.target).without("scheduler-epoch").header("scheduler-every", "30s"),
    );
    case.queue(&Scheduled::new("no-target", "v", now_s(), "no-such-topic"));
    case.queue(&Scheduled::new("bad", "v", 0, &case.target).header("scheduler-epoch", "x"));
    case.flush();
    browser.set_appearance(1_200, 1_060, false);
    browser.open(&format!("http://127.0.0.1:{}/", engine.port));
    browser.until("document.getElementById('ready')?.textContent === 'ready'", TIMEOUT);
    assert_eq!(browser.value("document.querySelectorAll('.cell').length"), 6);
    browser.until("document.querySelectorAll('#rates rect').length > 0", TIMEOUT);
    browser.until("document.querySelectorAll('#late rect').length === 12", TIMEOUT);
    browser.until("document.querySelectorAll('#horizon circle').length > 0", TIMEOUT);
    browser.until("document.getElementById('parked-rows').textContent.includes('unknown-target')", TIMEOUT);
    browser.until("document.getElementById('refused-rows').textContent.includes('duplicate-header')", TIMEOUT);
    assert_eq!(
        browser.value("performance.getEntriesByType('resource').every(e => e.name.startsWith(location.origin))"),
        true
    );

    // A schedule fires while the page is open.
    assert_eq!(browser.value("document.getElementById('firings').textContent.includes('onerror')"), false);
    browser.until("document.getElementById('firings').textContent.includes('onerror')", TIMEOUT);
    let key = browser.value(
        "[...document.querySelectorAll('#firings bdi')].map(b => b.textContent).find(t => t.includes('onerror'))",
    );
    let key = key.as_str().expect("the hostile key");
    assert!(key.starts_with("<img src=x onerror="), "the key is shown as text: {key}");
    assert_eq!(browser.value("document.querySelectorAll('img, #firings script').length"), 0);
    assert_eq!(browser.value("document.title"), "kafka-scheduler");
    let shown = browser.value("document.body.innerText");
    assert!(!shown.as_str().expect("text").contains(['\u{202e}', '\u{1b}']), "control characters are made visible");
    browser.screenshot("status-page");

    let numbers = eventually("the page shows pending schedules", TIMEOUT, || {
        let (page, rest) = (browser.value("document.getElementById('pending').textContent"), engine.metrics());
        let held: f64 = rest.iter().filter(|(name, _)| name.contains("pending_schedules")).map(|(_, n)| n).sum();
        (page.as_str()? == held.to_string()).then_some(held)
    });
    assert!(numbers >= 9.0, "{numbers}");
    browser.until("document.getElementById('next').textContent.includes('every 30s no. ')", TIMEOUT);
    for (name, width, height, dark) in
        [("dark", 1_200, 1_060, true), ("phone", 390, 844, false), ("phone-dark", 390, 844, true)]
    {
        browser.set_appearance(width, height, dark);
        browser.until(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))",
            TIMEOUT,
        );
        assert_eq!(
            browser.value("document.documentElement.scrollWidth <= innerWidth"),
            true,
            "{name} scrolls sideways"
        );
        browser.screenshot(&format!("status-page-{name}"));
    }
}

#[test]
fn the_page_asks_for_the_token() {
    let Some(case) = Case::new("page-token", 1) else { return };
    let Some(mut browser) = browser("page-token") else { return };
    let engine = case.engine_with(&[("REST_TOKEN", "open-sesame")]);
    engine.ready();
    browser.open(&format!("http://127.0.0.1:{}/", engine.port));
    browser.until("document.getElementById('login')?.hidden === false", TIMEOUT);
    assert_eq!(browser.value("document.getElementById('main').hidden"), true);
    browser.value(
        "document.getElementById('token').value = 'open-sesame', document.querySelector('#login button').click()",
    );
    browser.until("document.getElementById('main').hidden === false", TIMEOUT);
    browser.until("document.getElementById('ready').textContent === 'ready'", TIMEOUT);
}
