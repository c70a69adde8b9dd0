//! One agent without peers: what its mirror adds to a pull, and to a blob of a KiB that it has never seen.
//!
//! State: none. Invariants: the same client asks the mirror and the origin, in turn.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use shoal_agent::pull::{Client, MirrorUrl, Progress};
use shoal_oci::ImageName;
use shoal_oci::manifest::Descriptor;
use tokio::time::Instant;

use super::Options;
use crate::figures::{Times, rounded};
use crate::lab::client::Pull;
use crate::lab::cluster::{Cluster, MIRROR, Places, Plan};
use crate::lab::origin::{self, Contents, Origin};
use crate::lab::pulls::Pulls;
use crate::lab::workers::{Job, Worker};
use crate::network::{Network, Place};

/// Enough for a 99th percentile that isn't the worst of them.
const SMALL: u32 = 300;

/// What was found: medians of the pulls, percentiles of the small blobs.
#[derive(Debug, Default, Serialize)]
pub(super) struct Figures {
    mirror_seconds: f64,
    direct_seconds: f64,
    mirror_over_direct: f64,
    small_direct_p99_ms: f64,
    small_mirror_p99_ms: f64,
    small_added_p99_ms: f64,
}

/// Which small blobs are asked for, and where.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Small {
    pub(crate) mirror: MirrorUrl,
    /// Any image of the registry that they are of.
    pub(crate) image: ImageName,
    pub(crate) count: u32,
}

/// What a client of small blobs tells, in milliseconds.
#[derive(Debug, Serialize, Deserialize)]
struct Waited {
    p99: f64,
}

/// Measures as often as is wanted.
pub(super) async fn measure(options: &Options, directory: &Path, program: &Path) -> Result<Figures> {
    let mut network = Network::new("lab")?;
    let places = Places::build(&mut network, 1, Some(options.rate))?;
    let contents = Contents { size: options.pull_size, layers: 1, small: SMALL, blobs: None };
    let origin = Origin::start(&places.origin, contents).await?;
    let mirror: MirrorUrl = format!("http://{MIRROR}").parse().map_err(anyhow::Error::msg)?;
    let (mut direct, mut mirrored) = (Vec::new(), Vec::new());
    let mut small = None;
    for pair in 1..=options.pairs {
        eprintln!("pair {pair}: {} from the origin, then through a mirror without peers", options.pull_size);
        direct.push(pull(&places, &origin, &origin.url).await?);
        let plan = Plan { program, directory: directory.join("round"), liars: 0, flags: &[], sockets: Vec::new() };
        let mut cluster = Cluster::start(&places, plan).await?;
        mirrored.push(cluster.fleet.during(pull(&places, &origin, &mirror)).await?);
        if pair == options.pairs {
            eprintln!("{SMALL} blobs of a KiB");
            let node = &places.nodes[0];
            let (from_origin, through) = (ask(node, &origin, &origin.url), ask(node, &origin, &mirror));
            small = Some((from_origin.await?, cluster.fleet.during(through).await?));
        }
        cluster.end(false).await?;
    }
    let (from_origin, through) = small.context("no pair")?;
    let ratios = direct.iter().zip(&mirrored).map(|(direct, mirrored)| mirrored / direct).collect();
    let median = |values: Vec<f64>| Times::new(values).map(|values| rounded(values.p50())).context("no pair");
    Ok(Figures {
        mirror_seconds: median(mirrored)?,
        direct_seconds: median(direct)?,
        mirror_over_direct: median(ratios)?,
        small_direct_p99_ms: rounded(from_origin),
        small_mirror_p99_ms: rounded(through),
        small_added_p99_ms: rounded(through - from_origin),
    })
}

async fn pull(places: &Places, origin: &Origin, from: &MirrorUrl) -> Result<f64> {
    let client = Worker::Client(Pull { mirror: from.clone(), image: origin.image.clone(), blobs: None });
    let pulls = Pulls::all(&places.nodes);
    Ok(pulls.run(&mut pulls.clients(&client).await?).await?.times()?.last())
}

async fn ask(node: &Place, origin: &Origin, from: &MirrorUrl) -> Result<f64> {
    let small = Small { mirror: from.clone(), image: origin.image.clone(), count: SMALL };
    let told = Job::start(node, &Worker::Small(small))?.line().await?;
    Ok(serde_json::from_str::<Waited>(&told).context("a client doesn't tell how long it waited")?.p99)
}

impl Small {
    /// The client's worker: asks for one after the other.
    pub(crate) async fn run(&self) -> Result<()> {
        let client = Client::new(self.mirror.clone(), None);
        let image: ImageName = format!("{}/lab/small:1", self.image.registry).parse()?;
        let mut waited = Vec::new();
        for ix in 0..self.count {
            let digest = origin::small_digest(ix);
            let media_type = "application/octet-stream".to_owned();
            let blob = Descriptor { media_type, digest, size_bytes: 1 << 10, elsewhere: false };
            let started = Instant::now();
            client.blob(&image, &blob, &mut tokio::io::sink(), &Progress::default()).await?;
            waited.push(started.elapsed().as_secs_f64() * 1e3);
        }
        let waited = Times::new(waited).context("no blob")?;
        println!("{}", serde_json::to_string(&Waited { p99: waited.percentile(99) })?);
        Ok(())
    }
}
