//! What is asked of containerd: where its content store is, where a blob comes from, which ingests there are; and to abort one.
//!
//! State: a connection, and the namespace that every call of the content service names.
//! Invariants: nothing of containerd's is changed but ingests.
//! Absent on purpose: everything else of its API. Its messages are written out here as far as they are read: unknown fields are skipped,
//! as protobuf wants it, so one page fits containerd 1.6 to 2.x.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue};
use shoal_oci::{Registry, Repository};
use shoal_types::Digest;

use super::grpc::{CallError, Channel};

const PLUGINS: &str = "/containerd.services.introspection.v1.Introspection/Plugins";
const INFO: &str = "/containerd.services.content.v1.Content/Info";
const LIST_STATUSES: &str = "/containerd.services.content.v1.Content/ListStatuses";
const ABORT: &str = "/containerd.services.content.v1.Content/Abort";

/// A label `containerd.io/distribution.source.<registry>` has the repositories from which a blob was pulled, comma-separated.
const SOURCE_LABEL: &str = "containerd.io/distribution.source.";

/// containerd's API. A clone shares the connection.
#[derive(Clone, Debug)]
pub(super) struct Api {
    channel: Channel,
    namespace: HeaderMap,
}

/// A blob that is being downloaded, as containerd tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IngestStatus {
    pub(super) reference: String,
    pub(super) started: SystemTime,
}

impl Api {
    pub(super) async fn connect(socket: &Path, namespace: &HeaderValue) -> Result<Self, CallError> {
        let channel = Channel::connect(socket).await?;
        let namespace =
            HeaderMap::from_iter([(http::HeaderName::from_static("containerd-namespace"), namespace.clone())]);
        Ok(Self { channel, namespace })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.channel.is_closed()
    }

    /// The directory of the content plugin; none if it doesn't tell.
    pub(super) async fn content_root(&self) -> Result<Option<PathBuf>, CallError> {
        let request = PluginsRequest { filters: vec!["type==io.containerd.content.v1".to_owned()] };
        let answer: PluginsResponse = self.channel.call(PLUGINS, &self.namespace, &request).await?;
        let content = answer.plugins.into_iter().find(|plugin| plugin.id == "content");
        Ok(content.and_then(|plugin| plugin.exports.get("root").map(PathBuf::from)))
    }

    /// The repositories from which a blob was pulled; none if the namespace doesn't have the blob.
    pub(super) async fn sources(&self, digest: &Digest) -> Result<Vec<(Registry, Repository)>, CallError> {
        let request = InfoRequest { digest: digest.to_string() };
        match self.channel.call::<InfoResponse>(INFO, &self.namespace, &request).await {
            Ok(answer) => Ok(answer.info.map(|info| sources_in(&info.labels)).unwrap_or_default()),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn ingests(&self) -> Result<Vec<IngestStatus>, CallError> {
        let request = ListStatusesRequest { filters: Vec::new() };
        let answer: ListStatusesResponse = self.channel.call(LIST_STATUSES, &self.namespace, &request).await?;
        let status = |status: Status| IngestStatus {
            reference: status.r#ref,
            started: status.started_at.map_or(SystemTime::UNIX_EPOCH, |at| at.time()),
        };
        Ok(answer.statuses.into_iter().map(status).collect())
    }

    /// Aborts an ingest; one that is gone already is fine.
    pub(super) async fn abort(&self, reference: &str) -> Result<(), CallError> {
        let request = AbortRequest { r#ref: reference.to_owned() };
        match self.channel.call::<()>(ABORT, &self.namespace, &request).await {
            Err(error) if !error.is_not_found() => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn sources_in(labels: &BTreeMap<String, String>) -> Vec<(Registry, Repository)> {
    let of_registry = |(label, repositories): (&String, &String)| {
        let registry: Registry = label.strip_prefix(SOURCE_LABEL)?.parse().ok()?;
        let parsed: Vec<_> = repositories.split(',').filter_map(|name| name.trim().parse().ok()).collect();
        Some(parsed.into_iter().map(move |repository| (registry.clone(), repository)))
    };
    labels.iter().filter_map(of_registry).flatten().collect()
}

#[derive(Clone, PartialEq, prost::Message)]
struct PluginsRequest {
    #[prost(string, repeated, tag = "1")]
    filters: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PluginsResponse {
    #[prost(message, repeated, tag = "1")]
    plugins: Vec<Plugin>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Plugin {
    #[prost(string, tag = "2")]
    id: String,
    #[prost(btree_map = "string, string", tag = "5")]
    exports: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct InfoRequest {
    #[prost(string, tag = "1")]
    digest: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct InfoResponse {
    #[prost(message, optional, tag = "1")]
    info: Option<Info>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Info {
    #[prost(btree_map = "string, string", tag = "5")]
    labels: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListStatusesRequest {
    #[prost(string, repeated, tag = "1")]
    filters: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListStatusesResponse {
    #[prost(message, repeated, tag = "1")]
    statuses: Vec<Status>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(message, optional, tag = "1")]
    started_at: Option<Timestamp>,
    #[prost(string, tag = "3")]
    r#ref: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AbortRequest {
    #[prost(string, tag = "1")]
    r#ref: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

impl Timestamp {
    fn time(&self) -> SystemTime {
        // What lies before 1970 is no time at which anything was downloaded.
        let (seconds, nanos) = (u64::try_from(self.seconds).unwrap_or(0), u32::try_from(self.nanos).unwrap_or(0));
        SystemTime::UNIX_EPOCH
            .checked_add(Duration::new(seconds, nanos.min(999_999_999)))
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_name_registries_and_repositories() {
        let labels = [
            ("containerd.io/distribution.source.docker.io", "library/alpine,team/app"),
            ("containerd.io/distribution.source.registry.example:5000", "a"),
            ("containerd.io/distribution.source.", "nowhere"),
            ("containerd.io/distribution.source.other.example", "NOT A NAME"),
            ("containerd.io/gc.root", "1"),
        ];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let found: Vec<String> =
            sources_in(&labels).iter().map(|(registry, name)| format!("{registry}/{name}")).collect();
        assert_eq!(found, ["docker.io/library/alpine", "docker.io/team/app", "registry.example:5000/a"]);
    }
}
