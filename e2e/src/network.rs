//! Network namespaces around a hub, each behind a link that may be shaped.
//!
//! The bridge is in a namespace too, so the host's addresses, routes and packet filters neither matter nor change, and a namespace that
//! is deleted takes its links along.
//!
//! State: the namespaces `shoal-KIND-PID-NAME`. Invariants: dropping it deletes them; those of dead processes are deleted first.
//! Absent on purpose: `ip netns exec`, which mounts another /sys.

use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::scratch::is_alive;
use crate::units::Rate;

const PREFIX: &str = "shoal-";
const NAMESPACES: &str = "/run/netns";
const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";

/// A hub and the places around it.
#[derive(Debug)]
pub struct Network {
    prefix: String,
    hub: String,
    places: Vec<Place>,
}

/// A namespace with an address.
#[derive(Clone, Debug)]
pub struct Place {
    namespace: String,
    /// Its end of the link at the hub.
    port: String,
    /// Its address.
    pub address: Ipv4Addr,
    shaped: bool,
}

impl Network {
    /// An empty hub of a `lab` or a `cluster`.
    ///
    /// # Errors
    /// If this machine or this user can't have namespaces; in one line, with what to do.
    pub fn new(kind: &str) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "a {kind} makes network namespaces: run it as root");
        for (tool, package) in [("ip", "iproute2"), ("tc", "iproute2"), ("nsenter", "util-linux")] {
            let found = Command::new(tool).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
            ensure!(found.is_ok(), "{tool} is missing: install {package}");
        }
        remove_stale(kind);
        let prefix = format!("{PREFIX}{kind}-{}", std::process::id());
        // Before the first command, so that whatever fails is cleaned up.
        let network = Self { hub: format!("{prefix}-hub"), prefix, places: Vec::new() };
        ip(&["netns", "add", &network.hub])?;
        ip(&["-n", &network.hub, "link", "add", "hub", "type", "bridge"])?;
        ip(&["-n", &network.hub, "link", "set", "hub", "up"])?;
        Ok(network)
    }

    /// Adds a place, with this rate both ways or without limits.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn add(&mut self, name: &str, rate: Option<Rate>) -> Result<Place> {
        let ix = self.places.len();
        let place = Place {
            namespace: format!("{}-{name}", self.prefix),
            port: format!("port{ix}"),
            address: Ipv4Addr::new(10, 77, u8::try_from(ix / 250)?, u8::try_from(ix % 250 + 1)?),
            shaped: rate.is_some(),
        };
        let (own, hub, port) = (&*place.namespace, &*self.hub, &*place.port);
        ip(&["netns", "add", own])?;
        self.places.push(place.clone());
        ip(&["-n", hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", own])?;
        ip(&["-n", hub, "link", "set", port, "master", "hub", "up"])?;
        ip(&["-n", own, "addr", "add", &format!("{}/16", place.address), "dev", "eth0"])?;
        ip(&["-n", own, "link", "set", "eth0", "up"])?;
        ip(&["-n", own, "link", "set", "lo", "up"])?;
        if let Some(rate) = rate {
            shape(own, "eth0", rate)?;
            shape(hub, port, rate)?;
        }
        Ok(place)
    }

    /// Bytes that these places have received through their token buckets.
    ///
    /// # Errors
    /// If one of them isn't shaped.
    pub fn received_bytes(&self, places: &[Place]) -> Result<u64> {
        let queues = buckets(&self.hub)?;
        let of = |place: &Place| {
            let bytes = queues.iter().find(|(port, _)| *port == place.port).map(|(_, bytes)| *bytes);
            bytes.with_context(|| format!("{} isn't shaped", place.namespace))
        };
        places.iter().map(of).sum()
    }

    /// Has all places use cubic: BBR, a host's default here and there, fills a token bucket differently. A namespace may choose only what
    /// the host allows to everybody, so that is widened for as long as this takes.
    ///
    /// # Errors
    /// If there is no cubic.
    pub fn use_cubic(&self) -> Result<()> {
        let allowed = fs::read_to_string(ALLOWED).context("the congestion controls can't be read")?;
        let widened = !allowed.split_whitespace().any(|name| name == "cubic");
        if widened {
            fs::write(ALLOWED, format!("{} cubic", allowed.trim()))
                .context("cubic can't be allowed: modprobe tcp_cubic")?;
        }
        let chosen = self.places.iter().try_for_each(|place| {
            let set = "echo cubic > /proc/sys/net/ipv4/tcp_congestion_control";
            run("nsenter", &[&place.entrance(), "sh", "-c", set]).map(drop)
        });
        if widened {
            fs::write(ALLOWED, allowed.trim()).context("the allowed congestion controls can't be put back")?;
        }
        chosen
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in self.places.iter().map(|place| &place.namespace).chain([&self.hub]) {
            delete(namespace);
        }
    }
}

impl Place {
    /// A command line that runs here. `nsenter` becomes the program, so the process's number is the program's.
    #[must_use]
    pub fn within(&self, command: &[OsString]) -> Vec<OsString> {
        [OsString::from("nsenter"), self.entrance().into(), "--".into()]
            .into_iter()
            .chain(command.iter().cloned())
            .collect()
    }

    /// Bytes that have left through the token bucket. At the interface segmentation offload would skew them.
    ///
    /// # Errors
    /// If it isn't shaped.
    pub fn sent_bytes(&self) -> Result<u64> {
        ensure!(self.shaped, "{} isn't shaped", self.namespace);
        let queues = buckets(&self.namespace)?;
        queues.first().map(|(_, bytes)| *bytes).context("tc doesn't tell the bytes")
    }

    /// Has it send what is for these addresses to another place, which passes it on.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn route(&self, to: &str, via: Ipv4Addr) -> Result<()> {
        ip(&["-n", &self.namespace, "route", "add", to, "via", &via.to_string()])
    }

    /// Has it pass on what is for others.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn forward(&self) -> Result<()> {
        let set = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        run("nsenter", &[&self.entrance(), "sh", "-c", set]).map(drop)
    }

    /// Gives it one more address, for itself alone.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn also(&self, address: Ipv4Addr) -> Result<()> {
        ip(&["-n", &self.namespace, "addr", "add", &format!("{address}/32"), "dev", "lo"])
    }

    /// The namespace's file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        path(&self.namespace)
    }

    fn entrance(&self) -> String {
        format!("--net={}", self.path().display())
    }
}

/// 10 ms of the rate may pass at once, and 40 ms wait: a switch's buffer. A bucket smaller than a segment of offloading (64 KiB) would
/// cost the kernel a split of each.
fn shape(namespace: &str, device: &str, rate: Rate) -> Result<()> {
    let bytes = rate.bytes_per_second();
    let burst = (bytes / 100).max(64 << 10);
    let limit = burst + bytes / 25;
    let [rate, burst, limit] = [format!("{}bit", bytes * 8), burst.to_string(), limit.to_string()];
    let arguments = [
        "-n", namespace, "qdisc", "add", "dev", device, "root", "tbf", "rate", &rate, "burst", &burst, "limit", &limit,
    ];
    run("tc", &arguments).map(drop).context("links can't be shaped here (the kernel's sch_tbf)")
}

/// The token buckets of a namespace: device, and bytes that have passed. Asked about one device, tc wouldn't name it.
fn buckets(namespace: &str) -> Result<Vec<(String, u64)>> {
    let text = run("tc", &["-n", namespace, "-s", "-j", "qdisc", "show"])?;
    parse_buckets(&text).context("tc's JSON can't be read")
}

fn parse_buckets(json: &str) -> Option<Vec<(String, u64)>> {
    let queues: Value = serde_json::from_str(json).ok()?;
    let buckets = queues.as_array()?.iter().filter(|queue| queue["kind"] == "tbf");
    buckets.map(|bucket| Some((bucket["dev"].as_str()?.to_owned(), bucket["bytes"].as_u64()?))).collect()
}

fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", arguments).map(drop)
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("{program} can't be started"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(anyhow!("{program} {}: {}", arguments.join(" "), said.trim().replace('\n', "; ")))
}

fn path(namespace: &str) -> PathBuf {
    Path::new(NAMESPACES).join(namespace)
}

fn delete(namespace: &str) {
    if path(namespace).exists()
        && let Err(error) = ip(&["netns", "del", namespace])
    {
        eprintln!("{error:#}: delete it by hand");
    }
}

/// Deletes the namespaces of this kind whose process is dead.
pub fn remove_stale(kind: &str) {
    for entry in fs::read_dir(NAMESPACES).into_iter().flatten().flatten() {
        if let Some(name) =
            entry.file_name().to_str().filter(|name| owner(name, kind).is_some_and(|pid| !is_alive(pid)))
        {
            delete(name);
        }
    }
}

/// The process that made a namespace of ours.
fn owner(namespace: &str, kind: &str) -> Option<u32> {
    namespace.strip_prefix(PREFIX)?.strip_prefix(kind)?.strip_prefix('-')?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buckets_of_a_namespace_are_told_from_its_other_queues() {
        let json = r#"[{"kind":"noqueue","dev":"lo","bytes":9},{"kind":"tbf","dev":"port0","bytes":70},
            {"kind":"tbf","dev":"port1","bytes":8}]"#;
        assert_eq!(parse_buckets(json), Some(vec![("port0".to_owned(), 70), ("port1".to_owned(), 8)]));
        assert_eq!(parse_buckets("[{\"kind\":\"tbf\"}]"), None);
    }

    #[test]
    fn only_our_own_namespaces_have_an_owner() {
        for (name, pid) in [
            ("shoal-lab-123-hub", Some(123)),
            ("shoal-lab-7-node-3", Some(7)),
            ("shoal-lab-x-hub", None),
            ("shoal-laboratory-7-hub", None),
            ("cni-123", None),
        ] {
            assert_eq!(owner(name, "lab"), pid, "{name}");
        }
    }
}
