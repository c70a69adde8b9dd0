//! A containerd's configuration.
//!
//! State: none. Invariant: every path in it is below the node's directory. Absent on purpose: networks of pods and the sandbox's image: the lab
//! pulls, it runs nothing.

use std::path::{Path, PathBuf};

use super::Version;

pub(super) fn root(directory: &Path) -> PathBuf {
    directory.join("root")
}

pub(super) fn text(version: Version, directory: &Path, certs: &Path) -> String {
    let [root, state, socket, opt, cni] = [
        root(directory),
        directory.join("state"),
        directory.join("containerd.sock"),
        directory.join("opt"),
        directory.join("cni"),
    ]
    .map(|path| path.display().to_string());
    let certs = certs.display();
    // 2.x reads files of version 2 as well, but some plugins have other names there.
    let (file_version, plugins) = match version {
        Version::V1_6 => (
            2,
            format!(
                "[plugins.\"io.containerd.grpc.v1.cri\"]\n  restrict_oom_score_adj = true\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"{cni}\"\n  conf_dir = \"{cni}\"\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"{certs}\"\n"
            ),
        ),
        Version::V2 => (
            3,
            format!(
                "[plugins.\"io.containerd.cri.v1.runtime\"]\n  restrict_oom_score_adj = true\n\
                 [plugins.\"io.containerd.cri.v1.runtime\".cni]\n  bin_dirs = [\"{cni}\"]\n  conf_dir = \"{cni}\"\n\
                 [plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"{certs}\"\n\
                 [plugins.\"io.containerd.nri.v1.nri\"]\n  disable = true\n"
            ),
        ),
    };
    format!(
        "version = {file_version}\nimports = []\nroot = \"{root}\"\nstate = \"{state}\"\n\n[grpc]\n  address = \"{socket}\"\n\n\
         [plugins.\"io.containerd.internal.v1.opt\"]\n  path = \"{opt}\"\n{plugins}"
    )
}
