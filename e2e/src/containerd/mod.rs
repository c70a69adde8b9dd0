//! Real containerds, each with its own root, state and socket, pulled from as the kubelet pulls: through CRI.
//!
//! State: a directory per containerd; its process belongs to who starts the command. Invariants: nothing of a containerd that the machine
//! has is touched; a pull's return means that the image is unpacked, because CRI's does.
//! Absent on purpose: `ctr images pull`, which asks neither the CRI configuration's `config_path` nor unpacks as the kubelet has it; sandboxes.

mod audit;
pub(crate) mod configuration;
mod cri;
mod programs;

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use shoal_oci::ImageName;
use tokio::time::timeout;

pub use audit::{Audit, Kept};
pub use programs::{Programs, Version};

use configuration::Settings;
use cri::ImageService;

/// A containerd answers when its plugins are loaded, some of which look at the kernel first.
const ANSWER: Duration = Duration::from_secs(2);

/// Has the runtime behind a socket pull an image and unpack it.
///
/// # Errors
/// The runtime's own word.
pub async fn pull(socket: &Path, image: &ImageName) -> Result<()> {
    ImageService::connect(socket).await?.pull(&image.to_string(), None).await
}

/// The containerd of a node.
#[derive(Clone, Debug)]
pub struct Containerd {
    programs: Programs,
    directory: PathBuf,
}

impl Containerd {
    /// Writes the configuration of a containerd with nothing in it. The directory is its own, and not there yet.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn new(programs: &Programs, directory: &Path) -> Result<Self> {
        let containerd = Self { programs: programs.clone(), directory: directory.to_owned() };
        let written = fs::create_dir_all(containerd.certs())
            .and_then(|()| fs::write(containerd.configuration(), Settings::within(directory).text(programs.version())));
        written.with_context(|| format!("{} can't be written", directory.display()))?;
        Ok(containerd)
    }

    /// Its command line.
    #[must_use]
    pub fn command(&self) -> Vec<OsString> {
        vec![self.programs.containerd().into(), "--config".into(), self.configuration().into()]
    }

    /// Has pulls of a plain-http registry go straight to it.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn ask_origin(&self, registry: &str) -> Result<()> {
        let directory = self.certs().join(registry);
        let text = format!(
            "server = \"http://{registry}\"\n\n[host.\"http://{registry}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
        );
        fs::create_dir_all(&directory)
            .and_then(|()| fs::write(directory.join("hosts.toml"), text))
            .with_context(|| format!("{} can't be written", directory.display()))
    }

    /// Puts a mirror in front of a plain-http registry, by the agent's own command.
    ///
    /// # Errors
    /// If that fails.
    pub fn ask_mirror(&self, agent: &[OsString], mirror: SocketAddr, registry: &str) -> Result<()> {
        let (program, arguments) = agent.split_first().context("no agent's program")?;
        let mut install = Command::new(program);
        install.args(arguments).args(["hosts", "install", "--dir"]).arg(self.certs());
        install.args(["--mirror", &mirror.to_string(), "--registry", &format!("{registry}=http://{registry}")]);
        let output = install.output().context("the agent's program can't be started")?;
        if output.status.success() {
            return Ok(());
        }
        bail!("the mirror can't be installed: {}", String::from_utf8_lossy(&output.stderr).trim())
    }

    /// Whether it serves images.
    pub async fn is_ready(&self) -> bool {
        let asked = async { ImageService::connect(&self.socket()).await?.list().await };
        matches!(timeout(ANSWER, asked).await, Ok(Ok(())))
    }

    /// Pulls an image and unpacks it.
    ///
    /// # Errors
    /// containerd's own word.
    pub async fn pull(&self, image: &ImageName) -> Result<()> {
        pull(&self.socket(), image).await
    }

    /// Pulls an image and unpacks it, with a user's name and password: what the kubelet finds in a pod's pull secret.
    ///
    /// # Errors
    /// containerd's own word.
    pub async fn pull_as(&self, image: &ImageName, user: &str, password: &str) -> Result<()> {
        ImageService::connect(&self.socket()).await?.pull(&image.to_string(), Some((user, password))).await
    }

    /// What it keeps on its disk.
    #[must_use]
    pub fn kept(&self) -> Kept {
        Kept::new(&self.root())
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        Settings::within(&self.directory).socket
    }

    /// Where its content is.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        Settings::within(&self.directory).root
    }

    /// Where it looks for its registries' hosts.
    #[must_use]
    pub fn certs(&self) -> PathBuf {
        Settings::within(&self.directory).certs
    }

    fn configuration(&self) -> PathBuf {
        self.directory.join("config.toml")
    }
}
