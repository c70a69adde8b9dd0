//! What Shoal carries besides plain public images, on one cluster: each part takes seconds, a cluster takes longer.

use serde_json::{Value, json};
use shoal_e2e::cluster::{Options, Origin};
use shoal_e2e::containerd::Version;

use crate::world::World;
use crate::{artifacts, platforms, private};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const NODES: u8 = 3;
/// A copy, and what second leads fetch of it on a busy machine, where nodes pass on more slowly than the registry sends: a copy for each node would be three.
const MOST_COPIES: f64 = 2.0;

#[tokio::test]
async fn pushed_private_and_many_platformed_content_comes_as_it_should() {
    // Volumes of images take containerd 2.1.
    let rate = Some("200mbit".parse().unwrap());
    let options = Options { nodes: NODES, containerd: Version::V2, rate, ..Options::default() };
    let Some(mut world) = World::start(options).await else { return };
    let closed = private::start_registry(&mut world);
    let open = world.cluster.origin();
    let with_endpoint = |host: &str| format!("{host}=http://{host}");
    let values = json!({
        // helm knows no mirrors: it takes the mirror for the registry.
        "agent": {"defaultRegistry": open.host()},
        "runtime": {"hosts": {"registries": [with_endpoint(open.host()), with_endpoint(closed.host())]}},
        // Who may have what is verified, as it is unless a Swarm says otherwise.
        "defaultSwarm": {"spec": {"registries": [of_swarm(&open)]}},
    });
    world.cluster.install_shoal_with(&values).await.unwrap();

    platforms::of_an_index_each_node_gets_its_own(&mut world).await;
    platforms::an_image_is_a_volume(&mut world).await;
    private::an_image_is_for_who_may_read_it(&mut world, &closed).await;
    artifacts::what_is_pushed_is_there_first(&mut world).await;
    world.end().await;
}

/// A registry as a Swarm names it.
pub(crate) fn of_swarm(origin: &Origin) -> Value {
    json!({"host": origin.host(), "endpoint": format!("http://{}", origin.host())})
}

/// Says, and judges, how much of so many bytes a registry has sent.
pub(crate) fn judge_copies(what: &str, sent: u64, bytes: u64) {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let copies = sent as f64 / bytes as f64;
    println!("{what}: {copies:.2} copies of {bytes} bytes came from the registry");
    assert!(copies <= MOST_COPIES, "{what}: {copies:.2} copies");
}
