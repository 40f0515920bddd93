//! `kitepush explain`.

use anyhow::{Context as _, bail};
use clap::Args;

use super::{ConfigFile, Files};
use crate::event::Timestamp;
use crate::ledger::fact::Fact;
use crate::ledger::store::Reader;
use crate::ledger::{Entity, EntityKind};

#[derive(Args, Debug)]
pub(super) struct Explain {
    #[command(flatten)]
    config: ConfigFile,
    /// The id of a build, a job or an agent.
    #[arg(value_name = "ID")]
    id: String,
}

impl Explain {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let config = self.config.load(Files::LeftAlone)?;
        let Some(path) = &config.state.path else {
            bail!("state.path: there is none, so nothing is kept that could be explained");
        };
        let reader = Reader::open(path)?;
        let mut found = false;
        for kind in [EntityKind::Build, EntityKind::Job, EntityKind::Agent] {
            let facts = reader.facts(&Entity::new(kind, &self.id)).context("state.path")?;
            for fact in facts {
                if !found {
                    super::say(format_args!("{:<26}{:<8}{:<35} by the payload", "arrived", "what", "counted as"))?;
                }
                found = true;
                super::say(line(kind, &fact))?;
            }
        }
        if !found {
            let days = config.state.retention.as_secs() / 86_400;
            bail!(
                "{}: nothing was counted for this id within the last {days} days (state.retention); the webhook may \
                 never have arrived: see kitepush_events_missing_total",
                self.id
            );
        }
        Ok(())
    }
}

fn line(kind: EntityKind, fact: &Fact) -> String {
    let mut counted: Vec<String> = fact.rules.words().map(str::to_owned).collect();
    if let Some(word) = &fact.word {
        counted.push(format!("({word})"));
    }
    let at = fact.at.map_or_else(|| "-".to_owned(), time);
    format!("{:<26}{:<8}{:<35} {at}", time(fact.counted_at), kind.as_str(), counted.join(" "))
}

fn time(time: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(time.as_millis())
        .map_or_else(|_| "?".to_owned(), |time| time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}
