//! A believable day of CI, made of a seed: what Buildkite would have delivered, and what kitepush must show after it.
//!
//! Deterministic and free of I/O: the demo plays such a day, and the tests permute, repeat and drop its deliveries.

mod agents;
mod body;
mod build;
mod facts;
mod organization;
mod pipeline_body;
mod plan;
mod rules;
mod tell;
#[cfg(test)]
mod tests;
pub mod truth;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use self::build::{Cause, Day, Ended};
use self::facts::Branch;
use self::organization::{Organization, PIPELINES};
use self::truth::{Effect, Truth};
use crate::event::Timestamp;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// One webhook as Buildkite would deliver it.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The `X-Buildkite-Event` header, and `event` in the body.
    pub event: &'static str,
    /// When it happened.
    pub at: Timestamp,
    /// Id of the job, else of the build, agent or token that it is about.
    pub subject: String,
    /// The compact JSON body. A repeated delivery repeats it byte for byte.
    pub body: String,
    effects: Vec<Effect>,
}

/// A cluster of the simulated organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// `cluster_id` in the bodies, and the label `buildkite_cluster` unless `labels.clusters` gives it a name.
    pub id: String,
    /// A name to give it.
    pub name: String,
}

/// How much happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Builds that somebody asks for; triggered ones come on top.
    pub builds: usize,
    /// Agents that each of the five queues has in the morning.
    pub agents_per_queue: usize,
}

impl Size {
    /// The day of the demo: about 2,000 deliveries.
    pub const DAY: Self = Self { builds: 120, agents_per_queue: 4 };

    /// Small enough for a property test: about 20 deliveries a build.
    pub const fn builds(builds: usize) -> Self {
        Self { builds, agents_per_queue: 1 }
    }
}

/// A day: its deliveries in the order in which things happened, and the truth about it.
///
/// Everything that began in it has ended at its end, so that the gauges of what is in flight are zero after it.
#[derive(Clone, Debug)]
pub struct History {
    /// In true order.
    pub deliveries: Vec<Delivery>,
    /// What every order of them, however often repeated, must lead to. See [`Truth::of`] for a part of them.
    pub truth: Truth,
    /// The clusters that the bodies name.
    pub clusters: Vec<Cluster>,
    /// The organization's slug.
    pub organization: &'static str,
}

impl History {
    /// The ten hours before `start`. Whatever differs between two calls with equal arguments is a bug.
    pub fn generate(seed: u64, size: Size, start: Timestamp) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let morning = start.as_millis() - 10 * HOUR;
        let organization = Organization::new(&mut rng, size.agents_per_queue, morning);
        let numbers = PIPELINES.iter().map(|_| rng.random_range(100..5_000)).collect();
        let mut day = Day { rng, organization, numbers, deliveries: Vec::new() };

        agents::connect_all(&mut day);
        let mut arrivals: Vec<i64> = (0..size.builds).map(|_| arrival(&mut day.rng, morning)).collect();
        arrivals.sort_unstable();
        let mut last: Vec<Option<(Branch, Ended)>> = PIPELINES.iter().map(|_| None).collect();
        for created_at in arrivals {
            let pipeline = pick_pipeline(&mut day.rng);
            let cause = cause(&mut day.rng, pipeline, last[pipeline].as_ref());
            let branch = cause.branch.clone();
            last[pipeline] = Some((branch, day.build(pipeline, created_at, cause)));
        }
        for _ in 0..day.rng.random_range(0..3) {
            let at = arrival(&mut day.rng, morning);
            agents::registration_blocked(&mut day, at);
        }
        agents::evening(&mut day, start.as_millis() - 2 * MINUTE);

        let Day { organization, mut deliveries, .. } = day;
        deliveries.sort_by_key(|delivery| delivery.at);
        let truth = Truth::of(&deliveries, None);
        Self { deliveries, truth, clusters: organization.clusters, organization: organization::SLUG }
    }

    /// The order in which a careless network delivers this day, as indices into [`Self::deliveries`]: each of them at
    /// least once, some twice or three times, neighbours swapped, and a few very late.
    pub fn disorder(&self, seed: u64) -> Vec<usize> {
        plan::disorder(self.deliveries.len(), seed)
    }
}

/// Mornings are busier than nights; the last build has time to end.
fn arrival(rng: &mut StdRng, morning: i64) -> i64 {
    let (a, b) = (rng.random_range(0..320), rng.random_range(0..320));
    morning + 5 * MINUTE + i64::midpoint(a, b) * MINUTE + rng.random_range(0..MINUTE)
}

fn pick_pipeline(rng: &mut StdRng) -> usize {
    let mut dice = rng.random_range(0..PIPELINES.iter().map(|recipe| recipe.weight).sum());
    PIPELINES
        .iter()
        .position(|recipe| {
            let hit = dice < recipe.weight;
            dice = dice.saturating_sub(recipe.weight);
            hit
        })
        .unwrap_or_default()
}

/// Who wants a build of what: bots and roles.
fn cause(rng: &mut StdRng, pipeline: usize, last: Option<&(Branch, Ended)>) -> Cause {
    if let Some((branch, ended)) = last.filter(|_| rng.random_ratio(6, 100)) {
        let rebuilt_from = Some((ended.id.clone(), ended.number));
        let message = "Once more, with feeling";
        return Cause { rebuilt_from, ..plain(branch.clone(), "ui", Some("release-captain"), message) };
    }
    let number = rng.random_range(100..900);
    let default_branch = PIPELINES[pipeline].default_branch;
    match rng.random_range(0..100) {
        0..38 => plain(Branch::Default, "webhook", Some("merge-bot"), "Merge the reviewed change"),
        38..44 => plain(Branch::Default, "schedule", None, "Scheduled build"),
        44..48 => plain(Branch::Default, "api", Some("deploy-bot"), "Requested by the deploy service"),
        48..68 => {
            let branch = format!("deps/update-{number}");
            plain(Branch::PullRequest { branch, number }, "webhook", Some("deps-bot"), "Update dependencies")
        }
        68..76 => {
            let branch = Branch::Fork(format!("docs-mirror:typo-{number}"));
            plain(branch, "webhook", None, "Fix a typo")
        }
        76..88 => {
            let names = ["feature/checkout/one-page", "fix/🐛-rounding", "spike/grpc \"quoted\""];
            let branch = Branch::Feature(format!("{}-{number}", names[rng.random_range(0..names.len())]));
            plain(branch, "webhook", Some("format-bot"), "Work in progress: \u{3c}draft\u{3e} & more")
        }
        88..94 => plain(Branch::Tag(format!("v2.{number}.0")), "webhook", Some("release-bot"), "Release"),
        _ => {
            let branch = format!("gh-readonly-queue/{default_branch}/pr-{number}-8d3e1f0a");
            plain(Branch::MergeQueue { branch, has_object: rng.random() }, "webhook", Some("merge-bot"), "Merge queue")
        }
    }
}

fn plain(branch: Branch, source: &'static str, creator: Option<&'static str>, message: &'static str) -> Cause {
    Cause { branch, source, creator, message, rebuilt_from: None, triggered_from: None }
}
