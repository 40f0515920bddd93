//! `kill -9` under load, at random moments and in the middle of commits: the totals at the end are the sender's own account, to the last one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kitepush::demo::history::{History, Size};
use kitepush::event::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::support::eventually;
use crate::support::holding::{gone_back, held};
use crate::support::kitepush::{LIMIT, Setup};
use crate::support::sender::{AT_ONCE, Sender};
use crate::support::server::{pushgateway, pushgateway_again};
use crate::support::slow_disk::Gate;
use crate::support::sqlite;

const KILLS: usize = 24;

#[derive(Clone, Copy, PartialEq)]
enum Victim {
    Kitepush,
    Gateway,
    Both,
}

#[test]
fn kitepush_killed_under_load_counts_each_delivery_once() {
    totals_are_those_of_the_sender_after_killing(Victim::Kitepush);
}

#[test]
fn a_gateway_killed_under_load_and_back_empty_gets_every_total_again() {
    totals_are_those_of_the_sender_after_killing(Victim::Gateway);
}

#[test]
fn both_killed_under_load_lose_nothing() {
    totals_are_those_of_the_sender_after_killing(Victim::Both);
}

fn totals_are_those_of_the_sender_after_killing(victim: Victim) {
    let seed = Timestamp::now().as_millis().unsigned_abs();
    // A failing run is told by its seed.
    println!("seed {seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let history = History::generate(seed, Size::builds(60), Timestamp::now());
    let bodies: Vec<&str> =
        history.disorder(seed).into_iter().map(|index| history.deliveries[index].body.as_str()).collect();

    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.db");
    let mut gateway = Some(pushgateway());
    let address = gateway.as_ref().unwrap().address;
    let gate = Gate::new();
    let setup = Setup::pushing_to(address).with_state(&state).with("push.zero_hold", "1s").with_disk_behind(&gate);
    let mut kitepush = Some(setup.start());
    let (sender, sent) = (Sender::default(), AtomicBool::new(false));
    sender.aim(kitepush.as_ref().unwrap().webhook);
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            sender.send(&bodies);
            sent.store(true, Ordering::SeqCst);
        });
        let mut shown = BTreeMap::new();
        for kill in 1..=KILLS {
            if victim == Victim::Gateway {
                // Nothing else stops the sender, and it must be at work at the last kill too.
                sender.allow(Some(bodies.len() * (kill + 1) / (KILLS + 2)));
            }
            let due = (bodies.len() * kill / (KILLS + 2)).saturating_sub(dice.random_range(0..bodies.len() / 60));
            eventually("so many answers that the next kill is due", LIMIT, || {
                assert!(!sending.is_finished(), "sent everything before kill {kill}");
                (sender.answered() >= due).then_some(())
            });
            if victim != Victim::Gateway {
                let kitepush = kitepush.take().unwrap();
                // Every other time nothing of the commit has reached the disk, and everybody waits for it.
                if kill % 2 == 0 {
                    gate.shut();
                    eventually("all senders to wait", LIMIT, || {
                        (kitepush.metric("kitepush_webhook_connections") >= AT_ONCE as f64).then_some(())
                    });
                }
                kitepush.kill();
                if kill % 2 == 0 {
                    gate.open();
                }
            }
            if victim == Victim::Kitepush {
                let now = held(gateway.as_ref().unwrap(), "a");
                assert_eq!(gone_back(&shown, &now), [""; 0], "before kill {kill}");
                shown = now;
            } else {
                drop(gateway.take());
                gateway = Some(pushgateway_again(address));
            }
            if victim != Victim::Gateway {
                kitepush = Some(setup.start());
                sender.aim(kitepush.as_ref().unwrap().webhook);
            }
        }
        sender.allow(None);
        sending.join().unwrap();
        if victim == Victim::Kitepush {
            assert_eq!(gone_back(&shown, &held(gateway.as_ref().unwrap(), "a")), [""; 0]);
        }
    });
    assert!(sent.load(Ordering::SeqCst));
    if victim != Victim::Gateway {
        assert!(sender.broken() >= KILLS, "only {} deliveries were under way at a kill", sender.broken());
    }

    let (kitepush, gateway) = (kitepush.unwrap(), gateway.unwrap());
    let began = Instant::now();
    loop {
        let differences = history.truth.differences(&held(&gateway, "a"));
        let more: Vec<_> = differences.iter().filter(|d| d.seen.unwrap_or(0.0) > d.expected).collect();
        assert!(more.is_empty(), "counted more than once: {more:#?}");
        if differences.is_empty() {
            break;
        }
        // Less for a while is a hold that has not ended.
        assert!(began.elapsed() < LIMIT, "lost: {differences:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    kitepush.stop();
    assert_eq!(history.truth.differences(&held(&gateway, "a")), []);
    assert_eq!(sqlite(&state, "PRAGMA integrity_check"), "ok");
}
