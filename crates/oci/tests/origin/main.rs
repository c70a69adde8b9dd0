//! The origin client against a real registry on loopback: everything that one can do to us.

mod auth;
mod blobs;
mod lists;
mod manifests;
mod network;
mod redirects;

use std::time::Duration;

use bytes::BytesMut;
use shoal_oci::Repository;
use shoal_oci::origin::{BlobStream, Origin, OriginError, RegistryConfig, Timeouts};
use shoal_oci::testing::{Options, Registry};

async fn registry() -> Registry {
    Registry::start(Options::default()).await.unwrap()
}

fn app() -> Repository {
    "team/app".parse().unwrap()
}

fn origin(registry: &Registry) -> Origin {
    origin_with(registry, |_| ())
}

fn origin_with(registry: &Registry, change: impl FnOnce(&mut RegistryConfig)) -> Origin {
    let mut config = registry.config().unwrap();
    // Over loopback everything is near: most tests are about those that aren't.
    config.near = Duration::ZERO;
    change(&mut config);
    Origin::new(config).unwrap()
}

/// Limits that a test which waits for them needn't wait for long.
fn impatient(config: &mut RegistryConfig) {
    let short = Duration::from_millis(200);
    config.timeouts = Timeouts { connect: Duration::from_secs(2), first_byte: short, idle: short };
}

/// Everything that comes, and the error if there is one.
async fn read(mut blob: BlobStream) -> (bytes::Bytes, Option<OriginError>) {
    let mut all = BytesMut::new();
    while let Some(piece) = blob.next().await {
        match piece {
            Ok(bytes) => all.extend_from_slice(&bytes),
            Err(error) => {
                assert!(blob.next().await.is_none(), "an error ends the stream");
                return (all.freeze(), Some(error));
            }
        }
    }
    (all.freeze(), None)
}
