//! The agent dies in the middle of a pull: containerd goes on at the origin.

use tokio::time::timeout;

use crate::world::{LONG, World, assert_whole, runtimes, until};

const LAYERS: [u64; 3] = [3 << 20, 2 << 20, 1 << 20];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_whose_agent_is_killed_succeeds_through_the_origin() {
    for programs in runtimes() {
        let mut world = World::new(&format!("kill-{}", programs.version()), 16 << 20, "").await;
        for percent in [5, 50, 90] {
            let (image, name) = world.push(&format!("v{percent}"), &LAYERS, percent);
            let node = world.node(&format!("node-{percent}"));
            let containerd = world.containerd(&node, &programs).await;
            world.agent(&node, Some(&containerd)).await;
            let (before, enough) = (world.origin.blob_traffic().body_bytes, image.blob_bytes() * percent / 100);
            let pulled = {
                let containerd = containerd.clone();
                tokio::spawn(async move { containerd.pull(&name).await })
            };
            let origin = &world.origin;
            until("the pull begins", async || origin.blob_traffic().body_bytes - before >= enough).await;
            assert!(!pulled.is_finished(), "it is in the middle");
            world.fleet.check().unwrap();
            world.fleet.part(&[node.name]).unwrap().kill().await;
            timeout(LONG, pulled).await.expect("it ends").unwrap().unwrap();
            assert_whole(&containerd.kept().audit().unwrap(), &image);
        }
        world.end().await;
    }
}
