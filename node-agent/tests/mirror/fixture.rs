//! A mirror with one repository of one registry.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderValue;
use prometheus_client::registry::Registry as Counters;
use shoal_agent::mirror::{Faults, MemoryContent, Metrics, Mirror, Settings};
use shoal_oci::{Registry, Repository};
use shoal_types::Digest;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::client::Client;

pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Any bytes will do: the mirror doesn't read manifests. The spaces show that it doesn't rewrite them either.
pub(crate) const MANIFEST: &str = r#"{ "schemaVersion": 2,  "layers": [] }"#;
pub(crate) const TAG: &str = "v1.0";

pub(crate) struct Fixture {
    pub(crate) address: SocketAddr,
    pub(crate) content: Arc<MemoryContent>,
    pub(crate) manifest: Digest,
    pub(crate) stop: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
    counters: Counters,
    registry: Registry,
    repository: Repository,
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        let registry: Registry = "registry.example:5000".parse().unwrap();
        let repository: Repository = "team/app".parse().unwrap();
        let content = Arc::new(MemoryContent::default());
        let media_type = HeaderValue::from_static(MANIFEST_TYPE);
        let manifest = content.add_manifest(&registry, &repository, &[TAG], media_type, MANIFEST).unwrap();
        let mut counters = Counters::with_prefix("shoal");
        let metrics = Metrics::register(&mut counters);
        let mirror = Mirror::new(content.clone(), BTreeSet::from([registry.clone()]), settings, metrics);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(mirror.serve(listener, stop.clone()));
        Self { address, content, manifest, stop, serving, counters, registry, repository }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// Adds a blob and returns its target.
    pub(crate) fn blob(&self, bytes: &[u8]) -> String {
        self.faulty_blob(bytes, &Faults::default())
    }

    /// Adds a blob with which something is wrong.
    pub(crate) fn faulty_blob(&self, bytes: &[u8], faults: &Faults) -> String {
        let digest = self.content.add_blob(&self.registry, &self.repository, bytes.to_vec());
        self.content.set_faults(digest, faults);
        Self::target("blobs", digest)
    }

    /// The target of something in the repository.
    pub(crate) fn target(kind: &str, reference: impl std::fmt::Display) -> String {
        format!("/v2/team/app/{kind}/{reference}?ns=registry.example:5000")
    }

    /// A counter's value, 0 if it was never touched: `mirror_cuts_total{cause="source_failed"}`.
    pub(crate) fn count(&self, sample: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.counters).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("shoal_")?.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// Waits until a counter has a value. The counters are read between two turns of the runtime, so this ends as soon as it is true.
    pub(crate) async fn until(&self, sample: &str, value: u64) {
        while self.count(sample) != value {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until no stream of a blob is open.
    pub(crate) async fn until_streams_are_dropped(&self) {
        self.content.open_streams().wait_for(|open| *open == 0).await.unwrap();
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Bytes in which no two stretches are alike, so that a shifted range shows.
pub(crate) fn bytes(count: usize) -> Vec<u8> {
    (0_u32..).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes()).take(count).collect()
}
