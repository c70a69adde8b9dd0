//! Agents that are processes, on nodes of their own, as a DaemonSet starts them.
//!
//! State: the processes are a [`Fleet`]'s. Absent on purpose: runtimes beside them (`nodes`).

use std::ffi::OsString;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use shoal_agent::pull::{Client, Progress, PullError};
use shoal_e2e::nodes::{self, Node, Tracker};
use shoal_e2e::processes::Fleet;
use shoal_e2e::units::Rate;
use shoal_oci::ImageName;
use shoal_oci::testing::free_ports;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::{AGENT, AUDIENCE, LONG, World};

pub(crate) const LAB: &str = env!("CARGO_BIN_EXE_shoal-lab");

/// What is read of a process's memory at once.
const PIECE_BYTES: u64 = 1 << 20;

/// Where an agent is.
pub(crate) struct Place<'a> {
    pub(crate) name: &'a str,
    pub(crate) ip: Ipv4Addr,
    /// What it may send and receive.
    pub(crate) rate: Option<Rate>,
    /// The replicas of the operator that it is told of.
    pub(crate) replicas: &'a [u8],
}

pub(crate) struct AgentProcess {
    pub(crate) node: Node,
    pid: u32,
}

impl AgentProcess {
    /// Starts one, with these flags besides, and waits until it is ready.
    pub(crate) async fn start(world: &World, fleet: &mut Fleet, place: &Place<'_>, flags: &[OsString]) -> Self {
        let Place { name, ip, rate, replicas } = *place;
        world.node(name, "zone-1", ip).await;
        let pod = world.pod(&format!("agent-{name}"), AGENT, Some(name)).await;
        let directory = world.control_plane.directory().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let file = |kind: &str, text: &str| -> PathBuf {
            let path = directory.join(kind);
            std::fs::write(&path, text).unwrap();
            path
        };
        let token = file("token", &world.token_of(&pod, AUDIENCE).await);
        let ca = file("ca.crt", &world.bundle().await);
        let own: Vec<SocketAddr> = free_ports(ip.into(), 3).unwrap();
        let data = directory.join("agent");
        let node = Node { name: name.to_owned(), mirror: own[0], peers: own[1], admin: own[2], data, rate };
        let listen = world.tracker_of(replicas[0]);
        let tracker = Tracker { listen, swarm: PathBuf::new(), token, data: PathBuf::new() };
        let mut command = node.command(Path::new(LAB), &tracker);
        command.insert(1, "agent".into());
        for replica in &replicas[1..] {
            command.extend(["--tracker".into(), format!("https://{}", world.tracker_of(*replica)).into()]);
        }
        command.extend([OsString::from("--ca-file"), ca.into()]);
        command.extend_from_slice(flags);
        let pid = fleet.start(name, &command).unwrap();
        fleet.until(name, LONG, async || node.is_ready().await).await.unwrap();
        Self { node, pid }
    }

    /// Pulls an image through its mirror, as a runtime does.
    pub(crate) async fn pull(&self, image: &ImageName, progress: &Progress) {
        self.try_pull(image, progress).await.unwrap_or_else(|error| panic!("{}: {error}", self.node.name));
    }

    pub(crate) async fn try_pull(&self, image: &ImageName, progress: &Progress) -> Result<(), PullError> {
        let client = Client::new(format!("http://{}", self.node.mirror).parse().unwrap(), None);
        nodes::pull(&client, image, progress).await
    }

    /// The sum of its samples of a metric, whatever their labels.
    pub(crate) async fn counted(&self, metric: &str) -> u64 {
        counted(self.node.admin, metric).await
    }

    /// Whether these bytes are anywhere in its memory.
    pub(crate) fn remembers(&self, wanted: &[u8]) -> bool {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid)).unwrap();
        let memory = File::open(format!("/proc/{}/mem", self.pid)).unwrap();
        // 7f1c40000000-7f1c40021000 rw-p 00000000 00:00 0
        let regions = maps.lines().filter_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (from, to) = range.split_once('-').filter(|_| rest.starts_with("rw"))?;
            Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?))
        });
        let overlap = wanted.len() as u64;
        let mut piece = vec![0; usize::try_from(PIECE_BYTES + overlap).unwrap()];
        regions.into_iter().any(|(from, to)| {
            (from..to).step_by(usize::try_from(PIECE_BYTES).unwrap()).any(|at| {
                let length = usize::try_from((to - at).min(PIECE_BYTES + overlap)).unwrap();
                // What is gone meanwhile isn't remembered.
                let read = memory.read_at(&mut piece[..length], at).unwrap_or(0);
                piece[..read].windows(wanted.len()).any(|window| window == wanted)
            })
        })
    }
}

/// The sum of a page's samples of a metric, whatever their labels.
pub(crate) async fn counted(admin: SocketAddr, metric: &str) -> u64 {
    let page = get(admin, "/metrics").await;
    let samples = page.lines().filter_map(|line| line.strip_prefix(metric));
    let values = samples.filter(|rest| rest.starts_with([' ', '{'])).filter_map(|rest| rest.rsplit(' ').next());
    values.map(|value| value.parse::<u64>().unwrap()).sum()
}

/// A page of whoever answers one request a connection.
pub(crate) async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
