#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::proto::{Counter, Metric, MetricFamily, MetricType};

use super::super::groups::RestoredFamily;
use super::*;

/// A total that grows by one with each snapshot.
#[derive(Default)]
struct Totals {
    snapshots: AtomicUsize,
    exposed: Mutex<Vec<usize>>,
}

impl Exposition for Totals {
    type Snapshot = Total;

    fn snapshot(&self) -> Total {
        Total(self.snapshots.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn final_snapshot(&self) -> Total {
        Total(1000)
    }

    fn exposed(&self, snapshot: &Total) {
        self.exposed.lock().unwrap().push(snapshot.0);
    }
}

struct Total(usize);

impl Snapshot for Total {
    fn families(&self) -> impl Iterator<Item = MetricFamily> {
        let mut value = Counter::new();
        value.set_value(self.0 as f64);
        let mut metric = Metric::new();
        metric.set_counter(value);
        let mut family = MetricFamily::new();
        family.set_name("a_total".to_owned());
        family.set_field_type(MetricType::COUNTER);
        family.mut_metric().push(metric);
        std::iter::once(family)
    }
}

type Told = watch::Sender<Option<Instant>>;

/// What the gateway of a test does with each push; when the script ends, the loop is told to stop.
struct Script {
    pushes: VecDeque<Step>,
    earlier: VecDeque<Result<Earlier, Failure>>,
    push_times: VecDeque<f64>,
    log: Arc<Mutex<Vec<(Duration, String)>>>,
    began: Instant,
    stop: Told,
}

enum Step {
    Answer(Result<Accepted, Failure>),
    Hang,
}

impl Script {
    fn note(&self, what: &str) {
        self.log.lock().unwrap().push((self.began.elapsed(), what.to_owned()));
    }

    fn tell(&self, in_seconds: u64) {
        self.stop.send_replace(Some(Instant::now() + Duration::from_secs(in_seconds)));
    }
}

impl Target for Script {
    async fn put(&mut self, exposition: Encoded) -> Result<Accepted, Failure> {
        let text = String::from_utf8(exposition.body).unwrap();
        self.note(text.lines().last().unwrap());
        match self.pushes.pop_front() {
            Some(Step::Answer(answer)) => answer,
            Some(Step::Hang) => {
                self.tell(30);
                std::future::pending().await
            }
            None => {
                if self.stop.borrow().is_none() {
                    self.tell(30);
                }
                Ok(Accepted::Stored)
            }
        }
    }

    async fn earlier(&mut self) -> Result<Earlier, Failure> {
        self.note("read");
        self.earlier.pop_front().unwrap_or_else(|| {
            self.tell(30);
            Err(Failure::Unreachable("away".to_owned()))
        })
    }

    async fn push_time(&mut self) -> Result<Option<f64>, Failure> {
        Ok(self.push_times.pop_front())
    }

    fn complaint(&self) -> Option<String> {
        None
    }
}

struct Ran {
    log: Vec<(Duration, String)>,
    totals: Arc<Totals>,
    own: Arc<Own>,
    health: Arc<Health>,
    last: FinalPush,
}

impl Ran {
    fn what(&self) -> Vec<&str> {
        self.log.iter().map(|(_, what)| what.as_str()).collect()
    }

    fn count(&self, family: &str, label: &str) -> f64 {
        let families = self.own.gather();
        let family = families.iter().find(|f| f.name() == family).unwrap();
        let metric = family.get_metric().iter().find(|m| m.get_label().iter().any(|l| l.value() == label));
        metric.map_or(0.0, |metric| metric.get_counter().value())
    }
}

async fn run(
    pushes: Vec<Step>,
    earlier: Option<Vec<Result<Earlier, Failure>>>,
    push_times: Vec<f64>,
    take_in: impl FnMut(Option<Vec<RestoredFamily>>) -> Result<(), String> + Send + 'static,
) -> Ran {
    let (stop, stopped) = watch::channel(None);
    let log = Arc::new(Mutex::new(Vec::new()));
    let take_in = earlier.is_some().then(|| Box::new(take_in) as TakeIn);
    let script = Script {
        pushes: pushes.into(),
        earlier: earlier.unwrap_or_default().into(),
        push_times: push_times.into(),
        log: log.clone(),
        began: Instant::now(),
        stop,
    };
    let totals = Arc::new(Totals::default());
    let own = Arc::new(Own::new("test", "test"));
    let health = Arc::new(Health::default());
    let config = Push {
        interval: Duration::from_secs(15),
        format: PushFormat::Text,
        compression: config::Compression::None,
        self_metrics: false,
        ..Push::default()
    };
    let run = Run::new(totals.clone(), own.clone(), health.clone(), script, &config, take_in);
    let last = run.until(stopped).await;
    let log = log.lock().unwrap().clone();
    Ran { log, totals, own, health, last }
}

fn pauses(ran: &Ran) -> Vec<Duration> {
    ran.log.windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
}

fn stored() -> Step {
    Step::Answer(Ok(Accepted::Stored))
}

fn fails(failure: Failure) -> Step {
    Step::Answer(Err(failure))
}

fn away() -> Failure {
    Failure::Unreachable("away".to_owned())
}

#[tokio::test(start_paused = true)]
async fn each_push_has_a_fresh_snapshot_an_interval_after_the_last_and_stop_makes_a_final_one() {
    let ran = run(vec![stored(), stored()], None, Vec::new(), |_| Ok(())).await;
    assert_eq!(ran.what(), ["a_total 1", "a_total 2", "a_total 3", "a_total 1000"]);
    let pauses = pauses(&ran);
    assert!(pauses[..2].iter().all(|pause| (13_500..=15_001).contains(&pause.as_millis())), "{pauses:?}");
    assert_eq!(pauses[2], Duration::ZERO);
    assert_eq!(*ran.totals.exposed.lock().unwrap(), [1, 2, 3, 1000]);
    assert_eq!(ran.last, FinalPush::Accepted);
    assert_eq!(ran.count("kitepush_pushes_total", "ok"), 4.0);
}

#[tokio::test(start_paused = true)]
async fn a_failing_gateway_degrades_and_is_asked_less_often_until_it_is_back() {
    let refused = || Failure::Rejected("refused: bad words".to_owned());
    let ran = run(vec![fails(refused()), fails(refused()), stored()], None, Vec::new(), |_| Ok(())).await;
    let pauses = pauses(&ran);
    assert!(pauses[0] >= Duration::from_secs(60) && pauses[1] >= Duration::from_secs(60), "{pauses:?}");
    assert!(pauses[2] <= Duration::from_millis(15_001), "{pauses:?}");
    assert_eq!(*ran.totals.exposed.lock().unwrap(), [3, 4, 1000], "what failed was not exposed");
    assert_eq!(ran.count("kitepush_pushes_total", "rejected"), 2.0);
    assert!(ran.health.troubles().is_empty());
}

#[tokio::test(start_paused = true)]
async fn trouble_is_in_the_health_with_the_gateways_words_and_logged_once() {
    let mut run = Run::new(
        Arc::new(Totals::default()),
        Arc::new(Own::new("test", "test")),
        Arc::new(Health::default()),
        Script {
            pushes: [fails(Failure::Rejected("refused: bad words".to_owned())), fails(away()), stored()].into(),
            earlier: VecDeque::new(),
            push_times: VecDeque::new(),
            log: Arc::default(),
            began: Instant::now(),
            stop: watch::channel(None).0,
        },
        &Push::default(),
        None,
    );
    run.format = Format::Text;
    run.compression = Compression::None;
    run.turn().await.unwrap_err();
    assert_eq!(run.health.troubles()[&Part::Gateway], "refused: bad words");
    run.turn().await.unwrap_err();
    assert_eq!(run.health.troubles()[&Part::Gateway], "away");
    assert_eq!(run.logged.len(), 2);
    run.turn().await.unwrap();
    assert!(run.health.troubles().is_empty() && run.logged.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_push_that_hangs_is_abandoned_at_stop_and_the_final_one_still_made() {
    let ran = run(vec![Step::Hang], None, Vec::new(), |_| Ok(())).await;
    assert_eq!(ran.what(), ["a_total 1", "a_total 1000"]);
    assert_eq!(ran.log[1].0, GRACE);
    assert_eq!(ran.last, FinalPush::Accepted);
}

#[tokio::test(start_paused = true)]
async fn a_final_push_that_hangs_is_given_up_at_the_deadline() {
    let ran = run(vec![Step::Hang, Step::Hang], None, Vec::new(), |_| Ok(())).await;
    assert_eq!(ran.last, FinalPush::Failed("not done in time".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_pushed_before_what_an_earlier_run_left_is_taken_in() {
    let families =
        vec![RestoredFamily { name: "a_total".to_owned(), kind: crate::push::Kind::Counter, metrics: Vec::new() }];
    let taken = Arc::new(Mutex::new(Vec::new()));
    let (seen, expected) = (taken.clone(), families.clone());
    let mut busy = true;
    let ran = run(
        Vec::new(),
        Some(vec![Err(away()), Ok(Earlier::Group(families.clone())), Ok(Earlier::Group(families))]),
        Vec::new(),
        move |families| {
            if std::mem::take(&mut busy) {
                return Err("busy".to_owned());
            }
            seen.lock().unwrap().push(families);
            Ok(())
        },
    )
    .await;
    assert_eq!(ran.what(), ["read", "read", "read", "a_total 1", "a_total 1000"]);
    assert_eq!(*taken.lock().unwrap(), [Some(expected)]);
    assert!(ran.health.troubles().is_empty());
}

#[tokio::test(start_paused = true)]
async fn no_group_and_no_api_both_let_pushes_begin() {
    for earlier in [Earlier::Nothing, Earlier::NoApi(404)] {
        let ran = run(Vec::new(), Some(vec![Ok(earlier)]), Vec::new(), |families| match families {
            None => Ok(()),
            Some(_) => Err("there was none".to_owned()),
        })
        .await;
        assert_eq!(ran.what(), ["read", "a_total 1", "a_total 1000"]);
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_earlier_totals_not_even_the_final_push_is_made() {
    let ran = run(Vec::new(), Some(vec![Err(away()), Err(away())]), Vec::new(), |_| Ok(())).await;
    assert!(ran.what().iter().all(|what| *what == "read"), "{:?}", ran.what());
    assert_eq!(ran.last, FinalPush::Failed("away".to_owned()));
    let troubles = ran.health.troubles();
    assert!(troubles[&Part::Restore].contains("away") && troubles.contains_key(&Part::Gateway), "{troubles:?}");
}

#[tokio::test(start_paused = true)]
async fn a_second_writer_degrades_and_is_counted_and_forgotten_after_ten_quiet_minutes() {
    let pushes = || (0..6).map(|_| stored()).collect::<Vec<_>>();
    let ran = run(pushes(), None, vec![10.0, 12.5], |_| Ok(())).await;
    assert!(ran.health.troubles()[&Part::SecondWriter].contains("push.instance"));
    assert_eq!(ran.count("kitepush_anomalies_total", "second_writer"), 1.0);

    let long = (0..60).map(|_| stored()).collect::<Vec<_>>();
    let quiet = [10.0, 12.5].into_iter().chain(std::iter::repeat_n(20.0, 40)).collect();
    let ran = run(long, None, quiet, |_| Ok(())).await;
    assert!(ran.health.troubles().is_empty());
    assert_eq!(ran.count("kitepush_anomalies_total", "second_writer"), 1.0);
}
