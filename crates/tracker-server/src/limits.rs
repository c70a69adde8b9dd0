//! What one node, one connection and all of them together may cost the server.
//!
//! The worst that a cluster of N nodes can make the server hold, by the defaults:
//! - a connection: TLS and HTTP/2 state (about 60 KiB), unread bytes up to its window (256 KiB), unsent ones (64 KiB a stream);
//! - bodies being read: `body_bytes` (64 MiB) for all requests together, whoever sends them;
//! - events that a node doesn't take: `event_bytes` (64 KiB) of each;
//! - the directory: about 600 bytes a node;
//! - the nodes' last reports: `report_bytes` (64 MiB) for all together; a node with ten artifacts has 3 KiB.
//!
//! An honest node's windows and queues are empty, so 5,000 nodes cost about 300 MiB; all of them hostile, 2.2 GB.
//!
//! State: token buckets and places.
//! Invariants: a bucket never holds more than its burst; a place is given back when its guard goes.
//! Absent on purpose: the tracker's own bounds ([`shoal_tracker::Limits`]).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

/// The server's limits.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerLimits {
    /// Connections at a time, of all kinds: the largest cluster that Kubernetes supports (5,000), three times.
    pub connections: usize,
    /// Connections at a time without a certificate, those in their handshake included: 5,000 nodes that join at once come in waves.
    pub strangers: usize,
    /// Of these from one address: as many as there are agents on one host, in a lab.
    pub strangers_per_address: usize,
    /// Connections of one node: the one in use, its successor, and some that haven't been missed yet.
    pub connections_per_node: usize,
    /// A handshake takes a few round trips.
    pub handshake: Duration,
    /// A connection without a certificate is for one join: it ends after this time.
    pub stranger_life: Duration,
    /// A request's body comes within this time.
    pub body: Duration,
    /// Requests in flight on one connection, the stream of events included.
    pub streams_per_connection: u32,
    /// Announces being handled for one node: one on its way, one that is being answered, and two more.
    pub announce_requests_per_node: usize,
    /// Announces, and signed batches of links, of one node a second. A member of 100 swarms announces 100 times a second; a signature
    /// takes about 60 µs to check, so this is an eighth of a core …
    pub announces_per_second: u32,
    /// … and all of its 4,096 at once when it turns to this tracker.
    pub announce_burst: u32,
    /// Questions of one node a second: members, contacts, keys, and names to be resolved. A node starts few pods a second …
    pub questions_per_second: u32,
    /// … after a restart all of its 250 pods at once.
    pub question_burst: u32,
    /// Joins a second, of all together: a signature takes about 100 µs.
    pub joins_per_second: u32,
    /// The header of a request: a token, some names.
    pub header_bytes: u32,
    /// The body of all requests being read, together: eight of the longest announces.
    pub body_bytes: usize,
    /// The last reports of all nodes, together: 5,000 of 12 KiB, with forty artifacts each.
    pub report_bytes: usize,
    /// Events that wait for a node. A lease's grant with 4,096 holes has 16 KiB; the others about 100 bytes.
    pub event_bytes: usize,
    /// Something is sent on each stream of events at least so often.
    pub keepalive: Duration,
    /// A connection that doesn't answer a ping for so long is closed.
    pub ping_timeout: Duration,
    /// When the server stops, requests in flight get so long.
    pub drain: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 1 << 14,
            strangers: 1 << 10,
            strangers_per_address: 256,
            connections_per_node: 4,
            handshake: Duration::from_secs(5),
            stranger_life: Duration::from_secs(20),
            body: Duration::from_secs(10),
            streams_per_connection: 64,
            announce_requests_per_node: 4,
            announces_per_second: 2_000,
            announce_burst: 8_192,
            questions_per_second: 50,
            question_burst: 1_000,
            joins_per_second: 500,
            header_bytes: 16 << 10,
            body_bytes: 64 << 20,
            report_bytes: 64 << 20,
            event_bytes: 64 << 10,
            keepalive: Duration::from_secs(2),
            ping_timeout: Duration::from_secs(6),
            drain: Duration::from_secs(5),
        }
    }
}

/// Tokens that come at a steady rate and are kept up to a burst.
#[derive(Debug)]
pub(crate) struct Bucket {
    state: Mutex<(f64, Instant)>,
    per_second: f64,
    burst: f64,
}

impl Bucket {
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let burst = f64::from(burst.max(1));
        Self { state: Mutex::new((burst, Instant::now())), per_second: f64::from(per_second.max(1)), burst }
    }

    /// Takes so many tokens, or says when they will be there. More than the burst are never there: they are taken as the burst.
    pub(crate) fn take(&self, tokens: usize) -> Result<(), Duration> {
        let tokens = f64::from(u32::try_from(tokens).unwrap_or(u32::MAX)).min(self.burst);
        let now = Instant::now();
        let mut state = self.state.lock().expect("no code panics with a bucket in hand");
        let (left, at) = *state;
        let left = (left + now.duration_since(at).as_secs_f64() * self.per_second).min(self.burst);
        if left < tokens {
            *state = (left, now);
            return Err(Duration::from_secs_f64((tokens - left) / self.per_second));
        }
        *state = (left - tokens, now);
        Ok(())
    }
}

/// What one node may do. It outlives its connections, so that a new connection doesn't bring a new burst.
#[derive(Debug)]
pub(crate) struct NodeBudget {
    pub(crate) announces: Bucket,
    pub(crate) questions: Bucket,
    pub(crate) announce_requests: Semaphore,
    pub(crate) connections: Arc<Semaphore>,
}

impl NodeBudget {
    pub(crate) fn new(limits: &ServerLimits) -> Self {
        Self {
            announces: Bucket::new(limits.announces_per_second, limits.announce_burst),
            questions: Bucket::new(limits.questions_per_second, limits.question_burst),
            announce_requests: Semaphore::new(limits.announce_requests_per_node),
            connections: Arc::new(Semaphore::new(limits.connections_per_node)),
        }
    }
}

/// Connections of strangers, by the address from which they come.
#[derive(Clone, Debug)]
pub(crate) struct Strangers {
    by_address: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    all: usize,
    per_address: usize,
}

impl Strangers {
    pub(crate) fn new(limits: &ServerLimits) -> Self {
        Self { by_address: Arc::default(), all: limits.strangers, per_address: limits.strangers_per_address }
    }

    /// A place for one more; none, if there is none.
    pub(crate) fn enter(&self, address: IpAddr) -> Option<Stranger> {
        let mut table = self.by_address.lock().expect("no code panics with the table in hand");
        // The number of addresses is bounded by that of connections, so the sum costs little.
        if table.values().sum::<usize>() >= self.all {
            return None;
        }
        let count = table.entry(address).or_default();
        if *count >= self.per_address {
            return None;
        }
        *count += 1;
        Some(Stranger { table: Arc::clone(&self.by_address), address })
    }
}

/// A stranger's place.
#[derive(Debug)]
pub(crate) struct Stranger {
    table: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    address: IpAddr,
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut table = self.table.lock().expect("no code panics with the table in hand");
        if let Some(count) = table.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                table.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_gives_its_burst_and_then_its_rate() {
        let bucket = Bucket::new(10, 5);
        for _ in 0..5 {
            bucket.take(1).unwrap();
        }
        let wait = bucket.take(1).unwrap_err();
        assert!(wait <= Duration::from_millis(101), "{wait:?}");
        tokio::time::advance(Duration::from_millis(101)).await;
        bucket.take(1).unwrap();
        bucket.take(1).unwrap_err();
        tokio::time::advance(Duration::from_secs(100)).await;
        bucket.take(1_000).unwrap();
        bucket.take(1).unwrap_err();
    }

    #[test]
    fn strangers_have_a_place_each_and_give_it_back() {
        let limits = ServerLimits { strangers: 3, strangers_per_address: 2, ..ServerLimits::default() };
        let strangers = Strangers::new(&limits);
        let [a, b]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let mut places = vec![strangers.enter(a).unwrap(), strangers.enter(a).unwrap()];
        assert!(strangers.enter(a).is_none());
        places.push(strangers.enter(b).unwrap());
        assert!(strangers.enter(b).is_none());
        places.clear();
        assert!(strangers.enter(b).is_some());
    }
}
