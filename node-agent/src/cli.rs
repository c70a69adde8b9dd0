//! The command line: every flag typed, and an environment variable for each.
//!
//! State: none. Absent on purpose: a configuration file. Flags are the node's settings, the Swarm is everybody's.

mod bytes;
mod run;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use shoal_api::{Endpoint, Quantity, RegistryHost};
use shoal_oci::Registry;
use shoal_origins::ProxyArgs;
use shoal_store::Percent;
use shoal_telemetry::{LogFormat, LogLevel};
use shoal_tracker_server::TrackerAddress;
use shoal_types::Zone;
use shoal_wire::NodeName;

pub use bytes::{ByteRate, ByteRateError};
pub use run::CommandError;

use crate::pull::PullArgs;
use crate::runtime::Namespace;

const MIRROR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9395);
const PEERS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 9396);
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9397);
const TRACKER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 9394);
/// Half of a small node's images.
const QUOTA: Quantity = Quantity::from_bytes(20 << 30);

/// Makes container images reach every node at the speed of one download.
#[derive(Debug, Parser)]
#[command(name = "shoal-agent", version)]
pub struct Cli {
    /// From which level on to log: error, warn, info, debug or trace.
    #[arg(long, global = true, env = "SHOAL_LOG_LEVEL", default_value = "info")]
    pub(crate) log_level: LogLevel,
    /// How to log: auto (text on a terminal, else JSON), text or json.
    #[arg(long, global = true, env = "SHOAL_LOG_FORMAT", default_value = "auto")]
    pub(crate) log_format: LogFormat,
    /// Where to send traces: http://collector:4318.
    #[arg(long, global = true, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub(crate) otlp_endpoint: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs the agent of this node: the mirror for its container runtime, and the exchange with other nodes.
    Run(Box<RunArgs>),
    /// Runs a tracker, for hosts without Kubernetes.
    Tracker(TrackerArgs),
    /// Puts the mirror in front in the runtime's hosts.toml files, or takes it back.
    Hosts(HostsArgs),
    /// Fetches an image through the local mirror, as a container runtime does, into an OCI layout.
    Pull(PullArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The node's name; the host's name if it isn't given.
    #[arg(long, env = "SHOAL_NODE_NAME")]
    pub(crate) node_name: Option<NodeName>,
    /// The node's zone: the place within which links are cheap. In Kubernetes it is the Node's label, and isn't given.
    #[arg(long, env = "SHOAL_ZONE", default_value = "", value_parser = Zone::new)]
    pub(crate) zone: Zone,
    /// A tracker: https://HOST:PORT. Several may be given; a name may stand for several, as a headless Service's does.
    #[arg(long, env = "SHOAL_TRACKER", value_delimiter = ',', value_name = "URL")]
    pub(crate) tracker: Vec<TrackerAddress>,
    /// The file with the join token that the tracker has made; in Kubernetes the projected token of the agent's service account. It is read
    /// again whenever it is needed.
    #[arg(long, env = "SHOAL_JOIN_TOKEN_FILE", value_name = "FILE")]
    pub(crate) join_token_file: Option<PathBuf>,
    /// The file with the tracker's CA, if the token doesn't have its fingerprint. It is read again whenever it is needed.
    #[arg(long, env = "SHOAL_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Where the store, the node's key and what else is kept lie.
    #[arg(long, env = "SHOAL_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Where the runtime asks the mirror.
    #[arg(long, env = "SHOAL_MIRROR_LISTEN", default_value_t = MIRROR, value_name = "IP:PORT")]
    pub(crate) mirror_listen: SocketAddr,
    /// Where peers connect.
    #[arg(long, env = "SHOAL_PEER_LISTEN", default_value_t = PEERS, value_name = "IP:PORT")]
    pub(crate) peer_listen: SocketAddr,
    /// The address at which peers find this node, if it isn't the one from which it speaks to the tracker.
    #[arg(long, env = "SHOAL_PEER_IP", value_name = "IP")]
    pub(crate) peer_ip: Option<IpAddr>,
    /// Where metrics, probes and /debug/swarms are.
    #[arg(long, env = "SHOAL_ADMIN_LISTEN", default_value_t = ADMIN, value_name = "IP:PORT")]
    pub(crate) admin_listen: SocketAddr,
    /// Where metrics are for scrapers on other hosts, and nothing else is; nowhere if it isn't given.
    #[arg(long, env = "SHOAL_METRICS_LISTEN", value_name = "IP:PORT")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// What may be sent to peers a second: 200Mbit, 25MB.
    #[arg(long, env = "SHOAL_UPLOAD_LIMIT", value_name = "RATE")]
    pub(crate) upload_limit: Option<ByteRate>,
    /// What may come from peers a second: 200Mbit, 25MB.
    #[arg(long, env = "SHOAL_DOWNLOAD_LIMIT", value_name = "RATE")]
    pub(crate) download_limit: Option<ByteRate>,
    /// What the store may hold: 20Gi.
    #[arg(long, env = "SHOAL_QUOTA", default_value_t = QUOTA, value_name = "BYTES")]
    pub(crate) quota: Quantity,
    /// What the store leaves free of its file system, in percent.
    #[arg(long, env = "SHOAL_KEEP_FREE", default_value = "25", value_parser = bytes::percent, value_name = "PERCENT")]
    pub(crate) keep_free: Percent,
    /// Links between nodes without TLS and without proof of who is who. All nodes must agree on it.
    #[arg(long, env = "SHOAL_PLAIN_PEERS")]
    pub(crate) plain_peers: bool,
    /// The registry of requests that name none.
    #[arg(long, env = "SHOAL_DEFAULT_REGISTRY", value_name = "HOST")]
    pub(crate) default_registry: Option<Registry>,
    #[command(flatten)]
    pub(crate) proxy: ProxyArgs,
    /// The file with the secret that the runtime sends to the mirror in a header.
    #[arg(long, env = "SHOAL_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The socket of the containerd beside this agent: /run/containerd/containerd.sock. What it has is served to other nodes; without it
    /// the agent takes it that no containerd pulls through its mirror.
    #[arg(long, env = "SHOAL_CONTAINERD_SOCKET", value_name = "PATH")]
    pub(crate) containerd_socket: Option<PathBuf>,
    /// containerd's root directory, or its content store's, if the agent sees it elsewhere than containerd does.
    #[arg(long, env = "SHOAL_CONTAINERD_ROOT", requires = "containerd_socket", value_name = "DIR")]
    pub(crate) containerd_root: Option<PathBuf>,
    /// The namespace in which containerd keeps the images.
    #[arg(long, env = "SHOAL_CONTAINERD_NAMESPACE", default_value = "k8s.io", value_name = "NAME")]
    pub(crate) containerd_namespace: Namespace,
    /// Looks now and then whether the runtime asks the mirror, by having it pull a small image through it. This is the directory that its config_path is to
    /// name: what is wrong is told to the tracker, with what to change.
    #[arg(long, env = "SHOAL_CHECKED_CERTS_DIR", requires = "containerd_socket", value_name = "DIR")]
    pub(crate) checked_certs_dir: Option<PathBuf>,
    /// Where a Swarm says "*": a registry whose pulls are to go through the mirror, as `hosts` was told. Several may be given; all are meant if none is.
    #[arg(long, env = "SHOAL_CHECKED_REGISTRY", value_delimiter = ',', value_parser = registry, requires = "checked_certs_dir", value_name = "HOST[=URL]")]
    pub(crate) checked_registry: Vec<(RegistryHost, Option<Endpoint>)>,
    /// Runs a tracker in this process as well.
    #[arg(long, env = "SHOAL_EMBEDDED_TRACKER", requires = "swarm", requires = "join_token_file")]
    pub(crate) embedded_tracker: bool,
    /// The Swarm's file: the embedded tracker's; without a tracker, or until one answers, the agent's own.
    #[arg(long, env = "SHOAL_SWARM", value_name = "FILE")]
    pub(crate) swarm: Option<PathBuf>,
    /// Where the embedded tracker listens.
    #[arg(long, env = "SHOAL_TRACKER_LISTEN", default_value_t = TRACKER, value_name = "IP:PORT")]
    pub(crate) tracker_listen: SocketAddr,
    /// The embedded tracker's file with the credentials of private registries, a dockerconfigjson.
    #[arg(long, env = "SHOAL_REGISTRY_CREDENTIALS", requires = "embedded_tracker", value_name = "FILE")]
    pub(crate) registry_credentials: Option<PathBuf>,
    /// A name or address under which agents reach the embedded tracker. Several may be given; they are told the first one.
    #[arg(long, env = "SHOAL_TRACKER_NAME", value_delimiter = ',', value_name = "HOST_OR_IP")]
    pub(crate) tracker_name: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TrackerArgs {
    /// The Swarm's file. It is read again when it changes, and at SIGHUP.
    #[arg(long, env = "SHOAL_SWARM", value_name = "FILE")]
    pub(crate) swarm: PathBuf,
    /// Where to listen.
    #[arg(long, env = "SHOAL_TRACKER_LISTEN", default_value_t = TRACKER, value_name = "IP:PORT")]
    pub(crate) listen: SocketAddr,
    /// A name or address under which agents reach it. Several may be given; agents are told the first one.
    #[arg(long, env = "SHOAL_TRACKER_NAME", value_delimiter = ',', value_name = "HOST_OR_IP")]
    pub(crate) name: Vec<String>,
    /// Where its CA is kept.
    #[arg(long, env = "SHOAL_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// The file with the join token; it is made if it isn't there. Agents need a copy.
    #[arg(long, env = "SHOAL_JOIN_TOKEN_FILE", value_name = "FILE")]
    pub(crate) join_token_file: PathBuf,
    /// The file with the credentials of private registries, a dockerconfigjson. It is read again when it changes. Only the tracker
    /// needs it: a node that fetches a private blob for all gets what it takes from the tracker.
    #[arg(long, env = "SHOAL_REGISTRY_CREDENTIALS", value_name = "FILE")]
    pub(crate) registry_credentials: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) proxy: ProxyArgs,
    /// Where metrics and probes are; nowhere if it isn't given.
    #[arg(long, env = "SHOAL_ADMIN_LISTEN", value_name = "IP:PORT")]
    pub(crate) admin_listen: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct HostsArgs {
    #[command(subcommand)]
    pub(crate) command: HostsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HostsCommand {
    /// Puts the mirror in front. Doing so again changes nothing.
    Install(InFrontArgs),
    /// Puts the mirror in front while it answers, and takes it back when it doesn't and at the end.
    Keep(InFrontArgs),
    /// Takes the mirror back: every file is as it was.
    Restore {
        /// The directory that config_path names in the runtime's configuration.
        #[arg(long, env = "SHOAL_CERTS_DIR", value_name = "DIR")]
        dir: PathBuf,
    },
}

/// What is put in front, where.
#[derive(Debug, Args)]
pub(crate) struct InFrontArgs {
    /// The directory that config_path names in the runtime's configuration.
    #[arg(long, env = "SHOAL_CERTS_DIR", value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Where the mirror listens.
    #[arg(long, env = "SHOAL_MIRROR_LISTEN", default_value_t = MIRROR, value_name = "IP:PORT")]
    pub(crate) mirror: SocketAddr,
    /// The file with the secret that the runtime is to send to the mirror.
    #[arg(long, env = "SHOAL_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// A registry whose pulls go through the mirror, with its address if it isn't https:// and the host: HOST or HOST=URL. Several may
    /// be given; without any all registries' pulls do.
    #[arg(long, env = "SHOAL_REGISTRY", value_delimiter = ',', value_parser = registry, value_name = "HOST[=URL]")]
    pub(crate) registry: Vec<(RegistryHost, Option<Endpoint>)>,
}

fn registry(text: &str) -> Result<(RegistryHost, Option<Endpoint>), String> {
    let (host, endpoint) = text.split_once('=').map_or((text, None), |(host, endpoint)| (host, Some(endpoint)));
    let host = host.parse().map_err(|error| format!("{error}"))?;
    let endpoint: Option<Endpoint> = endpoint.map(str::parse).transpose().map_err(|error| format!("{error}"))?;
    Ok((host, endpoint))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use shoal_store::Limits;

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
        let run =
            |flags: &str| Cli::try_parse_from(format!("shoal-agent run --data-dir /d {flags}").split_whitespace());
        let Command::Run(args) = run("--tracker https://t:1 --tracker u:2 --upload-limit 8Mbit").unwrap().command
        else {
            panic!("it is run");
        };
        assert_eq!(args.tracker.len(), 2);
        assert_eq!(args.upload_limit.map(ByteRate::bytes_per_second), Some(1_000_000));
        assert_eq!((args.quota, args.keep_free, args.mirror_listen), (QUOTA, Limits::KEEP_FREE, MIRROR));
        for wrong in [
            "--containerd-root /r",
            "--containerd-namespace a..b",
            "--embedded-tracker",
            "--upload-limit 5Mb",
            "--keep-free 120",
            "--tracker http://t:1",
            "--zone a/b",
        ] {
            assert!(run(wrong).is_err(), "{wrong}");
        }
    }
}
