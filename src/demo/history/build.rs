//! One build from its webhook to its last end: dice decide, and what happened when is written down.

use rand::RngExt;
use rand::rngs::StdRng;

use super::Delivery;
use super::agents;
use super::facts::{Branch, Build, Job, Kind, Moment, Outcome, Retry, Seen};
use super::organization::{Clock, Organization, PIPELINES, QUEUES, Stage, Step, Temper, uuid};
use super::tell::tell;

/// Why there is a build.
pub(super) struct Cause {
    pub(super) branch: Branch,
    pub(super) source: &'static str,
    pub(super) creator: Option<&'static str>,
    pub(super) message: &'static str,
    pub(super) rebuilt_from: Option<(String, u64)>,
    pub(super) triggered_from: Option<(String, u64, usize)>,
}

/// What the rest of the day needs to know of a build that is over.
pub(super) struct Ended {
    pub(super) id: String,
    pub(super) number: u64,
    at: i64,
    passed: bool,
}

/// The day as it grows.
pub(super) struct Day {
    pub(super) rng: StdRng,
    pub(super) organization: Organization,
    /// Last build number of each pipeline.
    pub(super) numbers: Vec<u64>,
    pub(super) deliveries: Vec<Delivery>,
}

impl Day {
    /// A build of a pipeline that is created at `created_at`.
    pub(super) fn build(&mut self, pipeline: usize, created_at: i64, cause: Cause) -> Ended {
        self.numbers[pipeline] += 1;
        let rng = &mut self.rng;
        let build = Build {
            id: uuid(rng),
            number: self.numbers[pipeline],
            pipeline,
            branch: cause.branch,
            source: cause.source,
            creator: cause.creator,
            message: cause.message,
            commit: format!("{:032x}{:08x}", rng.random::<u128>(), rng.random::<u32>()),
            created_at,
            // It can stand before the creation.
            scheduled_at: created_at + rng.random_range(-15..40),
            rebuilt_from: cause.rebuilt_from,
            triggered_from: cause.triggered_from,
        };
        let mut course =
            Course { day: self, build, jobs: Vec::new(), moments: Vec::new(), started_at: None, is_at_rest: true };
        let (at, passed) = course.run();
        let Course { build, jobs, mut moments, .. } = course;
        moments.sort_by_key(|(at, _)| *at);
        tell(&self.organization, &build, &jobs, &moments, &mut self.deliveries);
        Ended { id: build.id, number: build.number, at, passed }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_ratio(percent, 100)
    }
}

/// The course of one build.
struct Course<'a> {
    day: &'a mut Day,
    build: Build,
    jobs: Vec<Job>,
    moments: Vec<(i64, Moment)>,
    started_at: Option<i64>,
    /// Not yet started, or blocked: the next job that starts sets it running.
    is_at_rest: bool,
}

/// How a set of parallel jobs ended.
struct Round {
    end: i64,
    /// When the first failure that counts against the build was known.
    failing_at: Option<i64>,
    /// The build was canceled meanwhile.
    is_cut: bool,
}

impl Course<'_> {
    /// Returns when the build ended for good, and whether it passed.
    fn run(&mut self) -> (i64, bool) {
        let begin = self.build.scheduled_at.max(self.build.created_at) + 20;
        self.at(begin, Moment::Scheduled);
        let fate = self.day.rng.random_range(0..100);
        if fate < 3 {
            let event = if self.day.chance(50) { "build.skipped" } else { "build.finished" };
            let at = begin + self.day.rng.random_range(1_000..20_000);
            self.at(at, Moment::Skipped { event });
            return (at, false);
        }
        let cut = match fate {
            3..6 => Some(begin + self.day.rng.random_range(300..900)),
            6..11 => Some(begin + self.day.rng.random_range(20_000..240_000)),
            _ => None,
        };
        self.stages(begin, cut)
    }

    fn stages(&mut self, begin: i64, cut: Option<i64>) -> (i64, bool) {
        let mut now = begin + 100;
        let mut failed = false;
        for stage in self.build.recipe().stages {
            if failed {
                self.broken(stage, now);
                continue;
            }
            match stage {
                Stage::Steps(steps) => {
                    let round = self.round(steps, now, cut);
                    now = round.end;
                    if round.is_cut {
                        return (self.finish("canceled", now, Seen::Finished), false);
                    }
                    if let Some(failing_at) = round.failing_at {
                        failed = true;
                        if failing_at < now {
                            self.at(failing_at, Moment::Failing { failing_at });
                        }
                    }
                }
                Stage::Wait => {
                    let job = self.job(Kind::Waiter, now, Outcome::FINISHED);
                    self.at(now, Moment::JobFinished(job));
                    now += 50;
                }
                Stage::Block(_) if !matches!(self.build.branch, Branch::Default | Branch::Tag(_)) => break,
                Stage::Block(label) => match self.block(label, now) {
                    Ok(unblocked_at) => now = unblocked_at + 80,
                    Err(canceled_at) => return (canceled_at, false),
                },
                Stage::Trigger { pipeline, asynchronous } => {
                    let (end, passed) = self.trigger(*pipeline, *asynchronous, now);
                    (now, failed) = (end, !passed);
                }
            }
        }
        if !failed {
            return (self.finish("passed", now, Seen::Finished), true);
        }
        self.failed(now)
    }

    /// The build failed; somebody may retry a job of it, and it finishes again.
    fn failed(&mut self, now: i64) -> (i64, bool) {
        let culprit = self.jobs.iter().rposition(|job| job.outcome.is_failure() && job.started_at.is_some());
        let Some(culprit) = culprit.filter(|_| self.day.chance(40)) else {
            return (self.finish("failed", now, Seen::Finished), false);
        };
        let Kind::Script { step, index } = self.jobs[culprit].kind else {
            return (self.finish("failed", now, Seen::Finished), false);
        };
        let seen = if self.day.chance(25) { Seen::RunningAgain } else { Seen::Finished };
        let finished_at = self.finish("failed", now, seen);
        let retried_at = finished_at + self.day.rng.random_range(30_000..600_000);
        let retry = Retry { of: self.jobs[culprit].id.clone(), kind: "manual", count: 1 };
        let outcome = if self.day.chance(75) { Outcome::PASSED } else { Outcome::failed(1) };
        let job = self.script(step, index, retried_at, Some(retry), outcome, None);
        if let (Some(resumed_at), Some(started_at)) = (self.jobs[job].started_at, self.started_at) {
            self.at(resumed_at, Moment::Running { started_at });
        }
        let passed = outcome == Outcome::PASSED;
        let end = self.jobs[job].finished_at + 120;
        (self.finish(if passed { "passed" } else { "failed" }, end, Seen::Finished), passed)
    }

    /// The steps between two waits, in parallel.
    fn round(&mut self, steps: &'static [Step], runnable_at: i64, cut: Option<i64>) -> Round {
        // A build that waited for somebody has outlived the moment when it would have been canceled.
        let cut = cut.filter(|&cut| cut > runnable_at);
        let first = self.jobs.len();
        let mut round = Round { end: runnable_at, failing_at: None, is_cut: false };
        for (step, index) in steps.iter().flat_map(|step| (0..step.parallelism).map(move |index| (step, index))) {
            let last = self.attempts(step, index, runnable_at, cut);
            let job = &self.jobs[last];
            round.end = round.end.max(job.finished_at);
            if job.outcome.is_failure() {
                let known_at = job.promised_at.unwrap_or(job.finished_at) + 40;
                round.failing_at = Some(round.failing_at.map_or(known_at, |at| at.min(known_at)));
            }
        }
        round.is_cut = cut.is_some_and(|cut| cut <= round.end);
        round.end += 150;
        let first_start = self.jobs[first..].iter().filter_map(|job| job.started_at).min();
        if let (Some(at), true) = (first_start, std::mem::take(&mut self.is_at_rest)) {
            // A build that was blocked runs again with the start it had.
            let started_at = *self.started_at.get_or_insert(at);
            self.at(at, Moment::Running { started_at });
        }
        round
    }

    /// One job with its automatic retries; returns the index of the last one.
    fn attempts(&mut self, step: &'static Step, index: usize, runnable_at: i64, cut: Option<i64>) -> usize {
        let mut runnable_at = runnable_at;
        let mut retry: Option<Retry> = None;
        loop {
            let outcome = self.outcome(step);
            let count = retry.as_ref().map_or(0, |retry| retry.count);
            let job = self.script(step, index, runnable_at, retry.take(), outcome, cut);
            let ended = &self.jobs[job];
            let again = ended.outcome == Outcome::LOST || step.temper == Temper::Flaky;
            let is_cut = cut.is_some_and(|cut| ended.finished_at >= cut);
            if !ended.outcome.is_failure() || !again || count == 2 || is_cut {
                return job;
            }
            runnable_at = ended.finished_at + 1_500;
            retry = Some(Retry { of: ended.id.clone(), kind: "automatic", count: count + 1 });
            if cut.is_some_and(|cut| runnable_at >= cut) {
                return job;
            }
        }
    }

    fn outcome(&mut self, step: &Step) -> Outcome {
        let rng = &mut self.day.rng;
        let outcome = match rng.random_range(0..1000) {
            0..15 => Outcome::STALE,
            15..25 => Outcome::LOST,
            25..32 => Outcome::TIMED_OUT,
            32..38 => Outcome::EXPIRED,
            38..42 => Outcome { signal: Some("SIGKILL"), ..Outcome::failed(137) },
            42..46 => Outcome { signal_reason: Some("agent_stop"), ..Outcome::failed(-1) },
            46..54 => Outcome::failed(127),
            54..85 => Outcome::failed(1),
            85..220 if step.temper == Temper::Flaky => Outcome::failed(1),
            85..300 if step.temper == Temper::Soft => Outcome::failed(2),
            _ => Outcome::PASSED,
        };
        Outcome { soft_failed: step.temper == Temper::Soft && outcome.state == "failed", ..outcome }
    }

    /// One run of a step, cut short when the build is canceled; returns its index.
    fn script(
        &mut self,
        step: &'static Step,
        index: usize,
        runnable_at: i64,
        retry: Option<Retry>,
        outcome: Outcome,
        cut: Option<i64>,
    ) -> usize {
        let rng = &mut self.day.rng;
        // Exponential waits, as in a queue with enough agents most of the time.
        let typical = QUEUES[step.queue].2 as f64 * 1_000.0;
        let wait = (1_000.0 - typical * (1.0 - rng.random::<f64>()).ln()).min(480_000.0) as i64;
        let pace = if outcome == Outcome::PASSED { 600..1_500 } else { 200..1_200 };
        let run = step.seconds * rng.random_range(pace);
        let mut job = Job {
            id: uuid(rng),
            kind: Kind::Script { step, index },
            created_at: runnable_at - 40,
            runnable_at: Some(runnable_at),
            started_at: Some(runnable_at + wait),
            finished_at: runnable_at + wait + run,
            outcome,
            retry,
            agent: None,
            concurrency_wait: (step.temper == Temper::Serial).then(|| rng.random_range(0..wait)),
            promised_at: None,
        };
        if outcome == Outcome::EXPIRED {
            (job.started_at, job.finished_at) = (None, runnable_at + 600_000);
        }
        if let Some(cut) = cut.filter(|&cut| cut < job.finished_at) {
            job.finished_at = cut;
            job.started_at = job.started_at.filter(|&started_at| started_at < cut);
            job.outcome = if job.started_at.is_some() { Outcome::STOPPED } else { Outcome::CANCELED };
        }
        job.concurrency_wait = job.concurrency_wait.filter(|_| job.started_at.is_some());
        if let Some(started_at) = job.started_at {
            job.agent = Some(self.day.organization.agent_for(rng, step.queue, started_at));
            if job.outcome == Outcome::failed(1) && rng.random_ratio(1, 4) {
                job.promised_at = Some(job.finished_at - (job.finished_at - started_at) / 4);
            }
            // The clocks behind these times do not always agree.
            match rng.random_range(0..100) {
                0..4 => job.runnable_at = Some(runnable_at - runnable_at.rem_euclid(1000)),
                4..6 if self.build.recipe().clock == Clock::Millis => {
                    job.runnable_at = Some(started_at + rng.random_range(200..900));
                }
                6..7 if self.build.recipe().clock == Clock::Millis => {
                    job.runnable_at = Some(started_at + rng.random_range(2_000..4_000));
                }
                _ => {}
            }
        }
        self.lives(job, runnable_at)
    }

    /// Writes down the moments of a command job.
    fn lives(&mut self, job: Job, scheduled_at: i64) -> usize {
        let index = self.jobs.len();
        self.at(scheduled_at, Moment::JobScheduled(index));
        if let Some(started_at) = job.started_at {
            self.at(started_at, Moment::JobStarted(index));
        }
        if let Some(promised_at) = job.promised_at {
            self.at(promised_at, Moment::JobPromised(index));
        }
        // Now and then the last word of a job comes after that of its build.
        let late = if self.day.chance(4) { self.day.rng.random_range(500..4_000) } else { 0 };
        self.at(job.finished_at + late, Moment::JobFinished(index));
        if let (Outcome::LOST, Some(agent)) = (job.outcome, job.agent) {
            agents::lose(self.day, agent, job.finished_at);
        }
        self.jobs.push(job);
        index
    }

    /// A block step: when it was unblocked, or else when the build was canceled.
    fn block(&mut self, label: &'static str, now: i64) -> Result<i64, i64> {
        let state = if self.day.chance(15) { "blocked" } else { "passed" };
        self.at(now, Moment::Finished { state, finished_at: Some(now), blocked: true, seen: Seen::Finished });
        let decided_at = now + self.day.rng.random_range(20_000..1_200_000);
        if self.day.chance(20) {
            let canceled = Moment::Finished {
                state: "canceled",
                finished_at: Some(decided_at),
                blocked: true,
                seen: Seen::Finished,
            };
            self.at(decided_at, canceled);
            return Err(decided_at);
        }
        let job = self.job(Kind::Manual { label }, decided_at, Outcome { state: "unblocked", ..Outcome::FINISHED });
        let resumed = self.day.chance(25);
        self.is_at_rest = true;
        self.at(decided_at, Moment::JobActivated { job, resumed });
        Ok(decided_at)
    }

    /// A trigger step and the build that it starts: when the step ended, and whether it passed.
    fn trigger(&mut self, pipeline: usize, asynchronous: bool, now: i64) -> (i64, bool) {
        let cause = Cause {
            branch: Branch::Default,
            source: "trigger_job",
            creator: self.build.creator,
            message: PIPELINES[pipeline].name,
            rebuilt_from: None,
            triggered_from: Some((self.build.id.clone(), self.build.number, self.build.pipeline)),
        };
        let child = self.day.build(pipeline, now + 400, cause);
        let passed = asynchronous || child.passed;
        let end = if asynchronous { now + 900 } else { child.at + 300 };
        let outcome = if passed { Outcome::PASSED } else { Outcome::failed(1) };
        let kind = Kind::Trigger { pipeline, asynchronous, triggered: (child.id, child.number) };
        let job = self.job(kind, now, outcome);
        self.jobs[job].started_at = Some(now + 300);
        self.jobs[job].finished_at = end;
        self.at(now + 300, Moment::JobStarted(job));
        self.at(end, Moment::JobFinished(job));
        (end + 100, passed)
    }

    /// What the steps behind a failure become.
    fn broken(&mut self, stage: &'static Stage, now: i64) {
        match stage {
            Stage::Steps(steps) => {
                for step in *steps {
                    let job = self.job(Kind::Script { step, index: 0 }, now, Outcome::BROKEN);
                    self.at(now, Moment::JobFinished(job));
                }
            }
            Stage::Wait => {
                let job = self.job(Kind::Waiter, now, Outcome::BROKEN);
                self.at(now, Moment::JobFinished(job));
            }
            Stage::Block(_) | Stage::Trigger { .. } => {}
        }
    }

    /// A job that no queue ever sees.
    fn job(&mut self, kind: Kind, at: i64, outcome: Outcome) -> usize {
        self.jobs.push(Job {
            id: uuid(&mut self.day.rng),
            kind,
            created_at: self.build.created_at,
            runnable_at: None,
            started_at: None,
            finished_at: at,
            outcome,
            retry: None,
            agent: None,
            concurrency_wait: None,
            promised_at: None,
        });
        self.jobs.len() - 1
    }

    fn finish(&mut self, state: &'static str, at: i64, seen: Seen) -> i64 {
        self.at(at, Moment::Finished { state, finished_at: Some(at), blocked: false, seen });
        at
    }

    fn at(&mut self, at: i64, moment: Moment) {
        self.moments.push((at, moment));
    }
}
