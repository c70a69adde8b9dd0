//! A blob from one agent to another, as fast as they can, beside the plainest way to do the same: nginx sends a file, curl writes it,
//! openssl hashes it.
//!
//! State: none. Invariants: nobody reads what the receiver stores, so what is measured is receiving, verifying, storing, and sending once;
//! files and stores are in memory on both sides, in memory that was in use a moment before: a virtual machine may have to ask its host for other
//! memory, and pays several times for it what the copying costs. Absent on purpose: the kernel's work that it bills to nobody.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use shoal_agent::pull::{Client, MirrorUrl, Platform};
use shoal_oci::ImageName;
use tokio::time::{Instant, sleep, timeout};

use super::Options;
use crate::figures::{Times, float, rounded};
use crate::lab::client::{Pull, Pulled};
use crate::lab::cluster::{ADMIN, Cluster, MIRROR, Places, Plan};
use crate::lab::origin::{Contents, Origin};
use crate::lab::usage::{children_cpu_seconds, cpu_seconds, peak_rss_mib};
use crate::lab::workers::{Job, Worker};
use crate::network::Network;
use crate::nodes;
use crate::processes::Fleet;

/// Where Debian has it; /usr/sbin isn't in everybody's PATH.
const NGINX: &str = "/usr/sbin/nginx";
const NGINX_PORT: u16 = 8080;

/// A GiB at a tenth of what a slow machine does.
const PATIENCE: Duration = Duration::from_secs(300);

/// What was found: medians.
#[derive(Debug, Default, Serialize)]
pub(super) struct Figures {
    tls: bool,
    /// Of both agents, at most, ever.
    rss_max_mib: u64,
    exchange_mb_per_second: f64,
    /// What the receiver had from the sender and not from the origin.
    from_peer_percent: f64,
    sender_cpu_seconds_per_gb: f64,
    receiver_cpu_seconds_per_gb: f64,
    reference_cpu_seconds_per_gb: f64,
    cpu_over_reference: f64,
}

/// One exchange, or one reference.
#[derive(Clone, Copy, Debug, Default)]
struct Once {
    seconds: f64,
    from_peer: f64,
    rss_max_mib: u64,
    sender_cpu: f64,
    receiver_cpu: f64,
}

/// How a receiver fared: what its worker tells.
#[derive(Debug, Serialize, Deserialize)]
struct Fetched {
    seconds: f64,
    peer_bytes: u64,
}

/// What a receiver is to fetch.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Fetch {
    pub(crate) mirror: MirrorUrl,
    pub(crate) image: ImageName,
    pub(crate) admin: SocketAddr,
}

/// What the plain receiver is to fetch, and where to.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Reference {
    pub(crate) url: String,
    pub(crate) file: PathBuf,
}

/// Whether all that is compared with is here.
pub(super) fn check() -> Result<()> {
    for (program, argument, package) in
        [(NGINX, "-v", "nginx-light"), ("curl", "--version", "curl"), ("openssl", "version", "openssl")]
    {
        let found = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
        ensure!(found.is_ok_and(|status| status.success()), "{program} is missing: apt-get install {package}");
    }
    Ok(())
}

/// Measures as often as is wanted.
pub(super) async fn measure(options: &Options, directory: &Path, program: &Path) -> Result<Figures> {
    let mut network = Network::new("lab")?;
    let places = Places::build(&mut network, 2, None)?;
    let blobs = directory.join("blobs");
    let contents = Contents { size: options.size, layers: 1, small: 0, blobs: Some(blobs.clone()) };
    let origin = Origin::start(&places.origin, contents).await?;
    let mut nginx = Fleet::new(directory);
    let server = start_nginx(&places, directory, &blobs, &mut nginx)?;
    let (mut exchanges, mut references) = (Vec::new(), Vec::new());
    for pair in 1..=options.pairs {
        eprintln!("pair {pair}: {} from an agent to another, then from nginx to curl and openssl", options.size);
        exchanges.push(exchange(options, &places, &origin, directory, program).await?);
        references.push(nginx.during(reference(&places, server, &blobs, directory)).await?);
    }
    nginx.end().await;
    let gb = float(origin.bytes) / 1e9;
    let of = |all: &[Once], what: &dyn Fn(&Once) -> f64| {
        Times::new(all.iter().map(what).collect()).map(|values| values.p50()).context("no pair")
    };
    let cpu = |once: &Once| (once.sender_cpu + once.receiver_cpu) / gb;
    let ratios = exchanges.iter().zip(&references).map(|(shoal, plain)| cpu(shoal) / cpu(plain)).collect();
    Ok(Figures {
        tls: !options.plain_peers,
        rss_max_mib: exchanges.iter().map(|once| once.rss_max_mib).max().unwrap_or(0),
        exchange_mb_per_second: rounded(of(&exchanges, &|once| gb * 1e3 / once.seconds)?),
        from_peer_percent: rounded(of(&exchanges, &|once| 100.0 * once.from_peer)?),
        sender_cpu_seconds_per_gb: rounded(of(&exchanges, &|once| once.sender_cpu / gb)?),
        receiver_cpu_seconds_per_gb: rounded(of(&exchanges, &|once| once.receiver_cpu / gb)?),
        reference_cpu_seconds_per_gb: rounded(of(&references, &cpu)?),
        cpu_over_reference: rounded(Times::new(ratios).context("no pair")?.p50()),
    })
}

async fn exchange(
    options: &Options,
    places: &Places,
    origin: &Origin,
    directory: &Path,
    program: &Path,
) -> Result<Once> {
    let flags: &[&str] = if options.plain_peers { &["--plain-peers"] } else { &[] };
    let plan = Plan { program, directory: directory.join("round"), liars: 0, flags, sockets: Vec::new() };
    let mut cluster = Cluster::start(places, plan).await?;
    let mirror: MirrorUrl = format!("http://{MIRROR}").parse().map_err(anyhow::Error::msg)?;
    let image = origin.image.clone();
    let pull = Worker::Client(Pull { mirror: mirror.clone(), image: image.clone(), blobs: None });
    let fetch = Worker::Fetch(Fetch { mirror, image, admin: ADMIN });
    let (sender, receiver) = (cluster.agents[0], cluster.agents[1]);
    let work = async {
        let pulled: Pulled = serde_json::from_str(&say(&places.nodes[0], &pull).await?)?;
        ensure!(pulled.error.is_none(), "the sender has no blob: {}", pulled.error.unwrap_or_default());
        use_memory(directory, origin.bytes).await?;
        let before = (cpu_seconds(sender), cpu_seconds(receiver));
        let fetched: Fetched = serde_json::from_str(&say(&places.nodes[1], &fetch).await?)?;
        Ok(Once {
            seconds: fetched.seconds,
            from_peer: float(fetched.peer_bytes) / float(origin.bytes),
            rss_max_mib: peak_rss_mib(sender).max(peak_rss_mib(receiver)),
            sender_cpu: cpu_seconds(sender) - before.0,
            receiver_cpu: cpu_seconds(receiver) - before.1,
        })
    };
    let once = cluster.fleet.during(async { timeout(PATIENCE, work).await.context("it takes too long")? }).await?;
    cluster.end(false).await?;
    Ok(once)
}

/// Uses twice the memory that what comes next will, and lets go of it: what is given out next isn't only what was let go of last.
async fn use_memory(directory: &Path, bytes: u64) -> Result<()> {
    let bytes = bytes.saturating_mul(2);
    let file = directory.join("used");
    let used = tokio::task::spawn_blocking(move || {
        let written = std::fs::File::create(&file).and_then(|mut out| {
            std::io::copy(
                &mut std::io::repeat(1).take(bytes),
                &mut std::io::BufWriter::with_capacity(256 << 10, &mut out),
            )
        });
        std::fs::remove_file(&file).and(written)
    });
    used.await?.map(drop).context("memory can't be used beforehand")
}

/// What a job says in the end.
async fn say(place: &crate::network::Place, worker: &Worker) -> Result<String> {
    let mut job = Job::start(place, worker)?;
    job.line().await?;
    job.go().await?;
    job.line().await
}

impl Fetch {
    /// The receiver's worker: asks for the manifest alone, which starts the blobs, and waits until all of them are proven.
    pub(crate) async fn run(&self) -> Result<()> {
        let started = Instant::now();
        let image = Client::new(self.mirror.clone(), None).image(&self.image, &Platform::of_this_machine()).await?;
        let (peer_bytes, seconds) = loop {
            let (peers, origin) = nodes::bytes_by_source(self.admin).await;
            let (peers, origin) = (peers.unwrap_or(0), origin.unwrap_or(0));
            if peers + origin >= image.blob_bytes() {
                break (peers, started.elapsed().as_secs_f64());
            }
            sleep(Duration::from_millis(20)).await;
        };
        while !self.is_proven(image.blobs.len()).await {
            sleep(Duration::from_millis(100)).await;
        }
        println!("{}", serde_json::to_string(&Fetched { seconds, peer_bytes })?);
        Ok(())
    }

    async fn is_proven(&self, blobs: usize) -> bool {
        let page = nodes::page(self.admin, "/debug/swarms").await.unwrap_or_default();
        let page: serde_json::Value = serde_json::from_str(&page).unwrap_or_default();
        let complete = |seen: &Vec<serde_json::Value>| seen.iter().filter(|blob| blob["complete"] == true).count();
        page["blobs"].as_array().is_some_and(|seen| complete(seen) >= blobs)
    }
}

fn start_nginx(places: &Places, directory: &Path, blobs: &Path, fleet: &mut Fleet) -> Result<u32> {
    let file = directory.join("nginx.conf");
    let [at, blobs] = [directory, blobs].map(Path::display);
    // One process, as there is one agent, with what makes it quick.
    let text = format!(
        "daemon off;\nmaster_process off;\nerror_log stderr;\npid {at}/nginx.pid;\nevents {{ }}\nhttp {{\n  access_log off;\n  \
         sendfile on;\n  tcp_nopush on;\n  client_body_temp_path {at}/nginx-1;\n  proxy_temp_path {at}/nginx-2;\n  \
         fastcgi_temp_path {at}/nginx-3;\n  uwsgi_temp_path {at}/nginx-4;\n  scgi_temp_path {at}/nginx-5;\n  \
         server {{ listen {}:{NGINX_PORT}; root {blobs}; }}\n}}\n",
        places.nodes[0].address
    );
    std::fs::write(&file, text).context("nginx's configuration can't be written")?;
    let command = [NGINX.as_ref(), "-c".as_ref(), file.as_os_str()].map(Into::into);
    fleet.start("nginx", &places.nodes[0].within(&command))
}

async fn reference(places: &Places, server: u32, blobs: &Path, directory: &Path) -> Result<Once> {
    let largest =
        std::fs::read_dir(blobs)?.filter_map(Result::ok).max_by_key(|file| file.metadata().map_or(0, |it| it.len()));
    let name = largest.context("no blob")?.file_name();
    let url = format!("http://{}:{NGINX_PORT}/{}", places.nodes[0].address, name.to_string_lossy());
    let file = directory.join("fetched");
    use_memory(directory, std::fs::metadata(blobs.join(&name))?.len()).await?;
    let before = cpu_seconds(server);
    let worker = Worker::Reference(Reference { url, file });
    let receiver_cpu = say(&places.nodes[1], &worker).await?.parse().context("no CPU seconds came")?;
    Ok(Once { sender_cpu: cpu_seconds(server) - before, receiver_cpu, ..Once::default() })
}

impl Reference {
    /// The plain receiver's worker: says the CPU seconds of curl and openssl.
    pub(crate) async fn run(&self) -> Result<()> {
        let file = self.file.as_os_str();
        let retry = ["--silent", "--show-error", "--fail", "--retry", "5", "--retry-connrefused", "--output"];
        let fetch = retry.iter().map(AsRef::as_ref).chain([file, self.url.as_ref()]);
        run("curl", fetch).await?;
        run("openssl", ["dgst".as_ref(), "-sha256".as_ref(), file].into_iter()).await?;
        std::fs::remove_file(&self.file)?;
        println!("{}", children_cpu_seconds());
        Ok(())
    }
}

async fn run(program: &str, arguments: impl Iterator<Item = &std::ffi::OsStr>) -> Result<()> {
    let output = tokio::process::Command::new(program).args(arguments).output().await?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
