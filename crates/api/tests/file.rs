//! Swarms from files: what is read, and the one line that says what is wrong.

use std::time::Duration;

use shoal_api::{Access, Glob, Mode, OutagePolicy, Placement, Preset, Transfer, Verification, read_swarms};

const EXAMPLE: &str = include_str!("swarm.yaml");

#[test]
fn the_documented_example_is_read_as_it_is_meant() {
    let swarms = read_swarms("swarm.yaml", EXAMPLE).unwrap();
    let [swarm] = &swarms[..] else { panic!("{swarms:?}") };
    assert_eq!((&*swarm.name, swarm.mode, swarm.resolve_interval), ("default", Mode::Auto, Duration::from_secs(300)));
    let registry = &swarm.registries[0];
    assert_eq!(registry.host.to_string(), "registry.example.com:5000");
    assert_eq!((registry.access, registry.outage_policy), (Access::VerifyAtOrigin, OutagePolicy::LastResolved));
    assert_eq!(registry.secret.as_ref().unwrap().name, "regcred");
    assert_eq!(registry.ca_bundle, None);
    assert_eq!(swarm.rules[0].repository, "registry.example.com:5000/payroll/*".parse::<Glob>().unwrap());
    assert_eq!(swarm.artifacts[0].reference.to_string(), "registry.example.com:5000/ml/pytorch:2.9");
    assert_eq!((swarm.artifacts[0].placement, swarm.artifacts[0].pin), (Placement::Runtime, true));
    let transfer = Transfer { slots: 8, verification: Verification::Eager, ..Preset::Datacenter.transfer() };
    assert_eq!(swarm.transfer, transfer);
}

#[test]
fn several_documents_empty_keys_and_what_a_cluster_adds_are_fine() {
    let text = "
apiVersion: shoal.dev/v1alpha1
kind: Swarm
metadata: {name: a, uid: 0b5a, annotations: {x: y}, generation: 3}
spec:
  registries: [{host: '*'}]
  rules:
  artifacts:
  transfer:
status: {observedGeneration: 3}
---
# An empty document.
---
apiVersion: shoal.dev/v1alpha1
kind: Swarm
metadata: {name: b}
spec: {registries: [{host: docker.io, access: Public}]}
";
    let swarms = read_swarms("swarm.yaml", text).unwrap();
    assert_eq!(swarms.iter().map(|swarm| (&*swarm.name, swarm.created)).collect::<Vec<_>>(), [("a", 0), ("b", 1)]);
}

/// A file whose specification is this YAML.
fn of_spec(spec: &str) -> String {
    let head = "apiVersion: shoal.dev/v1alpha1\nkind: Swarm\nmetadata: {name: default}\nspec:\n";
    head.to_owned() + &spec.lines().map(|line| format!("  {line}\n")).collect::<String>()
}

#[test]
fn one_line_names_file_key_and_what_to_write() {
    let pem_less = "registries: [{host: r.io, caBundle: aGVsbG8=}]";
    let cases = [
        // What isn't a Swarm.
        (String::new(), "kind: no Swarm: write apiVersion: shoal.dev/v1alpha1, kind: Swarm, metadata and spec"),
        ("- a\n".to_owned(), "kind: not a Swarm: write apiVersion, kind: Swarm, metadata and spec"),
        ("apiVersion: v1\nkind: Pod\n".to_owned(), "apiVersion: write apiVersion: shoal.dev/v1alpha1"),
        (
            "apiVersion: shoal.dev/v1alpha1\nkind: Swarm\nmetadata: {name: A_b}\nspec: {}\n".to_owned(),
            "metadata.name: write lower-case letters, digits, \"-\" and \".\", as in default",
        ),
        (
            "apiVersion: shoal.dev/v1alpha1\nkind: Swarm\nmetadata: {name: a}\n".to_owned(),
            "spec: missing: write it, with registries at least",
        ),
        (
            "apiVersion: shoal.dev/v1alpha1\nkinds: Swarm\n".to_owned(),
            "kinds: unknown key: write one of apiVersion, kind, metadata, spec, status",
        ),
        // What the schema refuses.
        (
            of_spec("registries: [{host: r.io, acess: Public}]"),
            "spec.registries[0].acess: unknown key: write one of access, caBundle, endpoint, host, outagePolicy, secretRef",
        ),
        (
            of_spec("mode: Autoo\nregistries: [{host: r.io}]"),
            "spec.mode: \"Autoo\" is unknown: write Auto, PeerFirst, OriginOnly, Suspended",
        ),
        (
            of_spec("transfer: {chunkSize: 3Mi}\nregistries: [{host: r.io}]"),
            "spec.transfer.chunkSize: \"3Mi\" is unknown: write Auto, 64Ki, 128Ki, 256Ki, 512Ki, 1Mi, 2Mi, 4Mi",
        ),
        (
            of_spec("transfer: {maxPeers: many}\nregistries: [{host: r.io}]"),
            "spec.transfer.maxPeers: \"many\" is not a number from 1 to 512",
        ),
        (
            of_spec("resolveSeconds: -1\nregistries: [{host: r.io}]"),
            "spec.resolveSeconds: -1 is not a number from 10 to 86400",
        ),
        (
            of_spec("resolveSeconds: 1.5\nregistries: [{host: r.io}]"),
            "spec.resolveSeconds: 1.5 is not a number from 10 to 86400",
        ),
        (of_spec("registries: r.io"), "spec.registries: \"r.io\" is not a list: write each entry behind \"- \""),
        (
            of_spec("registries: [r.io]"),
            "spec.registries[0]: \"r.io\" is not a mapping: write keys and values, indented",
        ),
        (of_spec("registries: [{access: Public}]"), "spec.registries[0].host: missing: write it"),
        (of_spec("registries: [{host: 5000}]"), "spec.registries[0].host: 5000 is not a text: write it in quotes"),
        (
            of_spec("registries: [{host: r.io, secretRef: {nam: x, name: y}}]"),
            "spec.registries[0].secretRef.nam: unknown key: write one of name, namespace",
        ),
        (
            of_spec("nodeSelector: {matchLabels: {gpu: 1}}\nregistries: [{host: r.io}]"),
            "spec.nodeSelector.matchLabels.gpu: 1 is not a text: write it in quotes",
        ),
        // What only the whole can refute.
        (
            of_spec("mode: Auto"),
            "spec.registries: none, so this Swarm answers for nothing: write - host: \"*\" for all",
        ),
        (
            of_spec("registries: [{host: https://r.io}]"),
            "spec.registries[0].host: a registry's host has no scheme: write host or host:port, and the scheme in endpoint",
        ),
        (
            of_spec("registries: [{host: docker.io}, {host: index.docker.io}]"),
            "spec.registries[1].host: index.docker.io is here twice: write one entry",
        ),
        (
            of_spec("registries: [{host: r.io, access: Shared}]"),
            "spec.registries[0].access: Shared serves what the Swarm's secret may read: add secretRef, or write Public",
        ),
        (
            of_spec("registries: [{host: '*', endpoint: 'https://r.io'}]"),
            "spec.registries[0].endpoint: \"*\" stands for many registries, which can't all be there: write the host, or leave endpoint out",
        ),
        (
            of_spec("registries: [{host: r.io, endpoint: 'http://r.io', caBundle: aGVsbG8=}]"),
            "spec.registries[0].caBundle: the endpoint has no TLS: write https:// there, or leave caBundle out",
        ),
        (
            of_spec("registries: [{host: r.io, caBundle: '%%%'}]"),
            "spec.registries[0].caBundle: not base64: write the output of base64 -w0 ca.pem",
        ),
        (
            of_spec(pem_less),
            "spec.registries[0].caBundle: no PEM certificate in it: write the output of base64 -w0 ca.pem",
        ),
        (
            of_spec("registries: [{host: r.io}]\nrules: [{repository: 's.io/**', mode: Auto}]"),
            "spec.rules[0].repository: no registry of this Swarm is s.io: add it to spec.registries, or correct the rule",
        ),
        (
            of_spec("registries: [{host: docker.io}]\nrules: [{repository: docker.io/nginx, mode: Auto}]"),
            "spec.rules[0].repository: nothing at Docker Hub is called so: write docker.io/library/ and the name for the official ones",
        ),
        (
            of_spec(
                "registries: [{host: r.io}]\nrules: [{repository: r.io/**, mode: Auto}, {repository: r.io/a/*, mode: Suspended}]",
            ),
            "spec.rules[1].repository: never reached, rule 0 (r.io/**) matches it all: write this one first",
        ),
        (
            of_spec("registries: [{host: r.io}]\nartifacts: [{name: a, reference: 'r.io/a'}]"),
            "spec.artifacts[0].reference: neither tag nor digest: add :tag or @sha256:…",
        ),
        (
            of_spec("registries: [{host: r.io}]\nartifacts: [{name: a, reference: 's.io/a:1'}]"),
            "spec.artifacts[0].reference: no registry of this Swarm is s.io: add it to spec.registries",
        ),
        (
            of_spec("mode: OriginOnly\nregistries: [{host: r.io}]\nartifacts: [{name: a, reference: 'r.io/a:1'}]"),
            "spec.artifacts[0].reference: OriginOnly by mode or rule, so every node would fetch it from the registry: write another mode",
        ),
        (
            of_spec("registries: [{host: r.io}]\nnodeSelector: {matchExpressions: [{key: a, operator: In}]}"),
            "spec.nodeSelector.matchExpressions[0].values: In and NotIn compare with values: write one at least",
        ),
        // More than one.
        (
            of_spec("registries: [{host: a_b}, {host: r.io, endpoint: r.io}]\nresolveSeconds: 5"),
            "spec.registries[0].host: not a host: write a DNS name, an IPv4 address or an IPv6 address in brackets, each with :port if it has one \
             (also wrong: spec.registries[1].endpoint, spec.resolveSeconds)",
        ),
    ];
    for (text, message) in cases {
        let error = read_swarms("/etc/swarm.yaml", &text).expect_err(&text);
        assert_eq!(error.to_string(), format!("/etc/swarm.yaml: {message}"), "{text}");
    }
}

#[test]
fn a_text_that_is_no_yaml_says_where() {
    let cases = [
        ("a: [", "line 1, column 4: unclosed bracket '['"),
        ("a: 1\na: 2\n", "line 2, column 1: duplicate mapping key: a"),
        ("a: b: c", "line 1, column 5: mapping values are not allowed in this context"),
        ("a: *b", "line 1, column 4: alias references unknown anchor"),
    ];
    for (text, message) in cases {
        assert_eq!(read_swarms("s.yaml", text).unwrap_err().to_string(), format!("s.yaml: {message}"));
    }
}

#[test]
fn of_two_of_the_same_name_the_document_is_named() {
    let error = read_swarms("s.yaml", &format!("{EXAMPLE}---\n{EXAMPLE}")).unwrap_err().to_string();
    assert_eq!(
        error,
        "s.yaml: document 2: metadata.name: another Swarm in this file is called default: write another name"
    );
}
