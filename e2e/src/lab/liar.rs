//! A node that lies: an agent as it is shipped, over a store that gives wrong bytes. What it sends doesn't fit the links that it sends.
//!
//! State: the agent. Absent on purpose: any way to have the shipped program lie.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use shoal_agent::agent::{Agent, AgentConfig};
use shoal_store::{DiskStore, Faults, FaultyStore, Limits, Percent};
use tokio::time::sleep;

use crate::nodes::{Node, Tracker};

/// What no manifest and no configuration is as large as. It lies from when it has begun with a blob like that.
const LAYER: u64 = 1 << 20;
const LOOK: Duration = Duration::from_millis(10);

/// What a liar is told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Liar {
    name: String,
    tracker: String,
    token: PathBuf,
    data: PathBuf,
    mirror: SocketAddr,
    peers: SocketAddr,
    admin: SocketAddr,
}

impl Liar {
    /// In the place of this node.
    pub(super) fn new(node: &Node, tracker: &Tracker) -> Self {
        Self {
            name: node.name.clone(),
            tracker: format!("https://{}", tracker.listen),
            token: tracker.token.clone(),
            data: node.data.clone(),
            mirror: node.mirror,
            peers: node.peers,
            admin: node.admin,
        }
    }

    /// Its command line's words.
    pub(super) fn words(&self) -> Vec<std::ffi::OsString> {
        let Self { name, tracker, token, data, mirror, peers, admin } = self;
        let [mirror, peers, admin] = [mirror, peers, admin].map(|address| address.to_string().into());
        vec![name.into(), tracker.into(), token.into(), data.into(), mirror, peers, admin]
    }

    /// Lies until it is killed.
    pub(super) async fn run(&self) -> Result<()> {
        let limits = Limits { keep_free: Percent::ZERO, ..Limits::new(1 << 40) };
        let config = AgentConfig {
            name: self.name.parse()?,
            zone: shoal_types::Zone::default(),
            trackers: vec![self.tracker.parse()?],
            join_token_file: self.token.clone(),
            ca_file: None,
            swarm_file: None,
            data_dir: self.data.clone(),
            mirror_listen: self.mirror,
            peer_listen: self.peers,
            peer_ip: Some(self.peers.ip()),
            admin_listen: self.admin,
            metrics_listen: None,
            upload_limit: None,
            download_limit: None,
            limits,
            plain_peers: false,
            default_registry: None,
            proxy: shoal_oci::ProxyConfig::default(),
            token: None,
            runtime: None,
            check: None,
        };
        std::fs::create_dir_all(&self.data)?;
        let disk = DiskStore::open(&self.data.join("store"), limits)?;
        let store = Arc::new(FaultyStore::new(disk, Faults::default()));
        let metrics = prometheus_client::registry::Registry::default();
        let mut agent = Agent::start_over(config, Arc::clone(&store) as _, metrics).await?;
        // With a wrong manifest its own client would never ask for a layer, and there would be nothing to lie about.
        let exchange = agent.exchange().clone();
        let lying = async {
            while !exchange.snapshot().await.is_some_and(|seen| seen.blobs.iter().any(|blob| blob.size_bytes >= LAYER))
            {
                sleep(LOOK).await;
            }
            store.set(Faults { corrupt_reads: true, ..Faults::default() });
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = agent.failed() => anyhow::bail!("a part of the liar has ended"),
            () = lying => Ok(()),
        }
    }
}
