//! What Swarms bring to the nodes before anybody asks: an image that pods find there, a chart and files that no container runs.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde_json::json;
use shoal_e2e::cluster::{Origin, sleeping_image};
use shoal_e2e::tools::cluster::Tool;
use shoal_oci::manifest::Manifest;
use shoal_oci::testing::Content;
use shoal_types::Digest;

use crate::content::{MIB, NODES, judge_copies, of_swarm};
use crate::world::World;

/// The mirror, as a node's programs reach it.
const MIRROR: &str = "127.0.0.1:9395";
const VERSION: &str = "7.8.9";

const MODEL: &str = "models/small";
const TAG: &str = "v2";

struct Packed {
    name: &'static str,
    media_type: &'static str,
    bytes: u64,
}

/// Files of types of their own, an empty one among them.
const FILES: [Packed; 4] = [
    Packed { name: "weights.bin", media_type: "application/vnd.example.weights", bytes: 20 * MIB },
    Packed { name: "README.md", media_type: "text/markdown", bytes: 17 },
    Packed { name: "vocabulary.json", media_type: "application/vnd.example.vocabulary+json", bytes: 70_000 },
    Packed { name: "nothing", media_type: "application/vnd.example.nothing", bytes: 0 },
];

/// The registry is off afterwards.
pub(crate) async fn what_is_pushed_is_there_first(world: &mut World) {
    let origin = world.cluster.origin();
    let chart = push_chart(world, &origin).await;
    let image = sleeping_image(&[20 * MIB, 4 * MIB], 41).unwrap();
    let image = origin.registry().store_image("tests/ahead", "1", image).unwrap();
    let files = push_files(world, &origin).await;

    let before = origin.sent().unwrap();
    let artifact = |name: &str, reference: &str, placement: &str| json!({"name": name, "reference": origin.image(reference), "placement": placement, "pin": placement == "Cache"});
    let chart_name = format!("charts/shoal:{VERSION}");
    let artifacts = [
        artifact("image", "tests/ahead:1", "Runtime"),
        artifact("chart", &chart_name, "Cache"),
        artifact("files", &format!("{MODEL}:{TAG}"), "Cache"),
    ];
    world.apply_swarm("default", json!({"registries": [of_swarm(&origin)], "artifacts": artifacts})).await;
    let digests = world.until_pushed("default", NODES).await;
    assert_eq!(digests["image"], image.digest);
    let bytes =
        image.blob_bytes() + FILES.iter().map(|file| file.bytes).sum::<u64>() + fs::metadata(&chart).unwrap().len();
    judge_copies("pushed", origin.sent().unwrap() - before, bytes);

    let before = origin.sent().unwrap();
    world.run_everywhere("ahead", &origin.image("tests/ahead:1")).await;
    assert_eq!(origin.sent().unwrap(), before, "the nodes have all of it");
    let pods = world.api::<Pod>().list(&ListParams::default().labels("app=ahead")).await.unwrap();
    assert_eq!(pods.items.len(), usize::from(NODES));
    for pod in pods {
        let told = world.told(&pod.name_any(), "Pulled").await;
        assert!(told.iter().all(|said| said.contains("already present on machine")) && !told.is_empty(), "{told:?}");
        println!("a pod of what was pushed: {}", told.join("; "));
    }

    world.cluster.stop_registry().await.unwrap();
    for node in 1..=NODES {
        let pulled = pull_chart(world, node).await;
        assert!(
            fs::read(&pulled).unwrap() == fs::read(&chart).unwrap(),
            "node{node}'s chart is the one that was pushed"
        );
        pull_files(world, node, &files).await;
        for (repository, tag, digest) in [("charts/shoal", VERSION, digests["chart"]), (MODEL, TAG, digests["files"])] {
            is_given_by(world, node, &origin, (repository, tag, digest)).await;
        }
    }
}

/// Every byte of an artifact comes from a node's mirror as it lies in the registry that is off.
async fn is_given_by(world: &World, node: u8, origin: &Origin, artifact: (&str, &str, Digest)) {
    let (repository, tag, digest) = artifact;
    let stored = |digest: &Digest| fs::read(origin.registry().blob(digest)).unwrap();
    let manifest = stored(&digest);
    for reference in [tag.to_owned(), digest.to_string()] {
        let given = get(world, node, origin, &format!("{repository}/manifests/{reference}")).await;
        assert!(given == manifest, "node{node} gives {repository} as {reference}");
    }
    for blob in Manifest::parse(&manifest).unwrap().blobs() {
        let given = get(world, node, origin, &format!("{repository}/blobs/{}", blob.digest)).await;
        assert!(given == stored(&blob.digest), "node{node} gives {} of {repository}", blob.media_type);
    }
}

/// What a node's mirror answers to a client on that node.
async fn get(world: &World, node: u8, origin: &Origin, path: &str) -> Vec<u8> {
    let url = format!("http://{MIRROR}/v2/{path}?ns={}", origin.host());
    let mut command: Vec<OsString> = vec![Tool::Busybox.program().unwrap().into()];
    command.extend(["wget", "-q", "-O", "-", &url].map(OsString::from));
    world.cluster.in_network(node, &command).await.unwrap_or_else(|error| panic!("{url}: {error:#}"))
}

/// Packs Shoal's own chart and pushes it; the file.
async fn push_chart(world: &World, origin: &Origin) -> PathBuf {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/shoal");
    let packed = world.cluster.directory().join("packed");
    let [chart, to] = [&chart, &packed].map(|path| path.display().to_string());
    helm(world, 1, &["package", &chart, "--version", VERSION, "--destination", &to]).await;
    let file = packed.join(format!("shoal-{VERSION}.tgz"));
    let repository = format!("oci://{}/charts", origin.host());
    helm(world, 1, &["push", &file.display().to_string(), &repository, "--plain-http"]).await;
    file
}

/// Pulls it through a node's mirror; the file.
async fn pull_chart(world: &World, node: u8) -> PathBuf {
    let to = world.cluster.directory().join(format!("pulled-{node}"));
    fs::create_dir(&to).unwrap();
    let chart = format!("oci://{MIRROR}/charts/shoal");
    let to_text = to.display().to_string();
    helm(world, node, &["pull", &chart, "--version", VERSION, "--plain-http", "--destination", &to_text]).await;
    to.join(format!("shoal-{VERSION}.tgz"))
}

/// Writes files and pushes them as one artifact; their directory.
async fn push_files(world: &World, origin: &Origin) -> PathBuf {
    let directory = world.cluster.directory().join("files");
    fs::create_dir(&directory).unwrap();
    for (seed, file) in (42..).zip(&FILES) {
        fs::write(directory.join(file.name), Content::random(seed, file.bytes).to_bytes()).unwrap();
    }
    let reference = format!("{}/{MODEL}:{TAG}", origin.host());
    let named = FILES.map(|file| format!("{}:{}", file.name, file.media_type));
    let mut arguments = vec!["push", "--plain-http", "--artifact-type", "application/vnd.example.model", &reference];
    arguments.extend(named.iter().map(String::as_str));
    run_in(&directory, world, 1, Tool::Oras, &arguments).await;
    directory
}

/// Pulls them through a node's mirror.
async fn pull_files(world: &World, node: u8, pushed: &Path) {
    let directory = world.cluster.directory().join(format!("files-{node}"));
    fs::create_dir(&directory).unwrap();
    run_in(&directory, world, node, Tool::Oras, &["pull", "--plain-http", &format!("{MIRROR}/{MODEL}:{TAG}")]).await;
    for file in FILES {
        let [pushed, pulled] = [pushed, &directory].map(|directory| fs::read(directory.join(file.name)).unwrap());
        assert!(pushed == pulled, "node{node}'s {} is the one that was pushed", file.name);
    }
}

async fn helm(world: &World, node: u8, arguments: &[&str]) {
    run_in(world.cluster.directory(), world, node, Tool::Helm, arguments).await;
}

/// A tool on a node in a directory, with nothing of the developer's in sight.
async fn run_in(directory: &Path, world: &World, node: u8, tool: Tool, arguments: &[&str]) {
    let mut home = OsString::from("HOME=");
    home.push(world.cluster.directory().join(format!("home-{node}")));
    let mut command = vec!["env".into(), "-i".into(), "-C".into(), directory.into(), home];
    command.push(tool.program().unwrap().into());
    command.extend(arguments.iter().map(OsString::from));
    world.cluster.in_network(node, &command).await.unwrap_or_else(|error| panic!("{tool} {arguments:?}: {error:#}"));
}
