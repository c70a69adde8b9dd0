//! Agents that do nothing but announce: the real client, and the time that each answer took.
//!
//! State: a task for each agent. Invariants: an announce is due at a time that doesn't depend on any answer; its latency counts from then.
//! Absent on purpose: an exchange engine. What a leech's engine would announce is made up: a bitmap that grows.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use shoal_tracker_server::TrackerAddress;
use shoal_tracker_server::client::{ClientConfig, Event, EventStream, TrackerClient};
use shoal_types::{ChunkIndex, ChunkSet, ChunkSize, Digest, Geometry, Zone};
use shoal_wire::{Announce, AnnounceEvent, LeaseRequest};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Options;
use super::server::Server;

/// Joins on their way at a time.
const JOINING: usize = 64;
/// On a busy machine a join takes a second of both processes' time at the very most.
const JOINED_WITHIN: Duration = Duration::from_secs(300);
/// 1 GiB in its 2,048 chunks of 512 KiB.
const BLOB_BYTES: u64 = 1 << 30;
/// Whoever has announced so often has everything, and begins again as another newcomer would.
const ANNOUNCES_A_BLOB: u32 = 64;

/// Agents that announce.
pub(super) struct Agents {
    tasks: JoinSet<()>,
    shutdown: CancellationToken,
    board: Arc<Board>,
    relisted: mpsc::Receiver<Instant>,
}

/// Where agents write what they see.
#[derive(Default)]
struct Board {
    /// Announces that are due within this time are written down.
    window: Mutex<Option<Range<Instant>>>,
    found: Mutex<Found>,
}

/// What a window's announces came to.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) latencies: Vec<f64>,
    pub(super) answered: u32,
    pub(super) failed: u64,
}

struct Agent {
    client: TrackerClient,
    events: EventStream,
    digest: Digest,
    want_peers: u16,
    announced: u32,
    due: Instant,
    every: Duration,
    board: Arc<Board>,
    relisted: mpsc::Sender<Instant>,
}

impl Agents {
    /// Joins them all, and has them announce.
    pub(super) async fn start(options: &Options, server: &Server, directory: &Path) -> Result<Self> {
        let (shutdown, board) = (CancellationToken::new(), Arc::<Board>::default());
        let count = options.agents;
        // Each is told once that the tracker has forgotten it.
        let (tell, relisted) = mpsc::channel(count as usize);
        let every = Duration::from_secs(1) * count / options.rate;
        let joined = stream::iter(0..count)
            .map(|number| {
                let config = config(number, server, directory);
                let (shutdown, board, relisted) = (shutdown.clone(), Arc::clone(&board), tell.clone());
                let digest = digest(number % options.swarms);
                async move {
                    let (client, mut events) = TrackerClient::start(config, shutdown).await.context("an agent")?;
                    while !client.has_tracker() {
                        events.next().await.context("an agent has stopped")?;
                    }
                    let due = Instant::now();
                    let want_peers = options.peers;
                    anyhow::Ok(Agent { client, events, digest, want_peers, announced: 0, due, every, board, relisted })
                }
            })
            .buffer_unordered(JOINING)
            .try_collect::<Vec<Agent>>();
        let joined =
            timeout(JOINED_WITHIN, joined).await.context("the agents haven't all joined in five minutes")??;
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for (number, agent) in (0..).zip(joined) {
            // Evenly over the interval, so that the tracker hears of one after the other.
            let agent = Agent { due: start + every * number / count, ..agent };
            tasks.spawn(agent.live(shutdown.clone()));
        }
        Ok(Self { tasks, shutdown, board, relisted })
    }

    /// What happens to the announces that are due from now on, for so long.
    pub(super) async fn window(&self, long: Duration) -> Found {
        let now = Instant::now();
        *lock(&self.board.found) = Found::default();
        *lock(&self.board.window) = Some(now..now + long);
        // The last answers take a while; whoever hasn't answered after a second is late by more than any limit, and is counted when it does.
        sleep_until(now + long + Duration::from_secs(1)).await;
        *lock(&self.board.window) = None;
        std::mem::take(&mut *lock(&self.board.found))
    }

    /// When each agent was listed again, until all are or the time is over.
    pub(super) async fn relisted(&mut self, within: Duration) -> Vec<Instant> {
        let deadline = Instant::now() + within;
        let mut times = Vec::new();
        while times.len() < self.tasks.len()
            && let Ok(Some(at)) = timeout_at(deadline, self.relisted.recv()).await
        {
            times.push(at);
        }
        times
    }

    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.join_all().await;
    }
}

impl Agent {
    async fn live(mut self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.announce_for_ever()).await;
        self.client.stopped().await;
    }

    async fn announce_for_ever(&mut self) {
        loop {
            tokio::select! {
                () = sleep_until(self.due) => {
                    let due = self.due;
                    self.due += self.every;
                    let answered = self.announce().await;
                    self.board.note(due, answered);
                }
                event = self.events.next() => match event {
                    // As an engine: it is told everything again, at once.
                    Some(Event::TrackerChanged { .. }) => {
                        self.announced = 0;
                        if self.announce().await {
                            // Full only if somebody is told twice: then the first time counts.
                            let _ = self.relisted.try_send(Instant::now());
                        }
                    }
                    Some(_) => {}
                    None => return,
                }
            }
        }
    }

    /// The next announce, and whether it was answered.
    async fn announce(&mut self) -> bool {
        let geometry = geometry();
        let chunks = geometry.chunk_count();
        let mut have = ChunkSet::empty(chunks);
        let share = chunks / ANNOUNCES_A_BLOB * (self.announced % ANNOUNCES_A_BLOB);
        (0..share).for_each(|chunk| {
            have.insert(ChunkIndex::new(chunk));
        });
        let announce = Announce {
            digest: self.digest,
            size_bytes: BLOB_BYTES,
            chunk_size: Some(geometry.chunk_size()),
            event: if self.announced == 0 { AnnounceEvent::Started } else { AnnounceEvent::Progress },
            have: Some(Arc::new(have)),
            want_peers: self.want_peers,
            // Nobody leads: a lease that moves is another bench.
            lease: LeaseRequest::Declined,
            links: Vec::new(),
            false_chain: None,
            corrupt_lead: None,
            accused: Vec::new(),
            bytes_from_peers: 0,
            bytes_from_origin: 0,
        };
        self.announced += 1;
        self.client.announce(&[announce]).await.iter().all(Result::is_ok)
    }
}

impl Board {
    fn note(&self, due: Instant, answered: bool) {
        if !lock(&self.window).as_ref().is_some_and(|window| window.contains(&due)) {
            return;
        }
        let latency = due.elapsed().as_secs_f64();
        let mut found = lock(&self.found);
        if answered {
            found.answered += 1;
            found.latencies.push(latency);
        } else {
            found.failed += 1;
        }
    }
}

/// What is behind it is whole whatever happens: nothing panics with it in hand.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn config(number: u32, server: &Server, directory: &Path) -> ClientConfig {
    let name = format!("node-{number}");
    let tracker = server.tracker();
    ClientConfig {
        trackers: vec![TrackerAddress::from(tracker.listen)],
        name: name.parse().expect("a node may be called so"),
        zone: Zone::default(),
        peer_ip: None,
        local_ip: Some(address(number)),
        // Nobody connects there.
        peer_port: 1,
        token_file: tracker.token.clone(),
        ca_file: None,
        state_dir: directory.join(name),
    }
}

/// Each has one of its own, as nodes have: a tracker takes few strangers of one address.
fn address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + number).into()
}

fn digest(swarm: u32) -> Digest {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&swarm.to_be_bytes());
    Digest::Sha256(bytes)
}

fn geometry() -> Geometry {
    Geometry::new(BLOB_BYTES, ChunkSize::for_blob(BLOB_BYTES)).expect("a GiB can be cut")
}
