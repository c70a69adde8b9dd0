//! Images that aren't for everybody, on nodes whose neighbours have them.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use shoal_e2e::cluster::{Origin, sleeping_image};
use shoal_e2e::registry::Auth;
use shoal_oci::testing::Image;

use crate::content::{MIB, NODES, judge_copies, of_swarm};
use crate::world::{World, pod};

const PORT: u16 = 5001;
const USER: &str = "ann";
const PASSWORD: &str = "sehr-geheim";
/// As `htpasswd -nbB -C 4` writes it.
const HTPASSWD: &str = "ann:$2b$04$hDKKbC2tOoFj/B9GHZ/1qOVpKE7EnKy4oFBGXwZ9L89bCnbSHIYRu\n";

/// Pods' Secrets, by their names: the right one, and one with a wrong password.
const RIGHT: &str = "right";
const WRONG: &str = "wrong";

/// A registry for one user.
pub(crate) fn start_registry(world: &mut World) -> Origin {
    world.cluster.start_origin("closed-registry", PORT, &Auth::Htpasswd(HTPASSWD.to_owned())).unwrap()
}

pub(crate) async fn an_image_is_for_who_may_read_it(world: &mut World, origin: &Origin) {
    let [own, shared, pushed] =
        [("team/own", 51), ("team/shared", 52), ("team/pushed", 53)].map(|(name, seed)| store(origin, name, seed));
    for (namespace, name, password) in
        [("default", RIGHT, PASSWORD), ("default", WRONG, "geraten"), ("shoal-system", "registry", PASSWORD)]
    {
        let secrets: Api<Secret> = Api::namespaced(world.client.clone(), namespace);
        secrets.create(&PostParams::default(), &secret(name, origin.host(), password)).await.unwrap();
    }
    let registry = of_swarm(origin);

    // With the pods' Secret only: the runtimes ask the registry, and one of them downloads for all.
    world.apply_swarm("private", json!({"registries": [registry]})).await;
    let before = origin.sent().unwrap();
    world.run("own", with_secret(&origin.image("team/own:1"), None, RIGHT)).await;
    judge_copies("private, with the pods' Secret only", origin.sent().unwrap() - before, own.blob_bytes());

    // With the Swarm's too: what it pushes is everywhere, so the Secret is known to be one.
    let before = origin.sent().unwrap();
    let mut with_ref = registry.clone();
    with_ref["secretRef"] = json!({"name": "registry"});
    let artifact =
        json!({"name": "pushed", "reference": origin.image("team/pushed:1"), "placement": "Cache", "pin": true});
    world.apply_swarm("private", json!({"registries": [with_ref], "artifacts": [artifact]})).await;
    world.until_pushed("private", NODES).await;
    judge_copies("private, pushed with the Swarm's Secret", origin.sent().unwrap() - before, pushed.blob_bytes());
    let before = origin.sent().unwrap();
    for node in ["node1", "node2"] {
        let pods = with_secret(&origin.image("team/shared:1"), Some(node), RIGHT);
        world.run(&format!("shared-{node}"), pods).await;
    }
    judge_copies("private, with both Secrets", origin.sent().unwrap() - before, shared.blob_bytes());
    assert!(
        !asked_by_runtimes(&origin.log().unwrap(), &shared),
        "agents fetch it with the Swarm's Secret, runtimes don't"
    );

    // Where all nodes' caches have it, where peers have it, where the node's own runtime has it: nobody without a right Secret gets it.
    let before = origin.sent().unwrap();
    let mut cases = vec![
        ("pushed", pod(&origin.image("team/pushed:1"), Some("node1"))),
        ("peers-have-it", pod(&origin.image("team/shared:1"), Some("node3"))),
        ("wrong-secret", with_secret(&origin.image("team/shared:1"), Some("node3"), WRONG)),
        ("runtime-has-it", pod(&origin.image("team/shared:1"), Some("node1"))),
    ];
    for (_, pod) in &mut cases {
        // Else the kubelet lets every pod have what its node has, Shoal or not.
        pod["containers"][0]["imagePullPolicy"] = "Always".into();
    }
    for (name, pod) in cases {
        world.make_pod(name, pod).await;
        let why = until_refused(world, name).await;
        println!("refused, {name}: {why}");
        assert!(why.contains("denied: ") && why.contains("pull secret"), "{why}");
    }
    assert_eq!(origin.sent().unwrap(), before, "nothing of it is sent for those");

    // Those who may still get it, there too, from the others.
    world.run("shared-node3", with_secret(&origin.image("team/shared:1"), Some("node3"), RIGHT)).await;
    judge_copies("private, on the last node", origin.sent().unwrap() - before, shared.blob_bytes());
}

fn store(origin: &Origin, repository: &str, seed: u64) -> Image {
    let image = sleeping_image(&[16 * MIB, 8 * MIB], seed).unwrap();
    origin.registry().store_image(repository, "1", image).unwrap()
}

fn with_secret(image: &str, node: Option<&str>, secret: &str) -> Value {
    let mut pod = pod(image, node);
    pod["imagePullSecrets"] = json!([{"name": secret}]);
    pod
}

fn secret(name: &str, host: &str, password: &str) -> Secret {
    let auth = BASE64_STANDARD.encode(format!("{USER}:{password}"));
    let entry = json!({"username": USER, "password": password, "auth": auth});
    let object = json!({
        "metadata": {"name": name}, "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": json!({"auths": {host: entry}}).to_string()},
    });
    serde_json::from_value(object).unwrap()
}

/// Whether a runtime itself has asked for a layer: a generated one, the program's is in all images.
fn asked_by_runtimes(log: &str, image: &Image) -> bool {
    let layers: Vec<String> = image.layers.iter().skip(1).map(|layer| layer.digest.to_string()).collect();
    let mut lines = log.lines().filter(|line| layers.iter().any(|layer| line.contains(layer)));
    lines.any(|line| line.contains("containerd/"))
}

/// Waits until a pod's image is refused, and gives the kubelet's words.
async fn until_refused(world: &mut World, name: &str) -> String {
    let pods = world.api::<Pod>();
    world
        .until(&format!("{name} is refused its image"), async || {
            let state = waits_for(&pods.get(name).await.unwrap());
            state.is_some_and(|why| ["ErrImagePull", "ImagePullBackOff"].contains(&&*why))
        })
        .await;
    let told = world.told(name, "Failed").await;
    told.into_iter().find(|message| message.contains("Failed to pull image")).unwrap_or_default()
}

/// Why a pod's only container doesn't run yet.
fn waits_for(pod: &Pod) -> Option<String> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    containers.first()?.state.as_ref()?.waiting.as_ref()?.reason.clone()
}
