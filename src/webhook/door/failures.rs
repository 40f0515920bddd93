//! How many requests may fail per address before the answer gets shorter.

use std::collections::HashMap;
use std::mem;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use crate::listener::Sender;

/// Failures at once: more than a misconfigured sender or a busy tester makes by mistake in a minute.
const BURST: NonZeroU32 = NonZeroU32::new(300).unwrap();
/// Failures a second after that.
const RATE: NonZeroU32 = NonZeroU32::new(30).unwrap();
/// Addresses remembered per generation; two of them take about 1 MB.
const GENERATION: usize = 8192;

/// Counts failed requests per sender.
pub struct Failures {
    limiter: RateLimiter<Sender, Generations, DefaultClock>,
    clock: DefaultClock,
}

impl Default for Failures {
    fn default() -> Self {
        let clock = DefaultClock::default();
        let quota = Quota::per_second(RATE).allow_burst(BURST);
        Self { limiter: RateLimiter::new(quota, Generations::default(), clock.clone()), clock }
    }
}

impl Failures {
    /// One more request from `address` failed.
    ///
    /// # Errors
    ///
    /// When it is one too many: how long until the next one counts.
    pub fn count(&self, address: IpAddr) -> Result<(), Duration> {
        self.limiter.check_key(&address.into()).map_err(|excess| excess.wait_time_from(self.clock.now()))
    }
}

/// Bounds the memory without a sweep: when the young generation is full, it becomes the old one, and the old one is
/// forgotten. Whoever failed lately is young again.
#[derive(Default)]
struct Generations(Mutex<(Generation, Generation)>);

type Generation = HashMap<Sender, InMemoryState>;

impl StateStore for Generations {
    type Key = Sender;

    fn measure_and_replace<T, F, E>(&self, key: &Sender, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (young, old) = &mut *generations;
        if young.len() >= GENERATION && !young.contains_key(key) {
            *old = mem::take(young);
        }
        let state = young.entry(*key).or_insert_with(|| old.remove(key).unwrap_or_default());
        state.measure_and_replace(&NotKeyed::NonKey, f)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn exhaust(failures: &Failures, address: IpAddr) {
        for _ in 0..2 * BURST.get() {
            let _ = failures.count(address);
        }
        assert!(failures.count(address).is_err());
    }

    #[test]
    fn an_address_that_fails_too_often_is_limited_and_its_neighbour_is_not() {
        let failures = Failures::default();
        exhaust(&failures, Ipv4Addr::new(192, 0, 2, 1).into());
        assert!(failures.count(Ipv4Addr::new(192, 0, 2, 2).into()).is_ok());
        assert!(failures.count(Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().into()).is_err());
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let failures = Failures::default();
        let host = |network: u16, host: u16| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host));
        exhaust(&failures, host(1, 1));
        assert!(failures.count(host(1, 2)).is_err());
        assert!(failures.count(host(2, 1)).is_ok());
    }

    #[test]
    fn memory_stays_bounded_and_the_busy_stay_limited() {
        let failures = Failures::default();
        let busy = IpAddr::from([192, 0, 2, 1]);
        exhaust(&failures, busy);
        for n in 0..100_000u32 {
            let _ = failures.count(Ipv4Addr::from_bits(0x0a00_0000 + n).into());
            if n % 1000 == 0 {
                exhaust(&failures, busy);
            }
        }
        let generations = failures.limiter.into_state_store();
        let generations = generations.0.into_inner().unwrap();
        assert!(generations.0.len() <= GENERATION && generations.1.len() <= GENERATION);
    }
}
