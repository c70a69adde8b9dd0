//! The command lines of etcd and kube-apiserver.
//!
//! State: none. Invariant: what a control plane alone and a whole cluster have in common is written once; a cluster adds flags of its own.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::certificates;

/// The addresses of Services.
pub(crate) const SERVICES: &str = "10.96.0.0/16";
/// Who makes service accounts' tokens.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc";

/// A command line with flags.
pub(crate) fn command<'a>(program: &Path, flags: impl IntoIterator<Item = (&'a str, OsString)>) -> Vec<OsString> {
    let flag = |(name, value): (&str, OsString)| {
        let mut flag = OsString::from(name);
        flag.push("=");
        flag.push(value);
        flag
    };
    std::iter::once(program.into()).chain(flags.into_iter().map(flag)).collect()
}

/// etcd, for one API server on the same machine. What it keeps ends with its run: it need not wait for a disk.
pub(crate) fn etcd(program: &Path, data: &Path, listen: SocketAddr) -> Vec<OsString> {
    let url = OsString::from(format!("http://{listen}"));
    command(
        program,
        [
            ("--data-dir", data.into()),
            ("--listen-client-urls", url.clone()),
            ("--advertise-client-urls", url),
            // It has no peers; any port does.
            ("--listen-peer-urls", "http://127.0.0.1:0".into()),
            ("--unsafe-no-fsync", "true".into()),
        ],
    )
}

/// kube-apiserver, with the files that the [`certificates::Authority`] has written into the directory. Pods find it at the address, unless that is
/// loopback's, which is none for the endpoints of a Service.
pub(crate) fn api_server(
    program: &Path,
    directory: &Path,
    etcd: SocketAddr,
    listen: SocketAddr,
    address: IpAddr,
) -> Vec<OsString> {
    let file = |name: &str| OsString::from(directory.join(name));
    let reconciler = if address.is_loopback() { "none" } else { "lease" };
    command(
        program,
        [
            ("--etcd-servers", format!("http://{etcd}").into()),
            ("--bind-address", listen.ip().to_string().into()),
            ("--secure-port", listen.port().to_string().into()),
            ("--advertise-address", address.to_string().into()),
            ("--endpoint-reconciler-type", reconciler.into()),
            ("--service-cluster-ip-range", SERVICES.into()),
            ("--authorization-mode", "Node,RBAC".into()),
            ("--allow-privileged", "true".into()),
            ("--tls-cert-file", file(certificates::SERVER_CERTIFICATE)),
            ("--tls-private-key-file", file(certificates::SERVER_KEY)),
            ("--client-ca-file", file(certificates::CA)),
            ("--service-account-issuer", ISSUER.into()),
            ("--service-account-key-file", file(certificates::TOKEN_PUBLIC_KEY)),
            ("--service-account-signing-key-file", file(certificates::TOKEN_KEY)),
        ],
    )
}
