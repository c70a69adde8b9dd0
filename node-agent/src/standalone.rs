//! The tracker outside of Kubernetes: its Swarm is a file, its nodes join with a token, its CA lies in a directory.
//!
//! State: the server's task, the one that looks at the files, and the one that looks its artifacts' tags up.
//! Invariants: a Swarm file, or one with credentials, that has become wrong changes nothing but the log.
//! Absent on purpose: replicas. One tracker is enough for hosts without a cluster: agents go on without it.

mod artifacts;
mod files;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shoal_api::{Decision, Document};
use shoal_oci::ProxyConfig;
use shoal_oci::{Credentials, Registry};
use shoal_origins::{Clients, CredentialSource, DockerConfig, NoCredentials, SwarmResolver, source};
use shoal_tracker::ReplicaName;
use shoal_tracker_server::{
    Authority, Handle, JoinTokens, Metrics, Server, ServerConfig, ServerLimits, TrackerAddress,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::agent::StartError;
use artifacts::Resolving;
use files::{CredentialsFile, SwarmFile, Swarms};

/// How often the Swarm's file is looked at, for those who don't send SIGHUP.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What a tracker is to be.
#[derive(Clone, Debug)]
pub struct TrackerConfig {
    /// The Swarm's file.
    pub swarm_file: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Names and addresses under which agents reach it, the first of which they are told.
    pub names: Vec<String>,
    /// Where its CA is kept.
    pub data_dir: PathBuf,
    /// The join tokens' file; made if it isn't there.
    pub join_token_file: PathBuf,
    /// The file with the registries' credentials, a dockerconfigjson: what all Swarms' secrets are here.
    pub registry_credentials: Option<PathBuf>,
    /// Proxies on the way to registries.
    pub proxy: ProxyConfig,
}

/// A tracker that runs.
pub struct StandaloneTracker {
    local_addr: SocketAddr,
    address: TrackerAddress,
    handle: Handle,
    server: JoinHandle<()>,
    watching: JoinHandle<()>,
    resolving: JoinHandle<()>,
    stop: CancellationToken,
}

impl StandaloneTracker {
    /// Starts.
    ///
    /// # Errors
    /// One line that says what can't be had.
    pub async fn start(
        config: TrackerConfig,
        metrics: &mut prometheus_client::registry::Registry,
    ) -> Result<Self, StartError> {
        let TrackerConfig { swarm_file, listen, names, data_dir, join_token_file, registry_credentials, proxy } =
            config;
        if names.is_empty() && listen.ip().is_unspecified() {
            let what = "a tracker that listens at all addresses needs the name under which agents reach it";
            return Err(StartError::Setting(format!("{what}: a host name or an address")));
        }
        let name = names.first().cloned().unwrap_or_else(|| listen.ip().to_string());
        let (mut file, ca_dir, token_file) = (SwarmFile::new(swarm_file), data_dir.join("ca"), join_token_file.clone());
        let prepared = tokio::task::spawn_blocking(move || -> Result<_, StartError> {
            let swarms = file.read()?;
            std::fs::create_dir_all(&ca_dir).map_err(StartError::file(&ca_dir, "creating the CA's directory"))?;
            let authority = Authority::load_or_create(&ca_dir)?;
            files::ensure_token(&token_file, &authority)?;
            let tokens = JoinTokens::file(&token_file)?;
            let credentials = registry_credentials.map(CredentialsFile::open).transpose()?;
            Ok((file, swarms, authority, tokens, credentials))
        });
        let (file, swarms, authority, tokens, credentials) = match prepared.await {
            Ok(prepared) => prepared?,
            Err(ended) => return Err(StartError::Setting(format!("the tracker's start was broken off: {ended}"))),
        };
        let (policy, current) = watch::channel(swarms.policy);
        let (credentials, known): (_, Arc<dyn CredentialSource>) = match credentials {
            Some((file, read)) => {
                let (known, current) = watch::channel(read);
                (Some((file, known)), Arc::new(FileCredentials(current)))
            }
            None => (None, Arc::new(NoCredentials)),
        };
        let resolver = SwarmResolver::new(current, known, Clients::new(proxy, u64::from(std::process::id())));
        let counters = Metrics::default();
        counters.register(metrics);
        let server = ServerConfig {
            listen,
            replica: ReplicaName::new("tracker").map_err(|error| StartError::Setting(error.to_string()))?,
            names,
            replicas: Vec::new(),
            swarm: source(&swarms.document),
            authority: Arc::new(authority),
            tracker: shoal_tracker::Config::default(),
            limits: ServerLimits::default(),
            admin_token: None,
            metrics: counters,
        };
        let server = Server::bind(server, Arc::new(tokens), Arc::new(resolver)).await?;
        let (local_addr, handle, stop) = (server.local_addr(), server.handle(), CancellationToken::new());
        let bracketed = if name.contains(':') { format!("[{name}]") } else { name.clone() };
        let address = format!("{bracketed}:{}", local_addr.port()).parse();
        let address = address.map_err(|error| StartError::Setting(format!("{name}: {error}")))?;
        tracing::info!(listen = %local_addr, name, token = %join_token_file.display(), "the tracker listens");
        let server = tokio::spawn(server.run(stop.clone()));
        let (documents, document) = watch::channel(swarms.document);
        let resolving = tokio::spawn(Resolving::new(handle.clone()).run(document, stop.clone()));
        let watching = tokio::spawn(watch_files((file, documents, policy), credentials, stop.clone()));
        Ok(Self { local_addr, address, handle, server, watching, resolving, stop })
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where agents find it.
    #[must_use]
    pub const fn address(&self) -> &TrackerAddress {
        &self.address
    }

    /// To talk to it while it runs: what nodes report, for example.
    #[must_use]
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Returns when it has ended without being told to. Cancel-safe.
    pub async fn failed(&mut self) {
        let ended = (&mut self.server).await;
        tracing::error!(?ended, "the tracker has ended");
    }

    /// Ends it: within [`ServerLimits::drain`] and a moment.
    pub async fn stop(self) {
        self.stop.cancel();
        for task in [self.server, self.watching, self.resolving] {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the tracker panicked");
            }
        }
    }
}

/// The file's credentials are those of every Swarm: outside of Kubernetes there are no Secrets that one could name.
#[derive(Debug)]
struct FileCredentials(watch::Receiver<DockerConfig>);

impl CredentialSource for FileCredentials {
    fn credentials(&self, registry: &Registry, _: &Decision) -> Option<Credentials> {
        self.0.borrow().get(registry).cloned()
    }
}

/// Reads the files again when they change, or when SIGHUP says so.
async fn watch_files(
    (mut file, documents, policy): (SwarmFile, watch::Sender<Document>, watch::Sender<Arc<shoal_api::Policy>>),
    mut credentials: Option<(CredentialsFile, watch::Sender<DockerConfig>)>,
    stop: CancellationToken,
) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => Some(hangup),
        Err(error) => {
            tracing::warn!(%error, "SIGHUP can't be heard: the Swarm's file is looked at every few seconds only");
            None
        }
    };
    loop {
        let told = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        let forced = tokio::select! {
            () = stop.cancelled() => return,
            _ = told => true,
            () = tokio::time::sleep(LOOK_EVERY) => false,
        };
        let looked = tokio::task::spawn_blocking(move || {
            let read = (forced || file.has_changed()).then(|| file.read());
            if let Some((file, known)) = &mut credentials {
                match (forced || file.has_changed()).then(|| file.read()) {
                    None => {}
                    Some(Ok(read)) => {
                        known.send_replace(read);
                        tracing::info!("the registries' credentials were read again");
                    }
                    Some(Err(error)) => tracing::error!(%error, "the credentials can't be used: the old ones hold"),
                }
            }
            (file, credentials, read)
        });
        let Ok((looked_at, known, read)) = looked.await else { return };
        (file, credentials) = (looked_at, known);
        match read {
            None => {}
            Some(Ok(Swarms { document, policy: new })) => {
                policy.send_replace(new);
                documents.send_replace(document);
                tracing::info!("the Swarm's file was read again");
            }
            Some(Err(error)) => tracing::error!(%error, "the Swarm's file can't be used: the old one holds"),
        }
    }
}
