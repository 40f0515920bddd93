//! What a person sees: redrawn in place on a terminal of 80 columns and 24 lines, a line now and then elsewhere.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{IsTerminal as _, Write as _, stdout};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use super::Verdict;
use super::answers::State;
use super::sender::Progress;

/// Between two lines where nothing can be redrawn.
const LINE_EVERY: Duration = Duration::from_secs(3);
/// Rows of a table of differences.
const DIFFERENCES: usize = 25;
/// The states with a column of their own.
const STATES: [&str; 4] = ["passed", "failed", "canceled", "blocked"];

/// Where the demo is shown.
pub(super) struct Screen {
    begin: Instant,
    organization: &'static str,
    hold: Duration,
    kind: Kind,
    verdict: Option<String>,
    last: Vec<String>,
}

enum Kind {
    Terminal { lines: usize, colors: Colors },
    Lines { printed_at: Option<Instant> },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Colors {
    On,
    Off,
}

impl Screen {
    pub(super) fn new(begin: Instant, organization: &'static str, hold: Duration) -> Self {
        let colors = if std::env::var_os("NO_COLOR").is_some() { Colors::Off } else { Colors::On };
        let kind = if stdout().is_terminal() && is_large_enough() {
            // The cursor would jump about.
            print!("\x1b[?25l");
            Kind::Terminal { lines: 0, colors }
        } else {
            Kind::Lines { printed_at: None }
        };
        Self { begin, organization, hold, kind, verdict: None, last: Vec::new() }
    }

    /// Shows the present state.
    pub(super) fn draw(&mut self, progress: &Progress, state: &State) {
        self.last = self.page(progress, state);
        match &mut self.kind {
            Kind::Terminal { lines, .. } => {
                let mut text = String::new();
                if *lines > 0 {
                    let _ = write!(text, "\x1b[{lines}F");
                }
                for line in &self.last {
                    let _ = writeln!(text, "{line}\x1b[K");
                }
                *lines = self.last.len();
                print!("{text}\x1b[J");
                let _ = stdout().flush();
            }
            Kind::Lines { printed_at } => {
                if self.verdict.is_none() && printed_at.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
                    *printed_at = Some(Instant::now());
                    let seconds = self.begin.elapsed().as_secs();
                    let finished = state.finished();
                    println!(
                        "{seconds:>3} s  {:>5} of {} sent  {:>5.0} counted  {:>4.0} nothing new  {:>3.0} pushes  {finished:>4.0} builds",
                        progress.answered,
                        progress.planned,
                        outcome(state, "accepted") + outcome(state, "stale"),
                        outcome(state, "duplicate"),
                        state.pushes,
                    );
                }
            }
        }
    }

    /// Says how it went, for good; `forever` when the servers go on running.
    pub(super) fn announce(&mut self, verdict: &Verdict, forever: bool) {
        let text = match verdict {
            Verdict::True { samples } => {
                let samples = group(*samples as f64);
                let text = format!("✔ PromQL answers exactly the day that was sent: {samples} samples, 0 differ.");
                self.paint("1;32", &text)
            }
            Verdict::Wrong(differences) => {
                let count = group(differences.len() as f64);
                self.paint("1;31", &format!("✘ {count} samples are not those of the day that was sent."))
            }
        };
        if let Kind::Lines { .. } = self.kind {
            let unfinished = self.last.len().saturating_sub(1);
            println!();
            for line in &self.last[..unfinished] {
                println!("{line}");
            }
            println!(" {text}");
            if forever {
                println!("\nLook around at the addresses above; Ctrl-C stops and removes everything.");
            }
        }
        self.verdict = Some(text);
        if let Verdict::Wrong(differences) = verdict {
            print_differences(differences);
            if let Kind::Terminal { lines, .. } = &mut self.kind {
                *lines = 0;
            }
        }
    }

    /// Leaves the last picture standing.
    pub(super) fn finish(&mut self) {
        println!();
    }

    fn page(&self, progress: &Progress, state: &State) -> Vec<String> {
        let seconds = self.begin.elapsed().as_secs();
        let title = format!(" kitepush demo: a CI day of \"{}\" on real servers", self.organization);
        let clock = format!("{:02}:{:02}", seconds / 60, seconds % 60);
        let mut page = vec![self.paint("1", &format!("{title:<58}Ctrl-C ends it {clock:>7}"))];
        let share = progress.answered as f64 / progress.planned.max(1) as f64;
        page.push(format!(
            " sent     {:>6} of {} webhooks  {}  {:>3.0} %",
            group(progress.answered as f64),
            group(progress.planned as f64),
            bar(share),
            (share * 100.0).floor(),
        ));
        page.push(format!(
            "          {:>6} repeated, {} forged and refused; slowest answer {} ms",
            group(progress.repeated as f64),
            progress.refused,
            progress.slowest.as_millis(),
        ));
        page.push(format!(
            " counted  {:>6} once, {} brought nothing new, {} were stale; {} rejected",
            group(outcome(state, "accepted")),
            group(outcome(state, "duplicate")),
            group(outcome(state, "stale")),
            group(state.rejections),
        ));
        let age = state.push_age.map_or_else(|| "never".to_owned(), |age| format!("{age:.1} s ago"));
        page.push(format!(" pushed   {:>6} times, {} samples; last {age}", group(state.pushes), group(state.samples),));
        page.push(String::new());
        self.builds(state, &mut page);
        page.push(String::new());
        self.queues(state, &mut page);
        page.push(String::new());
        page.extend(self.footer(state).lines().map(str::to_owned));
        page
    }

    fn builds(&self, state: &State, page: &mut Vec<String>) {
        let head = format!(
            " {:<24}{:>9}{:>9}{:>10}{:>9}{:>7}{:>11}",
            "builds, by PromQL", "passed", "failed", "canceled", "blocked", "other", "p95"
        );
        page.push(self.paint("1", &head));
        for (pipeline, states) in &state.builds {
            let mut line = format!("   {pipeline:<22}");
            for (name, width) in STATES.iter().zip([9, 9, 10, 9]) {
                let _ = write!(line, "{:>width$}", group(states.get(*name).copied().unwrap_or_default()));
            }
            let other = states.iter().filter(|(name, _)| !STATES.contains(&name.as_str()));
            let other = other.fold(0.0, |sum, (_, count)| sum + count);
            let p95 = state.durations.get(pipeline).copied().unwrap_or(f64::NAN);
            let _ = write!(line, "{:>7}{:>11}", group(other), duration(p95));
            page.push(line);
        }
    }

    fn queues(&self, state: &State, page: &mut Vec<String>) {
        let head = format!(
            " {:<24}{:>9}{:>9}{:>10}{:>9}{:>18}",
            "queues, by PromQL", "jobs", "waiting", "running", "p50 wait", "p95 wait"
        );
        page.push(self.paint("1", &head));
        for (name, queue) in &state.queues {
            page.push(format!(
                "   {name:<22}{:>9}{:>9}{:>10}{:>9}{:>18}",
                group(queue.jobs),
                group(queue.waiting),
                group(queue.running),
                duration(queue.p50),
                duration(queue.p95),
            ));
        }
    }

    fn footer(&self, state: &State) -> String {
        let increases = format!(
            " Prometheus saw {} of {} finished builds as increases ({} s of zeros first).",
            group(state.increases),
            group(state.finished()),
            self.hold.as_secs(),
        );
        let verdict = self.verdict.clone().unwrap_or_else(|| {
            format!("{} samples are not yet those of the whole day.", group(state.differences.len() as f64))
        });
        format!("{increases}\n {verdict}")
    }

    fn paint(&self, code: &str, text: &str) -> String {
        match self.kind {
            Kind::Terminal { colors: Colors::On, .. } => format!("\x1b[{code}m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Kind::Terminal { .. } = self.kind {
            print!("\x1b[?25h");
            let _ = stdout().flush();
        }
    }
}

/// Whether a page fits, so that it can be redrawn in place: asked of the terminal by the program for it.
fn is_large_enough() -> bool {
    let Ok(terminal) = File::open("/dev/tty") else { return false };
    let size = Command::new("stty").arg("size").stdin(terminal).stderr(Stdio::null()).output().ok();
    let size = size.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    let mut numbers = size.split_whitespace().filter_map(|number| number.parse().ok());
    let (Some(lines), Some(columns)) = (numbers.next(), numbers.next()) else { return false };
    let (lines, columns): (u16, u16) = (lines, columns);
    lines >= 24 && columns >= 80
}

fn print_differences(differences: &[super::history::truth::Difference]) {
    println!("\n  {:>14} {:>14}  sample", "sent", "seen");
    for difference in differences.iter().take(DIFFERENCES) {
        let seen = difference.seen.map_or_else(|| "absent".to_owned(), |seen| seen.to_string());
        println!("  {:>14} {seen:>14}  {}", difference.expected, difference.sample);
    }
    if differences.len() > DIFFERENCES {
        println!("  … and {} more", differences.len() - DIFFERENCES);
    }
}

fn outcome(state: &State, name: &str) -> f64 {
    state.outcomes.get(name).copied().unwrap_or_default()
}

fn bar(share: f64) -> String {
    let full = (share * 24.0) as usize;
    format!("{}{}", "█".repeat(full.min(24)), "░".repeat(24 - full.min(24)))
}

/// With a comma between thousands.
fn group(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Seconds for people.
fn duration(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() => "–".to_owned(),
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 60.0 => format!("{s:.0} s"),
        s if s < 3600.0 => format!("{:.0} m {:02.0} s", (s / 60.0).floor(), (s % 60.0).floor()),
        s => format!("{:.0} h {:02.0} m", (s / 3600.0).floor(), (s % 3600.0 / 60.0).floor()),
    }
}

#[cfg(test)]
mod tests {
    use super::{duration, group};

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(
            ["0", "999", "1,000", "1,234,567"],
            [0.0, 999.0, 1000.0, 1_234_567.0].map(group).each_ref().map(String::as_str)
        );
        let spelled = [f64::NAN, 0.25, 59.6, 724.0, 7_260.0].map(duration);
        assert_eq!(["–", "0.2 s", "60 s", "12 m 04 s", "2 h 01 m"], spelled.each_ref().map(String::as_str));
    }
}
