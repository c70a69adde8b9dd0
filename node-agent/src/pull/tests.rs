//! Pulls from a registry in the process, which stands in for the mirror: both answer the same requests.

use std::path::{Path, PathBuf};

use serde_json::Value;
use shoal_oci::manifest;
use shoal_oci::testing::{Fault, Image as Pushed, Options, Registry, Trouble};

use super::*;

struct Fixture {
    registry: Registry,
    image: Pushed,
    directory: PathBuf,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Fixture {
    /// A registry with `app:1`, two layers.
    async fn new(test: &str) -> Self {
        let registry = Registry::start(Options::default()).await.unwrap();
        let image = registry.push_image(&"app".parse().unwrap(), "1", &[300_000, 70_000], 7);
        let directory = std::env::temp_dir().join(format!("shoal-pull-{test}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        Self { registry, image, directory }
    }

    fn args(&self, reference: &str) -> PullArgs {
        PullArgs {
            image: format!("{}/app{reference}", self.registry.name()).parse().unwrap(),
            to: format!("oci:{}", self.directory.display()).parse().unwrap(),
            mirror: format!("http://{}", self.registry.address()).parse().unwrap(),
            platform: "linux/amd64".parse().unwrap(),
            token_file: None,
        }
    }

    async fn pull(&self, reference: &str) -> Result<Image, PullError> {
        pull(&self.args(reference), &Progress::default()).await
    }

    /// A fault of the first layer.
    fn inject(&self, trouble: Trouble) {
        self.registry.inject(Fault::once(&self.image.layers[0].digest.to_string(), trouble));
    }

    fn index(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.directory.join("index.json")).unwrap()).unwrap()
    }

    /// Names and bytes of all blobs; hidden files too.
    fn blobs(&self) -> Vec<(String, Vec<u8>)> {
        let entries = std::fs::read_dir(self.directory.join("blobs/sha256")).unwrap();
        let read = |path: &Path| (path.file_name().unwrap().display().to_string(), std::fs::read(path).unwrap());
        entries.map(|entry| read(&entry.unwrap().path())).collect()
    }

    fn has_the_image(&self) {
        let blobs = self.blobs();
        assert_eq!(blobs.len(), 4, "manifest, configuration, two layers");
        for (name, bytes) in blobs {
            let digest = format!("sha256:{name}").parse().unwrap();
            assert!(checksum::Checksum::matches(&digest, &bytes), "{name}");
        }
    }
}

#[tokio::test]
async fn an_image_becomes_a_layout_and_is_not_fetched_twice() {
    let fixture = Fixture::new("layout").await;
    let progress = Progress::default();
    let image = pull(&fixture.args(":1"), &progress).await.unwrap();
    assert_eq!((image.digest, image.blob_bytes()), (fixture.image.digest, fixture.image.blob_bytes()));
    assert_eq!((progress.received_bytes(), progress.total_bytes()), (image.blob_bytes(), image.blob_bytes()));
    fixture.has_the_image();
    let entry = &fixture.index()["manifests"][0];
    assert_eq!(entry["digest"], fixture.image.digest.to_string());
    assert_eq!(entry["mediaType"], fixture.image.media_type);
    assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "1");
    let sent = fixture.registry.blob_traffic().body_bytes;
    fixture.pull(":1").await.unwrap();
    assert_eq!(fixture.registry.blob_traffic().body_bytes, sent);
    assert_eq!(fixture.index()["manifests"].as_array().unwrap().len(), 1);
    fixture.pull(&format!("@{}", fixture.image.digest)).await.unwrap();
    assert_eq!(fixture.index()["manifests"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_cut_body_goes_on_where_it_ended() {
    for (at, trouble, ranged) in [
        (0, Trouble::Cut { after: 0 }, 0),
        (1, Trouble::Cut { after: 100_000 }, 1),
        (2, Trouble::Short { after: 299_999 }, 1),
    ] {
        let fixture = Fixture::new(&format!("cut-{at}")).await;
        fixture.inject(trouble);
        fixture.pull(":1").await.unwrap();
        fixture.has_the_image();
        assert_eq!(fixture.registry.blob_traffic().ranged, ranged);
    }
}

#[tokio::test]
async fn a_server_that_ignores_the_range_costs_bytes_only() {
    let fixture = Fixture::new("ignored").await;
    fixture.inject(Trouble::Cut { after: 100_000 });
    fixture.registry.inject(Fault::always("/blobs/", Trouble::IgnoreRange));
    fixture.pull(":1").await.unwrap();
    fixture.has_the_image();
}

#[tokio::test]
async fn wrong_bytes_are_not_kept() {
    for (at, trouble) in [Trouble::FlipBit { at: 299_999 }, Trouble::Long { by: 1 }].into_iter().enumerate() {
        let fixture = Fixture::new(&format!("wrong-{at}")).await;
        fixture.inject(trouble);
        let error = fixture.pull(":1").await.unwrap_err();
        assert!(matches!(error, PullError::WrongBytes { .. }), "{error}");
        assert!(!fixture.directory.join("index.json").exists());
        let layer = fixture.image.layers[0].digest.to_string();
        assert!(fixture.blobs().iter().all(|(name, _)| !layer.ends_with(name) && !name.starts_with('.')));
        // The next one is unhurt.
        fixture.pull(":1").await.unwrap();
        fixture.has_the_image();
    }
}

#[tokio::test]
async fn what_the_mirror_refuses_is_said_in_one_line() {
    let fixture = Fixture::new("refused").await;
    let unavailable = || Trouble::Status { status: 503, headers: Vec::new(), body: String::new() };
    let layer = fixture.image.layers[0].digest.to_string();
    fixture.inject(Trouble::Cut { after: 100_000 });
    // The first request is answered and cut; the second is refused.
    let refuse_the_second = async {
        while fixture.registry.traffic(|path| path.contains(&layer)).requests == 0 {
            tokio::task::yield_now().await;
        }
        fixture.registry.inject(Fault::once(&layer, unavailable()));
        std::future::pending::<()>().await;
    };
    let pulled = tokio::select! {
        pulled = fixture.pull(":1") => pulled,
        () = refuse_the_second => unreachable!(),
    };
    let error = pulled.unwrap_err();
    let expected = format!("{layer}: cut at 100000 of 300000 bytes, and the mirror doesn't go on (it answered 503");
    assert!(error.to_string().starts_with(&expected), "{error}");
    let error = fixture.pull(":2").await.unwrap_err().to_string();
    assert!(error.contains("/app:2: the mirror answered 404"), "{error}");
    assert_eq!(error.lines().count(), 1);
    let nowhere = PullArgs { mirror: "http://127.0.0.1:1".parse().unwrap(), ..fixture.args(":1") };
    let error = pull(&nowhere, &Progress::default()).await.unwrap_err().to_string();
    assert!(error.starts_with("there is no mirror at http://127.0.0.1:1"), "{error}");
}

#[tokio::test]
async fn of_an_index_the_platform_is_taken() {
    let fixture = Fixture::new("index").await;
    let repository = "app".parse().unwrap();
    let other = fixture.registry.push_image(&repository, "other", &[50_000], 8);
    let platform = |architecture: &str| manifest::Platform {
        os: "linux".into(),
        architecture: architecture.into(),
        variant: None,
    };
    let images = [(platform("arm64"), &other), (platform("amd64"), &fixture.image)];
    fixture.registry.push_index(&repository, "many", &images);
    assert_eq!(fixture.pull(":many").await.unwrap().digest, fixture.image.digest);
    fixture.has_the_image();
    let args = PullArgs { platform: "linux/s390x".parse().unwrap(), ..fixture.args(":many") };
    let error = pull(&args, &Progress::default()).await.unwrap_err().to_string();
    assert!(
        error.ends_with("nothing for linux/s390x in it: choose one of linux/arm64, linux/amd64 with --platform"),
        "{error}"
    );
}

#[tokio::test]
async fn a_directory_with_other_things_is_left_alone() {
    let fixture = Fixture::new("strange").await;
    std::fs::create_dir_all(&fixture.directory).unwrap();
    std::fs::write(fixture.directory.join("thesis.txt"), "years of work").unwrap();
    assert!(matches!(fixture.pull(":1").await.unwrap_err(), PullError::NoLayout { .. }));
    assert_eq!(std::fs::read_dir(&fixture.directory).unwrap().count(), 1);
}

#[test]
fn the_arguments_are_sound() {
    use clap::{Args as _, Command};
    PullArgs::augment_args(Command::new("pull")).debug_assert();
    assert!("dir:x".parse::<Destination>().is_err() && "oci:".parse::<Destination>().is_err());
}
