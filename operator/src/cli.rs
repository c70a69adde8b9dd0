//! The command line: every flag typed, and an environment variable for each.
//!
//! State: none. Invariant: the process ends by itself within [`END_WITHIN`] of SIGTERM or SIGINT.
//! Absent on purpose: a configuration file. Flags are the installation's (chart values), Swarms are the users'.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use shoal_origins::ProxyArgs;
use shoal_telemetry::{LogFormat, LogLevel};
use shoal_tracker::ReplicaName;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::error::StartError;
use crate::run::{Operator, OperatorConfig};

const TRACKER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 9394);
/// Probes come from the kubelet, scrapers from other pods: not loopback, as on a node.
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 9397);
/// Less than the 30 s that a pod has by default.
const END_WITHIN: Duration = Duration::from_secs(25);
/// What the last spans may take.
const FLUSH_WITHIN: Duration = Duration::from_millis(500);

/// Makes Shoal part of a Kubernetes cluster: the tracker, the nodes' identities, and what Swarms say.
#[derive(Debug, Parser)]
#[command(name = "shoal-operator", version)]
pub struct Cli {
    /// From which level on to log: error, warn, info, debug or trace.
    #[arg(long, global = true, env = "SHOAL_LOG_LEVEL", default_value = "info")]
    log_level: LogLevel,
    /// How to log: auto (text on a terminal, else JSON), text or json.
    #[arg(long, global = true, env = "SHOAL_LOG_FORMAT", default_value = "auto")]
    log_format: LogFormat,
    /// Where to send traces: http://collector:4318.
    #[arg(long, global = true, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a replica of the operator.
    Run(Box<RunArgs>),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The namespace that Shoal is installed in.
    #[arg(long, env = "SHOAL_NAMESPACE", value_name = "NAME")]
    namespace: ObjectName,
    /// This replica's pod.
    #[arg(long, env = "SHOAL_POD_NAME", value_parser = ReplicaName::new, value_name = "NAME")]
    pod_name: ReplicaName,
    /// The pod's address, at which agents reach this replica; several, if it has more.
    #[arg(long, env = "SHOAL_POD_IP", required = true, value_delimiter = ',', value_name = "IP")]
    pod_ip: Vec<IpAddr>,
    /// The headless Service that selects the operator's pods.
    #[arg(long, env = "SHOAL_SERVICE", default_value = "shoal-tracker", value_name = "NAME")]
    service: ObjectName,
    /// A further name or address under which agents reach the tracker. Several may be given.
    #[arg(long, env = "SHOAL_TRACKER_NAME", value_delimiter = ',', value_name = "HOST_OR_IP")]
    tracker_name: Vec<String>,
    /// The Secret with the CA; it is made if it isn't there.
    #[arg(long, env = "SHOAL_CA_SECRET", default_value = "shoal-ca", value_name = "NAME")]
    ca_secret: ObjectName,
    /// The ConfigMap with the CA's certificates, for agents; it is made and kept.
    #[arg(long, env = "SHOAL_CA_CONFIG_MAP", default_value = "shoal-ca", value_name = "NAME")]
    ca_config_map: ObjectName,
    /// A namespace besides our own whose Secrets Swarms may name as their registries' credentials. Several may be given.
    #[arg(long, env = "SHOAL_SECRET_NAMESPACES", value_delimiter = ',', value_name = "NAMESPACE")]
    secret_namespaces: Vec<ObjectName>,
    #[command(flatten)]
    proxy: ProxyArgs,
    /// The Lease of which replica leads; it is made if it isn't there.
    #[arg(long, env = "SHOAL_LEASE", default_value = "shoal-operator", value_name = "NAME")]
    lease: ObjectName,
    /// The agents' ServiceAccount.
    #[arg(long, env = "SHOAL_AGENT_SERVICE_ACCOUNT", default_value = "shoal-agent", value_name = "NAME")]
    agent_service_account: ObjectName,
    /// For whom agents' tokens are made out.
    #[arg(
        long,
        env = "SHOAL_AUDIENCE",
        default_value = "shoal",
        value_parser = clap::builder::NonEmptyStringValueParser::new(),
        value_name = "AUDIENCE"
    )]
    audience: String,
    /// Where the tracker listens.
    #[arg(long, env = "SHOAL_TRACKER_LISTEN", default_value_t = TRACKER, value_name = "IP:PORT")]
    tracker_listen: SocketAddr,
    /// Where metrics and probes are.
    #[arg(long, env = "SHOAL_ADMIN_LISTEN", default_value_t = ADMIN, value_name = "IP:PORT")]
    admin_listen: SocketAddr,
    /// How to reach the API server; without it as a pod does.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// A Kubernetes object's name, or a namespace's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectName(String);

impl ObjectName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ObjectName {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let ends = [name.bytes().next(), name.bytes().next_back()];
        let sound = name.len() <= 253
            && name.bytes().all(|byte| inside(byte) || byte == b'-' || byte == b'.')
            && ends.iter().all(|end| end.is_some_and(inside));
        if sound { Ok(Self(name.to_owned())) } else { Err("write lower-case letters, digits, \"-\" and \".\"") }
    }
}

impl Cli {
    /// Does what was asked for.
    ///
    /// # Errors
    /// If that fails: one line.
    pub async fn execute(self) -> Result<(), StartError> {
        let Command::Run(args) = self.command;
        let settings = shoal_telemetry::Settings {
            service: "shoal-operator",
            version: env!("CARGO_PKG_VERSION"),
            instance: Some(args.pod_name.to_string()),
            level: self.log_level,
            format: self.log_format,
            otlp_endpoint: self.otlp_endpoint,
        };
        let telemetry = shoal_telemetry::init(&settings).map_err(|error| StartError::Setting(error.to_string()))?;
        let done = Box::pin(run(*args)).await;
        if let Err(error) = telemetry.shutdown(FLUSH_WITHIN).await {
            tracing::warn!(%error, "traces are lost");
        }
        done
    }
}

async fn run(args: RunArgs) -> Result<(), StartError> {
    let hear = |kind| signal(kind).map_err(|error| StartError::Signals(error.to_string()));
    let (mut terminate, mut interrupt) = (hear(SignalKind::terminate())?, hear(SignalKind::interrupt())?);
    let told = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("told to stop: other replicas take over");
    };
    let mut told = std::pin::pin!(told);
    let kubeconfig = args.kubeconfig.clone();
    let client = crate::cluster::client(kubeconfig.as_deref()).await?;
    let mut operator = Operator::start(args.into(), client).await?;
    let ended = tokio::select! {
        () = told.as_mut() => None,
        ended = operator.failed() => Some(ended),
    };
    if timeout(END_WITHIN, operator.stop()).await.is_err() {
        tracing::warn!("not everything ended in time");
    }
    ended.map_or(Ok(()), Err)
}

impl From<RunArgs> for OperatorConfig {
    fn from(args: RunArgs) -> Self {
        Self {
            namespace: args.namespace.0,
            pod_name: args.pod_name,
            pod_ips: args.pod_ip,
            service: args.service.0,
            tracker_names: args.tracker_name,
            ca_secret: args.ca_secret.0,
            ca_config_map: args.ca_config_map.0,
            secret_namespaces: args.secret_namespaces.into_iter().map(|namespace| namespace.0).collect(),
            proxy: args.proxy.config(),
            lease: args.lease.0,
            agent_service_account: args.agent_service_account.0,
            audience: args.audience,
            tracker_listen: args.tracker_listen,
            admin_listen: args.admin_listen,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_every_flag_has_its_variable() {
        let mut command = Cli::command();
        command.clone().debug_assert();
        command.build();
        let mut commands = vec![command];
        while let Some(command) = commands.pop() {
            for flag in command.get_arguments().filter(|flag| !matches!(flag.get_id().as_str(), "help" | "version")) {
                assert!(flag.get_env().is_some(), "{} {}", command.get_name(), flag.get_id());
            }
            commands.extend(command.get_subcommands().filter(|command| command.get_name() != "help").cloned());
        }
    }

    #[test]
    fn flags_are_typed() {
        let run = |flags: &str| {
            let line = format!("shoal-operator run --namespace shoal --pod-name o-1 --pod-ip 10.0.0.1 {flags}");
            Cli::try_parse_from(line.split_whitespace())
        };
        assert!(run("--ca-secret a.b --tracker-name a,b --secret-namespaces a,b").is_ok());
        for wrong in ["--pod-ip x", "--ca-secret A", "--service -a", "--namespace a/b", "--tracker-listen 1"] {
            assert!(run(wrong).is_err(), "{wrong}");
        }
    }
}
