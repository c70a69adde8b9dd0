//! A node: an anchor that holds its namespaces, a containerd and a kubelet in them.
//!
//! ```text
//!   nodes/NAME/var  ──bind──> /var          nodes/NAME/containerd ──bind──> /etc/containerd
//!             /run  ──bind──> /run                    /cni        ──bind──> /etc/cni
//!             /etc  ──overlay─> /etc (above the machine's)
//! ```
//!
//! So what is at its usual place on a real node is there here: `/run/containerd/containerd.sock`, `/etc/containerd/certs.d`, `/var/lib/kubelet`. All mounts
//! and processes of a node, its pods' too, end with the anchor: the kernel sees to that.
//!
//! State: a directory. Invariant: the anchor dies with who started it, whatever that died of. Absent on purpose: another /sys. A fresh one hides the cgroups.

use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use super::cgroups::Cgroups;
use super::control::{Control, DNS_SERVICE, DOMAIN, FEATURE, write};
use super::{PATIENCE, Programs, mortal};
use crate::containerd::configuration::Settings;
use crate::network::Place;
use crate::processes::Fleet;

const SOCKET: &str = "/run/containerd/containerd.sock";

/// What is known of a node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) number: u8,
    pub(super) name: String,
    pub(super) place: Place,
    directory: PathBuf,
    parallel_fetch: bool,
}

impl Node {
    /// One that isn't started; its directory is made below this one.
    pub(super) fn new(number: u8, name: String, place: Place, nodes: &Path, parallel_fetch: bool) -> Result<Self> {
        let directory = nodes.join(&name);
        for part in [
            "var/lib/kubelet",
            "var/log/pods",
            "run/containerd",
            "etc/kubernetes",
            "etc.work",
            "containerd/certs.d",
            "cni/net.d",
        ] {
            fs::create_dir_all(directory.join(part))
                .with_context(|| format!("{} can't be made", directory.display()))?;
        }
        Ok(Self { number, name, place, directory, parallel_fetch })
    }

    /// Its pods' addresses.
    pub(super) fn pods(&self) -> String {
        format!("10.244.{}.0/24", self.number)
    }

    /// Its kubelet's name in a fleet.
    pub(super) fn kubelet(&self) -> String {
        format!("kubelet-{}", self.name)
    }

    /// The registries' configuration.
    pub(super) fn certs(&self) -> PathBuf {
        self.directory.join("containerd/certs.d")
    }

    /// Has pulls of a plain-http registry go straight to it.
    pub(super) fn ask_origin(&self, registry: &str) -> Result<()> {
        let directory = self.certs().join(registry);
        fs::create_dir_all(&directory).with_context(|| format!("{} can't be made", directory.display()))?;
        let text = format!(
            "server = \"http://{registry}\"\n\n[host.\"http://{registry}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
        );
        write(&directory.join("hosts.toml"), &text)
    }

    /// Starts it; its kubelet may take a while to find the API server.
    pub(super) async fn start(
        &self,
        programs: &Programs,
        control: &Control,
        cgroups: &Cgroups,
        sandbox_image: &str,
        fleet: &mut Fleet,
    ) -> Result<()> {
        let kubernetes = self.directory.join("etc/kubernetes");
        control.enrol(&self.name, self.place.address, &kubernetes)?;
        write(&kubernetes.join("kubelet.yaml"), &kubelet_configuration(&cgroups.add(&self.name)?))?;
        write(&self.directory.join("cni/net.d/10-pods.conflist"), &self.pods_network())?;
        let settings = containerd_settings(programs, sandbox_image, self.parallel_fetch);
        let text = settings.text(programs.containerd.version());
        write(&self.directory.join("containerd/config.toml"), &text)?;
        let (anchor, containerd) = (format!("anchor-{}", self.name), format!("containerd-{}", self.name));
        let pid = fleet.start(&anchor, &self.anchor())?;
        let anchored = self.directory.join("run/anchored");
        fleet.until(&anchor, PATIENCE, async || anchored.exists()).await?;
        fleet.start(&containerd, &self.within(pid, &containerd_command(programs)))?;
        let socket = self.directory.join("run/containerd/containerd.sock");
        let answers = async || tokio::net::UnixStream::connect(&socket).await.is_ok();
        fleet.until(&containerd, PATIENCE, answers).await?;
        fleet.start(&self.kubelet(), &self.within(pid, &self.kubelet_command(programs)))?;
        Ok(())
    }

    /// What makes the mounts and then stays.
    fn anchor(&self) -> Vec<OsString> {
        const SCRIPT: &str = "set -e; cd \"$0\"; mount --bind var /var; mount --bind run /run; \
            mount -t overlay overlay -o lowerdir=/etc,upperdir=\"$0/etc\",workdir=\"$0/etc.work\" /etc; mkdir -p /etc/containerd /etc/cni; \
            mount --bind containerd /etc/containerd; mount --bind cni /etc/cni; : > /run/anchored; exec sleep 2147483647";
        let words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"].into_iter();
        let words = words.chain(["--propagation", "private", "--", "sh", "-c", SCRIPT]);
        let mut command = mortal(&words.map(OsString::from).collect::<Vec<_>>());
        command.push(self.directory.clone().into());
        self.place.within(&command)
    }

    /// A command line that runs on this node.
    fn within(&self, anchor: u32, command: &[OsString]) -> Vec<OsString> {
        let namespace = |flag: &str, name: &str| OsString::from(format!("--{flag}=/proc/{anchor}/ns/{name}"));
        let mut net = OsString::from("--net=");
        net.push(self.place.path());
        let entrance = [namespace("mount", "mnt"), namespace("pid", "pid_for_children"), net, "--".into()];
        std::iter::once("nsenter".into()).chain(entrance).chain(command.iter().cloned()).collect()
    }

    fn kubelet_command(&self, programs: &Programs) -> Vec<OsString> {
        let mut command: Vec<OsString> = vec![programs.kubelet.clone().into()];
        command.extend(
            [
                "--config=/etc/kubernetes/kubelet.yaml".to_owned(),
                "--kubeconfig=/etc/kubernetes/kubelet.kubeconfig".to_owned(),
                format!("--hostname-override={}", self.name),
                format!("--node-ip={}", self.place.address),
                // Two zones, so that there is a near and a far.
                format!("--node-labels=topology.kubernetes.io/zone=zone-{}", self.number % 2),
            ]
            .map(OsString::from),
        );
        command
    }

    fn pods_network(&self) -> String {
        let ranges = json!([[{"subnet": self.pods()}]]);
        let ipam = json!({
            "type": "host-local", "dataDir": "/var/lib/cni", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}],
        });
        let bridge = json!({
            "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true, "ipam": ipam,
        });
        json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}).to_string()
    }
}

fn containerd_settings(programs: &Programs, sandbox_image: &str, parallel_fetch: bool) -> Settings {
    Settings {
        root: "/var/lib/containerd".into(),
        state: "/run/containerd".into(),
        socket: SOCKET.into(),
        opt: "/var/lib/containerd-opt".into(),
        cni_programs: programs.cni.clone(),
        cni_configuration: "/etc/cni/net.d".into(),
        certs: "/etc/containerd/certs.d".into(),
        sandbox_image: Some(sandbox_image.to_owned()),
        parallel_fetch,
    }
}

fn containerd_command(programs: &Programs) -> Vec<OsString> {
    let mut path = OsString::from("PATH=");
    let beside = [Some(programs.containerd.directory()), programs.runc.parent()];
    for directory in beside.into_iter().flatten() {
        path.push(directory);
        path.push(":");
    }
    path.push(std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into()));
    let containerd = programs.containerd.containerd().into();
    vec!["env".into(), path, containerd, "--config".into(), "/etc/containerd/config.toml".into()]
}

/// A machine that several nodes share has little to reserve, and evicts nobody.
fn kubelet_configuration(cgroup: &str) -> String {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false}, "webhook": {"enabled": true}, "x509": {"clientCAFile": "/etc/kubernetes/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": "/etc/kubernetes/kubelet.crt",
        "tlsPrivateKeyFile": "/etc/kubernetes/kubelet.key",
        "clusterDomain": DOMAIN,
        "clusterDNS": [Ipv4Addr::to_string(&DNS_SERVICE)],
        "resolvConf": "",
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "failCgroupV1": false,
        "enforceNodeAllocatable": [],
        // Nothing here takes iptables.
        "makeIPTablesUtilChains": false,
        "failSwapOn": false,
        "serializeImagePulls": false,
        "evictionHard": {
            "memory.available": "1Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "featureGates": {FEATURE: true},
    })
    .to_string()
}
