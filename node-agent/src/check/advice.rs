//! What to change in a runtime that doesn't ask the mirror.
//!
//! State: none. Invariant: one line. Absent on purpose: certainty about what a runtime doesn't tell: containerd 2 tells nothing of its `config_path`.

use std::path::Path;

use crate::runtime::About;

/// The table of containerd's configuration that has `config_path`, in version 1 …
const TABLE_1: &str = "[plugins.\"io.containerd.grpc.v1.cri\".registry]";
/// … and in version 2.
const TABLE_2: &str = "[plugins.\"io.containerd.cri.v1.images\".registry]";

/// For a runtime that went past the mirror for this registry.
pub(super) fn of(about: &About, certs_dir: &Path, host: &str) -> String {
    let (About { name, version, config_path }, dir) = (about, certs_dir.display());
    let of_version_1 = version.trim_start_matches('v').starts_with("1.");
    let table = if of_version_1 { TABLE_1 } else { TABLE_2 };
    let set = format!("set config_path = \"{dir}\" below {table}, with no mirrors table beside it, and restart {name}");
    let what = match config_path.as_deref() {
        Some("") => format!("it has no config_path: {set}"),
        Some(path) if Path::new(path) == certs_dir => {
            format!(
                "though its config_path names {dir}: look at the hosts.toml there, and whether {name} was restarted since it was set"
            )
        }
        Some(path) if path.contains(':') => format!("its config_path is a list ({path}): {set}"),
        Some(path) => format!("its config_path is {path}: {set}"),
        // The transfer service takes one directory alone.
        None if !of_version_1 => format!("{set}; a list of directories isn't read"),
        None => set,
    };
    format!("{name} {version} doesn't ask the mirror for {host}: {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_about_what_the_runtime_is() {
        let of = |version: &str, config_path: Option<&str>| {
            let (name, version) = ("containerd".to_owned(), version.to_owned());
            let about = About { name, version, config_path: config_path.map(str::to_owned) };
            super::of(&about, Path::new("/etc/containerd/certs.d"), "r.example")
        };
        for (version, path, says) in [
            (
                "1.6.20~ds1",
                Some(""),
                "no config_path: set config_path = \"/etc/containerd/certs.d\" below [plugins.\"io.containerd.grpc.v1.cri\".registry]",
            ),
            ("v1.7.2", Some("/etc/containerd/certs.d:/etc/docker/certs.d"), "is a list"),
            ("v1.7.2", Some("/etc/other"), "its config_path is /etc/other: set"),
            ("v1.7.2", Some("/etc/containerd/certs.d/"), "look at the hosts.toml there"),
            ("v2.1.4", None, "below [plugins.\"io.containerd.cri.v1.images\".registry]"),
            ("1.6.20", None, "set config_path"),
        ] {
            let line = of(version, path);
            assert!(line.contains(says) && line.starts_with("containerd "), "{line}");
            assert!(!line.contains('\n') && line.len() < 500, "{line}");
        }
    }
}
