//! The control plane of a cluster: its place, its certificates, its five programs.
//!
//! State: a directory with keys. Invariant: everybody who speaks to the API server does so with a certificate of their own.

use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{PATIENCE, Programs, mortal};
use crate::control_plane::Access;
use crate::control_plane::certificates::{self, Authority, Identity};
use crate::control_plane::commands::{self, command};
use crate::network::Place;
use crate::processes::Fleet;

/// The address of the Service `kubernetes`: the first of all. Without kube-proxy it is the control plane's own.
pub(super) const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Where pods ask for names.
pub(super) const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Names end with it.
pub(super) const DOMAIN: &str = "cluster.local";
/// A Service's port is its server's where nobody translates.
const PORT: u16 = 443;
const ETCD: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2379);
/// Volumes of images, which this release knows and leaves off; API server and kubelets must agree.
pub(super) const FEATURE: &str = "ImageVolume";
/// What the API server shows to kubelets.
const KUBELET_CLIENT: &str = "kubelet-client";

/// What is known of a control plane.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) place: Place,
    directory: PathBuf,
    authority: Authority,
    programs: Programs,
}

impl Control {
    /// One that isn't started. The directory is made.
    pub(super) fn new(programs: &Programs, place: Place, directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("{} can't be made", directory.display()))?;
        let authority = Authority::new(directory, &[&place.address.to_string(), &API_SERVICE.to_string()])?;
        Ok(Self { place, directory: directory.to_owned(), authority, programs: programs.clone() })
    }

    /// Where the API server is, within the cluster.
    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.place.address.into(), PORT)
    }

    /// Who may do everything, and comes from this address.
    pub(super) fn admin(&self, address: SocketAddr) -> Result<Access> {
        self.user(address, "admin", &["system:masters"])
    }

    /// Writes what a kubelet needs to be this node, under these names: `kubelet.kubeconfig`, `kubelet.crt`, `kubelet.key`, `ca.crt`.
    pub(super) fn enrol(&self, node: &str, address: Ipv4Addr, directory: &Path) -> Result<()> {
        let identity = self.authority.node(node, &address.to_string())?;
        let access = Access::by_certificate(self.url(self.address()), self.authority.ca_pem(), node, &identity);
        access.write_kubeconfig(&directory.join("kubelet.kubeconfig"))?;
        write_identity(directory, "kubelet", &identity)?;
        write(&directory.join("ca.crt"), self.authority.ca_pem())
    }

    /// Starts it, and waits until it answers.
    pub(super) async fn start(&self, fleet: &mut Fleet, admin: &Access) -> Result<()> {
        let Programs { etcd, api_server, .. } = &self.programs;
        let start = |fleet: &mut Fleet, name: &str, command: Vec<OsString>| {
            fleet.start(name, &self.place.within(&mortal(&command))).map(drop)
        };
        start(fleet, "etcd", commands::etcd(etcd, &self.directory.join("etcd"), ETCD))?;
        write_identity(
            &self.directory,
            KUBELET_CLIENT,
            &self.authority.client("kube-apiserver", &["system:masters"])?,
        )?;
        let anywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT);
        let mut command = commands::api_server(api_server, &self.directory, ETCD, anywhere, self.place.address.into());
        for (flag, file) in [
            ("--kubelet-certificate-authority", certificates::CA.to_owned()),
            ("--kubelet-client-certificate", format!("{KUBELET_CLIENT}.crt")),
            ("--kubelet-client-key", format!("{KUBELET_CLIENT}.key")),
        ] {
            command.extend([flag.into(), self.directory.join(file).into()]);
        }
        command.push(format!("--feature-gates={FEATURE}=true").into());
        // Nobody resolves nodes' names here.
        command.push("--kubelet-preferred-address-types=InternalIP".into());
        start(fleet, "kube-apiserver", command)?;
        let client = admin.client().await?;
        let is_ready = async || {
            let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
            client.request_text(request).await.is_ok_and(|answer| answer == "ok")
        };
        fleet.until("kube-apiserver", PATIENCE, is_ready).await?;
        start(fleet, "kube-controller-manager", self.controller_manager()?)?;
        start(fleet, "kube-scheduler", self.scheduler()?)?;
        start(fleet, "coredns", self.coredns()?)
    }

    fn controller_manager(&self) -> Result<Vec<OsString>> {
        let file = |name: &str| OsString::from(self.directory.join(name));
        let mut flags = self.kubeconfigs("system:kube-controller-manager", &[])?;
        flags.extend([
            ("--service-account-private-key-file", file(certificates::TOKEN_KEY)),
            ("--root-ca-file", file(certificates::CA)),
            ("--use-service-account-credentials", "true".into()),
            ("--leader-elect", "false".into()),
            // The nodes know their pods' addresses.
            ("--allocate-node-cidrs", "false".into()),
        ]);
        Ok(command(&self.programs.controller_manager, flags))
    }

    fn scheduler(&self) -> Result<Vec<OsString>> {
        let mut flags = self.kubeconfigs("system:kube-scheduler", &[])?;
        flags.push(("--leader-elect", "false".into()));
        Ok(command(&self.programs.scheduler, flags))
    }

    fn coredns(&self) -> Result<Vec<OsString>> {
        let access = self.kubeconfig("coredns", &["system:masters"])?;
        let text = format!(
            "{DOMAIN}:53 {{\n  errors\n  kubernetes {DOMAIN} {{\n    kubeconfig {}\n  }}\n}}\n",
            access.display()
        );
        let corefile = self.directory.join("Corefile");
        write(&corefile, &text)?;
        Ok(vec![self.programs.coredns.clone().into(), "-conf".into(), corefile.into()])
    }

    /// The flags by which a component is somebody.
    fn kubeconfigs(&self, user: &str, groups: &[&str]) -> Result<Vec<(&'static str, OsString)>> {
        let path = self.kubeconfig(user, groups)?;
        let flags = ["--kubeconfig", "--authentication-kubeconfig", "--authorization-kubeconfig"];
        Ok(flags.map(|flag| (flag, path.clone().into())).into())
    }

    fn kubeconfig(&self, user: &str, groups: &[&str]) -> Result<PathBuf> {
        let path = self.directory.join(format!("{}.kubeconfig", user.replace(':', "-")));
        self.user(self.address(), user, groups)?.write_kubeconfig(&path)?;
        Ok(path)
    }

    fn user(&self, address: SocketAddr, name: &str, groups: &[&str]) -> Result<Access> {
        let identity = self.authority.client(name, groups)?;
        Ok(Access::by_certificate(self.url(address), self.authority.ca_pem(), name, &identity))
    }

    fn url(&self, address: SocketAddr) -> String {
        format!("https://{address}")
    }
}

fn write_identity(directory: &Path, name: &str, identity: &Identity) -> Result<()> {
    write(&directory.join(format!("{name}.crt")), &identity.certificate)?;
    write(&directory.join(format!("{name}.key")), &identity.key)
}

pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("{} can't be written", path.display()))
}
