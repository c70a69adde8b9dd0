//! A containerd's configuration.
//!
//! State: none. Invariant: every path in it is given. Absent on purpose: the runtime's classes: the default one will do.

use std::path::{Path, PathBuf};

use super::Version;

/// Where a containerd has what.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// What it keeps.
    pub(crate) root: PathBuf,
    /// What it knows while it runs.
    pub(crate) state: PathBuf,
    /// Where it answers.
    pub(crate) socket: PathBuf,
    /// Programs that images may bring.
    pub(crate) opt: PathBuf,
    /// The plugins of pods' networks.
    pub(crate) cni_programs: PathBuf,
    /// Their configuration.
    pub(crate) cni_configuration: PathBuf,
    /// The registries' configuration.
    pub(crate) certs: PathBuf,
    /// The image that holds a pod's namespaces, where there are pods.
    pub(crate) sandbox_image: Option<String>,
    /// Whether 2.x fetches a layer in parts, several at a time.
    pub(crate) parallel_fetch: bool,
}

/// A layer's parts: several of them in the layers of tests.
const PART_BYTES: u32 = 2 << 20;
/// Parts at a time, of all of an image's layers.
const PARTS: u32 = 8;

impl Settings {
    /// Everything below one directory, for a containerd that pulls and runs nothing.
    pub(super) fn within(directory: &Path) -> Self {
        let cni = directory.join("cni");
        Self {
            root: directory.join("root"),
            state: directory.join("state"),
            socket: directory.join("containerd.sock"),
            opt: directory.join("opt"),
            cni_programs: cni.clone(),
            cni_configuration: cni,
            certs: directory.join("certs.d"),
            sandbox_image: None,
            parallel_fetch: false,
        }
    }

    /// The file's text.
    pub(crate) fn text(&self, version: Version) -> String {
        let shown = |path: &PathBuf| path.display().to_string();
        let [root, state, socket, opt] = [&self.root, &self.state, &self.socket, &self.opt].map(shown);
        let [programs, conf, certs] = [&self.cni_programs, &self.cni_configuration, &self.certs].map(shown);
        let image = self.sandbox_image.as_deref();
        // 2.x reads files of version 2 as well, but some plugins have other names there.
        let (file_version, plugins) = match version {
            Version::V1_6 => {
                let sandbox = image.map(|image| format!("  sandbox_image = \"{image}\"\n")).unwrap_or_default();
                (
                    2,
                    format!(
                        "[plugins.\"io.containerd.grpc.v1.cri\"]\n  restrict_oom_score_adj = true\n\
                           netns_mounts_under_state_dir = true\n{sandbox}\
                         [plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"{programs}\"\n  conf_dir = \"{conf}\"\n\
                         [plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"{certs}\"\n"
                    ),
                )
            }
            Version::V2 => {
                let sandbox = image.map(|image| {
                    format!("[plugins.\"io.containerd.cri.v1.images\".pinned_images]\n  sandbox = \"{image}\"\n")
                });
                let parallel = format!(
                    "[plugins.\"io.containerd.transfer.v1.local\"]\n  max_concurrent_downloads = {PARTS}\n  \
                       concurrent_layer_fetch_buffer = {PART_BYTES}\n"
                );
                (
                    3,
                    format!(
                        "[plugins.\"io.containerd.cri.v1.runtime\"]\n  restrict_oom_score_adj = true\n\
                           netns_mounts_under_state_dir = true\n\
                         [plugins.\"io.containerd.cri.v1.runtime\".cni]\n  bin_dirs = [\"{programs}\"]\n  conf_dir = \"{conf}\"\n\
                         [plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"{certs}\"\n{}{}\
                         [plugins.\"io.containerd.nri.v1.nri\"]\n  disable = true\n",
                        sandbox.unwrap_or_default(),
                        if self.parallel_fetch { &parallel } else { "" }
                    ),
                )
            }
        };
        format!(
            "version = {file_version}\nimports = []\nroot = \"{root}\"\nstate = \"{state}\"\n\n[grpc]\n  address = \"{socket}\"\n\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\n  path = \"{opt}\"\n{plugins}"
        )
    }
}
