//! A Kubernetes cluster on one machine: real kubelets and containerds, each as if on a machine of its own.
//!
//! ```text
//!                    hub (a bridge in a namespace of its own)
//!      ┌──────────────┬───────────────┬──────────────┬── …
//!   control        registry         node1          node2          a network namespace each; the registry's and the nodes' links are shaped
//!   etcd           docker-registry  containerd     containerd
//!   kube-apiserver                  kubelet        kubelet        a node also has its own processes, mounts, /var, /run and /etc
//!   controllers, scheduler, CoreDNS    └ pods 10.244.1.0/24 …
//!      ^
//!      └── 127.0.0.1:PORT of this machine: a door, through which kubectl and tests come
//! ```
//!
//! State: processes, namespaces, cgroups, a directory in memory. Invariants: all of it is gone when the [`Cluster`] is dropped; what a killed owner
//! left ends with it (processes), or is removed by the next one (the rest). The machine's own network, mounts and runtime stay as they are.
//! Absent on purpose: kube-proxy. Services with a cluster's address lead nowhere, but for the API server's and the DNS's; headless ones work.

mod cgroups;
mod control;
mod demo;
mod door;
mod hold;
mod images;
mod node;
mod operations;
mod origin;
mod shoal;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use kube::Client;
use shoal_oci::testing::Image;

use crate::containerd;
use crate::control_plane::Access;
use crate::network::{self, Network, Place};
use crate::processes::Fleet;
use crate::registry::DockerRegistry;
use crate::scratch::{self, Scratch};
use crate::tools::{self, cluster::Tool};
use crate::units::Rate;
use cgroups::Cgroups;
use control::Control;
use door::Door;
use node::Node;

pub use demo::{DemoOptions, demo};
pub use hold::{down, hold, up};
pub use images::{Stored, sleeping_image};
pub use origin::Origin;

/// A component starts within seconds on an idle machine and within minutes on one that builds beside it.
const PATIENCE: Duration = Duration::from_secs(180);

/// What its directories are called, with its owner's process number.
const NAME: &str = "shoal-cluster";
/// Where Shoal's images are in the registry.
const SHOAL: &str = "shoal";
/// The registry's port.
const REGISTRY_PORT: u16 = 5000;

/// What a cluster is to be.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub nodes: u8,
    /// Which containerd the nodes have.
    #[arg(long, default_value = "1.6")]
    pub containerd: containerd::Version,
    /// The links of the nodes and of the registry, both ways; without limits if absent.
    #[arg(long, value_name = "RATE")]
    pub rate: Option<Rate>,
    /// Has containerd 2 fetch each layer in parts, several at a time. Others can't.
    #[arg(long)]
    pub parallel_fetch: bool,
}

impl Default for Options {
    /// As on the command line.
    fn default() -> Self {
        Self { nodes: 3, containerd: containerd::Version::V1_6, rate: None, parallel_fetch: false }
    }
}

/// The programs of a cluster.
#[derive(Clone, Debug)]
pub struct Programs {
    etcd: PathBuf,
    api_server: PathBuf,
    controller_manager: PathBuf,
    scheduler: PathBuf,
    kubelet: PathBuf,
    coredns: PathBuf,
    runc: PathBuf,
    cni: PathBuf,
    busybox: PathBuf,
    containerd: containerd::Programs,
}

impl Programs {
    /// All of them, fetched and built first if this machine doesn't have them yet: minutes.
    ///
    /// # Errors
    /// If they can't be had; in one line, with what to do. A test then says that it is skipped.
    pub fn get(version: containerd::Version) -> Result<Self> {
        Ok(Self {
            etcd: Tool::Etcd.program()?,
            api_server: Tool::KubeApiserver.program()?,
            controller_manager: Tool::KubeControllerManager.program()?,
            scheduler: Tool::KubeScheduler.program()?,
            kubelet: Tool::Kubelet.program()?,
            coredns: Tool::Coredns.program()?,
            runc: Tool::Runc.program()?,
            cni: Tool::CniPlugins.program()?,
            busybox: Tool::Busybox.program()?,
            containerd: version.programs()?,
        })
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    // Doors first, then who is behind them, then what those have used.
    doors: Vec<Door>,
    fleet: Fleet,
    cgroups: Cgroups,
    _network: Network,
    scratch: Scratch,
    control: Control,
    registry: DockerRegistry,
    registry_place: Place,
    nodes: Vec<Node>,
    kubectl: Access,
}

impl Cluster {
    /// Starts one, and waits until all nodes are ready.
    ///
    /// # Errors
    /// If it doesn't start, with the end of the log of who is to blame.
    pub async fn start(options: &Options, programs: &Programs) -> Result<Self> {
        let mut network = Network::new("cluster")?;
        let cgroups = Cgroups::new(NAME)?;
        let scratch = Scratch::in_memory(NAME, false)?;
        let place = network.add("control", None)?;
        let registry_place = network.add("registry", options.rate)?;
        let registry_at = SocketAddr::new(registry_place.address.into(), REGISTRY_PORT);
        let registry = DockerRegistry::new(&scratch.path().join("registry"), registry_at)?;
        let control = Control::new(programs, place, &scratch.path().join("control"))?;
        let names = (1..=options.nodes).map(|number| (number, format!("node{number}")));
        let nodes: Result<Vec<_>> = names
            .map(|(number, name)| {
                let place = network.add(&name, options.rate)?;
                Node::new(number, name, place, &scratch.path().join("nodes"), options.parallel_fetch)
            })
            .collect();
        let nodes = nodes?;
        connect(&control.place, &registry_place, &nodes)?;
        network.use_cubic()?;
        let door = Door::open(&control.place, control.address())?;
        let kubectl = control.admin(door.address())?;
        let fleet = Fleet::new(scratch.path()).sharing_signals();
        let doors = vec![door];
        let mut cluster = Self {
            doors,
            fleet,
            cgroups,
            _network: network,
            scratch,
            control,
            registry,
            registry_place,
            nodes,
            kubectl,
        };
        cluster.store_tools(programs)?;
        cluster.run(programs).await?;
        Ok(cluster)
    }

    async fn run(&mut self, programs: &Programs) -> Result<()> {
        self.start_registry()?;
        self.control.start(&mut self.fleet, &self.kubectl).await?;
        for node in &self.nodes {
            let sandbox_image = self.image("pause:1");
            node.start(programs, &self.control, &self.cgroups, &sandbox_image, &mut self.fleet).await?;
            node.ask_origin(&self.registry_host())?;
        }
        let client = self.client().await?;
        for node in &self.nodes {
            let ready = async || operations::is_node_ready(&client, &node.name).await;
            self.fleet.until(&node.kubelet(), PATIENCE, ready).await?;
        }
        let can_have_pods = async || operations::has_account(&client, "default").await;
        self.fleet.until("kube-controller-manager", PATIENCE, can_have_pods).await
    }

    /// The images that pods of a cluster take: what holds their namespaces, and what tests run.
    fn store_tools(&self, programs: &Programs) -> Result<()> {
        for repository in ["pause", "busybox"] {
            self.registry.store_image(repository, "1", images::sleeping(&programs.busybox, Vec::new())?)?;
        }
        Ok(())
    }

    /// Stores an image whose pods sleep, with generated layers of these sizes above the program.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn store(&self, repository: &str, tag: &str, layer_bytes: &[u64], seed: u64) -> Result<Image> {
        self.registry.store_image(repository, tag, sleeping_image(layer_bytes, seed)?)
    }

    /// Stores Shoal's own images, of the programs that are built beside this one.
    fn store_shoal(&self, tag: &str) -> Result<()> {
        for program in ["shoal-operator", "shoal-agent"] {
            let image = images::of_program(program, self.directory())?;
            self.registry.store_image(&format!("{SHOAL}/{program}"), tag, image)?;
        }
        Ok(())
    }

    /// Runs helm against the cluster.
    fn helm(&self, arguments: &[&str]) -> Result<()> {
        tools::run(&mut self.helm_command(arguments)?, "read what helm says")
    }

    fn helm_command(&self, arguments: &[&str]) -> Result<Command> {
        let kubeconfig = self.directory().join("kubeconfig");
        self.write_kubeconfig(&kubeconfig)?;
        let mut helm = Command::new(Tool::Helm.program()?);
        helm.args(arguments).env("KUBECONFIG", kubeconfig);
        Ok(helm)
    }

    /// Ends the registry, as a machine that is switched off.
    ///
    /// # Errors
    /// If it is off already.
    pub async fn stop_registry(&mut self) -> Result<()> {
        self.fleet.part(&["registry".to_owned()])?.kill().await;
        Ok(())
    }

    /// Starts it, the first time or again with all that it had.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start_registry(&mut self) -> Result<()> {
        let command = self.registry_place.within(&mortal(&self.registry.command()));
        self.fleet.start("registry", &command).map(drop)
    }

    /// A node's directory for the registries' configuration.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn certs(&self, node: u8) -> Result<PathBuf> {
        Ok(self.node(node)?.certs())
    }

    /// How many nodes it has: node1, node2, ….
    #[must_use]
    pub fn node_count(&self) -> u8 {
        self.nodes.last().map_or(0, |node| node.number)
    }

    fn node(&self, number: u8) -> Result<&Node> {
        self.nodes.get(usize::from(number) - 1).with_context(|| format!("there is no node{number}"))
    }

    /// Under which name nodes find an image of the registry.
    #[must_use]
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.registry_host())
    }

    /// The registry's host and port, as nodes reach it.
    #[must_use]
    pub fn registry_host(&self) -> String {
        format!("{}:{REGISTRY_PORT}", self.registry_place.address)
    }

    /// Bytes that the registry has sent, where its link is shaped.
    ///
    /// # Errors
    /// If it isn't.
    pub fn origin_bytes(&self) -> Result<u64> {
        self.registry_place.sent_bytes()
    }

    /// A client to whom everything is allowed.
    ///
    /// # Errors
    /// If TLS can't be set up.
    pub async fn client(&self) -> Result<Client> {
        self.kubectl.client().await
    }

    /// For kubectl and helm: a file that names everything they need.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write_kubeconfig(&self, path: &Path) -> Result<()> {
        self.kubectl.write_kubeconfig(path)
    }

    /// Its directory: the logs, and each node's files below `nodes/`.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.scratch.path()
    }

    /// What a program says that runs in a node's network, with this machine's files.
    ///
    /// # Errors
    /// If there is no such node, or the program fails: its own words.
    pub async fn in_network(&self, node: u8, command: &[OsString]) -> Result<Vec<u8>> {
        let command = self.node(node)?.place.within(command);
        let (program, arguments) = command.split_first().context("nothing to run")?;
        let mut run = tokio::process::Command::new(program);
        run.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let output = run.output().await.context("a program can't be started")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "a program on node{node} fails ({}): {}", output.status, said.trim());
        Ok(output.stdout)
    }

    /// Runs this as long as all of its processes do.
    ///
    /// # Errors
    /// Its own, or that a process ended.
    pub async fn during<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.fleet.during(work).await
    }

    /// An address of this machine that leads to one of a node's.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn door(&mut self, node: u8, port: u16) -> Result<SocketAddr> {
        let address = self.node(node)?.place.address;
        self.door_to(node, SocketAddr::new(address.into(), port))
    }

    /// The same for what listens on the node's loopback, as mirrors do.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn loopback_door(&mut self, node: u8, port: u16) -> Result<SocketAddr> {
        self.door_to(node, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))
    }

    fn door_to(&mut self, node: u8, to: SocketAddr) -> Result<SocketAddr> {
        let door = Door::open(&self.node(node)?.place, to)?;
        let address = door.address();
        self.doors.push(door);
        Ok(address)
    }

    /// Ends it.
    pub async fn stop(mut self) {
        // Nothing in it is worth an orderly end: it is a machine that is switched off.
        self.fleet.kill().await;
        self.cgroups.empty().await;
    }
}

/// Removes what a killed owner left.
fn sweep() {
    network::remove_stale("cluster");
    cgroups::remove_stale(NAME);
    scratch::remove_stale_in_memory(NAME);
}

/// A command line whose process dies with who started it, whatever that died of.
fn mortal(command: &[OsString]) -> Vec<OsString> {
    ["setpriv", "--pdeathsig", "KILL", "--"].map(OsString::from).into_iter().chain(command.iter().cloned()).collect()
}

/// Routes between the nodes' pods, and from everywhere to the Services.
fn connect(control: &Place, registry: &Place, nodes: &[Node]) -> Result<()> {
    for node in nodes {
        node.place.forward()?;
        node.place.route(crate::control_plane::commands::SERVICES, control.address)?;
        let others = nodes.iter().filter(|other| other.number != node.number).map(|other| &other.place);
        for place in others.chain([control, registry]) {
            place.route(&node.pods(), node.place.address)?;
        }
    }
    control.also(control::API_SERVICE)?;
    control.also(control::DNS_SERVICE)
}
