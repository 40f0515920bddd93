//! Whether the time of a verification tells where a signature differs from the right one, by the method of dudect
//! (Reparaz, Balasch, Verbauwhede: "Dude, is my code constant time?", 2017): two classes of inputs, measured in random
//! order, compared by Welch's t-test. |t| below 4.5 is no evidence of a difference; a comparison that stops at the first
//! different byte is measured too, to show that the method sees one.
//!
//! `cargo bench --bench timing`; TIMING_SAMPLES (1,000,000) sets how many measurements each comparison gets.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use kitepush::webhook::signature::{Key, Signature, sign, verify, verify_token};

/// dudect's own threshold.
const THRESHOLD: f64 = 4.5;
const BODY: &[u8] = include_bytes!("../webhook-fixtures/ping.json");
const SECRET: &[u8] = b"29b1ff5779c76bd48ba6705eb99ff970";
const SIGNED_AT: i64 = 1_642_080_837;

fn main() -> ExitCode {
    // cargo test runs benches too, with this argument, and only wants to see them start.
    let is_test = std::env::args().any(|argument| argument == "--test");
    let wanted = std::env::var("TIMING_SAMPLES").ok().and_then(|samples| samples.parse().ok());
    let samples = wanted.unwrap_or(if is_test { 1_000 } else { 1_000_000 });

    let key = Key::new(SECRET);
    let header = sign(SECRET, SIGNED_AT, BODY);
    let wrong_at = |place: usize| {
        let at = header.len() - 64 + place;
        let digit = if &header[at..=at] == "0" { "1" } else { "0" };
        format!("{}{digit}{}", &header[..at], &header[at + 1..])
    };
    // Parsing is not timed: it reads what the sender chose, and no secret. It is done long before the clock starts,
    // because what it leaves in the processor depends on the digits.
    let pages = [0, 31, 63].map(|place| Page::with(&wrong_at(place)));
    let [Ok(first), Ok(middle), Ok(last)] = pages.each_ref().map(|page| Signature::parse(&page.0[..header.len()]))
    else {
        println!("the header cannot be parsed");
        return ExitCode::FAILURE;
    };
    let signature = |sent: &Signature<'_>| timed(|| verify([black_box(&key)], sent, black_box(BODY)).is_ok());
    let [token_first, token_last] = [0, SECRET.len() - 1].map(|place| {
        let mut token = SECRET.to_vec();
        token[place] ^= 1;
        token
    });
    let token = |token: &Vec<u8>| timed(|| verify_token([black_box(&key)], token).is_ok());
    let early = |token: &Vec<u8>| timed(|| stops_early(token, black_box(SECRET)));

    println!("{samples} measurements each; |t| < {THRESHOLD}: no evidence of a difference");
    let mut surprises = 0;
    let mut judge = |what: &str, t: f64, expected: bool| {
        let differs = t.abs() >= THRESHOLD;
        println!("{what:<58} t = {t:>9.2}  {}", if differs { "differs" } else { "no difference" });
        surprises += usize::from(differs != expected && !is_test);
    };
    let t = welch(samples, [&first, &last], signature);
    judge("signature: differs in the first / the last digit", t, false);
    let t = welch(samples, [&first, &middle], signature);
    judge("signature: differs in the first / the middle digit", t, false);
    let t = welch(samples, [&token_first, &token_last], token);
    judge("token: differs in the first / the last byte", t, false);
    let t = welch(samples, [&token_first, &token_last], early);
    judge("for comparison, one that stops early: first / last byte", t, true);
    if surprises == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn timed(work: impl FnOnce() -> bool) -> Duration {
    let start = Instant::now();
    black_box(work());
    start.elapsed()
}

/// What nobody should compare secrets with.
fn stops_early(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| black_box(a) == black_box(b))
}

/// A header where every cache finds it at the same place as those on other pages: what is parsed borrows from it.
#[repr(align(4096))]
struct Page([u8; 128]);

impl Page {
    fn with(text: &str) -> Self {
        let mut page = [0; 128];
        page[..text.len()].copy_from_slice(text.as_bytes());
        Self(page)
    }
}

/// Welch's t of the times of a work on two inputs, in random order. Both are copied to the same place first, or the
/// addresses would be what differs. The slowest percent of all is left out: interrupts.
fn welch<T: Clone>(samples: usize, inputs: [&T; 2], work: impl Fn(&T) -> Duration) -> f64 {
    let mut times: [Vec<f64>; 2] = [(); 2].map(|()| Vec::with_capacity(samples));
    let mut place = inputs[0].clone();
    for _ in 0..samples {
        let class = usize::from(rand::random::<bool>());
        place.clone_from(black_box(inputs)[class]);
        times[class].push(work(black_box(&place)).as_nanos() as f64);
    }
    let mut all: Vec<f64> = times.concat();
    all.sort_unstable_by(f64::total_cmp);
    let limit = all[all.len() * 99 / 100];
    let [a, b] = times.map(|times| moments(times.into_iter().filter(|time| *time <= limit)));
    (a.mean - b.mean) / (a.variance / a.number + b.variance / b.number).sqrt()
}

struct Moments {
    number: f64,
    mean: f64,
    variance: f64,
}

/// Welford's way: one pass, no cancellation.
fn moments(times: impl Iterator<Item = f64>) -> Moments {
    let (mut number, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for time in times {
        number += 1.0;
        let off = time - mean;
        mean += off / number;
        squares += off * (time - mean);
    }
    Moments { number, mean, variance: squares / (number - 1.0) }
}
