//! Whether a runtime asks the mirror is found out by a pull that only the mirror can answer.

use std::sync::Arc;

use prometheus_client::registry::Registry as Counters;
use shoal_agent::check::{Bait, Baited, CheckConfig, Checker};
use shoal_agent::content::Policies;
use shoal_agent::mirror::{MemoryContent, Metrics, Mirror, Settings};
use shoal_api::{Policy, read_swarms};
use shoal_e2e::nodes;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::world::{World, runtimes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_goes_past_the_mirror_is_found_out() {
    for programs in runtimes() {
        let mut world = World::new(&format!("check-{}", programs.version()), 16 << 20, "").await;
        let node = world.node("node");
        let containerd = world.containerd(&node, &programs).await;
        let swarms = read_swarms("test", &nodes::swarm_file(world.origin.name().as_str())).unwrap();
        let (_, policy) = watch::channel(Arc::new(Policy::compile(swarms.into_iter().map(Arc::new))));
        let (bait, found) = (Arc::new(Bait::new()), watch::channel(None).0);
        let config = CheckConfig { certs_dir: containerd.certs(), registries: Vec::new() };
        let policies = Policies::new(policy);
        let mut checker = Checker::new(config, containerd.socket(), policies.clone(), Arc::clone(&bait), found, 1);

        let why = checker.look().await.unwrap().expect("there is no mirror that it could ask");
        let asks = format!("doesn't ask the mirror for {}: ", world.origin.name());
        assert!(why.starts_with("containerd ") && why.contains(&asks), "{why}");
        println!("{why}");

        let listener = TcpListener::bind(node.mirror).await.unwrap();
        let content = Arc::new(Baited { bait: Some(bait), content: MemoryContent::default() });
        let metrics = Metrics::register(&mut Counters::default());
        let (mirror, stop) = (Mirror::new(content, policies, Settings::default(), metrics), CancellationToken::new());
        let mirror = tokio::spawn(mirror.serve(listener, stop.clone()));
        let heard = || world.origin.traffic(|_| true).requests;
        let before = heard();
        for _ in 0..2 {
            assert_eq!(checker.look().await.unwrap(), None);
        }
        assert_eq!(heard(), before, "no registry hears of it");

        stop.cancel();
        mirror.await.unwrap();
        drop(containerd);
        world.end().await;
    }
}
