//! containerd's API as a real containerd has it.

#[path = "../../tests/agent/containerd.rs"]
mod containerd;

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use shoal_store::containerd::ContentStore;
use shoal_types::Digest;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, timeout};

use super::api::Api;
use super::{Beside, Namespace, Runtime, ingests};
use containerd::Containerd;

/// Longer than anything takes, also on a busy machine.
const LONG: Duration = Duration::from_secs(60);

async fn api(containerd: &Containerd) -> Api {
    let namespace: Namespace = "k8s.io".parse().unwrap();
    Api::connect(&containerd.socket(), &namespace.0).await.unwrap()
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest::Sha256(Sha256::digest(bytes).into())
}

/// Leaves an ingest behind, as a pull does that was broken off: with wrong bytes, of a blob that should have had others.
fn leave_ingest(containerd: &Containerd, reference: &str) {
    let (digest, size) = (digest_of(b"what was wanted").to_string(), "15");
    let mut command =
        containerd.command(&["content", "ingest", "--expected-digest", &digest, "--expected-size", size, reference]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"something wrong").unwrap();
    assert!(!child.wait().unwrap().success(), "its digest is another one");
}

#[tokio::test]
async fn it_tells_where_its_content_is_and_where_a_blob_is_from() {
    let Some(containerd) = Containerd::start() else { return };
    let api = api(&containerd).await;
    let root = api.content_root().await.unwrap().expect("the content plugin tells its root");
    let content = ContentStore::open(&root).unwrap();
    let blob = containerd.socket().with_file_name("blob");
    std::fs::write(&blob, "some bytes").unwrap();
    let ingest =
        containerd.command(&["content", "ingest", "a-blob"]).stdin(std::fs::File::open(&blob).unwrap()).output();
    assert!(ingest.unwrap().status.success());
    let digest = digest_of(b"some bytes");
    assert_eq!(content.blob(&digest).unwrap().map(|blob| blob.size_bytes()), Some(10));
    assert_eq!(api.sources(&digest).await.unwrap(), [], "it was loaded here");
    containerd.ctr(&[
        "content",
        "label",
        &digest.to_string(),
        "containerd.io/distribution.source.docker.io=library/a,b",
    ]);
    let sources = api.sources(&digest).await.unwrap();
    let sources: Vec<String> = sources.iter().map(|(registry, name)| format!("{registry}/{name}")).collect();
    assert_eq!(sources, ["docker.io/library/a", "docker.io/b"]);
    assert_eq!(api.sources(&digest_of(b"another")).await.unwrap(), []);
    assert!(!api.is_closed());
}

#[tokio::test]
async fn spoilt_ingests_are_aborted_also_after_a_restart_and_no_others() {
    let Some(mut containerd) = Containerd::start() else { return };
    let wanted = digest_of(b"what was wanted");
    let other = digest_of(b"another");
    let (first, second, untouched) = (format!("layer-{wanted}"), format!("config-{wanted}"), format!("layer-{other}"));
    [&first, &second, &untouched].into_iter().for_each(|reference| leave_ingest(&containerd, reference));
    let before = api(&containerd).await;
    let content = ContentStore::open(&before.content_root().await.unwrap().unwrap()).unwrap();
    let beside = |api: &Api| Some(Beside { api: api.clone(), content: content.clone() });
    assert_eq!(before.ingests().await.unwrap().len(), 3, "{}", containerd.ctr(&["content", "active"]));
    // Nobody is there when the chain fails.
    containerd.kill();
    let (spoil, spoilt) = broadcast::channel(4);
    let (connected, connection) = watch::channel(beside(&before));
    let aborting = tokio::spawn(ingests::abort_spoilt(spoilt, connection));
    spoil.send(wanted).unwrap();
    containerd.restart();
    let api = api(&containerd).await;
    connected.send_replace(beside(&api));
    let until = Instant::now() + LONG;
    loop {
        let left: Vec<String> = api.ingests().await.unwrap().into_iter().map(|ingest| ingest.reference).collect();
        if left == [untouched.clone()] {
            break;
        }
        assert!(Instant::now() < until, "{left:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What begins now is the next try.
    leave_ingest(&containerd, &first);
    drop(spoil);
    timeout(LONG, aborting).await.expect("it ends with who reports").unwrap();
    assert_eq!(api.ingests().await.unwrap().len(), 2);
}

#[test]
fn a_namespace_is_one_of_containerds() {
    for right in ["k8s.io", "default", "a-b_c.1"] {
        assert_eq!(right.parse::<Namespace>().unwrap().to_string(), right);
    }
    for wrong in ["", ".", "a..b", "-a", "a/b", "a b", "ä", &"a".repeat(77)] {
        assert!(wrong.parse::<Namespace>().is_err(), "{wrong}");
    }
}

#[test]
fn nothing_has_to_be_taken_back_from_nobody() {
    assert!(Runtime::none().takes_back());
    let (_teller, runtime) = Runtime::followed();
    assert!(!runtime.takes_back());
}
