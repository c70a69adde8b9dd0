//! Alerts and dashboard ask for metrics that there are.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use prometheus_client::registry::Registry;
use serde_json::Value;
use shoal_agent::agent::{Agent, AgentConfig};
use shoal_e2e::scratch::Scratch;
use shoal_oci::testing::free_ports;
use shoal_store::Limits;

use crate::helm::chart;
use crate::page;

/// Words of a text that begin as our metrics do, without what scrapers add to a counter.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let words = words.filter(|word| word.starts_with("shoal_"));
    words.map(|word| word.trim_end_matches("_total").to_owned()).collect()
}

/// The names in a registry. Its text has only those that have a value, and of most labels none has occurred in a test.
fn registered(registry: &Registry) -> BTreeSet<String> {
    let (text, mut prefix, mut names) = (format!("{registry:?}"), "", BTreeSet::new());
    for quoted in text.split("Prefix(\"").skip(1) {
        let (own, rest) = quoted.split_once('"').unwrap();
        prefix = own;
        for descriptor in rest.split("Descriptor { name: \"").skip(1) {
            names.insert(format!("{prefix}_{}", descriptor.split_once('"').unwrap().0));
        }
    }
    assert!(!prefix.is_empty(), "a registry doesn't show its prefixes any more: {text}");
    names
}

/// The page that Prometheus reads of an agent, which has nothing else.
async fn agents_page() -> String {
    let scratch = Scratch::in_memory("shoal-chart-metrics", false).unwrap();
    let swarm_file = scratch.path().join("swarm.yaml");
    fs::write(&swarm_file, shoal_e2e::nodes::swarm_file("r.example")).unwrap();
    let ports = free_ports(Ipv4Addr::LOCALHOST.into(), 2).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = AgentConfig {
        name: "node-a".parse().unwrap(),
        zone: shoal_types::Zone::default(),
        trackers: Vec::new(),
        join_token_file: scratch.path().join("none"),
        ca_file: None,
        swarm_file: Some(swarm_file),
        data_dir: scratch.path().join("data"),
        mirror_listen: any,
        peer_listen: ports[0],
        peer_ip: None,
        admin_listen: any,
        metrics_listen: Some(ports[1]),
        upload_limit: None,
        download_limit: None,
        limits: Limits::new(1 << 20),
        plain_peers: false,
        default_registry: None,
        proxy: shoal_oci::ProxyConfig::default(),
        token: None,
        runtime: None,
        check: None,
    };
    let agent = Agent::start(config, Registry::default()).await.unwrap();
    let page = page::get(ports[1], "/metrics").await;
    for path in ["/debug/swarms", "/readyz"] {
        assert!(page::get(ports[1], path).await.starts_with("HTTP/1.1 404"), "{path} is for the node alone");
    }
    agent.stop().await;
    page
}

#[tokio::test]
async fn alerts_and_dashboard_ask_for_what_there_is() {
    let mut registry = Registry::default();
    shoal_tracker_server::Metrics::default().register(&mut registry);
    let of_agents = registry.sub_registry_with_prefix("shoal");
    shoal_agent::mirror::Metrics::register(of_agents);
    shoal_agent::content::Metrics::register(of_agents);
    let mut exposed = registered(&registry);
    assert!(exposed.len() > 15, "{exposed:?}");
    // The exchange's are counted when they are asked for.
    exposed.extend(named(&agents_page().await));
    for file in ["alerts.yaml", "dashboard.json"] {
        let named = named(&fs::read_to_string(chart().join("files").join(file)).unwrap());
        let missing: Vec<_> = named.difference(&exposed).collect();
        assert!(missing.is_empty(), "{file}: nobody exposes {missing:?}");
    }
}

#[test]
fn every_alert_says_what_to_do() {
    let alerts = fs::read_to_string(chart().join("files/alerts.yaml")).unwrap();
    let alerts: Value = serde_saphyr::from_str(&alerts).unwrap();
    let rules = alerts["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() >= 6);
    for rule in rules {
        for words in ["summary", "description", "runbook"] {
            assert!(rule["annotations"][words].as_str().is_some_and(|words| words.ends_with('.')), "{words} of {rule}");
        }
        assert!(["warning", "critical"].contains(&rule["labels"]["severity"].as_str().unwrap()), "{rule}");
    }
}
