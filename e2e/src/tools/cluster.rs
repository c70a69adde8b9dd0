//! What a Kubernetes cluster is made of, beside its containerd and registry, and the command that makes this machine have it.
//!
//! State: none beyond the cache. Invariant: who needs one asks [`Tool::program`], which makes it; the command only does so ahead of time.

use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use super::golang::Module;
use super::{coredns, debian, kubernetes};

/// A program of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tool {
    /// The database.
    Etcd,
    /// The API.
    KubeApiserver,
    /// What makes pods of Deployments and the like.
    KubeControllerManager,
    /// What gives pods a node.
    KubeScheduler,
    /// What runs them there.
    Kubelet,
    /// The command line; the one that people have will do.
    Kubectl,
    /// What installs charts.
    Helm,
    /// What pushes and pulls files as artifacts.
    Oras,
    /// What answers for Services' names.
    Coredns,
    /// What runs containers.
    Runc,
    /// What connects pods: a directory of plugins.
    CniPlugins,
    /// What runs in test pods: a static program.
    Busybox,
}

const ETCD_PACKAGE: &str = "etcd-server";
const RUNC_PACKAGE: &str = "runc";
const CNI_PACKAGE: &str = "containernetworking-plugins";
const BUSYBOX_PACKAGE: &str = "busybox-static";

const HELM: Module = Module {
    name: "helm",
    path: "helm.sh/helm/v3",
    version: "v3.19.0",
    programs: &["cmd/helm"],
    version_variable: "helm.sh/helm/v3/internal/version.version",
};

const ORAS: Module = Module {
    name: "oras",
    path: "oras.land/oras",
    version: "v1.3.6",
    programs: &["cmd/oras"],
    version_variable: "oras.land/oras/internal/version.Version",
};

impl Tool {
    /// The program, fetched or built first if this machine doesn't have it yet.
    ///
    /// # Errors
    /// If it can't be had; in one line, with what to do.
    pub fn program(self) -> Result<PathBuf> {
        match self {
            Self::Etcd => Ok(debian::package(ETCD_PACKAGE)?.join("usr/bin/etcd")),
            Self::Helm => Ok(HELM.programs()?.join("helm")),
            Self::Oras => Ok(ORAS.programs()?.join("oras")),
            Self::Coredns => coredns::program(),
            Self::Runc => Ok(debian::package(RUNC_PACKAGE)?.join("usr/sbin/runc")),
            Self::CniPlugins => Ok(debian::package(CNI_PACKAGE)?.join("usr/lib/cni")),
            Self::Busybox => Ok(debian::package(BUSYBOX_PACKAGE)?.join("bin/busybox")),
            Self::Kubectl if let Some(path) = in_path("kubectl") => Ok(path),
            Self::KubeApiserver | Self::KubeControllerManager | Self::KubeScheduler | Self::Kubelet | Self::Kubectl => {
                kubernetes::program(&self.to_string())
            }
        }
    }

    /// Whether it is there already, so that it costs no minutes.
    #[must_use]
    pub fn is_cached(self) -> bool {
        match self {
            Self::Etcd => debian::is_cached(ETCD_PACKAGE),
            Self::Helm => HELM.is_cached(),
            Self::Oras => ORAS.is_cached(),
            Self::Coredns => coredns::is_cached(),
            Self::Runc => debian::is_cached(RUNC_PACKAGE),
            Self::CniPlugins => debian::is_cached(CNI_PACKAGE),
            Self::Busybox => debian::is_cached(BUSYBOX_PACKAGE),
            Self::KubeApiserver | Self::KubeControllerManager | Self::KubeScheduler | Self::Kubelet => {
                kubernetes::is_cached(&self.to_string())
            }
            Self::Kubectl => in_path("kubectl").is_some() || kubernetes::is_cached("kubectl"),
        }
    }
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|program| program.is_file())
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
            Self::Kubectl => "kubectl",
            Self::Helm => "helm",
            Self::Oras => "oras",
            Self::Coredns => "coredns",
            Self::Runc => "runc",
            Self::CniPlugins => "cni-plugins",
            Self::Busybox => "busybox",
        })
    }
}

/// Which tools are made.
#[derive(Args, Debug)]
pub struct Options {
    /// These; all of them if none is named.
    #[arg(value_name = "NAME")]
    names: Vec<Tool>,
}

/// Makes tools and prints where each is, a line each.
///
/// # Errors
/// If one of them can't be had, after the others were made.
pub fn run(options: &Options) -> Result<()> {
    let tools = if options.names.is_empty() { Tool::value_variants() } else { &options.names };
    let mut missing = Vec::new();
    for tool in tools {
        let (was_cached, start) = (tool.is_cached(), Instant::now());
        match tool.program() {
            Ok(path) if was_cached => println!("{tool}: {}", path.display()),
            Ok(path) => println!("{tool}: {} ({} s)", path.display(), start.elapsed().as_secs()),
            Err(error) => {
                eprintln!("error: {error:#}");
                missing.push(tool.to_string());
            }
        }
    }
    if !missing.is_empty() {
        bail!("not made: {}: mend what is said above and run this again", missing.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_called_as_its_program() {
        for tool in Tool::value_variants() {
            assert_eq!(tool.to_possible_value().map(|value| value.get_name().to_owned()), Some(tool.to_string()));
        }
    }
}
