//! Images that aren't simply run: an index of two platforms, and an image that is a pod's volume.

use bytes::Bytes;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use shoal_e2e::cluster::sleeping_image;
use shoal_oci::manifest::Platform;
use shoal_oci::testing::{Content, Image};

use crate::content::{MIB, NODES, judge_copies};
use crate::world::{World, pod};

pub(crate) async fn of_an_index_each_node_gets_its_own(world: &mut World) {
    let origin = world.cluster.origin();
    let (registry, repository) = (origin.registry(), "tests/platforms");
    let own = registry.store_image(repository, "1-amd64", sleeping_image(&[20 * MIB, 4 * MIB], 31).unwrap()).unwrap();
    let others = Image::of_platform("s390x", [Content::layer(32, 32 * MIB)], &json!({}));
    let other = registry.store_image(repository, "1-s390x", others).unwrap();
    let on = |architecture: &str| Platform { os: "linux".into(), architecture: architecture.into(), variant: None };
    let index = Image::index(&[(on("s390x"), &other), (on("amd64"), &own)]);
    registry.store_manifest(repository, "1", index).unwrap();

    let before = origin.sent().unwrap();
    world.run_everywhere("platforms", &origin.image("tests/platforms:1")).await;
    judge_copies("an index of two platforms", origin.sent().unwrap() - before, own.blob_bytes());
    let log = origin.log().unwrap();
    for asked in own.layers.iter().map(|layer| layer.digest).chain([own.digest]) {
        assert!(log.contains(&asked.to_string()), "{asked} is the nodes'");
    }
    for unwanted in other.layers.iter().map(|layer| layer.digest).chain([other.digest, other.config.digest]) {
        assert!(!log.contains(&unwanted.to_string()), "{unwanted} is another platform's");
    }
}

pub(crate) async fn an_image_is_a_volume(world: &mut World) {
    const GREETING: &str = "brought by the other nodes";
    let origin = world.cluster.origin();
    let file = Content::files_layer([("greeting".to_owned(), Bytes::from(GREETING))]);
    let image = Image::of_layers([file, Content::layer(33, 24 * MIB)], &json!({}));
    let image = origin.registry().store_image("tests/volume", "1", image).unwrap();

    let before = origin.sent().unwrap();
    for node in 1..=NODES {
        let mut reader = pod(&origin.image("busybox:1"), Some(&format!("node{node}")));
        reader["restartPolicy"] = "Never".into();
        // What a container leaves there is what the API server says of its end.
        reader["containers"][0]["command"] = json!(["/bin/busybox", "cp", "/files/greeting", "/dev/termination-log"]);
        reader["containers"][0]["volumeMounts"] = json!([{"name": "files", "mountPath": "/files"}]);
        reader["volumes"] = json!([{"name": "files", "image": {"reference": origin.image("tests/volume:1")}}]);
        world.make_pod(&format!("reader{node}"), reader).await;
    }
    for node in 1..=NODES {
        let (name, pods) = (format!("reader{node}"), world.api::<Pod>());
        let mut said = None;
        world
            .until(&format!("{name} has read its volume"), async || {
                said = last_words(&pods.get(&name).await.unwrap());
                said.is_some()
            })
            .await;
        assert_eq!(said.as_deref(), Some(GREETING));
    }
    judge_copies("a volume", origin.sent().unwrap() - before, image.blob_bytes());
}

/// What a pod's only container has left when it ended.
fn last_words(pod: &Pod) -> Option<String> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    let ended = containers.first()?.state.as_ref()?.terminated.as_ref()?;
    Some(ended.message.clone().unwrap_or_default())
}
