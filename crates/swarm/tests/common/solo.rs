//! One engine among puppets: the test says what the neighbours do and reads what the engine wants.
//!
//! State: the engine, the puppets' handles, everything that the engine asked for, content that waits for its verification.
//! Invariants: after every call the engine's invariants hold and all its actions are in the log; time never runs backwards.
//! Absent on purpose: a network. A puppet's word arrives at once.

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_swarm::{Action, Config, DisconnectReason, Engine, PeerHandle, Recipients, StartBlob, VerifyTicket};
use shoal_types::{BlobKey, ChunkIndex, ChunkSet, NodeId, Time, Zone};
use shoal_wire::{
    Announce, AnnounceReply, Directive, JoinFlags, LeaseGrant, LeaseState, PeerInfo, PeerMessage, RejectReason,
};

use super::content::{Content, TRUE, Variant};
use super::{chunk, set, text};

/// The engine's own node.
pub(crate) const ME: NodeId = NodeId::new(1000);

/// Who has signed the links that everybody knows.
pub(crate) const PUBLISHER: NodeId = NodeId::new(999);

/// A puppet's node.
pub(crate) const fn node(puppet: usize) -> NodeId {
    NodeId::new(puppet as u128)
}

/// One engine and its puppets.
pub(crate) struct Solo {
    pub(crate) engine: Engine,
    pub(crate) content: Content,
    pub(crate) now: Time,
    /// Verifications are kept instead of being answered at once.
    pub(crate) hold_verifications: bool,
    pub(crate) held: Vec<(VerifyTicket, bool)>,
    puppets: Vec<PeerHandle>,
    contents: Vec<Content>,
    pieces: BTreeMap<(BlobKey, ChunkIndex, PeerHandle), Variant>,
    log: Vec<Action>,
}

impl Solo {
    /// An engine that has started a blob, has these chunks of it and knows all links.
    pub(crate) fn new(config: Config, have: &str) -> Self {
        Self::with_seed(config, have, 1)
    }

    /// As [`Self::new`], with another seed.
    pub(crate) fn with_seed(config: Config, have: &str, seed: u64) -> Self {
        let mut solo = Self::knowing_nothing(config, seed, u32::try_from(have.len()).expect("a short text"));
        let links = solo.content.whole_chain(1, PUBLISHER);
        let start = StartBlob { blob: solo.content.blob, have: set(have), links, priority: 1 };
        solo.engine.start(solo.now, start);
        solo.settle();
        solo
    }

    /// An engine that has started a blob and has neither chunks nor links of it.
    pub(crate) fn without_links(config: Config, chunks: u32) -> Self {
        let mut solo = Self::knowing_nothing(config, 1, chunks);
        let start =
            StartBlob { blob: solo.content.blob, have: ChunkSet::empty(chunks), links: Vec::new(), priority: 1 };
        solo.engine.start(solo.now, start);
        solo.settle();
        solo
    }

    /// An engine whose node has the blob's bytes, and no link of it.
    pub(crate) fn local(config: Config, chunks: u32) -> Self {
        let mut solo = Self::knowing_nothing(config, 1, chunks);
        solo.engine.start_local(solo.now, solo.content.blob, 1);
        solo.settle();
        solo
    }

    fn knowing_nothing(config: Config, seed: u64, chunks: u32) -> Self {
        config.validate().expect("settings that make sense");
        let content = Content::new(1, chunks);
        Self {
            engine: Engine::new(ME, Zone::new("home").expect("a name"), config, seed),
            content,
            // Not the origin of time: what happened then happened long ago.
            now: Time::from_nanos(100_000_000_000),
            hold_verifications: false,
            held: Vec::new(),
            puppets: Vec::new(),
            contents: vec![content],
            pieces: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    /// Starts another blob, whose links are all known.
    pub(crate) fn start(&mut self, content: Content, priority: u32) {
        let have = ChunkSet::empty(content.chunks());
        let links = content.whole_chain(1, PUBLISHER);
        self.contents.push(content);
        self.engine.start(self.now, StartBlob { blob: content.blob, have, links, priority });
        self.settle();
    }

    /// A neighbour that takes part and has these chunks.
    pub(crate) fn neighbour(&mut self, have: &str) -> usize {
        let puppet = self.stranger("home");
        self.joins(puppet, have);
        puppet
    }

    /// A neighbour in another zone.
    pub(crate) fn neighbour_abroad(&mut self, have: &str) -> usize {
        let puppet = self.stranger("abroad");
        self.joins(puppet, have);
        puppet
    }

    /// A neighbour that has these chunks and serves us.
    pub(crate) fn source(&mut self, have: &str) -> usize {
        let puppet = self.neighbour(have);
        self.says(puppet, PeerMessage::Unchoke);
        puppet
    }

    /// A neighbour that takes no part.
    pub(crate) fn stranger(&mut self, zone: &str) -> usize {
        let puppet = self.puppets.len();
        let zone = Zone::new(zone).expect("a name");
        let handle = self.engine.handle_connected(self.now, node(puppet), &zone).expect("room for a neighbour");
        self.puppets.push(handle);
        self.settle();
        puppet
    }

    pub(crate) fn joins(&mut self, puppet: usize, have: &str) {
        self.joins_as(puppet, have, JoinFlags::default());
    }

    pub(crate) fn joins_as(&mut self, puppet: usize, have: &str, flags: JoinFlags) {
        let have = set(have).into();
        self.says(puppet, PeerMessage::Join { blob: self.content.blob, have, flags });
    }

    pub(crate) fn says(&mut self, puppet: usize, message: PeerMessage) {
        self.engine.handle_message(self.now, self.puppets[puppet], &message);
        self.settle();
    }

    pub(crate) fn requests(&mut self, puppet: usize, index: u32) {
        self.says(puppet, self.request(index, false));
    }

    pub(crate) fn request(&self, index: u32, needs_links: bool) -> PeerMessage {
        PeerMessage::Request { key: self.content.key(), chunk: chunk(index), needs_links }
    }

    pub(crate) fn rejects(&mut self, puppet: usize, index: u32, reason: RejectReason) {
        self.says(puppet, PeerMessage::Reject { key: self.content.key(), chunk: chunk(index), reason });
    }

    /// The first bytes of a chunk come.
    pub(crate) fn begins(&mut self, puppet: usize, index: u32) {
        self.engine.handle_piece_started(self.now, self.puppets[puppet], self.content.key(), chunk(index));
        self.settle();
    }

    /// More bytes of some chunk come.
    pub(crate) fn goes_on(&mut self, puppet: usize) {
        self.engine.handle_piece_progress(self.now, self.puppets[puppet]);
        self.settle();
    }

    /// A chunk comes, as the origin has it. Whether the engine had a use for it.
    pub(crate) fn delivers(&mut self, puppet: usize, index: u32) -> bool {
        self.delivers_variant(puppet, index, TRUE)
    }

    pub(crate) fn delivers_variant(&mut self, puppet: usize, index: u32, variant: Variant) -> bool {
        self.delivers_of(self.content.key(), puppet, index, variant)
    }

    pub(crate) fn delivers_of(&mut self, key: BlobKey, puppet: usize, index: u32, variant: Variant) -> bool {
        let from = self.puppets[puppet];
        self.engine.handle_piece_started(self.now, from, key, chunk(index));
        let useful = self.engine.handle_piece(self.now, from, key, chunk(index));
        if useful {
            self.pieces.insert((key, chunk(index), from), variant);
        }
        self.settle();
        useful
    }

    /// A chunk that was given to the network has left.
    pub(crate) fn sent(&mut self, puppet: usize, index: u32) {
        self.engine.handle_sent(self.now, self.puppets[puppet], self.content.key(), chunk(index));
        self.settle();
    }

    pub(crate) fn disconnects(&mut self, puppet: usize) {
        self.engine.handle_disconnected(self.now, self.puppets[puppet]);
        self.settle();
    }

    /// The puppet's node connects again; its number stays.
    pub(crate) fn reconnects(&mut self, puppet: usize) {
        let zone = Zone::new("home").expect("a name");
        let handle = self.engine.handle_connected(self.now, node(puppet), &zone).expect("room for a neighbour");
        self.puppets[puppet] = handle;
        self.settle();
    }

    pub(crate) fn learns(&mut self, links: &[shoal_chain::VerifiedLinks]) {
        self.engine.handle_links(self.now, self.content.key(), links);
        self.settle();
    }

    pub(crate) fn directive(&mut self, directive: &Directive) {
        self.engine.handle_directive(self.now, directive);
        self.settle();
    }

    pub(crate) fn withdraws(&mut self, epoch: u64) {
        self.directive(&Directive::Withdraw { key: self.content.key(), epoch });
    }

    /// The lease is granted from this chunk on.
    pub(crate) fn granted(&mut self, epoch: u64, frontier: u32) {
        let grant = LeaseGrant { epoch, frontier: chunk(frontier), holes: Vec::new(), impatient: false };
        self.directive(&Directive::Lease { key: self.content.key(), grant });
    }

    /// A chunk comes from the origin, with its link.
    pub(crate) fn fetched(&mut self, epoch: u64, index: u32) {
        let last = index + 1 == self.content.chunks();
        let links = (!last).then(|| self.content.batch(epoch, ME, index..index + 1, TRUE));
        self.engine.handle_origin_chunk(self.now, self.content.key(), epoch, chunk(index), links.as_ref());
        self.settle();
    }

    /// An answer to an announce that says nothing in particular.
    pub(crate) fn plain_reply(&self) -> AnnounceReply {
        AnnounceReply {
            key: self.content.key(),
            peers: Vec::new(),
            lease: LeaseState::Nobody,
            links: Vec::new(),
            withdrawn: None,
            gateway: None,
            banned: Vec::new(),
            interval: Duration::from_secs(5),
        }
    }

    pub(crate) fn replied(&mut self, reply: &AnnounceReply) {
        self.engine.handle_announce_reply(self.now, reply);
        self.settle();
    }

    pub(crate) fn told_of_peers(&mut self, nodes: &[NodeId]) {
        let peers = nodes.iter().map(|node| PeerInfo { node: *node, zone: Zone::default() }).collect();
        self.replied(&AnnounceReply { peers, ..self.plain_reply() });
    }

    /// Lets time pass; the engine is called whenever it wants to be.
    pub(crate) fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        let mut calls = 0;
        while let Some(at) = self.engine.poll_timeout().filter(|at| *at <= end) {
            calls += 1;
            assert!(calls < 1_000_000, "the engine's timer stands still at {at:?}");
            self.now = self.now.max(at);
            self.engine.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
    }

    /// Answers the verifications that were held.
    pub(crate) fn verify_held(&mut self) {
        for (ticket, right) in std::mem::take(&mut self.held) {
            self.engine.handle_verified(self.now, ticket, right);
        }
        self.settle();
    }

    /// What we have, as a text.
    pub(crate) fn have(&self) -> String {
        text(self.engine.have(self.content.key()).expect("a started blob"))
    }

    /// Everything that the engine has asked for since the last question.
    pub(crate) fn news(&mut self) -> News {
        let puppets = self.puppets.clone();
        News { actions: std::mem::take(&mut self.log), puppets, key: self.content.key() }
    }

    /// Whom it has asked for which chunk since the last question.
    pub(crate) fn asked(&mut self) -> Vec<(usize, u32)> {
        self.news().asked()
    }

    /// As [`Self::news`]; the requests among it are added to those that the puppets owe.
    pub(crate) fn news_keeping(&mut self, owed: &mut Vec<(usize, u32)>) -> News {
        let news = self.news();
        owed.extend(news.asked());
        news
    }

    /// Takes the engine's actions, and answers the verifications among them.
    pub(crate) fn settle(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            if let Action::Verify { ticket, before, after } = &action {
                let id = (ticket.key(), ticket.chunk(), ticket.from());
                let variant = self.pieces.remove(&id).expect("a verification of what has come");
                let content = self.contents.iter().find(|content| content.key() == ticket.key());
                let content = content.expect("a blob that was started");
                let right = content.link_after(*before, ticket.chunk(), variant) == *after;
                if self.hold_verifications {
                    self.held.push((ticket.clone(), right));
                } else {
                    self.engine.handle_verified(self.now, ticket.clone(), right);
                }
            }
            self.log.push(action);
        }
        self.engine.check_invariants();
    }
}

/// What an engine has asked for in a while.
pub(crate) struct News {
    pub(crate) actions: Vec<Action>,
    puppets: Vec<PeerHandle>,
    key: BlobKey,
}

impl News {
    /// Every message with each of its recipients, in order.
    pub(crate) fn said(&self) -> Vec<(usize, PeerMessage)> {
        let mut said = Vec::new();
        for action in &self.actions {
            let Action::Send { to, message } = action else { continue };
            let to = match to {
                Recipients::One(peer) => std::slice::from_ref(peer),
                Recipients::Many(peers) => peers,
            };
            said.extend(to.iter().filter_map(|peer| Some((self.puppet(*peer)?, message.clone()))));
        }
        said
    }

    /// What this puppet was told, in order.
    pub(crate) fn said_to(&self, puppet: usize) -> Vec<PeerMessage> {
        self.said().into_iter().filter(|(to, _)| *to == puppet).map(|(_, message)| message).collect()
    }

    /// Who was asked for which chunk.
    pub(crate) fn asked(&self) -> Vec<(usize, u32)> {
        self.asked_of(self.key)
    }

    /// Who was asked for which chunk of this blob.
    pub(crate) fn asked_of(&self, key: BlobKey) -> Vec<(usize, u32)> {
        let request = |(to, message)| match message {
            PeerMessage::Request { key: of, chunk, .. } if of == key => Some((to, chunk.get())),
            _ => None,
        };
        self.said().into_iter().filter_map(request).collect()
    }

    /// Who was told that the request for a chunk is taken back.
    pub(crate) fn cancelled(&self) -> Vec<(usize, u32)> {
        let cancel = |(to, message)| match message {
            PeerMessage::Cancel { chunk, .. } => Some((to, chunk.get())),
            _ => None,
        };
        self.said().into_iter().filter_map(cancel).collect()
    }

    /// Who was told this, of the messages without content.
    pub(crate) fn told(&self, what: &PeerMessage) -> Vec<usize> {
        self.said().into_iter().filter(|(_, message)| message == what).map(|(to, _)| to).collect()
    }

    /// Which chunks were given to the network, and for whom.
    pub(crate) fn sending(&self) -> Vec<(usize, u32)> {
        let send = |action: &Action| match action {
            Action::SendChunk { to, chunk, .. } => Some((self.puppet(*to)?, chunk.get())),
            _ => None,
        };
        self.actions.iter().filter_map(send).collect()
    }

    /// Which requests were refused, and why.
    pub(crate) fn rejected(&self) -> Vec<(usize, u32, RejectReason)> {
        let reject = |(to, message)| match message {
            PeerMessage::Reject { chunk, reason, .. } => Some((to, chunk.get(), reason)),
            _ => None,
        };
        self.said().into_iter().filter_map(reject).collect()
    }

    /// What the tracker was told.
    pub(crate) fn announces(&self) -> Vec<&Announce> {
        self.actions
            .iter()
            .filter_map(|action| match action {
                Action::Announce(announce) => Some(announce),
                _ => None,
            })
            .collect()
    }

    /// Which connections were closed, and why.
    pub(crate) fn dropped(&self) -> Vec<(usize, DisconnectReason)> {
        let disconnect = |action: &Action| match action {
            Action::Disconnect { peer, reason } => Some((self.puppet(*peer)?, *reason)),
            _ => None,
        };
        self.actions.iter().filter_map(disconnect).collect()
    }

    /// The runs of chunks that the origin was asked for: from which chunk up to which other.
    pub(crate) fn fetches(&self) -> Vec<(u32, u32)> {
        let fetch = |action: &Action| match action {
            Action::FetchOrigin { chunks, .. } => Some((chunks.start, chunks.end)),
            _ => None,
        };
        self.actions.iter().filter_map(fetch).collect()
    }

    /// Whether the engine wanted this done.
    pub(crate) fn contains(&self, action: &Action) -> bool {
        self.actions.contains(action)
    }

    fn puppet(&self, peer: PeerHandle) -> Option<usize> {
        self.puppets.iter().position(|puppet| *puppet == peer)
    }
}
