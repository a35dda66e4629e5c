//! A broker behind a web server: `ws://` and `wss://`.

use super::{fleet, healthy, json_lines, row_of};
use crate::reporting::web_broker;
use crate::support::certificates::{Authority, Dates};
use crate::support::ear::{self, Heard};
use crate::support::web::Web;
use std::sync::Arc;

#[test]
fn the_fleet_is_reached_through_a_web_server() {
    let authority = Authority::new();
    let pair = authority.sign("localhost", Dates::Good);
    let tls = authority.listener(&pair);
    let ca = authority.cert().display().to_string();
    for (more, scheme, trusting) in [("", "ws", &[][..]), (tls.as_str(), "wss", &["--ca", &ca])] {
        let heard = Arc::new(Heard::default());
        let (broker, port, _ear) = web_broker(more, &heard);
        let said = ["press-7", "press-8"].map(|device| healthy(device, "line"));
        let said = said.into_iter().flatten().map(|(topic, text)| (topic, text.into_bytes()));
        ear::keep(broker.port, said);
        let run = |path: &str, arguments: &[&str]| {
            fleet(&format!("{scheme}://localhost:{port}{path}"), &[arguments, trusting].concat())
        };
        for path in ["", "/mqtt"] {
            let told = run(path, &["list", "--json", "--check"]);
            assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""), "{scheme}");
            let rows = json_lines(&told.stdout);
            assert!(rows.len() == 2 && row_of(&rows, "press-8").is_some(), "{scheme}: {rows:?}");
        }
        // A command goes out the same way.
        let sent = run("", &["send", "press-7", "status", "--timeout", "1s"]);
        assert_eq!(sent.code, Some(1), "nobody is there to answer: {sent:?}");
        heard.until("the command", crate::support::device::PATIENCE, |messages| {
            messages.iter().any(|(topic, _)| topic.contains("/press-7/cmd/status/")).then_some(())
        });
    }
    let web = Web::start(std::path::Path::new("/nonexistent"));
    let told = fleet(&web.url().replace("http://", "ws://"), &["list"]);
    assert!(
        told.code == Some(1) && told.stderr.contains("404") && told.stderr.contains("--broker"),
        "{told:?}"
    );
}
