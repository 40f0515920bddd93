//! `kitepush demo`: a simulated CI day on real servers.
//!
//! It knows only what a user could: HTTP, files and processes. A [`history`] is sent, signed, to a kitepush of its own,
//! which pushes to a Pushgateway, which a Prometheus scrapes; in the end what PromQL answers is held against the truth.

mod answers;
pub mod history;
mod screen;
mod sender;
mod servers;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, interval};

use self::answers::{Answers, PullError};
use self::history::truth::{Difference, Truth};
use self::history::{History, Size};
use self::screen::Screen;
use self::sender::Sender;
use self::servers::Servers;
use crate::event::Timestamp;

/// How long the sending takes when nobody says how long the demo may take.
const AT_EASE: Duration = Duration::from_secs(25);
/// The bounds of it when somebody does.
const SHORTEST: Duration = Duration::from_secs(4);
/// See [`SHORTEST`].
const LONGEST: Duration = Duration::from_secs(40);
/// What the rest of a demo needs: servers that start, zeros that are held, a last push and a last scrape.
const OVERHEAD: Duration = Duration::from_secs(12);
/// The longest that Prometheus may need to show the whole truth after the last delivery.
const PATIENCE: Duration = Duration::from_secs(45);
/// How often the screen is drawn and Prometheus is asked.
const TICK: Duration = Duration::from_millis(500);

/// How a demo went that nobody interrupted.
enum Verdict {
    /// What PromQL answers is the day that was sent.
    True { samples: usize },
    /// It is not.
    Wrong(Vec<Difference>),
}

/// Plays the day until Ctrl-C, or until `DEMO_SECONDS` are over.
///
/// # Errors
///
/// A server that is not installed or does not start; a delivery that was refused; a difference between what PromQL
/// answers and the day that was sent.
pub fn run() -> anyhow::Result<()> {
    let seconds = match std::env::var("DEMO_SECONDS") {
        Ok(text) => Some(text.parse().with_context(|| format!("DEMO_SECONDS={text} is not a number of seconds"))?),
        Err(_) => None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(play(seconds.map(Duration::from_secs)))
}

async fn play(limit: Option<Duration>) -> anyhow::Result<()> {
    let begin = Instant::now();
    let mut stop = Stop::new()?;
    let now = Timestamp::now();
    let seed = u64::try_from(now.as_millis()).unwrap_or_default();
    let history = History::generate(seed, Size::DAY, now);
    let names: BTreeMap<_, _> = history.clusters.iter().map(|c| (c.id.clone(), c.name.clone())).collect();
    let truth = history.truth.renamed("buildkite_cluster", &names);

    println!("Starting a Pushgateway, a Prometheus and kitepush on this machine …");
    let mut servers = tokio::select! {
        servers = Servers::start(&names) => servers?,
        () = stop.wanted() => return Ok(()),
    };
    servers.introduce().await;

    let window = limit.map_or(AT_EASE, |limit| limit.saturating_sub(OVERHEAD).clamp(SHORTEST, LONGEST));
    let sender = Sender::start(&history, seed, window, &servers);
    let screen = Screen::new(begin, history.organization, servers.is_held_for());
    let ended = watch(limit.map(|limit| begin + limit), &truth, &sender, screen, &mut servers, &mut stop).await;
    sender.stop().await;
    println!("Stopping everything that was started …");
    servers.stop().await;
    ended
}

/// Draws and asks until the end, whatever it is.
async fn watch(
    until: Option<Instant>,
    truth: &Truth,
    sender: &Sender,
    mut screen: Screen,
    servers: &mut Servers,
    stop: &mut Stop,
) -> anyhow::Result<()> {
    let answers = Answers::new(servers);
    let mut ticks = interval(TICK);
    let mut sent_at = None;
    let mut verdict = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.wanted() => {
                screen.finish();
                return match verdict {
                    Some(Verdict::Wrong(differences)) => Err(wrong(&differences)),
                    None if until.is_some() => Err(anyhow::anyhow!("interrupted before the day was checked")),
                    _ => Ok(()),
                };
            }
        }
        servers.check_alive()?;
        let progress = sender.progress()?;
        if progress.is_over() && sent_at.is_none() {
            sent_at = Some(Instant::now());
        }
        let state = match answers.pull(truth).await {
            Ok(state) => state,
            // A server that is busy for a moment is asked again; one that is gone was noticed above.
            Err(PullError::Unanswered(_)) if sent_at.is_none_or(|at| at.elapsed() < PATIENCE) => continue,
            Err(error) => return Err(error.into()),
        };
        screen.draw(&progress, &state);

        if verdict.is_none() {
            verdict = match sent_at {
                Some(_) if state.differences.is_empty() => Some(Verdict::True { samples: truth.samples().len() }),
                Some(at) if at.elapsed() > PATIENCE => Some(Verdict::Wrong(state.differences)),
                _ => None,
            };
            if let Some(verdict) = &verdict {
                screen.announce(verdict, until.is_none());
            }
        }
        match &verdict {
            Some(Verdict::Wrong(differences)) if until.is_some() => {
                screen.finish();
                return Err(wrong(differences));
            }
            Some(_) if until.is_some_and(|until| Instant::now() >= until) => {
                screen.finish();
                return Ok(());
            }
            _ => {}
        }
    }
}

fn wrong(differences: &[Difference]) -> anyhow::Error {
    anyhow::anyhow!("what PromQL answers is not the day that was sent: {} samples differ", differences.len())
}

/// The signals that end a demo.
struct Stop {
    signals: [Signal; 3],
}

impl Stop {
    fn new() -> std::io::Result<Self> {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self { signals: [interrupt?, terminate?, hangup?] })
    }

    async fn wanted(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
