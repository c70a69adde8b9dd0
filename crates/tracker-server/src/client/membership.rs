//! Being a member of the cluster: joins, renews, follows the replicas, saves what is to be remembered. One task.
//!
//! ```text
//!            token                        two thirds of its life          renewed
//!  stranger ───────> member, certificate ───────────────────────> renewing ───────> member
//!      ▲                                                             │
//!      └──────────────────────── expired ────────────────────────────┘
//! ```
//!
//! State: the tasks that follow the replicas.
//! Invariants: each replica of the last list that came is followed, and no other one. There is an identity from the first join on; it is
//! replaced, never taken back.
//! Absent on purpose: announces.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use shoal_tracker::ReplicaName;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::identity::{NewKey, NodeIdentity};
use super::link::{Ask, Link};
use super::peers::Peers;
use super::replica::Follower;
use super::tls::{self, Anchor};
use super::{ClientError, Shared};
use crate::identity::TokenError;
use crate::protocol::{JOIN, JoinBody, JoinReply, REPLICAS, Replica, ReplicaList, TrackerAddress};
use crate::trust::{Fingerprint, Trust};

/// Contacts change with every announce: they are saved so often, and at the end.
const SAVE_EVERY: Duration = Duration::from_secs(30);
/// As long as no replica can be reached, the addresses of the configuration are asked for others, so often.
const ASK_AGAIN: Duration = Duration::from_secs(3);
/// The first time is sooner: after a restart the replicas that are remembered may be gone.
const ASK_FIRST: Duration = Duration::from_millis(500);
/// The longest credential: a service account's token has about 1 KiB. The tracker takes headers of 16 KiB.
const MAX_TOKEN: usize = 8 << 10;

struct Followed {
    replica: Replica,
    gone: CancellationToken,
}

pub(super) struct Membership {
    shared: Arc<Shared>,
    followed: BTreeMap<ReplicaName, Followed>,
    /// How many followers there have been.
    followers: u64,
    lists: mpsc::Receiver<Vec<Replica>>,
    tell_list: mpsc::Sender<Vec<Replica>>,
    /// The certificate says something else than the configuration.
    outdated: bool,
}

impl Membership {
    pub(super) fn new(shared: Arc<Shared>, outdated: bool) -> Self {
        // One for each replica that may be followed.
        let (tell_list, lists) = mpsc::channel(super::peers::MAX_REPLICAS);
        Self { shared, followed: BTreeMap::new(), followers: 0, lists, tell_list, outdated }
    }

    pub(super) async fn run(mut self) {
        let shutdown = self.shared.shutdown.clone();
        shutdown.run_until_cancelled(Box::pin(self.live())).await;
        // The followers end with the same token.
        self.save().await;
    }

    async fn live(&mut self) {
        let mut backoff = Backoff::new();
        let now = Instant::now();
        let (mut renew_at, mut save_at, mut ask_at) = (now, now + SAVE_EVERY, now + ASK_FIRST);
        if !self.outdated
            && let Ok(identity) = self.shared.current_identity()
        {
            renew_at = when(&identity);
        }
        let known = self.shared.peers().replicas().to_vec();
        self.follow(known);
        loop {
            tokio::select! {
                Some(list) = self.lists.recv() => self.take_list(&list),
                () = sleep_until(renew_at) => {
                    renew_at = match self.certify().await {
                        Ok(identity) => {
                            backoff.reset();
                            when(&identity)
                        }
                        Err(error) => {
                            tracing::warn!(%error, "no certificate from the tracker");
                            self.shared.problem.send_replace(Some(error.to_string()));
                            Instant::now() + backoff.next()
                        }
                    };
                }
                () = sleep_until(ask_at) => {
                    if self.shared.routing().is_empty() && let Ok(identity) = self.shared.current_identity() {
                        // With another CA there is nothing to renew: it is a new cluster, and the token says whether this is a node of it.
                        if self.ask_for_replicas(&identity).await.is_err_and(|error| error.is_of_the_certificate()) {
                            renew_at = Instant::now();
                        }
                    }
                    ask_at = Instant::now() + ASK_AGAIN;
                }
                () = sleep_until(save_at) => {
                    self.save().await;
                    save_at = Instant::now() + SAVE_EVERY;
                }
            }
        }
    }

    fn take_list(&mut self, list: &[Replica]) {
        let mut peers = self.shared.peers();
        peers.set_replicas(list);
        let known = peers.replicas().to_vec();
        drop(peers);
        self.follow(known);
    }

    /// Follows these, and no others.
    fn follow(&mut self, replicas: Vec<Replica>) {
        self.followed.retain(|_, followed| {
            let stays = replicas.contains(&followed.replica);
            if !stays {
                followed.gone.cancel();
            }
            stays
        });
        if self.shared.current_identity().is_err() {
            return;
        }
        for replica in replicas {
            if self.followed.contains_key(&replica.name) {
                continue;
            }
            self.followers += 1;
            let (shared, lists) = (Arc::clone(&self.shared), self.tell_list.clone());
            let gone = shared.shutdown.child_token();
            let follower = Follower { shared, number: self.followers, replica: replica.clone(), lists };
            self.shared.tasks.spawn(follower.follow(gone.clone()));
            self.followed.insert(replica.name.clone(), Followed { replica, gone });
        }
    }

    /// Gets a certificate: with the present one, else with the token.
    async fn certify(&mut self) -> Result<Arc<NodeIdentity>, ClientError> {
        let present = self.shared.current_identity().ok();
        let mut failure = ClientError::NoTracker;
        if let Some(present) = &present {
            match self.try_all(&tls::node(present)?, None).await {
                Ok(identity) => return Ok(identity),
                Err(error) => failure = error,
            }
        }
        let config = &self.shared.config;
        let text = tokio::fs::read_to_string(&config.token_file).await;
        let text = text.map_err(|source| TokenError::File { path: config.token_file.clone(), source });
        let token = match text {
            Ok(text) => Token::parse(&text)?,
            // Without a token the renewal's failure says more.
            Err(_) if present.is_some() => return Err(failure),
            Err(error) => return Err(error.into()),
        };
        // The certificate may be refused, or the CA another one, where the token is good.
        let anchor = self.anchor(&token).await?;
        self.try_all(&tls::stranger(&anchor)?, Some(&token.secret)).await
    }

    async fn anchor(&self, token: &Token) -> Result<Anchor, ClientError> {
        if let Some(path) = &self.shared.config.ca_file {
            let text = tokio::fs::read_to_string(path).await;
            let text = text.map_err(|source| ClientError::CaFile { path: path.clone(), source })?;
            let trust = Trust::from_pem(&text).map_err(|error| ClientError::Malformed(error.to_string()))?;
            return Ok(Anchor::Roots(Arc::new(trust)));
        }
        token.ca.map(Anchor::Pinned).ok_or(ClientError::NoAnchor)
    }

    /// Tries the replicas, and the configured addresses, until one gives a certificate.
    async fn try_all(
        &mut self,
        tls: &Arc<rustls::ClientConfig>,
        token: Option<&str>,
    ) -> Result<Arc<NodeIdentity>, ClientError> {
        let mut failure = ClientError::NoTracker;
        for address in self.addresses() {
            match self.join(&address, Arc::clone(tls), token).await {
                Ok(identity) => return Ok(identity),
                // What one says about the token or the node, the others would say too; a refusal tells more than silence.
                Err(error) if matches!(failure, ClientError::Refused { .. }) => drop(error),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn join(
        &mut self,
        address: &TrackerAddress,
        tls: Arc<rustls::ClientConfig>,
        token: Option<&str>,
    ) -> Result<Arc<NodeIdentity>, ClientError> {
        let shared = &self.shared;
        let config = &shared.config;
        let link = Link::connect(shared, address, tls).await?;
        let key = NewKey::generate()?;
        let body = JoinBody {
            name: config.name.to_string(),
            zone: config.zone.name().to_owned(),
            peer_ip: config.peer_ip,
            peer_port: config.peer_port,
            csr: key.request()?,
        };
        let body = serde_json::to_vec(&body).map_err(|error| ClientError::Malformed(error.to_string()))?;
        let reply: JoinReply = link.ask_json(Ask::post(JOIN, Bytes::from(body)).with_token(token)).await?;
        let identity = Arc::new(key.certified(&reply)?);
        let (saved, dir) = (Arc::clone(&identity), config.state_dir.clone());
        let written = tokio::task::spawn_blocking(move || saved.save(&dir)).await.map_err(|_| ClientError::Stopped)?;
        if let Err(error) = written {
            // It is good for as long as this process lives.
            tracing::error!(%error, "the certificate can't be saved");
        }
        tracing::info!(node = %identity.certificate().contact.name(), "the tracker gave a certificate");
        shared.identity.send_replace(Some(Arc::clone(&identity)));
        shared.problem.send_replace(None);
        self.take_list(&reply.replicas);
        Ok(identity)
    }

    async fn ask_for_replicas(&mut self, identity: &NodeIdentity) -> Result<(), ClientError> {
        let tls = tls::node(identity)?;
        let mut failure = ClientError::NoTracker;
        for address in self.shared.config.trackers.clone() {
            let asked = async {
                let link = Link::connect(&self.shared, &address, Arc::clone(&tls)).await?;
                link.ask_json::<ReplicaList>(Ask::get(REPLICAS)).await
            };
            match asked.await {
                Ok(list) => {
                    self.take_list(&list.replicas);
                    return Ok(());
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn addresses(&self) -> Vec<TrackerAddress> {
        let mut addresses = self.shared.config.trackers.clone();
        for replica in self.shared.peers().replicas() {
            if !addresses.contains(&replica.address) {
                addresses.push(replica.address.clone());
            }
        }
        addresses
    }

    async fn save(&self) {
        let Some(content) = self.shared.peers().take_changes() else { return };
        let dir = self.shared.config.state_dir.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || Peers::save(&dir, &content)).await {
            tracing::error!(%error, "the contacts can't be saved");
        }
    }
}

/// What a token file has: a secret, and perhaps the CA's fingerprint. A service account's token is a secret alone.
struct Token {
    secret: String,
    ca: Option<Fingerprint>,
}

impl Token {
    fn parse(text: &str) -> Result<Self, TokenError> {
        let mut lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        let line = lines.rfind(|line| !line.is_empty()).ok_or(TokenError::Malformed)?;
        let (secret, ca) = match line.split_once(':') {
            Some((secret, ca)) => (secret, Some(ca.parse()?)),
            None => (line, None),
        };
        if secret.is_empty() || secret.len() > MAX_TOKEN || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Malformed);
        }
        Ok(Self { secret: secret.to_owned(), ca })
    }
}

/// When to renew, on the clock that timers have.
fn when(identity: &NodeIdentity) -> Instant {
    let wait = identity.certificate().renew_at().duration_since(SystemTime::now()).unwrap_or_default();
    // A machine that sleeps doesn't count the time on that clock: look every hour.
    Instant::now() + wait.min(Duration::from_secs(3_600))
}
