//! The organization that the simulated day happens in: its clusters, queues, agents and pipelines.

use rand::RngExt;
use rand::rngs::StdRng;

use super::{Cluster, pipeline_body};

/// The organization's slug.
pub(super) const SLUG: &str = "tidewater";

/// How a pipeline's bodies write times. Both forms occur in real deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    /// `2020-09-20T03:24:38.888Z`
    Millis,
    /// `2018-11-01 15:03:16 UTC`
    Seconds,
}

/// One command step.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) key: &'static str,
    pub(super) name: &'static str,
    pub(super) command: &'static str,
    /// Index into [`QUEUES`].
    pub(super) queue: usize,
    /// Whether the job says so with a `queue=` rule; without one, only its agent tells where it ran.
    pub(super) has_rule: bool,
    /// Typical run time, seconds.
    pub(super) seconds: i64,
    pub(super) parallelism: usize,
    pub(super) temper: Temper,
}

/// What is special about a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Temper {
    Steady,
    /// Fails now and then, and is retried automatically.
    Flaky,
    /// Its failure does not fail the build.
    Soft,
    /// Waits for its concurrency group.
    Serial,
}

/// What a pipeline does, one after the other.
#[derive(Debug)]
pub(super) enum Stage {
    Steps(&'static [Step]),
    Wait,
    /// Somebody has to unblock it. Builds of other than the default branch end here.
    Block(&'static str),
    /// Starts a build of the pipeline with this index.
    Trigger {
        pipeline: usize,
        asynchronous: bool,
    },
}

/// A pipeline as people wrote it.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) slug: &'static str,
    pub(super) name: &'static str,
    pub(super) description: Option<&'static str>,
    pub(super) default_branch: &'static str,
    /// Index into [`CLUSTERS`].
    pub(super) cluster: Option<usize>,
    pub(super) clock: Clock,
    /// How often it runs, relative to the others. 0: only when triggered.
    pub(super) weight: u32,
    pub(super) stages: &'static [Stage],
}

pub(super) const CLUSTERS: &[&str] = &["linux-builders", "apple-silicon"];

/// Name, cluster, typical wait in seconds.
pub(super) const QUEUES: &[(&str, Option<usize>, i64)] = &[
    ("linux-small", Some(0), 4),
    ("linux-large", Some(0), 25),
    ("deploy", Some(0), 8),
    ("macos", Some(1), 140),
    ("default", None, 12),
];

const fn step(key: &'static str, name: &'static str, command: &'static str, queue: usize, seconds: i64) -> Step {
    Step { key, name, command, queue, has_rule: true, seconds, parallelism: 1, temper: Temper::Steady }
}

const fn many(parallelism: usize, step: Step) -> Step {
    Step { parallelism, ..step }
}

const fn tempered(temper: Temper, step: Step) -> Step {
    Step { temper, ..step }
}

const fn without_rule(step: Step) -> Step {
    Step { has_rule: false, ..step }
}

pub(super) const PIPELINES: &[Recipe] = &[
    Recipe {
        slug: "web-storefront",
        name: "Web storefront",
        description: Some("Customer storefront, server rendered"),
        default_branch: "main",
        cluster: Some(0),
        clock: Clock::Millis,
        weight: 8,
        stages: &[
            Stage::Steps(&[
                step("lint", ":eslint: Lint", "yarn lint --max-warnings 0", 0, 45),
                many(3, tempered(Temper::Flaky, step("unit", ":jest: Unit", "yarn jest --ci --shard", 1, 180))),
                step("bundle", ":webpack: Bundle", "yarn build --mode production", 1, 240),
            ]),
            Stage::Wait,
            Stage::Steps(&[many(
                2,
                tempered(Temper::Flaky, step("e2e", ":playwright: End to end", "yarn playwright test", 1, 420)),
            )]),
            Stage::Block("Deploy to production?"),
            Stage::Steps(&[tempered(Temper::Serial, step("deploy", ":rocket: Deploy", "scripts/deploy.sh", 2, 95))]),
        ],
    },
    Recipe {
        slug: "payments-api",
        name: "Payments API",
        description: Some("Charges, refunds and payouts"),
        default_branch: "main",
        cluster: Some(0),
        clock: Clock::Millis,
        weight: 6,
        stages: &[
            Stage::Steps(&[
                many(2, step("test", ":go: Test", "go test -race ./...", 1, 210)),
                tempered(Temper::Soft, step("audit", ":lock: Audit", "make audit", 0, 40)),
                without_rule(step("docs", ":book: Docs", "make docs", 0, 25)),
            ]),
            Stage::Wait,
            Stage::Steps(&[step("image", ":docker: Image", "make image", 1, 160)]),
            Stage::Trigger { pipeline: 5, asynchronous: false },
        ],
    },
    Recipe {
        slug: "mobile-app",
        name: "Mobile app",
        description: None,
        default_branch: "trunk",
        cluster: Some(1),
        clock: Clock::Millis,
        weight: 4,
        stages: &[
            Stage::Steps(&[
                tempered(Temper::Flaky, step("ios", ":ios: iOS", "bundle exec fastlane ios test", 3, 900)),
                step("android", ":android: Android", "./gradlew testDebug", 3, 640),
            ]),
            Stage::Wait,
            Stage::Steps(&[tempered(Temper::Soft, step("size", ":scales: Size report", "scripts/size.sh", 3, 70))]),
        ],
    },
    Recipe {
        slug: "nightly-reports",
        name: "Nightly reports",
        description: Some(""),
        default_branch: "master",
        cluster: None,
        clock: Clock::Seconds,
        weight: 2,
        stages: &[
            Stage::Steps(&[without_rule(step("extract", "Extract", "bin/extract --since yesterday", 4, 330))]),
            Stage::Wait,
            Stage::Steps(&[many(2, without_rule(step("render", "Render", "bin/render", 4, 120)))]),
        ],
    },
    Recipe {
        slug: "infrastructure",
        name: "Infrastructure",
        description: Some("Plans on pull requests, applies after approval"),
        default_branch: "main",
        cluster: Some(0),
        clock: Clock::Millis,
        weight: 3,
        stages: &[
            Stage::Steps(&[step("plan", ":terraform: Plan", "terraform plan -out plan.bin", 2, 75)]),
            Stage::Block("Apply these plans?"),
            Stage::Steps(&[tempered(
                Temper::Serial,
                step("apply", ":terraform: Apply", "terraform apply plan.bin", 2, 130),
            )]),
            Stage::Trigger { pipeline: 5, asynchronous: true },
        ],
    },
    Recipe {
        slug: "release",
        name: "Release",
        description: Some("Packages, signs and publishes"),
        default_branch: "main",
        cluster: Some(0),
        clock: Clock::Seconds,
        weight: 1,
        stages: &[
            Stage::Block("Ready to ship?"),
            Stage::Steps(&[
                step("package", ":package: Package", "make package", 0, 110),
                step("sign", ":key: Sign", "make sign", 2, 20),
            ]),
        ],
    },
];

/// An agent.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    pub(super) id: String,
    pub(super) name: String,
    /// Index into [`QUEUES`].
    pub(super) queue: usize,
    pub(super) connected_at: i64,
}

/// The organization with the ids of this history.
#[derive(Debug)]
pub(super) struct Organization {
    pub(super) clusters: Vec<Cluster>,
    /// In the order of [`QUEUES`].
    pub(super) queue_ids: Vec<String>,
    /// The `pipeline` objects, written once, in the order of [`PIPELINES`].
    pub(super) pipeline_bodies: Vec<String>,
    pub(super) agents: Vec<Agent>,
}

impl Organization {
    pub(super) fn new(rng: &mut StdRng, agents_per_queue: usize, morning: i64) -> Self {
        let cluster = |rng: &mut StdRng, name: &str| Cluster { id: uuid(rng), name: name.to_owned() };
        let clusters: Vec<Cluster> = CLUSTERS.iter().map(|name| cluster(rng, name)).collect();
        let queue_ids = QUEUES.iter().map(|_| uuid(rng)).collect();
        let pipeline_bodies =
            PIPELINES.iter().map(|recipe| pipeline_body::write(recipe, &uuid(rng), &clusters)).collect();
        let mut organization = Self { clusters, queue_ids, pipeline_bodies, agents: Vec::new() };
        for queue in 0..QUEUES.len() {
            for _ in 0..agents_per_queue.max(1) {
                let connected_at = morning + rng.random_range(0..120_000);
                organization.connect(rng, queue, connected_at);
            }
        }
        organization
    }

    /// A new agent joins a queue; returns its index.
    pub(super) fn connect(&mut self, rng: &mut StdRng, queue: usize, connected_at: i64) -> usize {
        let name = format!("{}-{:04x}", QUEUES[queue].0, rng.random::<u16>());
        self.agents.push(Agent { id: uuid(rng), name, queue, connected_at });
        self.agents.len() - 1
    }

    /// Some agent of a queue that is connected at `at`.
    pub(super) fn agent_for(&self, rng: &mut StdRng, queue: usize, at: i64) -> usize {
        let here = |agent: &Agent| agent.queue == queue && agent.connected_at <= at;
        let pool: Vec<usize> = (0..self.agents.len()).filter(|&index| here(&self.agents[index])).collect();
        // Each queue has agents since the morning, before the first build.
        pool.get(rng.random_range(0..pool.len().max(1))).copied().unwrap_or_default()
    }
}

/// A random UUID.
pub(super) fn uuid(rng: &mut StdRng) -> String {
    let (high, low) = (rng.random::<u64>(), rng.random::<u64>());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        0x8000 | (low >> 48) & 0x3fff,
        low & 0xffff_ffff_ffff
    )
}
