//! Every fixture, and what it becomes: its snapshot shows the event as it was understood and what it counted.

use std::fmt::Write as _;
use std::path::Path;

use kitepush::event::{Event, Subject, Timestamp};
use kitepush::webhook::payload::{self, Extract};

use crate::support::counting::Counting;

/// What a ledger that was born before everything counts for one event, as exposition lines that are not zero.
fn counted(event: &Event) -> String {
    let now = event.occurred_at.unwrap_or(Timestamp::from_millis(1_790_000_000_000));
    let mut counting = Counting::born(Timestamp::from_millis(0));
    counting.apply(event, now);
    let families = counting.families();
    let delta = &counting.delta;
    let mut text = format!("outcome: {}\n", delta.outcome.map_or("none", |outcome| outcome.as_str()));
    for anomaly in &delta.anomalies {
        let _ = writeln!(text, "anomaly: {anomaly}");
    }
    let exposition = prometheus::TextEncoder::new().encode_to_string(&families).expect("valid families");
    for line in exposition.lines().filter(|line| !line.starts_with('#') && !line.ends_with(" 0")) {
        // Sum and count tell what a duration was; buckets repeat it.
        if !line.contains("_bucket{") {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

fn understood(event: &Event) -> String {
    let subject = match &event.subject {
        Subject::Agent(agent) => format!("agent {} queue {:?}", agent.id, agent.queue),
        Subject::RegistrationBlocked { .. } => "registration".to_owned(),
        other => {
            let fields = format!("{other:?}").replace(", ", ",\n  ");
            fields.lines().filter(|line| !line.ends_with(": None,")).collect::<Vec<_>>().join("\n")
        }
    };
    let at = event.occurred_at.map(Timestamp::as_millis);
    format!("{} of {:?} at {at:?}\n{subject}\n", event.name.as_str(), event.organization)
}

#[test]
fn every_fixture_becomes_what_its_snapshot_shows() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("webhook-fixtures");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .collect();
    files.sort();
    assert!(files.len() > 100, "only {} fixtures", files.len());
    let mut settings = insta::Settings::clone_current();
    settings.set_omit_expression(true);
    settings.set_prepend_module_to_snapshot(false);
    settings.bind(|| {
        for file in files {
            let name = file.file_stem().expect("has a name").to_string_lossy().into_owned();
            let body = std::fs::read(&file).expect("readable");
            let shown = match payload::parse(&body, &Extract::default()) {
                Ok(event) => format!("{}\n{}", understood(&event), counted(&event)),
                Err(error) => format!("{error:?}\n"),
            };
            assert_eq!(
                name.starts_with("invalid-"),
                shown.starts_with("Body(") || shown.starts_with("Event {"),
                "{name}"
            );
            insta::assert_snapshot!(name.clone(), shown);
        }
    });
}
