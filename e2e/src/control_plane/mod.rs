//! A real etcd and a real kube-apiserver on loopback, for tests of what speaks to Kubernetes.
//!
//! ```text
//!   kube::Client ──TLS──> kube-apiserver ──> etcd (plain, on loopback, in memory)
//! ```
//!
//! Authorization is RBAC. Service accounts' tokens are signed and reviewed as in a cluster: TokenRequest and TokenReview work, bound tokens and
//! audiences too. The admission plugins are the defaults: a Pod takes a ServiceAccount that exists.
//!
//! State: two processes and a directory in memory. Invariant: all of it is gone when the [`ControlPlane`] is dropped, and when it couldn't be
//! started.
//! Absent on purpose: the controller manager, the scheduler and nodes. Nobody makes default ServiceAccounts, collects what has lost its owner or ends what
//! is terminating: tests that need such an object make it.

mod access;
mod audit;
pub(crate) mod certificates;
pub(crate) mod commands;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use shoal_oci::testing::free_ports;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

pub use access::Access;
pub use audit::Write;

use crate::processes::Fleet;
use crate::scratch::Scratch;
use crate::tools::cluster::Tool;
use certificates::Authority;

/// The API server takes four seconds on an idle machine and half a minute on one that builds three things beside it.
const PATIENCE: Duration = Duration::from_secs(180);

/// How often is looked whether a definition is served.
const LOOK: Duration = Duration::from_millis(50);

/// A port is free when it is looked for and may be somebody's when it is used.
const ATTEMPTS: u32 = 3;

const ETCD: &str = "etcd";
const API_SERVER: &str = "kube-apiserver";

/// What it is made of.
#[derive(Clone, Debug)]
pub struct Programs {
    etcd: PathBuf,
    api_server: PathBuf,
}

impl Programs {
    /// Both, fetched and built first if this machine doesn't have them yet: minutes.
    ///
    /// # Errors
    /// If they can't be had; in one line, with what to do. A test then says that it is skipped.
    pub fn get() -> Result<Self> {
        Ok(Self { etcd: Tool::Etcd.program()?, api_server: Tool::KubeApiserver.program()? })
    }
}

/// A running one.
#[derive(Debug)]
pub struct ControlPlane {
    // Before the directory, which is removed when nobody writes into it any more.
    fleet: Fleet,
    scratch: Scratch,
    address: SocketAddr,
    authority: Authority,
}

impl ControlPlane {
    /// Starts one with nothing in it, and waits until it is ready.
    ///
    /// # Errors
    /// If it doesn't start, with the end of the log of who is to blame.
    pub async fn start(programs: &Programs) -> Result<Self> {
        let mut attempt = 1;
        loop {
            match Self::start_once(programs).await {
                Err(error) if attempt < ATTEMPTS && is_port_taken(&error) => attempt += 1,
                done => return done.context("there is no control plane"),
            }
        }
    }

    async fn start_once(programs: &Programs) -> Result<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let scratch = Scratch::in_memory(&format!("shoal-control-plane-{number}"), false)?;
        let directory = scratch.path();
        let authority = Authority::new(directory, &[])?;
        let ports = free_ports(Ipv4Addr::LOCALHOST.into(), 2)?;
        let (etcd, address) = (ports[0], ports[1]);
        let mut fleet = Fleet::new(directory).sharing_signals();
        fleet.start(ETCD, &commands::etcd(&programs.etcd, &directory.join("etcd"), etcd))?;
        fleet.until(ETCD, PATIENCE, async || TcpStream::connect(etcd).await.is_ok()).await?;
        let mut command = commands::api_server(&programs.api_server, directory, etcd, address, address.ip());
        command.extend(audit::keep(directory)?);
        fleet.start(API_SERVER, &command)?;
        let mut started = Self { fleet, scratch, address, authority };
        let client = started.admin()?.client().await?;
        let is_ready = async || {
            let request = http::Request::get("/readyz").body(Vec::new());
            let Ok(request) = request else { return false };
            client.request_text(request).await.is_ok_and(|answer| answer == "ok")
        };
        started.fleet.until(API_SERVER, PATIENCE, is_ready).await?;
        Ok(started)
    }

    /// Where the API server is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// What signs for the API server.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        self.authority.ca_pem()
    }

    /// A directory that ends with it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.scratch.path()
    }

    /// One to whom everything is allowed.
    ///
    /// # Errors
    /// If there is no certificate for them.
    pub fn admin(&self) -> Result<Access> {
        self.user("admin", &["system:masters"])
    }

    /// A user of these groups, known by a certificate. To be allowed anything they need a binding.
    ///
    /// # Errors
    /// If there is no certificate for them.
    pub fn user(&self, name: &str, groups: &[&str]) -> Result<Access> {
        Ok(Access::by_certificate(self.url(), self.ca_pem(), name, &self.authority.client(name, groups)?))
    }

    /// Whoever has this token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Access {
        Access::by_token(self.url(), self.ca_pem(), token)
    }

    /// A service account that exists, with a token for the API server of an hour.
    ///
    /// # Errors
    /// If the API server gives no token.
    pub async fn service_account(&self, namespace: &str, name: &str) -> Result<Access> {
        let client = self.admin()?.client().await?;
        Ok(self.with_token(&token_of(client, namespace, name).await?))
    }

    /// Applies the definition of a resource, and waits until objects of it can be made.
    ///
    /// # Errors
    /// If the API server refuses it, or serves it not in time.
    pub async fn define(&self, definition: &CustomResourceDefinition) -> Result<()> {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.admin()?.client().await?);
        let name = definition.metadata.name.as_deref().context("a definition has a name")?;
        let params = PatchParams::apply("shoal-tests").validation_strict();
        definitions
            .patch(name, &params, &Patch::Apply(definition))
            .await
            .with_context(|| format!("{name} is refused"))?;
        let deadline = Instant::now() + PATIENCE;
        while !is_established(&definitions.get(name).await.with_context(|| format!("{name} can't be read back"))?) {
            ensure!(Instant::now() < deadline, "{name} isn't established after {} s", PATIENCE.as_secs());
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// What service accounts have written since it began, by its audit log.
    ///
    /// # Errors
    /// If the log can't be read.
    pub fn writes(&self) -> Result<Vec<Write>> {
        audit::writes(self.scratch.path())
    }

    /// Ends it in order. Dropping it ends it as well, as a crash would.
    pub async fn stop(mut self) {
        self.fleet.end().await;
    }
}

fn is_established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Established" && condition.status == "True")
}

async fn token_of(client: Client, namespace: &str, name: &str) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client, namespace);
    let request = TokenRequest::default();
    let answer = accounts.create_token_request(name, &PostParams::default(), &request).await;
    let answer = answer.with_context(|| format!("{namespace}/{name} gets no token: make the ServiceAccount first"))?;
    answer.status.map(|status| status.token).with_context(|| format!("{namespace}/{name}'s token is missing"))
}

fn is_port_taken(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("address already in use")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_doesnt_start_is_named_with_its_log_and_leaves_nothing() {
        let programs = Programs { etcd: "/bin/false".into(), api_server: "/bin/false".into() };
        let error = format!("{:#}", ControlPlane::start(&programs).await.unwrap_err());
        assert_eq!(error, "there is no control plane: etcd ended (exit status: 1), and its log is empty");
        let own = format!("-{}", std::process::id());
        let left = std::fs::read_dir("/dev/shm").unwrap().flatten().map(|entry| entry.file_name());
        let left: Vec<_> = left
            .filter_map(|name| name.into_string().ok())
            .filter(|name| name.starts_with("shoal-control-plane-0-") && name.ends_with(&own))
            .collect();
        assert_eq!(left, Vec::<String>::new());
    }

    #[test]
    fn a_taken_port_is_told_from_other_failures() {
        assert!(is_port_taken(
            &anyhow::anyhow!("listen tcp 127.0.0.1:1: bind: address already in use").context("etcd ended")
        ));
        assert!(!is_port_taken(&anyhow::anyhow!("etcd ended")));
    }
}
