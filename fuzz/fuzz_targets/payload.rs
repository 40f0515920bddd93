//! An authentic body: nothing panics on its way to the series, and no refusal repeats what the body holds.
#![no_main]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use kitepush::config::{Environment, Labels, Loaded};
use kitepush::event::{ExtraSource, Timestamp};
use kitepush::ledger::rules::{Book, Delta, Settings};
use kitepush::metrics::Snapshot as _;
use kitepush::metrics::catalogue::Catalogue;
use kitepush::metrics::encoding::{Compression, Format, encode};
use kitepush::metrics::labels::Labeler;
use kitepush::metrics::series::{Held, SeriesTable};
use kitepush::webhook::payload::{self, Extract, PayloadError};
use libfuzzer_sys::fuzz_target;

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const SETTINGS: Settings = Settings {
    retention: Duration::from_secs(7 * 24 * 3600),
    max_records: 1000,
    in_flight_expiry: Duration::from_secs(24 * 3600),
};

/// Everything opt-in is on, so that more of a body is looked at.
static LABELS: LazyLock<Labels> = LazyLock::new(|| {
    let yaml = "labels: {branches: {keep: ['release/.*']}, recent_builds: {per_pipeline: 5}}";
    let none: [(&str, &str); 0] = [];
    Loaded::parse(Some(("fuzz.yaml", yaml)), &Environment::new(none)).finish().expect("valid").labels
});
static CATALOGUE: LazyLock<Arc<Catalogue>> =
    LazyLock::new(|| Arc::new(Catalogue::new(&BTreeMap::new(), &LABELS).expect("valid")));

fuzz_target!(|body: &[u8]| {
    let extract =
        Extract { extra: vec![ExtraSource::MetaData("release".into()), ExtraSource::Env("DEPLOY_TARGET".into())] };
    let event = match payload::parse(body, &extract) {
        Ok(event) => event,
        Err(PayloadError::Body(message)) => {
            assert!(message.len() < 200, "{message}");
            return;
        }
        Err(PayloadError::Event { path, message }) => {
            assert!(path.len() < 100 && message.len() < 300, "{path}: {message}");
            return;
        }
    };
    let mut book = Book::new(SETTINGS, Timestamp::from_millis(0));
    let labeler = Labeler::new(&LABELS).expect("valid");
    let mut table = SeriesTable::new(Arc::clone(&CATALOGUE), labeler, LABELS.limits.clone(), Duration::ZERO);
    let mut delta = Delta::default();
    for _ in 0..2 {
        delta.clear();
        book.apply(&event, NOW, &mut delta);
        table.record(&event, &delta, NOW);
    }
    book.tick(NOW);
    table.set_in_flight(book.in_flight(), NOW);
    table.publish();
    let snapshot = table.snapshot(Held::AsZeros);
    let encoded = encode(snapshot.families(), Format::Text, Compression::None).expect("encodes");
    assert!(encoded.left_out.is_empty(), "a family that no gateway would take");
});
