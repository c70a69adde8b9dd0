//! What people see of the definition: defaults, columns, what is unknown, and what `kubectl wait` waits for.

use std::process::Stdio;

use kube::api::{Api, Patch, PatchParams};
use kube::{Client, CustomResourceExt as _};
use serde_json::{Value, json};
use shoal_api::kube::Swarm;
use shoal_api::{Condition, ConditionStatus, NodesStatus, Quantity, SwarmStatus, TrafficStatus};
use shoal_e2e::control_plane::ControlPlane;
use shoal_e2e::tools::cluster::Tool;
use tokio::process::Command;

#[tokio::test]
async fn a_swarm_is_served_as_its_definition_says() {
    let Some(plane) = super::control_plane().await else { return };
    plane.define(&Swarm::crd()).await.unwrap();
    let client = plane.admin().unwrap().client().await.unwrap();
    let swarms: Api<Swarm> = Api::all(client.clone());

    defaults_are_seen_when_read_back(&client, &swarms).await;
    unknown_fields_are_refused(&client, &swarms).await;
    let columns = table(&client).await;
    assert_eq!(
        columns[0].1,
        [
            json!("a"),
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Null,
            json!("Auto"),
            Value::Null,
            Value::Null,
            Value::Null
        ],
        "nothing is told of a Swarm that nobody has seen yet: {columns:?}"
    );
    kubectl_waits_for_ready(&plane, &swarms).await;
    the_columns_show_the_status(&client).await;
    plane.stop().await;
}

async fn apply(swarms: &Api<Swarm>, name: &str, spec: Value) -> Result<Swarm, kube::Error> {
    let params = PatchParams::apply("test").validation_strict();
    swarms.patch(name, &params, &Patch::Apply(object(name, &spec))).await
}

fn object(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "shoal.dev/v1alpha1", "kind": "Swarm", "metadata": {"name": name}, "spec": spec})
}

async fn defaults_are_seen_when_read_back(client: &Client, swarms: &Api<Swarm>) {
    let spec = json!({
        "registries": [{"host": "r.io"}],
        "artifacts": [{"name": "a", "reference": "r.io/a:1"}],
    });
    apply(swarms, "a", spec).await.unwrap();
    // As the server has it, without what this crate's types would add.
    let request = http::Request::get("/apis/shoal.dev/v1alpha1/swarms/a").body(Vec::new()).unwrap();
    let object: Value = client.request(request).await.unwrap();
    let expected = json!({
        "mode": "Auto",
        "nodeSelector": {},
        "registries": [{"host": "r.io", "access": "VerifyAtOrigin", "outagePolicy": "LastResolved"}],
        "rules": [],
        "artifacts": [{"name": "a", "reference": "r.io/a:1", "placement": "Runtime", "pin": false}],
        "resolveSeconds": 300,
        "transfer": {"preset": "Datacenter", "verification": "Eager"},
    });
    assert_eq!(object["spec"], expected);
}

/// By `kubectl create` and by `kubectl apply --server-side`, which look for them in different places.
async fn unknown_fields_are_refused(client: &Client, swarms: &Api<Swarm>) {
    for (spec, field) in [
        (json!({"registries": [{"host": "r.io"}], "modes": "Auto"}), "spec.modes"),
        (json!({"registries": [{"host": "r.io", "acess": "Public"}]}), ".acess"),
        (json!({"registries": [{"host": "r.io"}], "transfer": {"maxPeer": 3}}), "spec.transfer.maxPeer"),
    ] {
        let request = http::Request::post("/apis/shoal.dev/v1alpha1/swarms?fieldValidation=Strict")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(object("unknown", &spec).to_string().into_bytes())
            .unwrap();
        let created = client.request::<Value>(request).await.unwrap_err().to_string();
        assert!(created.contains("unknown field") && created.contains(field), "{created}");
        let applied = apply(swarms, "unknown", spec).await.unwrap_err().to_string();
        assert!(applied.contains("field not declared in schema") && applied.contains(field), "{applied}");
    }
}

/// What `kubectl get swarms -o wide` gets: the columns' names and each row's cells, without the age.
async fn table(client: &Client) -> Vec<(String, Vec<Value>)> {
    let request = http::Request::get("/apis/shoal.dev/v1alpha1/swarms")
        .header(http::header::ACCEPT, "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())
        .unwrap();
    let table: Value = client.request(request).await.unwrap();
    let columns = table["columnDefinitions"].as_array().unwrap();
    let names: Vec<&str> = columns.iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Name", "Ready", "Nodes", "Artifacts", "Saved", "Mode", "Age", "Reason", "Origin", "Peers"]);
    let priorities: Vec<_> = columns.iter().map(|column| column["priority"].as_i64().unwrap()).collect();
    assert_eq!(priorities, [0, 0, 0, 0, 0, 0, 0, 1, 1, 1], "the last three are for -o wide");
    let rows = table["rows"].as_array().unwrap().iter().map(|row| {
        let mut cells = row["cells"].as_array().unwrap().clone();
        assert!(cells.remove(6).is_string(), "an age");
        (cells[0].as_str().unwrap().to_owned(), cells)
    });
    rows.collect()
}

async fn kubectl_waits_for_ready(plane: &ControlPlane, swarms: &Api<Swarm>) {
    let kubectl = match Tool::Kubectl.program() {
        Ok(kubectl) => Some(kubectl),
        Err(error) => {
            eprintln!("SKIPPED kubectl wait: {error:#}");
            None
        }
    };
    let kubeconfig = plane.directory().join("kubeconfig");
    plane.admin().unwrap().write_kubeconfig(&kubeconfig).unwrap();
    let waiting = kubectl.map(|kubectl| {
        Command::new(kubectl)
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .args(["wait", "--for=condition=Ready", "swarms.shoal.dev/a", "--timeout=120s"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    });
    let ready = Condition {
        kind: "Ready".to_owned(),
        status: ConditionStatus::True,
        observed_generation: Some(1),
        last_transition_time: "2026-11-21T00:00:00Z".to_owned(),
        reason: "Distributed".to_owned(),
        message: "every node has every artifact".to_owned(),
    };
    let status = SwarmStatus {
        observed_generation: Some(1),
        nodes: NodesStatus { desired: 40, ready: 39 },
        traffic: TrafficStatus {
            from_peers: Quantity::from_bytes(310 << 30),
            from_origin: Quantity::from_bytes(8 << 30),
            saved_percent: 97,
        },
        conditions: vec![ready],
        ..SwarmStatus::default()
    };
    let status = json!({"apiVersion": "shoal.dev/v1alpha1", "kind": "Swarm", "status": status.summarized()});
    let params = PatchParams::apply("operator").validation_strict();
    swarms.patch_status("a", &params, &Patch::Apply(status)).await.unwrap();
    if let Some(waiting) = waiting {
        let output = waiting.wait_with_output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

async fn the_columns_show_the_status(client: &Client) {
    let rows = table(client).await;
    let shown: Vec<&str> = rows[0].1.iter().map(|cell| cell.as_str().unwrap()).collect();
    assert_eq!(shown, ["a", "True", "39/40", "0/0", "97%", "Auto", "Distributed", "8Gi", "310Gi"]);
}
