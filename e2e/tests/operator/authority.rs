//! The CA: made once by however many replicas, changed by one of them, followed by all.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use shoal_tracker_server::client::NodeIdentity;
use shoal_tracker_server::{Authority, Trust};

use crate::bare::Bare;
use crate::world::{AGENT, AUDIENCE, Replica, World, trust};

const REPLICAS: u8 = 3;

/// Whether a replica shows a certificate that these roots vouch for, and takes the node's.
async fn meets(replica: &Replica, roots: &Trust, node: &NodeIdentity) -> bool {
    let asked = async {
        let bare = Bare::connect(replica.address, roots, Some((node.chain(), node.key()))).await?;
        bare.ask(&http::Method::GET, "/v1/replicas", None, String::new()).await
    };
    asked.await.is_ok_and(|(status, _)| status == 200)
}

/// What a replica says is to be trusted.
async fn told(replica: &Replica, roots: &Trust) -> String {
    let bare = Bare::connect(replica.address, roots, None).await.unwrap();
    bare.ask(&http::Method::GET, "/v1/ca", None, String::new()).await.unwrap().1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_race_make_one_ca_and_change_it_together() {
    let Some(world) = World::start().await else { return };
    world.node("node-a", "zone-1", Ipv4Addr::new(10, 1, 0, 1)).await;
    let pod = world.pod("agent-a", AGENT, Some("node-a")).await;
    let mut replicas = join_all((1..=REPLICAS).map(|number| world.operator(number))).await;
    join_all(replicas.iter_mut().map(Replica::serves)).await;
    let first = trust(&world.bundle().await);
    assert_eq!(first.certificates().len(), 1);
    for replica in &replicas {
        assert_eq!(told(replica, &first).await, first.to_pem(), "all have the one CA");
    }

    // A deleted Secret is put back with what was in it.
    let secrets: Api<Secret> = world.api();
    let before = world.ca_secret().await;
    secrets.delete("shoal-ca", &DeleteParams::default()).await.unwrap();
    world.until("the Secret is put back", async || secrets.get_opt("shoal-ca").await.unwrap().is_some()).await;
    assert_eq!(world.ca_secret().await["signing.pem"], before["signing.pem"]);

    // A root that ends in three weeks is due. The agent joins under it.
    let ending = Authority::generate_for(Duration::from_secs(21 * 24 * 3_600)).unwrap();
    let change = async |data: serde_json::Value| {
        let merge = Patch::Merge(json!({"stringData": data}));
        secrets.patch("shoal-ca", &PatchParams::default(), &merge).await.unwrap();
    };
    change(json!({"signing.pem": ending.to_pem()})).await;
    world.until("the next root is prepared", async || world.ca_secret().await.contains_key("next.pem")).await;
    let next = Authority::from_pem(&world.ca_secret().await["next.pem"]).unwrap();
    world.until("agents find both roots", async || trust(&world.bundle().await).certificates().len() == 2).await;
    let both = trust(&world.bundle().await);
    assert_eq!(both.certificates(), [ending.trust().certificates(), next.trust().certificates()].concat());
    for replica in &replicas {
        world.until("all trust both", async || told(replica, &both).await == both.to_pem()).await;
    }
    let agent = world.agent("node-a", replicas[0].address, &world.token_of(&pod, AUDIENCE).await).await;
    let identity: Arc<NodeIdentity> = agent.identity().await;
    assert_eq!(identity.trust().to_pem(), both.to_pem(), "whoever joins now trusts the next one already");
    let version = secrets.get("shoal-ca").await.unwrap().metadata.generation;

    // A certificate's life later the next one signs, and what the first one signed is taken still.
    let days_ago = |days: u64| {
        let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
        (now - Duration::from_secs(days * 24 * 3_600)).as_secs().to_string()
    };
    change(json!({"since": days_ago(2)})).await;
    world.until("the next root signs", async || world.ca_secret().await.contains_key("retired.pem")).await;
    let switched = world.ca_secret().await;
    assert_eq!(Authority::from_pem(&switched["signing.pem"]).unwrap().fingerprint(), next.fingerprint());
    for replica in &replicas {
        let only_next = next.trust();
        world.until("all show the next one's", async || meets(replica, only_next, &identity).await).await;
        assert!(meets(replica, &both, &identity).await, "the agent's own roots do, too");
    }

    // Another life later the first one is forgotten.
    change(json!({"since": days_ago(2)})).await;
    world.until("one root is left", async || world.ca_secret().await.keys().eq(["signing.pem", "since"])).await;
    for replica in &replicas {
        world.until("all trust it alone", async || told(replica, next.trust()).await == next.trust().to_pem()).await;
        assert!(!meets(replica, next.trust(), &identity).await, "what the first one signed is refused");
    }
    world.until("agents find it alone", async || world.bundle().await == next.trust().to_pem()).await;
    assert_eq!(secrets.get("shoal-ca").await.unwrap().metadata.generation, version);

    // What isn't a CA takes nobody's place.
    change(json!({"signing.pem": "nonsense"})).await;
    world.until("it is refused", async || told(&replicas[0], next.trust()).await == next.trust().to_pem()).await;
    let mut late = world.operator(REPLICAS + 1).await;
    let error = late.operator.failed().await;
    assert_eq!(error.exit_code(), 2);
    assert!(
        error.to_string().starts_with("the Secret shoal-ca isn't a CA (") && !error.to_string().contains('\n'),
        "{error}"
    );
    late.operator.stop().await;

    agent.end().await;
    join_all(replicas.into_iter().map(|replica| replica.operator.stop())).await;
    world.end().await;
}
