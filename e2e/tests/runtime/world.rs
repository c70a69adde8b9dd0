//! An origin, a tracker, agents as processes, containerds.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use shoal_e2e::containerd::{Audit, Containerd, Programs, Version};
use shoal_e2e::nodes::{self, Node, Tracker};
use shoal_e2e::processes::Fleet;
use shoal_oci::ImageName;
use shoal_oci::testing::{Image, Options, Registry, free_ports};
use tokio::time::timeout;

/// Far longer than anything takes, also on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(120);

pub(crate) const LAB: &str = env!("CARGO_BIN_EXE_shoal-lab");

/// The containerds that can be tested here; the reasons for those that can't are printed.
pub(crate) fn runtimes() -> Vec<Programs> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: containerd runs as root only; run the tests as root");
        return Vec::new();
    }
    let usable = |version: Version| {
        if version == Version::V2 && !version.is_cached() {
            eprintln!(
                "SKIPPED for containerd 2: it isn't built; `cargo xtask lab --client containerd --containerd 2` builds it"
            );
            return None;
        }
        version.programs().inspect_err(|error| eprintln!("SKIPPED for containerd {version}: {error:#}")).ok()
    };
    Version::ALL.into_iter().filter_map(usable).collect()
}

/// What a test runs.
pub(crate) struct World {
    pub(crate) fleet: Fleet,
    pub(crate) origin: Registry,
    pub(crate) tracker: Tracker,
    directory: PathBuf,
}

impl World {
    /// An origin that sends so many bytes a second, and a tracker. `extra` is more of the Swarm's specification.
    pub(crate) async fn new(test: &str, bytes_per_second: u64, extra: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("shoal-e2e-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let options = Options { bytes_per_second: Some(bytes_per_second), ..Options::default() };
        let origin = Registry::start(options).await.unwrap();
        let swarm = directory.join("swarm.yaml");
        std::fs::write(&swarm, nodes::swarm_file(origin.name().as_str()) + extra).unwrap();
        let listen = free_ports(IpAddr::V4(Ipv4Addr::LOCALHOST), 1).unwrap()[0];
        let (token, data) = (directory.join("join-token"), directory.join("tracker"));
        let tracker = Tracker { listen, swarm, token, data };
        let mut fleet = Fleet::new(&directory);
        fleet.start("tracker", &agent(tracker.command(Path::new(LAB)))).unwrap();
        fleet.until("tracker", LONG, async || tracker.is_ready().await).await.unwrap();
        Self { fleet, origin, tracker, directory }
    }

    /// Generates an image and pushes it to the origin.
    pub(crate) fn push(&self, tag: &str, layers: &[u64], seed: u64) -> (Image, ImageName) {
        let image = self.origin.push_image(&"team/app".parse().unwrap(), tag, layers, seed);
        let name = format!("{}/team/app:{tag}", self.origin.name()).parse().unwrap();
        (image, name)
    }

    /// A node with nothing on it. Nothing of it runs yet.
    pub(crate) fn node(&self, name: &str) -> Node {
        let ports = free_ports(IpAddr::V4(Ipv4Addr::LOCALHOST), 3).unwrap();
        let data = self.directory.join(name);
        Node { name: name.to_owned(), mirror: ports[0], peers: ports[1], admin: ports[2], data, rate: None }
    }

    /// Starts a node's agent; with a containerd beside it, if it is to know of one.
    pub(crate) async fn agent(&mut self, node: &Node, containerd: Option<&Containerd>) {
        let mut command = agent(node.command(Path::new(LAB), &self.tracker));
        if let Some(containerd) = containerd {
            command.extend(["--containerd-socket".into(), containerd.socket().into()]);
        }
        self.fleet.start(&node.name, &command).unwrap();
        self.fleet.until(&node.name, LONG, async || node.is_ready().await).await.unwrap();
    }

    /// Starts a node's containerd, whose pulls go through the agent's mirror.
    pub(crate) async fn containerd(&mut self, node: &Node, programs: &Programs) -> Containerd {
        let name = format!("containerd-of-{}", node.name);
        let containerd = Containerd::new(programs, &self.directory.join(&name)).unwrap();
        let registry = self.origin.name().to_string();
        containerd.ask_mirror(&[LAB.into(), "agent".into()], node.mirror, &registry).unwrap();
        self.fleet.start(&name, &containerd.command()).unwrap();
        self.fleet.until(&name, LONG, async || containerd.is_ready().await).await.unwrap();
        containerd
    }

    /// Ends all, and removes what they left.
    pub(crate) async fn end(mut self) {
        self.fleet.end().await;
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let held = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(LONG, held).await.unwrap_or_else(|_| panic!("{what}: not in time"));
}

/// Nothing but the image, all of it, unpacked.
pub(crate) fn assert_whole(audit: &Audit, image: &Image) {
    let layers: Vec<u64> = image.layers.iter().map(|layer| layer.size_bytes).collect();
    assert!(audit.is_whole(&layers), "{audit:?}");
}

fn agent(mut command: Vec<OsString>) -> Vec<OsString> {
    command.insert(1, "agent".into());
    command
}
