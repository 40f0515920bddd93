//! Agents that come, get lost and go; tokens that are refused; the ping of the first day.

use rand::RngExt;

use super::Delivery;
use super::body::{Agent, Body, ClusterToken, Stamp};
use super::build::Day;
use super::organization::{Clock, QUEUES, SLUG, uuid};
use super::truth::{Effect, Series, Value};
use crate::event::Timestamp;

/// Every agent connects in the morning.
pub(super) fn connect_all(day: &mut Day) {
    for agent in 0..day.organization.agents.len() {
        happens(day, agent, "agent.connected", "connected", day.organization.agents[agent].connected_at);
    }
}

/// An agent is lost at `at`, and half a minute later another one takes its place.
pub(super) fn lose(day: &mut Day, agent: usize, at: i64) {
    happens(day, agent, "agent.lost", "lost", at + 2_000);
    let (queue, connected_at) = (day.organization.agents[agent].queue, at + 30_000);
    let next = day.organization.connect(&mut day.rng, queue, connected_at);
    happens(day, next, "agent.connected", "connected", connected_at);
}

/// The evening: some are told to stop, one lost its permission.
pub(super) fn evening(day: &mut Day, at: i64) {
    for agent in 0..day.organization.agents.len() {
        let at = at + day.rng.random_range(0..60_000);
        match day.rng.random_range(0..10) {
            0..3 => {
                happens(day, agent, "agent.stopping", "stopping", at);
                happens(day, agent, "agent.stopped", "stopped", at + 20_000);
            }
            3..5 => happens(day, agent, "agent.disconnected", "disconnected", at),
            5 => happens(day, agent, "agent.blocked", "disconnected", at),
            _ => {}
        }
    }
}

/// Somebody tries a token from the wrong place.
pub(super) fn registration_blocked(day: &mut Day, at: i64) {
    let event = "cluster_token.registration_blocked";
    let id = uuid(&mut day.rng);
    let address = format!("198.51.100.{}", day.rng.random_range(1..255));
    let cluster = day.organization.clusters.first().map(|cluster| cluster.id.clone()).unwrap_or_default();
    let token = ClusterToken {
        id: &id,
        description: "Linux pool",
        allowed_ip_addresses: "192.0.2.0/24",
        url: &format!("https://api.buildkite.com/v2/organizations/{SLUG}/clusters/{cluster}/tokens/{id}"),
        created_at: Stamp(Timestamp::from_millis(1_771_320_670_220), Clock::Millis),
    };
    let body = Body::new(event).part("blocked_ip", &address).part("cluster_token", &token).end();
    // Only the API URLs of the token name the organization.
    let series = Series::new("buildkite_agents_registrations_blocked_total", &[("organization", SLUG)]);
    let effects = vec![Effect { once: body.clone(), series, value: Value::One, needs_history_since: None }];
    day.deliveries.push(Delivery { event, at: Timestamp::from_millis(at), subject: id, body, effects });
}

/// Agent events carry no time and no id of their own: the body itself tells a repeated delivery from a second event.
fn happens(day: &mut Day, agent: usize, event: &'static str, state: &'static str, at: i64) {
    let agent = &day.organization.agents[agent];
    let body = Body::new(event).part("agent", &Agent::new(agent, state, Clock::Millis)).end();
    let labels = [("organization", SLUG), ("queue", QUEUES[agent.queue].0), ("event", event)];
    let series = Series::new("buildkite_agents_transitions_total", &labels);
    let effects = vec![Effect { once: body.clone(), series, value: Value::One, needs_history_since: None }];
    day.deliveries.push(Delivery { event, at: Timestamp::from_millis(at), subject: agent.id.clone(), body, effects });
}
