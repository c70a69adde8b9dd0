//! Kubernetes' own programs, built from its Go module.
//!
//! `go install` refuses `k8s.io/kubernetes`: its libraries live in the same repository, so the module itself says where they are by paths that exist
//! only there. What builds it is a module of ours that requires it and says which release of each library belongs to it.
//!
//! State: none beyond the cache. Invariants: one release for all programs, and Go checks the sums. Absent on purpose: a go.sum of our own; Go's
//! selection of versions is a function of the release, and its checksum database knows them.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::cache;
use super::golang::OwnModule;

/// The release.
pub const VERSION: &str = "v1.34.4";

/// Its libraries are released with it, as v0.34.4.
const LIBRARIES: [&str; 31] = [
    "api",
    "apiextensions-apiserver",
    "apimachinery",
    "apiserver",
    "cli-runtime",
    "client-go",
    "cloud-provider",
    "cluster-bootstrap",
    "code-generator",
    "component-base",
    "component-helpers",
    "controller-manager",
    "cri-api",
    "cri-client",
    "csi-translation-lib",
    "dynamic-resource-allocation",
    "endpointslice",
    "externaljwt",
    "kms",
    "kube-aggregator",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "metrics",
    "mount-utils",
    "pod-security-admission",
    "sample-apiserver",
    "sample-cli-plugin",
    "sample-controller",
];

/// The language that the release is written in; a newer Go speaks it too.
const GO: &str = "1.24.0";

/// A program below `cmd/`, built first if this machine doesn't have it yet: minutes, and 166 s of them for kube-apiserver on two cores.
pub(super) fn program(name: &str) -> Result<PathBuf> {
    let directory = cache::provide(&cached_name(name), |directory| build(name, directory))?;
    Ok(directory.join(name))
}

pub(super) fn is_cached(name: &str) -> bool {
    cache::is_cached(&cached_name(name))
}

fn cached_name(name: &str) -> String {
    format!("{name}-{VERSION}")
}

fn build(name: &str, directory: &Path) -> Result<()> {
    let package = format!("k8s.io/kubernetes/cmd/{name}");
    let (go_mod, linker_flags) = (go_mod(), linker_flags());
    OwnModule { program: name, go_mod, main: None, package: &package, linker_flags }.build(directory)
}

fn go_mod() -> String {
    let library_version = VERSION.replacen("v1.", "v0.", 1);
    let replace: String =
        LIBRARIES.iter().map(|name| format!("\tk8s.io/{name} => k8s.io/{name} {library_version}\n")).collect();
    format!("module shoal.dev/tools\n\ngo {GO}\n\nrequire k8s.io/kubernetes {VERSION}\n\nreplace (\n{replace})\n")
}

/// The programs compare their versions with each other's, and one that was built without them says v0.0.0.
fn linker_flags() -> String {
    let (major, minor) = ("1", VERSION.split('.').nth(1).unwrap_or_default());
    ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"].iter().fold(
        "-s -w".to_owned(),
        |flags, package| {
            format!(
                "{flags} -X {package}.gitVersion={VERSION} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
            )
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_library_is_of_the_same_release() {
        let text = go_mod();
        assert!(text.contains("require k8s.io/kubernetes v1.34.4\n"), "{text}");
        assert_eq!(text.lines().filter(|line| line.ends_with(" v0.34.4")).count(), LIBRARIES.len());
        assert!(linker_flags().contains("version.gitMinor=34"), "{}", linker_flags());
    }
}
