//! What Swarms push: to whom, when, how often the origin is asked, what stays, and what is told about it.

use futures_util::future::join_all;
use shoal_agent::agent::Agent;
use shoal_oci::manifest::Platform;
use shoal_oci::testing::{Fault, Image, Trouble};
use shoal_tracker_server::{ArtifactReport, ArtifactState};
use tokio::time::Instant;

use crate::private::{PASSWORD, USER, accesses};
use crate::world::{LONG, World, repository, stop};

const NAMES: [&str; 3] = ["node-0", "node-1", "node-2"];

const PINNED: &str = ", placement: Cache, pin: true";

/// The Swarm pushes `v1`; what it says of it, and what else.
fn pushes(world: &World, artifact: &str, rest: &str) {
    let reference = format!("{}/{}:v1", world.origin.name(), repository());
    let artifacts = format!("  artifacts:\n  - {{name: app, reference: \"{reference}\"{artifact}}}\n");
    world.say("", &format!("{artifacts}  resolveSeconds: 10\n{rest}"));
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < limit, "{what}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn artifact(world: &World, node: &str) -> Option<ArtifactReport> {
    world.report(node)?.artifacts.first().cloned()
}

async fn complete_on(world: &World, names: &[&str], image: &Image) {
    let is_complete = |name: &&str| {
        artifact(world, name).is_some_and(|is| is.state == ArtifactState::Complete && is.digest == image.digest)
    };
    let limit = Instant::now() + LONG;
    while !names.iter().all(&is_complete) {
        let reported: Vec<_> = names.iter().map(|name| artifact(world, name)).collect();
        assert!(Instant::now() < limit, "all report {} complete: {reported:?}", image.digest);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// What a node's agent pins, as it is kept for its next start.
fn pins(world: &World, node: &str) -> String {
    std::fs::read_to_string(world.dir.path().join(node).join("pins.json")).unwrap_or_default()
}

fn has_all_of(agent: &Agent, image: &Image) -> bool {
    let blobs = std::iter::once(&image.config).chain(&image.layers).map(|blob| blob.digest);
    blobs.chain([image.digest]).all(|digest| agent.exchange().stored(&digest).is_some())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_artifact_reaches_all_nodes_with_few_copies_of_the_origins_and_a_late_one_with_none() {
    let world = World::new("", "").await;
    let image = world.push(&[3 << 20, 1 << 20, 2_000]);
    pushes(&world, PINNED, "");
    let mut agents = join_all(NAMES.map(|name| world.agent(name))).await;
    complete_on(&world, &NAMES, &image).await;
    let copies = world.copies(&image).await;
    // On a busy machine a layer that is fetched within moments may get a second lead.
    assert!(copies <= 1.5, "{copies}");
    agents.push(world.agent("late").await);
    complete_on(&world, &["late"], &image).await;
    assert!(world.copies(&image).await <= copies, "{}", world.copies(&image).await);
    assert!(agents.iter().all(|agent| has_all_of(agent, &image)));
    let all = image.blob_bytes() + image.manifest.len() as u64;
    let reports = NAMES.map(|name| artifact(&world, name).unwrap());
    for is in &reports {
        assert_eq!((is.done_bytes, is.total_bytes, &*is.swarm, &*is.name), (all, all, "test", "app"));
        assert!(is.from_peers + is.from_origin >= all, "{is:?}");
    }
    let sum = |of: fn(&ArtifactReport) -> u64| reports.iter().map(of).sum::<u64>();
    let (peers, origin) = (sum(|is| is.from_peers), sum(|is| is.from_origin));
    assert!(origin >= all && origin <= all * 3 / 2 && peers >= all * 3 / 2, "{peers} and {origin} of {all}");
    stop(agents).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pushed_tag_means_something_without_tracker_and_origin_to_who_never_asked_for_it() {
    let mut world = World::new("", "").await;
    let image = world.push(&[300_000]);
    pushes(&world, PINNED, "");
    let agent = world.agent(NAMES[0]).await;
    complete_on(&world, &NAMES[..1], &image).await;
    world.stop_tracker().await;
    let down = Trouble::Status { status: 500, headers: Vec::new(), body: String::new() };
    world.origin.inject(Fault::always("/v2/", down));
    let (head, body) = world.ask(&agent, "GET", "manifests/v1", &[]).await;
    assert_eq!((head.status, body), (200, image.manifest.to_vec()));
    stop([agent]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_private_is_pushed_into_caches_and_shown_to_nobody() {
    for access in accesses() {
        let world = World::with_credentials(access, "", "", Some((None, USER, PASSWORD))).await;
        let image = world.push(&[300_000, 70_000]);
        pushes(&world, PINNED, "");
        let mut agents = join_all(NAMES.map(|name| world.agent(name))).await;
        complete_on(&world, &NAMES, &image).await;
        let copies = world.copies(&image).await;
        assert!(copies <= 1.5, "{copies}");
        for agent in &agents {
            assert!(has_all_of(agent, &image));
            for reference in ["v1".to_owned(), image.digest.to_string()] {
                let head = world.ask(agent, "GET", &format!("manifests/{reference}"), &[]).await.0;
                assert_eq!(head.status, 403, "the runtime asks the origin with the pod's secret");
            }
            let blob = format!("blobs/{}", image.layers[0].digest);
            assert_eq!(world.ask(agent, "GET", &blob, &[]).await.0.status, 200, "who has the manifest may have it");
        }
        // A node that has it all asks for nothing of it after a restart.
        stop([agents.remove(0)]).await;
        agents.push(world.agent(NAMES[0]).await);
        complete_on(&world, &NAMES, &image).await;
        assert!(world.copies(&image).await <= copies);
        stop(agents).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moved_tag_is_pushed_anew_over_a_restart_and_the_swarm_decides_who_keeps_what() {
    let world = World::new("", "").await;
    let first = world.push(&[400_000, 1_000]);
    pushes(&world, PINNED, "");
    let mut agents: Vec<Agent> = join_all(NAMES.map(|name| world.agent(name))).await;
    complete_on(&world, &NAMES, &first).await;
    let is_pinned = |image: &Image, name: &str| pins(&world, name).contains(&image.layers[0].digest.to_string());
    until("it is pinned", || NAMES.iter().all(|name| is_pinned(&first, name))).await;

    // While one of them is away.
    stop([agents.remove(2)]).await;
    let second = world.origin.push_image(&repository(), "v1", &[500_000, 2_000], 8);
    let of_first = world.origin.blob_traffic().body_bytes;
    complete_on(&world, &NAMES[..2], &second).await;
    agents.push(world.agent(NAMES[2]).await);
    complete_on(&world, &NAMES, &second).await;
    world.origin.idle().await;
    let copies = (world.origin.blob_traffic().body_bytes - of_first) as f64 / second.blob_bytes() as f64;
    assert!(copies <= 1.5, "{copies}");
    let moved = || NAMES.iter().all(|name| is_pinned(&second, name) && !is_pinned(&first, name));
    until("the new one is pinned, the old one isn't", moved).await;

    // The Swarm is no longer for all.
    let but =
        "  nodeSelector: {matchExpressions: [{key: kubernetes.io/hostname, operator: NotIn, values: [node-1]}]}\n";
    pushes(&world, PINNED, but);
    until("one has let go", || !is_pinned(&second, "node-1") && artifact(&world, "node-1").is_none()).await;
    assert!(is_pinned(&second, "node-0") && is_pinned(&second, "node-2"));

    // The others are let go of as well, one of them over a restart.
    stop([agents.remove(0)]).await;
    world.say("", "");
    until("another has let go", || !is_pinned(&second, "node-2") && artifact(&world, "node-2").is_none()).await;
    assert!(is_pinned(&second, "node-0"), "it hasn't heard yet");
    agents.push(world.agent("node-0").await);
    until("the last one has let go", || !is_pinned(&second, "node-0") && artifact(&world, "node-0").is_none()).await;
    stop(agents).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pinned_stays_when_room_is_needed_and_goes_when_it_is_let_go() {
    let mut world = World::new("", "").await;
    // Room for the artifact and one of the others, not two.
    world.quota_bytes = 6 << 20;
    let image = world.push(&[3 << 20]);
    let other = |seed| world.origin.push_image(&repository(), &format!("other-{seed}"), &[2 << 20], seed);
    let others = [100, 200, 300].map(other);
    pushes(&world, PINNED, "");
    let agent = world.agent("node-0").await;
    complete_on(&world, &["node-0"], &image).await;
    stop([agent]).await;
    let agent = world.agent("node-0").await;
    let pull = async |image: &Image| {
        let (head, _) = world.ask(&agent, "GET", &format!("manifests/{}", image.digest), &[]).await;
        assert_eq!(head.status, 200);
        let layer = image.layers[0].digest;
        let (head, _) = world.ask(&agent, "GET", &format!("blobs/{layer}"), &[]).await;
        assert_eq!(head.status, 200);
        until("it is here whole", || agent.exchange().stored(&layer).is_some()).await;
    };
    for other in &others[..2] {
        pull(other).await;
    }
    assert!(has_all_of(&agent, &image), "it is pinned");
    assert!(agent.exchange().stored(&others[0].layers[0].digest).is_none(), "another one had to go");
    world.say("", "");
    until("it is let go", || artifact(&world, "node-0").is_none() && pins(&world, "node-0") == "[]").await;
    // Of equals the larger goes first.
    pull(&others[2]).await;
    assert!(!has_all_of(&agent, &image), "it isn't pinned any more");
    stop([agent]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_index_the_nodes_platform_is_fetched() {
    let world = World::new("", "").await;
    let wanted = world.origin.push_image(&repository(), "wanted", &[200_000], 1);
    let other = world.origin.push_image(&repository(), "other", &[200_000], 2);
    let linux = |architecture: &str| {
        let (os, architecture) = ("linux".to_owned(), architecture.to_owned());
        Platform { os, architecture, variant: None }
    };
    let own = shoal_agent::pull::Platform::of_this_machine().to_string();
    let own = linux(own.strip_prefix("linux/").unwrap());
    let index = world.origin.push_index(&repository(), "v1", &[(linux("z81"), &other), (own, &wanted)]);
    pushes(&world, ", placement: Cache", "");
    let agent = world.agent("node-0").await;
    let is_complete = |is: ArtifactReport| is.state == ArtifactState::Complete && is.digest == index;
    until("it is complete", || artifact(&world, "node-0").is_some_and(is_complete)).await;
    assert!(has_all_of(&agent, &wanted) && agent.exchange().stored(&index).is_some());
    assert!(agent.exchange().transfer(&other.layers[0].digest).is_none());
    assert!(agent.exchange().transfer(&other.digest).is_none());
    stop([agent]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_is_told_in_the_registrys_words_and_tried_again() {
    let world = World::new("", "").await;
    // A push that isn't over: the manifest is there before its layer.
    let (image, blobs) = Image::generate(&[300_000], 7);
    let (layer, config) = (image.layers[0].digest, image.config.digest);
    let push = |digest| {
        let found = blobs.iter().find(|(of, _)| *of == digest).map(|(_, content)| content.clone());
        world.origin.push_blob(&repository(), found.unwrap());
    };
    push(config);
    world.origin.push_manifest(&repository(), Some("v1"), image.media_type, image.manifest.clone());
    pushes(&world, PINNED, "");
    let agent = world.agent("node-0").await;
    let reason = || match artifact(&world, "node-0").map(|is| is.state) {
        Some(ArtifactState::Failed(why)) => why,
        _ => String::new(),
    };
    until("it says why", || reason().contains("404")).await;
    assert!(reason().contains(&format!("{}/{}", world.origin.name(), repository())), "{}", reason());
    push(layer);
    complete_on(&world, &["node-0"], &image).await;
    stop([agent]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_runtime_a_node_says_so() {
    let world = World::new("", "").await;
    world.push(&[1_000]);
    pushes(&world, "", "");
    let agent = world.agent("node-0").await;
    let says = || match artifact(&world, "node-0").map(|is| is.state) {
        Some(ArtifactState::Failed(why)) => why.contains("--containerd-socket"),
        _ => false,
    };
    until("it says what is missing", says).await;
    stop([agent]).await;
}
