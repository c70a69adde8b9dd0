//! Who speaks to the API server: as a client of this process, and as a file for programs.
//!
//! State: a kubeconfig. Invariant: what it takes to be who it says is inside of it; it names no other file. It holds for one API server.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use super::certificates::Identity;

/// A user of the API server.
#[derive(Clone, Debug)]
pub struct Access {
    kubeconfig: Value,
}

impl Access {
    pub(crate) fn by_certificate(server: String, ca_pem: &str, name: &str, identity: &Identity) -> Self {
        let user = json!({
            "client-certificate-data": base64(&identity.certificate),
            "client-key-data": base64(&identity.key),
        });
        Self::new(server, ca_pem, name, user)
    }

    pub(super) fn by_token(server: String, ca_pem: &str, token: &str) -> Self {
        Self::new(server, ca_pem, "token", json!({"token": token}))
    }

    fn new(server: String, ca_pem: &str, name: &str, user: Value) -> Self {
        let cluster = json!({"server": server, "certificate-authority-data": base64(ca_pem)});
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
            "current-context": "test",
        });
        Self { kubeconfig }
    }

    /// For clients of this process.
    ///
    /// # Errors
    /// If it can't be read back.
    pub async fn config(&self) -> Result<Config> {
        let kubeconfig: Kubeconfig =
            serde_json::from_value(self.kubeconfig.clone()).context("a kubeconfig can't be read back")?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        config.context("a kubeconfig makes no configuration")
    }

    /// A client of this process.
    ///
    /// # Errors
    /// If TLS can't be set up.
    pub async fn client(&self) -> Result<Client> {
        Client::try_from(self.config().await?).context("a client can't be made")
    }

    /// Writes it where a program reads it. JSON is YAML as well.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write_kubeconfig(&self, path: &Path) -> Result<()> {
        fs::write(path, self.kubeconfig.to_string()).with_context(|| format!("{} can't be written", path.display()))
    }
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
