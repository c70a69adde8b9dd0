//! Which Swarm answers, as tables.

use std::sync::Arc;

use shoal_api::{Access, Mode, OutagePolicy, Policy, RegistryHost, Swarm, Verification, read_swarms};

/// A Swarm of this specification, as flow-style YAML.
fn swarm(name: &str, created: u64, spec: &str) -> Arc<Swarm> {
    let text = format!("{{apiVersion: shoal.dev/v1alpha1, kind: Swarm, metadata: {{name: {name}}}, spec: {spec}}}");
    let mut swarm = read_swarms(name, &text).unwrap_or_else(|error| panic!("{error}")).remove(0);
    swarm.created = created;
    Arc::new(swarm)
}

fn decide(policy: &Policy, host: &str, repository: &str) -> Option<(String, Mode)> {
    let decision = policy.decide(&host.parse::<RegistryHost>().unwrap(), repository)?;
    Some((decision.swarm.to_string(), decision.mode))
}

#[test]
fn the_first_rule_that_matches_wins() {
    let rules = "[{repository: r.io/a/keep, mode: PeerFirst}, {repository: 'r.io/a/**', mode: OriginOnly}, {repository: '*/*/b', mode: Suspended}]";
    let policy = Policy::compile([swarm(
        "s",
        0,
        &format!("{{registries: [{{host: r.io}}, {{host: docker.io}}], rules: {rules}}}"),
    )]);
    let cases = [
        ("r.io", "a/keep", Mode::PeerFirst),
        ("r.io", "a/b", Mode::OriginOnly),
        ("r.io", "a/keep/x", Mode::OriginOnly),
        ("r.io", "x/b", Mode::Suspended),
        ("docker.io", "x/b", Mode::Suspended),
        ("r.io", "x/c", Mode::Auto),
    ];
    for (host, repository, mode) in cases {
        assert_eq!(decide(&policy, host, repository), Some(("s".to_owned(), mode)), "{host}/{repository}");
    }
    assert_eq!(decide(&policy, "s.io", "a/b"), None);
    assert_eq!(decide(&policy, "r.io:5000", "a/b"), None);
}

#[test]
fn the_most_specific_swarm_answers_then_the_older_one() {
    let all = swarm("all", 1, "{registries: [{host: '*'}]}");
    let payroll =
        swarm("payroll", 9, "{registries: [{host: '*'}], rules: [{repository: 'r.io/payroll/**', mode: OriginOnly}]}");
    let old = swarm("old", 2, "{registries: [{host: r.io}]}");
    let young = swarm(
        "young",
        3,
        "{registries: [{host: r.io}], mode: PeerFirst, rules: [{repository: r.io/ml/*, mode: Suspended}]}",
    );
    let vague = swarm("vague", 0, "{registries: [{host: r.io}], rules: [{repository: '**/cuda', mode: Suspended}]}");
    let cases = [
        (vec![&all], "r.io", "a", Some(("all", Mode::Auto))),
        // A named registry beats "*", whatever the age.
        (vec![&all, &old], "r.io", "a", Some(("old", Mode::Auto))),
        (vec![&all, &old], "s.io", "a", Some(("all", Mode::Auto))),
        // A rule beats the whole of a registry, even one of a Swarm for "*".
        (vec![&old, &payroll], "r.io", "payroll/x", Some(("payroll", Mode::OriginOnly))),
        (vec![&old, &payroll], "r.io", "x", Some(("old", Mode::Auto))),
        // As specific: the older one.
        (vec![&young, &old], "r.io", "x", Some(("old", Mode::Auto))),
        (vec![&young, &old], "r.io", "ml/x", Some(("young", Mode::Suspended))),
        // A rule that names no registry is as specific as its Swarm's entry, so the older Swarm wins with it.
        (vec![&vague, &old], "r.io", "ml/cuda", Some(("vague", Mode::Suspended))),
        (vec![&vague, &young], "r.io", "ml/cuda", Some(("young", Mode::Suspended))),
        (vec![&old], "s.io", "a", None),
        (vec![], "r.io", "a", None),
    ];
    for (swarms, host, repository, expected) in cases {
        let expected = expected.map(|(name, mode)| (name.to_owned(), mode));
        let forward = Policy::compile(swarms.iter().map(|swarm| Arc::clone(swarm)));
        let backward = Policy::compile(swarms.iter().rev().map(|swarm| Arc::clone(swarm)));
        assert_eq!(decide(&forward, host, repository), expected, "{host}/{repository} of {swarms:?}");
        assert_eq!(decide(&backward, host, repository), expected, "{host}/{repository}, order");
    }
}

#[test]
fn who_has_no_say_is_reported() {
    let a =
        swarm("a", 1, "{registries: [{host: r.io}, {host: '*'}], rules: [{repository: r.io/ml/*, mode: Suspended}]}");
    let b = swarm("b", 2, "{registries: [{host: r.io}, {host: s.io}], rules: [{repository: r.io/ml/*, mode: Auto}]}");
    let c = swarm("c", 2, "{registries: [{host: s.io}]}");
    let policy = Policy::compile([c, b, a]);
    let overruled: Vec<_> =
        policy.overruled().iter().map(|o| format!("{} by {}: {}", o.loser, o.winner, o.repositories)).collect();
    assert_eq!(overruled, ["b by a: r.io/**", "b by a: r.io/ml/*", "c by b: s.io/**"]);
    let hosts: Vec<_> = policy.registries().map(ToString::to_string).collect();
    assert_eq!(hosts, ["r.io", "s.io", "*"]);
    assert!(policy.knows(&"anything.io".parse().unwrap()));
    assert!(
        Policy::compile([swarm("x", 0, "{registries: [{host: r.io}], rules: [{repository: r.io/**, mode: Auto}]}")])
            .overruled()
            .is_empty()
    );
}

#[test]
fn a_decision_carries_what_its_registry_and_swarm_say() {
    let spec = "{registries: [
        {host: docker.io, access: Public},
        {host: 'r.io:5000', access: Shared, endpoint: 'http://10.0.0.1:5000', outagePolicy: Deny, secretRef: {name: s, namespace: n}},
        {host: '*', caBundle: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t}], transfer: {verification: Strict, preset: Classic}}";
    let policy = Policy::compile([swarm("s", 0, spec)]);
    let decision = |host: &str| policy.decide(&host.parse().unwrap(), "a/b").unwrap();
    let hub = decision("docker.io");
    assert_eq!((hub.access(), hub.endpoint.to_string().as_str()), (Access::Public, "https://registry-1.docker.io"));
    assert_eq!((hub.secret(), hub.ca_bundle(), hub.outage_policy()), (None, None, OutagePolicy::LastResolved));
    assert_eq!((hub.transfer.verification, hub.transfer.slots), (Verification::Strict, 5));
    let own = decision("r.io:5000");
    assert_eq!((own.access(), own.endpoint.to_string().as_str()), (Access::Shared, "http://10.0.0.1:5000"));
    assert_eq!(own.secret().map(|secret| (secret.name.as_str(), secret.namespace.as_str())), Some(("s", "n")));
    assert_eq!(own.outage_policy(), OutagePolicy::Deny);
    let rest = decision("q.io");
    assert_eq!(rest.endpoint.to_string(), "https://q.io");
    assert_eq!(rest.ca_bundle(), Some(&b"-----BEGIN CERTIFICATE-----"[..]));
}
