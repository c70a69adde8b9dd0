//! What the commands do: settings to configurations, signals to an orderly end.
//!
//! State: none. Invariant: a command ends by itself within 15 s of SIGTERM or SIGINT.

use std::fs;
use std::path::Path;
use std::time::Duration;

use prometheus_client::registry::Registry;
use shoal_store::Limits;
use shoal_telemetry::{Admin, Readiness, with_causes};
use shoal_wire::NodeName;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Cli, Command, HostsArgs, HostsCommand, InFrontArgs, RunArgs, TrackerArgs};
use crate::agent::{Agent, AgentConfig, StartError};
use crate::check::CheckConfig;
use crate::hosts::{self, CertsDir, HostsError, Report, SecretHeader, Target, Targets};
use crate::mirror::{Settings, Token};
use crate::pull::MirrorUrl;
use crate::runtime::RuntimeConfig;
use crate::standalone::{StandaloneTracker, TrackerConfig};

/// All that a process may take to end.
const END_WITHIN: Duration = Duration::from_secs(15);
/// Of that, what the last spans may take.
const FLUSH_WITHIN: Duration = Duration::from_millis(500);

/// Why a command failed: one line, and the process's exit code.
#[derive(Debug)]
pub struct CommandError {
    line: String,
    code: u8,
}

impl CommandError {
    /// 2 for what the configuration is to blame for, else 1.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        self.code
    }

    fn failed(line: impl Into<String>) -> Self {
        Self { line: line.into(), code: 1 }
    }

    fn configuration(line: impl Into<String>) -> Self {
        Self { line: line.into(), code: 2 }
    }
}

impl std::fmt::Display for CommandError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.line)
    }
}

impl std::error::Error for CommandError {}

impl From<StartError> for CommandError {
    fn from(error: StartError) -> Self {
        let code = if error.is_configuration() { 2 } else { 1 };
        Self { line: with_causes(&error), code }
    }
}

impl From<HostsError> for CommandError {
    fn from(error: HostsError) -> Self {
        Self::failed(error.to_string())
    }
}

impl Cli {
    /// Does what was asked for.
    ///
    /// # Errors
    /// If that fails: one line.
    pub async fn execute(self) -> Result<(), CommandError> {
        let command = match self.command {
            // Nothing to log, nothing to trace: they say what they did.
            Command::Hosts(HostsArgs { command: HostsCommand::Install(args) }) => return said(&args.install()?),
            Command::Hosts(HostsArgs { command: HostsCommand::Restore { dir } }) => {
                return said(&CertsDir::open(&dir)?.restore()?);
            }
            Command::Pull(args) => {
                return crate::pull::run(args).await.map_err(|error| CommandError::failed(error.to_string()));
            }
            command => command,
        };
        let node = match &command {
            Command::Run(args) => Some(args.node_name()?),
            Command::Tracker(_) | Command::Hosts(_) | Command::Pull(_) => None,
        };
        let settings = shoal_telemetry::Settings {
            service: "shoal-agent",
            version: env!("CARGO_PKG_VERSION"),
            instance: node.as_ref().map(ToString::to_string),
            level: self.log_level,
            format: self.log_format,
            otlp_endpoint: self.otlp_endpoint,
        };
        let telemetry =
            shoal_telemetry::init(&settings).map_err(|error| CommandError::configuration(error.to_string()))?;
        let done = match (command, node) {
            (Command::Run(args), Some(node)) => Box::pin(run(*args, node)).await,
            (Command::Tracker(args), _) => Box::pin(tracker(args)).await,
            (Command::Hosts(HostsArgs { command: HostsCommand::Keep(args) }), _) => args.keep().await,
            (Command::Run(_) | Command::Hosts(_) | Command::Pull(_), _) => Ok(()),
        };
        if let Err(error) = telemetry.shutdown(FLUSH_WITHIN).await {
            tracing::warn!(%error, "traces are lost");
        }
        done
    }
}

async fn run(args: RunArgs, name: NodeName) -> Result<(), CommandError> {
    let told = Told::listen()?;
    let mut metrics = Registry::default();
    let mut trackers = args.tracker.clone();
    let embedded = match args.embedded()? {
        Some(config) => {
            let tracker = StandaloneTracker::start(config, &mut metrics).await?;
            trackers.insert(0, tracker.address().clone());
            Some(tracker)
        }
        None => None,
    };
    let config = args.agent(name, trackers)?;
    let started = Agent::start(config, metrics).await;
    let mut agent = match started {
        Ok(agent) => agent,
        Err(error) => {
            if let Some(tracker) = embedded {
                tracker.stop().await;
            }
            return Err(error.into());
        }
    };
    let failed = tokio::select! {
        () = told.wait() => false,
        () = agent.failed() => true,
    };
    let ending = async {
        agent.stop().await;
        if let Some(tracker) = embedded {
            tracker.stop().await;
        }
    };
    // What hasn't ended by then ends with the process.
    let _ = timeout(END_WITHIN - FLUSH_WITHIN * 2, ending).await;
    if failed {
        Err(CommandError::failed("a part of the agent has ended: see the log, and restart it"))
    } else {
        Ok(())
    }
}

async fn tracker(args: TrackerArgs) -> Result<(), CommandError> {
    let told = Told::listen()?;
    let mut metrics = Registry::default();
    let config = TrackerConfig {
        swarm_file: args.swarm,
        listen: args.listen,
        names: args.name,
        data_dir: args.data_dir,
        join_token_file: args.join_token_file,
        registry_credentials: args.registry_credentials,
        proxy: args.proxy.config(),
    };
    let mut tracker = StandaloneTracker::start(config, &mut metrics).await?;
    let stop = CancellationToken::new();
    let admin = match args.admin_listen {
        Some(address) => {
            let admin = Admin::new().metrics(metrics.into()).readiness(Readiness::new());
            let admin = admin.bind(address).await.map_err(StartError::from)?;
            tracing::info!(admin = %admin.local_addr(), "the admin server listens");
            Some(tokio::spawn(admin.serve(stop.clone())))
        }
        None => None,
    };
    let failed = tokio::select! {
        () = told.wait() => false,
        () = tracker.failed() => true,
    };
    stop.cancel();
    if failed {
        return Err(CommandError::failed("the tracker has ended: see the log, and restart it"));
    }
    let ending = async {
        tracker.stop().await;
        if let Some(admin) = admin {
            let _ = admin.await;
        }
    };
    let _ = timeout(END_WITHIN - FLUSH_WITHIN * 2, ending).await;
    Ok(())
}

/// Says what was done to hosts.toml files.
fn said(report: &Report) -> Result<(), CommandError> {
    for name in &report.directories {
        println!("{name}");
    }
    println!("{} files changed", report.changed);
    for skipped in &report.skipped {
        eprintln!("warning: {skipped}");
    }
    Ok(())
}

impl InFrontArgs {
    fn install(&self) -> Result<Report, CommandError> {
        Ok(CertsDir::open(&self.dir)?.install(&self.mirror()?, &self.targets())?)
    }

    async fn keep(self) -> Result<(), CommandError> {
        let told = Told::listen()?;
        let token = self.token_file.as_deref().map(crate::pull::read_token).transpose();
        let token = token.map_err(|error| CommandError::configuration(error.to_string()))?;
        let url = MirrorUrl::try_from(self.mirror).map_err(CommandError::configuration)?;
        let (client, stop) = (crate::pull::Client::new(url, token), CancellationToken::new());
        let (mirror, targets) = (self.mirror()?, self.targets());
        let mut keeping =
            std::pin::pin!(hosts::keep(&self.dir, &mirror, &targets, async || client.answers().await, &stop));
        let ended = tokio::select! {
            () = told.wait() => None,
            ended = keeping.as_mut() => Some(ended),
        };
        match ended {
            Some(ended) => Ok(ended?),
            None => {
                stop.cancel();
                Ok(keeping.await?)
            }
        }
    }

    fn mirror(&self) -> Result<hosts::Mirror, CommandError> {
        let secret = match &self.token_file {
            Some(path) => {
                let text = secret(path)?;
                Token::new(&text).map_err(|error| unusable(path, &error))?;
                Some(SecretHeader::new(Settings::TOKEN_HEADER, &text)?)
            }
            None => None,
        };
        Ok(hosts::Mirror { address: self.mirror, secret })
    }

    fn targets(&self) -> Targets {
        let registries =
            self.registry.iter().map(|(host, endpoint)| Target { host: host.clone(), endpoint: endpoint.clone() });
        Targets { rest: self.registry.is_empty(), registries: registries.collect() }
    }
}

impl RunArgs {
    /// The node's name: what was given, else the host's.
    fn node_name(&self) -> Result<NodeName, CommandError> {
        if let Some(name) = &self.node_name {
            return Ok(name.clone());
        }
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let unusable = |_| CommandError::configuration("the host's name can't be a node's: give one with --node-name");
        NodeName::new(name.trim()).map_err(unusable)
    }

    fn embedded(&self) -> Result<Option<TrackerConfig>, CommandError> {
        if !self.embedded_tracker {
            return Ok(None);
        }
        let missing = |flag| CommandError::configuration(format!("--embedded-tracker needs {flag}"));
        Ok(Some(TrackerConfig {
            swarm_file: self.swarm.clone().ok_or_else(|| missing("--swarm FILE"))?,
            listen: self.tracker_listen,
            names: self.tracker_name.clone(),
            data_dir: self.data_dir.join("tracker"),
            join_token_file: self.join_token_file.clone().ok_or_else(|| missing("--join-token-file FILE"))?,
            registry_credentials: self.registry_credentials.clone(),
            proxy: self.proxy.config(),
        }))
    }

    fn agent(
        self,
        name: NodeName,
        trackers: Vec<shoal_tracker_server::TrackerAddress>,
    ) -> Result<AgentConfig, CommandError> {
        let join_token_file = match self.join_token_file {
            Some(file) => file,
            // Nobody asks for it.
            None if trackers.is_empty() => self.data_dir.join("no-token"),
            None => return Err(CommandError::configuration("--tracker needs --join-token-file FILE")),
        };
        let token =
            self.token_file.as_deref().map(|path| Token::new(&secret(path)?).map_err(|error| unusable(path, &error)));
        let (root, namespace) = (self.containerd_root, self.containerd_namespace);
        let registries = self.checked_registry.into_iter().map(|(host, _)| host).collect();
        let check = self.checked_certs_dir.map(|certs_dir| CheckConfig { certs_dir, registries });
        let runtime = self.containerd_socket.map(|socket| RuntimeConfig { socket, root, namespace });
        Ok(AgentConfig {
            name,
            zone: self.zone,
            trackers,
            proxy: self.proxy.config(),
            join_token_file,
            ca_file: self.ca_file,
            swarm_file: self.swarm,
            data_dir: self.data_dir,
            mirror_listen: self.mirror_listen,
            peer_listen: self.peer_listen,
            peer_ip: self.peer_ip,
            admin_listen: self.admin_listen,
            metrics_listen: self.metrics_listen,
            upload_limit: self.upload_limit.map(super::ByteRate::bytes_per_second),
            download_limit: self.download_limit.map(super::ByteRate::bytes_per_second),
            limits: Limits { keep_free: self.keep_free, ..Limits::new(self.quota.bytes()) },
            plain_peers: self.plain_peers,
            default_registry: self.default_registry,
            token: token.transpose()?,
            runtime,
            check,
        })
    }
}

/// The text of a file with a secret in it.
fn secret(path: &Path) -> Result<String, CommandError> {
    let text = fs::read_to_string(path).map_err(|error| unusable(path, &error))?;
    Ok(text.trim().to_owned())
}

fn unusable(path: &Path, error: &dyn std::error::Error) -> CommandError {
    CommandError::configuration(format!("{}: {error}", path.display()))
}

/// The signals that end a process in order.
struct Told {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Told {
    fn listen() -> Result<Self, CommandError> {
        let hear =
            |kind| signal(kind).map_err(|error| CommandError::failed(format!("signals can't be heard: {error}")));
        Ok(Self { terminate: hear(SignalKind::terminate())?, interrupt: hear(SignalKind::interrupt())? })
    }

    async fn wait(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        tracing::info!("told to stop");
    }
}
