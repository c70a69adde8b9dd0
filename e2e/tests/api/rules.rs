//! Every CEL rule of the definition, with a Swarm that it lets through and one that it refuses.
//!
//! The rules are those of the generated schema: one without a case fails the test, and so does a case without a rule. The same Swarms are given to
//! [`shoal_api::read_swarms`], because agents outside of Kubernetes have to refuse what it refuses.

use std::collections::BTreeSet;

use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, CustomResourceExt as _};
use serde_json::{Value, json};
use shoal_api::kube::Swarm;
use shoal_api::read_swarms;

/// Where a rule is, its message, and specifications: what it lets through, and what it refuses in this field.
struct Case {
    at: &'static str,
    message: &'static str,
    accepted: &'static str,
    refused: &'static str,
    field: &'static str,
}

const fn case(
    at: &'static str,
    message: &'static str,
    accepted: &'static str,
    refused: &'static str,
    field: &'static str,
) -> Case {
    Case { at, message, accepted, refused, field }
}

const CASES: [Case; 43] = [
    case(
        "spec",
        "none, so this Swarm answers for nothing: write - host: \"*\" for all",
        "{registries: [{host: '*'}]}",
        "{mode: Auto}",
        "spec.registries",
    ),
    case(
        "spec",
        "a rule is for a registry that isn't in spec.registries: add it there, or correct the rule",
        "{registries: [{host: docker.io}, {host: r.io}], rules: [{repository: 'r.io/a/*', mode: Auto}, {repository: '*/b', mode: Auto}, {repository: index.docker.io/c/d, mode: Auto}]}",
        "{registries: [{host: r.io}], rules: [{repository: 's.io/**', mode: Auto}]}",
        "spec.rules",
    ),
    case(
        "spec",
        "an artifact is in a registry that isn't in spec.registries: add it there, or correct the reference",
        "{registries: [{host: 'r.io:5000'}, {host: index.docker.io}], artifacts: [{name: a, reference: 'r.io:5000/a:1'}, {name: b, reference: 'docker.io/library/b:1'}]}",
        "{registries: [{host: r.io}], artifacts: [{name: a, reference: 'r.io:5000/a:1'}]}",
        "spec.artifacts",
    ),
    case(
        "spec",
        "OriginOnly by mode or rule, so every node would fetch it from the registry: write another mode",
        "{mode: OriginOnly, registries: [{host: r.io}], rules: [{repository: 'r.io/**', mode: Auto}], artifacts: [{name: a, reference: 'r.io/a:1'}]}",
        "{mode: OriginOnly, registries: [{host: r.io}], artifacts: [{name: a, reference: 'r.io/a:1'}]}",
        "spec.artifacts",
    ),
    case(
        "spec.registries",
        "docker.io, index.docker.io and registry-1.docker.io are one registry: write one entry, docker.io",
        "{registries: [{host: docker.io}, {host: r.io}]}",
        "{registries: [{host: docker.io}, {host: index.docker.io}]}",
        "spec.registries",
    ),
    case(
        "spec.registries[]",
        "Shared serves what the Swarm's secret may read: add secretRef, or write Public",
        "{registries: [{host: r.io, access: Shared, secretRef: {name: s}}]}",
        "{registries: [{host: r.io, access: Shared}]}",
        "spec.registries[0].access",
    ),
    case(
        "spec.registries[]",
        "\"*\" stands for many registries, which can't all be there: write the host, or leave endpoint out",
        "{registries: [{host: r.io, endpoint: 'https://r.io'}]}",
        "{registries: [{host: '*', endpoint: 'https://r.io'}]}",
        "spec.registries[0].endpoint",
    ),
    case(
        "spec.registries[]",
        "the endpoint has no TLS: write https:// there, or leave caBundle out",
        "{registries: [{host: r.io, endpoint: 'https://r.io', caBundle: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t}]}",
        "{registries: [{host: r.io, endpoint: 'http://r.io', caBundle: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t}]}",
        "spec.registries[0].caBundle",
    ),
    case(
        "spec.registries[].host",
        "upper case, in which no runtime asks for it: write it in lower case",
        "{registries: [{host: registry.example.com}]}",
        "{registries: [{host: Registry.example.com}]}",
        "spec.registries[0].host",
    ),
    case(
        "spec.registries[].host",
        "a registry's host has no scheme: write host or host:port, and the scheme in endpoint",
        "{registries: [{host: 'r.io:443'}]}",
        "{registries: [{host: 'https://r.io'}]}",
        "spec.registries[0].host",
    ),
    case(
        "spec.registries[].host",
        "a registry's host has no path: write host or host:port, and repositories in rules",
        "{registries: [{host: localhost}]}",
        "{registries: [{host: r.io/team}]}",
        "spec.registries[0].host",
    ),
    case(
        "spec.registries[].host",
        "a port is a number from 1 to 65535",
        "{registries: [{host: 'r.io:65535'}]}",
        "{registries: [{host: 'r.io:65536'}]}",
        "spec.registries[0].host",
    ),
    case(
        "spec.registries[].host",
        "not a host: write a DNS name, an IPv4 address or an IPv6 address in brackets, each with :port if it has one",
        "{registries: [{host: '10.0.0.1:5000'}]}",
        "{registries: [{host: a_b}]}",
        "spec.registries[0].host",
    ),
    case(
        "spec.registries[].host",
        "not an IPv6 address in the brackets: write one, as in [2001:db8::1]:5000",
        "{registries: [{host: '[2001:db8::1]:5000'}]}",
        "{registries: [{host: '[2001:db8::1::]'}]}",
        "spec.registries[0].host",
    ),
    case(
        "spec.registries[].endpoint",
        "an endpoint begins with https://, or with http:// where the registry has no TLS",
        "{registries: [{host: r.io, endpoint: 'http://10.0.0.1:5000'}]}",
        "{registries: [{host: r.io, endpoint: 'r.io'}]}",
        "spec.registries[0].endpoint",
    ),
    case(
        "spec.registries[].endpoint",
        "an endpoint has no credentials: name a Secret in secretRef",
        "{registries: [{host: r.io, endpoint: 'https://r.io/'}]}",
        "{registries: [{host: r.io, endpoint: 'https://me:secret@r.io'}]}",
        "spec.registries[0].endpoint",
    ),
    case(
        "spec.registries[].endpoint",
        "an endpoint has no path: write scheme, host and port alone",
        "{registries: [{host: r.io, endpoint: 'https://r.io:443/'}]}",
        "{registries: [{host: r.io, endpoint: 'https://r.io/v2'}]}",
        "spec.registries[0].endpoint",
    ),
    case(
        "spec.registries[].endpoint",
        "not a host behind the scheme: write a DNS name or an address, with :port if it has one",
        "{registries: [{host: r.io, endpoint: 'https://r.io:1'}]}",
        "{registries: [{host: r.io, endpoint: 'https://r.io:0'}]}",
        "spec.registries[0].endpoint",
    ),
    case(
        "spec.registries[].endpoint",
        "not an IPv6 address in the brackets: write one, as in [2001:db8::1]:5000",
        "{registries: [{host: r.io, endpoint: 'https://[::1]:5000'}]}",
        "{registries: [{host: r.io, endpoint: 'https://[1:2]:5000'}]}",
        "spec.registries[0].endpoint",
    ),
    case(
        "spec.registries[].caBundle",
        "not base64: write the output of base64 -w0 ca.pem",
        "{registries: [{host: r.io, caBundle: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t}]}",
        "{registries: [{host: r.io, caBundle: '-----BEGIN CERTIFICATE-----'}]}",
        "spec.registries[0].caBundle",
    ),
    case(
        "spec.registries[].secretRef.name",
        "not a Secret's name: write lower-case letters, digits, \"-\" and \".\"",
        "{registries: [{host: r.io, secretRef: {name: a.b-c}}]}",
        "{registries: [{host: r.io, secretRef: {name: A_b}}]}",
        "spec.registries[0].secretRef.name",
    ),
    case(
        "spec.registries[].secretRef.namespace",
        "not a namespace: write lower-case letters, digits and \"-\"",
        "{registries: [{host: r.io, secretRef: {name: a, namespace: shoal-system}}]}",
        "{registries: [{host: r.io, secretRef: {name: a, namespace: a.b}}]}",
        "spec.registries[0].secretRef.namespace",
    ),
    case(
        "spec.rules[].repository",
        "upper case, in which no runtime asks for it: write it in lower case",
        "{registries: [{host: r.io}], rules: [{repository: 'r.io/a-b/c.d/*', mode: Auto}]}",
        "{registries: [{host: r.io}], rules: [{repository: 'r.io/Team/*', mode: Auto}]}",
        "spec.rules[0].repository",
    ),
    case(
        "spec.rules[].repository",
        "a repository has no scheme: write registry/repository",
        "{registries: [{host: r.io}], rules: [{repository: 'r.io/**', mode: Auto}]}",
        "{registries: [{host: '*'}], rules: [{repository: 'https://r.io/a', mode: Auto}]}",
        "spec.rules[0].repository",
    ),
    case(
        "spec.rules[].repository",
        "an empty part: write registry/repository without a slash at an end or two in a row",
        "{registries: [{host: r.io}], rules: [{repository: 'r.io/**/a', mode: Auto}]}",
        "{registries: [{host: r.io}], rules: [{repository: 'r.io/a//b', mode: Auto}]}",
        "spec.rules[0].repository",
    ),
    case(
        "spec.rules[].repository",
        "\"**\" is a part of its own: write team/** for all below team, and team* within a part",
        "{registries: [{host: r.io}], rules: [{repository: 'r.io/te*m/**', mode: Auto}]}",
        "{registries: [{host: r.io}], rules: [{repository: 'r.io/team**', mode: Auto}]}",
        "spec.rules[0].repository",
    ),
    case(
        "spec.rules[].repository",
        "repositories have letters, digits and -._ and wildcards are * and ** alone; tags and digests don't belong here",
        "{registries: [{host: r.io}], rules: [{repository: '*/a_b', mode: Auto}]}",
        "{registries: [{host: r.io}], rules: [{repository: 'r.io/a:1', mode: Auto}]}",
        "spec.rules[0].repository",
    ),
    case(
        "spec.rules[].repository",
        "no repository: write registry/repository, as in docker.io/library/*, or registry/** for all",
        "{registries: [{host: r.io}], rules: [{repository: '**/a', mode: Auto}]}",
        "{registries: [{host: '*'}], rules: [{repository: r.io, mode: Auto}]}",
        "spec.rules[0].repository",
    ),
    case(
        "spec.rules[].repository",
        "nothing at Docker Hub is called so: write docker.io/library/ and the name for the official ones",
        "{registries: [{host: docker.io}], rules: [{repository: 'docker.io/*', mode: Auto}, {repository: docker.io/library/nginx, mode: Auto}]}",
        "{registries: [{host: docker.io}], rules: [{repository: docker.io/nginx, mode: Auto}]}",
        "spec.rules[0].repository",
    ),
    case(
        "spec.rules[].repository",
        "not a registry in front: write its host, with :port if it has one, as in registry.example.com:5000/team/*",
        "{registries: [{host: '[::1]:5000'}], rules: [{repository: '[::1]:5000/a', mode: Auto}]}",
        "{registries: [{host: '*'}], rules: [{repository: 'a_b/c', mode: Auto}]}",
        "spec.rules[0].repository",
    ),
    case(
        "spec.artifacts[].name",
        "not a name: write up to 63 lower-case letters, digits and \"-\"",
        "{registries: [{host: r.io}], artifacts: [{name: a-1, reference: 'r.io/a:1'}]}",
        "{registries: [{host: r.io}], artifacts: [{name: a.b, reference: 'r.io/a:1'}]}",
        "spec.artifacts[0].name",
    ),
    case(
        "spec.artifacts[].reference",
        "upper case, in which no runtime asks for it: write it in lower case",
        "{registries: [{host: '*'}], artifacts: [{name: a, reference: 'r.io/a:Tag'}]}",
        "{registries: [{host: '*'}], artifacts: [{name: a, reference: 'R.io/a:1'}]}",
        "spec.artifacts[0].reference",
    ),
    case(
        "spec.artifacts[].reference",
        "a registry's host has no scheme: write host or host:port, and the scheme in endpoint",
        "{registries: [{host: '*'}], artifacts: [{name: a, reference: 'localhost/a:1'}]}",
        "{registries: [{host: '*'}], artifacts: [{name: a, reference: 'https://r.io/a:1'}]}",
        "spec.artifacts[0].reference",
    ),
    case(
        "spec.artifacts[].reference",
        "no registry: write registry/repository:tag, for Docker Hub docker.io/library/nginx:1.29",
        "{registries: [{host: '*'}], artifacts: [{name: a, reference: 'docker.io/library/nginx:1.29'}]}",
        "{registries: [{host: '*'}], artifacts: [{name: a, reference: 'nginx:1'}]}",
        "spec.artifacts[0].reference",
    ),
    case(
        "spec.artifacts[].reference",
        "not a registry in front: write its host, with :port if it has one",
        "{registries: [{host: '*'}], artifacts: [{name: a, reference: '[::1]:5000/a:1'}]}",
        "{registries: [{host: '*'}], artifacts: [{name: a, reference: 'a_b.io/a:1'}]}",
        "spec.artifacts[0].reference",
    ),
    case(
        "spec.artifacts[].reference",
        "a repository of Docker Hub has a namespace: write docker.io/library/nginx for the official ones",
        "{registries: [{host: '*'}], artifacts: [{name: a, reference: 'index.docker.io/a/b:1'}]}",
        "{registries: [{host: '*'}], artifacts: [{name: a, reference: 'docker.io/nginx:1'}]}",
        "spec.artifacts[0].reference",
    ),
    case(
        "spec.artifacts[].reference",
        "neither tag nor digest: add :tag or @sha256:…",
        "{registries: [{host: '*'}], artifacts: [{name: a, reference: 'r.io:5000/a:1'}]}",
        "{registries: [{host: '*'}], artifacts: [{name: a, reference: 'r.io:5000/a'}]}",
        "spec.artifacts[0].reference",
    ),
    case(
        "spec.artifacts[].reference",
        "a repository's parts have lower-case letters and digits, with single . _ - between them",
        "{registries: [{host: '*'}], artifacts: [{name: a, reference: 'r.io/a__b/c--d/e.f:1'}]}",
        "{registries: [{host: '*'}], artifacts: [{name: a, reference: 'r.io/a..b:1'}]}",
        "spec.artifacts[0].reference",
    ),
    case(
        "spec.artifacts[].reference",
        "a tag has up to 128 letters, digits and _.- and begins with a letter, a digit or _",
        "{registries: [{host: '*'}], artifacts: [{name: a, reference: 'r.io/a:_B.9-x'}]}",
        "{registries: [{host: '*'}], artifacts: [{name: a, reference: 'r.io/a:-x'}]}",
        "spec.artifacts[0].reference",
    ),
    case(
        "spec.artifacts[].reference",
        "not a digest behind the @: write sha256: and 64 hex digits in lower case, or sha512: and 128",
        "{registries: [{host: '*'}], artifacts: [{name: a, reference: 'r.io/a:1@sha256:0000000000000000000000000000000000000000000000000000000000000000'}]}",
        "{registries: [{host: '*'}], artifacts: [{name: a, reference: 'r.io/a@sha256:00'}]}",
        "spec.artifacts[0].reference",
    ),
    case(
        "spec.nodeSelector.matchExpressions[]",
        "In and NotIn compare with values: write one at least",
        "{registries: [{host: r.io}], nodeSelector: {matchExpressions: [{key: gpu, operator: In, values: [h100]}]}}",
        "{registries: [{host: r.io}], nodeSelector: {matchExpressions: [{key: gpu, operator: In}]}}",
        "spec.nodeSelector.matchExpressions[0].values",
    ),
    case(
        "spec.nodeSelector.matchExpressions[]",
        "Exists and DoesNotExist compare with nothing: leave values out, or write In or NotIn",
        "{registries: [{host: r.io}], nodeSelector: {matchExpressions: [{key: gpu, operator: Exists}]}}",
        "{registries: [{host: r.io}], nodeSelector: {matchExpressions: [{key: gpu, operator: Exists, values: [h100]}]}}",
        "spec.nodeSelector.matchExpressions[0].values",
    ),
    case(
        "spec.transfer",
        "less than rechokeMilliseconds (Datacenter: 100, Classic: 10000): write at least as much, or leave it out",
        "{registries: [{host: r.io}], transfer: {rechokeMilliseconds: 400, optimisticMilliseconds: 400}}",
        "{registries: [{host: r.io}], transfer: {preset: Classic, optimisticMilliseconds: 300}}",
        "spec.transfer.optimisticMilliseconds",
    ),
];

#[tokio::test]
async fn every_rule_lets_one_through_and_refuses_another() {
    let mut rules = BTreeSet::new();
    collect("", &schema(), &mut rules);
    let cases = CASES.iter().map(|case| (case.at.to_owned(), case.message.to_owned())).collect::<BTreeSet<_>>();
    let missing: Vec<_> = rules.difference(&cases).collect();
    assert!(missing.is_empty(), "rules without a case: {missing:#?}");
    let stale: Vec<_> = cases.difference(&rules).collect();
    assert!(stale.is_empty(), "cases without a rule: {stale:#?}");

    let Some(plane) = super::control_plane().await else { return };
    plane.define(&Swarm::crd()).await.unwrap();
    let resource = ApiResource::erase::<Swarm>(&());
    let swarms: Api<DynamicObject> = Api::all_with(plane.admin().unwrap().client().await.unwrap(), &resource);
    let mut wrong = Vec::new();
    for case in &CASES {
        match apply(&swarms, case.accepted).await {
            Ok(()) => {}
            Err(causes) => wrong.push(format!("{} is refused: {causes:?}", case.accepted)),
        }
        match apply(&swarms, case.refused).await {
            Ok(()) => wrong.push(format!("{} is let through, not refused by: {}", case.refused, case.message)),
            // One mistake, one answer: this rule's, in the field that has to be changed.
            Err(causes) => match &causes[..] {
                [(field, message)] if field == case.field && message.contains(case.message) => {}
                _ => wrong.push(format!("{}: {causes:#?}, not {}: {}", case.refused, case.field, case.message)),
            },
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    plane.stop().await;
}

/// A rule's cost is bounded when a Swarm is checked, too: the longest lists of the longest names must stay within.
#[tokio::test]
async fn the_largest_swarm_is_not_too_dear() {
    // Names of as many characters as they may have, which differ in their last ones.
    let host = |at: usize| format!("{}.{at:03}:65535", ["h"; 3].map(|letter| letter.repeat(63)).join("."));
    let repository = |at: usize| format!("{}/{at:03}", "r".repeat(40));
    let entries = 0..256;
    let spec = json!({
        "registries": entries.clone().map(|at| json!({"host": host(at), "endpoint": format!("https://{}", host(at))})).collect::<Vec<_>>(),
        "rules": entries.clone().map(|at| json!({"repository": format!("{}/{}", host(255), repository(at)), "mode": "Auto"})).collect::<Vec<_>>(),
        "artifacts": entries.clone().map(|at| {
            let (repository, digest) = (format!("{}/{}", "r".repeat(200), repository(at)), "0".repeat(128));
            let reference = format!("{}/{repository}:{}@sha512:{digest}", host(255), "t".repeat(128));
            json!({"name": format!("{}{at:03}", "a".repeat(60)), "reference": reference})
        }).collect::<Vec<_>>(),
        "nodeSelector": {"matchExpressions": entries.map(|at| json!({"key": format!("k{at}"), "operator": "In", "values": ["a"]})).collect::<Vec<_>>()},
    });
    assert_eq!(read(&spec.to_string()), None);
    let Some(plane) = super::control_plane().await else { return };
    plane.define(&Swarm::crd()).await.unwrap();
    let resource = ApiResource::erase::<Swarm>(&());
    let swarms: Api<DynamicObject> = Api::all_with(plane.admin().unwrap().client().await.unwrap(), &resource);
    assert_eq!(apply(&swarms, &spec.to_string()).await, Ok(()));
    plane.stop().await;
}

#[test]
fn agents_outside_of_kubernetes_refuse_the_same() {
    for case in &CASES {
        assert_eq!(read(case.accepted), None, "{}", case.accepted);
        assert!(read(case.refused).is_some(), "{} is let through", case.refused);
    }
}

/// What is wrong with a specification in a file.
fn read(spec: &str) -> Option<String> {
    read_swarms("swarm.yaml", &object(spec).to_string()).err().map(|error| error.to_string())
}

fn object(spec: &str) -> Value {
    let spec: Value = serde_saphyr::from_str(spec).unwrap_or_else(|error| panic!("{spec}: {error}"));
    json!({"apiVersion": "shoal.dev/v1alpha1", "kind": "Swarm", "metadata": {"name": "case"}, "spec": spec})
}

/// Applies a Swarm without keeping it. What is wrong with it: fields and what is said of them.
async fn apply(swarms: &Api<DynamicObject>, spec: &str) -> Result<(), Vec<(String, String)>> {
    let params = PatchParams { dry_run: true, ..PatchParams::apply("test").validation_strict() };
    match swarms.patch("case", &params, &Patch::Apply(object(spec))).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) => {
            let causes = status.details.map(|details| details.causes).unwrap_or_default();
            Err(causes.into_iter().map(|cause| (cause.field, cause.message)).collect())
        }
        Err(error) => panic!("{spec}: {error}"),
    }
}

fn schema() -> Value {
    let definition = serde_json::to_value(Swarm::crd()).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Each rule below a schema: where it is and its message.
fn collect(path: &str, schema: &Value, rules: &mut BTreeSet<(String, String)>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let message = rule["message"].as_str().unwrap_or_else(|| panic!("a rule of {path} has no message: {rule}"));
        assert!(rules.insert((path.to_owned(), message.to_owned())), "{path} says the same twice: {message}");
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        collect(&if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, property, rules);
    }
    if schema["items"].is_object() {
        collect(&format!("{path}[]"), &schema["items"], rules);
    }
}
