//! The chart in a real API server: installed by helm, upgraded and gone; what its pods may be and what its operator may do.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser as _;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Api, Client};
use serde_json::{Value, json};
use shoal_api::kube::Swarm;
use shoal_e2e::control_plane::{ControlPlane, Programs};
use shoal_oci::testing::free_ports;
use tokio::time::timeout;

use crate::flags::arguments;
use crate::helm::{Helm, REGISTRY, chart, find};
use crate::page;

/// Far longer than anything takes, also on a busy machine.
const LONG: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);

struct World {
    helm: Helm,
    plane: ControlPlane,
    admin: Client,
    kubeconfig: PathBuf,
}

impl World {
    /// None where it can't be had: that is said.
    async fn start() -> Option<Self> {
        let helm = Helm::get()?;
        let programs = Programs::get().inspect_err(|error| eprintln!("SKIPPED: {error:#}")).ok()?;
        let plane = ControlPlane::start(&programs).await.unwrap();
        let access = plane.admin().unwrap();
        let kubeconfig = plane.directory().join("kubeconfig");
        access.write_kubeconfig(&kubeconfig).unwrap();
        let admin = access.client().await.unwrap();
        // As the documentation says.
        for (name, level) in [("shoal", "privileged"), ("team", "restricted")] {
            let labels = json!({"pod-security.kubernetes.io/enforce": level});
            let namespace = json!({"metadata": {"name": name, "labels": labels}});
            let namespaces: Api<Namespace> = Api::all(admin.clone());
            namespaces.create(&PostParams::default(), &serde_json::from_value(namespace).unwrap()).await.unwrap();
        }
        Some(Self { helm, plane, admin, kubeconfig })
    }

    fn helm(&self, args: &[&str]) -> String {
        let kubeconfig = self.kubeconfig.to_str().unwrap();
        self.helm.said([&["--kubeconfig", kubeconfig, "--namespace", "shoal"], args].concat())
    }

    /// Makes a pod of a template, without keeping it; or says why it may not be.
    async fn pod(&self, namespace: &str, template: &Value) -> Result<(), String> {
        let mut pod = template.clone();
        pod["metadata"]["name"] = "case".into();
        pod["metadata"]["namespace"] = namespace.into();
        let pods: Api<Pod> = Api::namespaced(self.admin.clone(), namespace);
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let made = pods.create(&params, &serde_json::from_value(pod).unwrap()).await;
        made.map(drop).map_err(|error| error.to_string())
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = timeout(LONG, async {
        while !holds().await {
            tokio::time::sleep(LOOK).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}: not within {LONG:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_installed_upgraded_and_gone() {
    let Some(world) = World::start().await else { return };
    let chart = chart();
    let chart = chart.to_str().unwrap();
    let ports = free_ports(Ipv4Addr::LOCALHOST.into(), 2).unwrap();
    let (tracker, admin) = (ports[0].port(), ports[1].port());
    let values = format!(
        "{REGISTRY},bindAddress=127.0.0.1,operator.trackerPort={tracker},operator.adminPort={admin},operator.secretNamespaces={{team}},monitoring.dashboard.enabled=true,log.level=error"
    );
    let notes = world.helm(&["install", "shoal", chart, "--set", &values]);
    assert!(notes.contains("kubectl label namespace shoal pod-security.kubernetes.io/enforce=privileged"), "{notes}");

    // The Swarm of a kind that the same chart defines.
    let swarms: Api<Swarm> = Api::all(world.admin.clone());
    assert_eq!(swarms.get("default").await.unwrap().spec.registries[0].host, "*");
    every_field_is_known(&world, &values).await;
    pods_are_let_in(&world, &values).await;
    the_operator_may_do_what_it_does(&world, &values, admin).await;

    // What people make of the Swarm is theirs, whatever becomes of the release.
    let patch = Patch::Merge(json!({"spec": {"registries": [{"host": "mine.example"}]}}));
    swarms.patch("default", &PatchParams::default(), &patch).await.unwrap();
    let is_mine = async || swarms.get("default").await.unwrap().spec.registries[0].host == "mine.example";
    world.helm(&["upgrade", "shoal", chart, "--set", &values, "--set=operator.replicas=3"]);
    assert!(is_mine().await, "an upgrade leaves it alone");
    world.helm(&["uninstall", "shoal"]);
    assert!(is_mine().await, "so does uninstalling");
    world.helm(&["install", "shoal", chart, "--set", &values]);
    assert!(is_mine().await, "and another installation");
    world.plane.stop().await;
}

/// helm sends what the API server would drop in silence; asked strictly, it says which field it doesn't know.
async fn every_field_is_known(world: &World, values: &str) {
    for object in world.helm.objects(&["--set", values]) {
        let (api_version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let gvk = kube::core::GroupVersionKind::gvk(group, version, kind);
        let plural = match kind {
            "NetworkPolicy" => "networkpolicies".to_owned(),
            kind => format!("{}s", kind.to_lowercase()),
        };
        let resource = ApiResource::from_gvk_with_plural(&gvk, &plural);
        let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(world.admin.clone(), namespace, &resource),
            None => Api::all_with(world.admin.clone(), &resource),
        };
        let params = PatchParams { dry_run: true, ..PatchParams::apply("test").force().validation_strict() };
        let name = object["metadata"]["name"].as_str().unwrap();
        if let Err(error) = api.patch(name, &params, &Patch::Apply(&object)).await {
            panic!("{kind} {name}: {error}");
        }
    }
}

async fn pods_are_let_in(world: &World, values: &str) {
    let objects = world.helm.objects(&["--set", values]);
    let operator = &find(&objects, "Deployment", "shoal-operator")["spec"]["template"];
    let agent = &find(&objects, "DaemonSet", "shoal-agent")["spec"]["template"];
    let test = find(&objects, "Pod", "shoal-test-pull");
    for template in [operator, agent, test] {
        assert_eq!(world.pod("shoal", template).await, Ok(()));
    }
    // The accounts aren't there, which is looked at before; any other will do.
    let elsewhere = |template: &Value| {
        let mut template = template.clone();
        template["spec"]["serviceAccountName"] = "any".into();
        template
    };
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(world.admin.clone(), "team");
    let any = serde_json::from_value(json!({"metadata": {"name": "any"}})).unwrap();
    accounts.create(&PostParams::default(), &any).await.unwrap();
    assert_eq!(world.pod("team", &elsewhere(operator)).await, Ok(()), "the operator may run under `restricted`");
    let refused = world.pod("team", &elsewhere(agent)).await.unwrap_err();
    assert!(refused.contains("violates PodSecurity \"restricted:latest\""), "{refused}");
    for asked in ["host namespaces (hostNetwork=true)", "hostPort", "restricted volume types", "runAsUser=0"] {
        assert!(refused.contains(asked), "{asked}: {refused}");
    }
    for not_asked in ["capabilities", "seccompProfile", "allowPrivilegeEscalation"] {
        assert!(!refused.contains(not_asked), "{not_asked}: {refused}");
    }
}

/// The operator as its Deployment starts it, with what the chart's roles let it do, becomes ready: it has read all that it follows and made its CA.
async fn the_operator_may_do_what_it_does(world: &World, values: &str, admin: u16) {
    let access = world.plane.service_account("shoal", "shoal-operator").await.unwrap();
    let kubeconfig = world.plane.directory().join("operator");
    access.write_kubeconfig(&kubeconfig).unwrap();
    let objects = world.helm.objects(&["--set", values]);
    let template = &find(&objects, "Deployment", "shoal-operator")["spec"]["template"];
    let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
    let in_a_pod = ["--namespace=shoal", "--pod-name=shoal-operator-1", "--pod-ip=127.0.0.1", &kubeconfig];
    let operator = shoal_operator::Cli::try_parse_from(arguments(template, "operator", &in_a_pod)).unwrap();
    let running = tokio::spawn(operator.execute());
    let mut missing = String::new();
    let ready = until("the operator is ready", async || {
        assert!(!running.is_finished(), "the operator has ended");
        missing = page::get((Ipv4Addr::LOCALHOST, admin).into(), "/readyz").await;
        missing.starts_with("HTTP/1.1 200")
    });
    tokio::select! {
        () = ready => {}
        () = tokio::time::sleep(LONG / 2) => panic!("the operator may not do all that it does, or can't: {missing}"),
    }
    running.abort();
}
