//! The hot path by itself, without a network: verify, parse, count; and what a push encodes.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "benches")]

mod deliveries;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kitepush::config::Limits;
use kitepush::event::{Event, Timestamp};
use kitepush::ledger::rules::{Book, Delta, Settings};
use kitepush::metrics::Snapshot as _;
use kitepush::metrics::catalogue::Catalogue;
use kitepush::metrics::encoding::{Compression, Format, encode};
use kitepush::metrics::labels::Labeler;
use kitepush::metrics::series::{Held, SeriesTable};
use kitepush::webhook::payload::{self, Extract};
use kitepush::webhook::signature::{Key, Signature, sign, verify};

use deliveries::{BUILD_FINISHED, JOB_FINISHED, Spread, Template, epoch};

const SECRET: &[u8] = b"29b1ff5779c76bd48ba6705eb99ff970";
const SPREAD: Spread = Spread { pipelines: 20, queues: 5, branches: 1, states: 1, steps: 1 };

/// What the ledger's thread works on.
struct Counting {
    book: Book,
    table: SeriesTable,
    delta: Delta,
}

impl Counting {
    fn new() -> Self {
        let settings = Settings {
            retention: Duration::from_secs(7 * 24 * 3600),
            max_records: 1_000_000,
            in_flight_expiry: Duration::from_secs(24 * 3600),
        };
        let catalogue = Catalogue::new(&Default::default(), &Default::default()).expect("the defaults are valid");
        let hold = Duration::ZERO;
        let table = SeriesTable::new(Arc::new(catalogue), Labeler::default(), Limits::default(), hold);
        Self { book: Book::new(settings, Timestamp::now()), table, delta: Delta::default() }
    }

    fn count(&mut self, event: &Event, now: Timestamp) {
        self.delta.clear();
        self.book.apply(event, now, &mut self.delta);
        self.table.record(event, &self.delta, now);
        // A writer takes them with every batch.
        black_box(self.book.take_facts());
    }
}

fn template(fixture: &str) -> Template {
    Template::new(fixture, epoch(fixture), jiff::Timestamp::now())
}

fn deliveries(c: &mut Criterion) {
    let key = Key::new(SECRET);
    let now = Timestamp::now();
    let second = now.as_millis() / 1000;
    for (name, fixture) in [("job.finished", JOB_FINISHED), ("build.finished", BUILD_FINISHED)] {
        let template = template(fixture);
        let mut body = String::new();
        template.render(1, &SPREAD, &mut body);
        let header = sign(SECRET, second, body.as_bytes());
        let check = |header: &str, body: &[u8]| {
            let signature = Signature::parse(header.as_bytes()).expect("a signature");
            verify([&key], &signature, body).expect("an authentic body");
        };
        let parse = |body: &[u8]| payload::parse(body, &Extract::default()).expect("an event");

        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function("verify", |b| b.iter(|| check(black_box(&header), black_box(body.as_bytes()))));
        group.bench_function("verify, parse", |b| {
            b.iter(|| {
                check(black_box(&header), black_box(body.as_bytes()));
                parse(black_box(body.as_bytes()))
            });
        });
        let mut counting = Counting::new();
        let mut number = 0;
        group.bench_function("verify, parse, count", |b| {
            b.iter_batched(
                || {
                    number += 1;
                    let mut body = String::new();
                    template.render(number, &SPREAD, &mut body);
                    let header = sign(SECRET, second, body.as_bytes());
                    (body, header)
                },
                |(body, header)| {
                    check(&header, body.as_bytes());
                    counting.count(&parse(body.as_bytes()), now);
                    (body, header)
                },
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

fn snapshots(c: &mut Criterion) {
    let mut group = c.benchmark_group("snapshot");
    group.sample_size(20);
    for samples in [1000, 10_000, 100_000] {
        let mut counting = Counting::new();
        let template = template(JOB_FINISHED);
        let now = Timestamp::now();
        let mut body = String::new();
        let spread = Spread { pipelines: 20 * samples as u64 / 1000, ..SPREAD };
        for number in 0.. {
            template.render(number, &spread, &mut body);
            counting.count(&payload::parse(body.as_bytes(), &Extract::default()).unwrap(), now);
            if counting.table.samples() >= samples {
                break;
            }
        }
        counting.table.publish();
        group.bench_function(BenchmarkId::new("copy", samples), |b| {
            b.iter(|| counting.table.snapshot(Held::AsZeros));
        });
        let copy = counting.table.snapshot(Held::AsZeros);
        for (name, format, compression) in [
            ("protobuf, gzip", Format::Protobuf, Compression::Gzip),
            ("protobuf", Format::Protobuf, Compression::None),
            ("text", Format::Text, Compression::None),
        ] {
            group.bench_function(BenchmarkId::new(name, samples), |b| {
                b.iter(|| encode(copy.families(), format, compression).expect("an encoded snapshot"));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, deliveries, snapshots);
criterion_main!(benches);
