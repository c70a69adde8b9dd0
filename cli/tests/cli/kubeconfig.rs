//! Kubeconfigs as kubectl reads them, and what is said of a cluster that can't be asked.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use crate::world::{World, command, ended};

#[tokio::test]
async fn the_cluster_is_found_as_kubectl_finds_it() {
    let Some(world) = World::with_swarms().await else { return };
    world.apply("a", json!({"registries": [{"host": "r.io"}]})).await;
    let directory = world.plane().directory();
    let whole: Value = serde_json::from_slice(&fs::read(world.kubeconfig()).unwrap()).unwrap();

    // The user and the cluster in one file, the context in another, and one that isn't there.
    let part = |name: &str, keys: &[&str]| {
        let mut part = json!({"apiVersion": "v1", "kind": "Config"});
        keys.iter().for_each(|key| part[*key] = whole[*key].clone());
        let path = directory.join(name);
        fs::write(&path, part.to_string()).unwrap();
        path
    };
    let (users, contexts) = (part("users", &["users", "clusters"]), part("contexts", &["contexts"]));
    let listed = std::env::join_paths([directory.join("missing"), users, contexts]).unwrap();
    let merged = ended(command("status --context test -o name").env("KUBECONFIG", &listed).spawn().unwrap()).await;
    assert_eq!((merged.code, merged.out.as_str(), merged.error.as_str()), (Some(0), "swarm.shoal.dev/a\n", ""));
    let unset = ended(command("status").env("KUBECONFIG", &listed).spawn().unwrap()).await;
    assert_eq!(unset.code, Some(2), "no current context: {}", unset.error);

    // The flag goes before the variable.
    let flag = format!("status -o name --kubeconfig {}", world.kubeconfig().display());
    let flagged = ended(command(&flag).env("KUBECONFIG", "/nonexistent").spawn().unwrap()).await;
    assert_eq!(flagged.out, "swarm.shoal.dev/a\n", "{}", flagged.error);

    // A plugin's credentials.
    let user = &whole["users"][0]["user"];
    let decoded = |key: &str| {
        let text = user[key].as_str().unwrap();
        String::from_utf8(base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap()).unwrap()
    };
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {
            "clientCertificateData": decoded("client-certificate-data"),
            "clientKeyData": decoded("client-key-data"),
        },
    });
    let (answer, plugin) = (directory.join("credential"), directory.join("plugin"));
    fs::write(&answer, credential.to_string()).unwrap();
    fs::write(&plugin, format!("#!/bin/sh\nexec cat {}\n", answer.display())).unwrap();
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).unwrap();
    let mut with_plugin = whole.clone();
    with_plugin["users"][0]["user"] = json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": plugin,
        "interactiveMode": "Never",
    }});
    let kubeconfig = directory.join("with-plugin");
    fs::write(&kubeconfig, with_plugin.to_string()).unwrap();
    let known = ended(command("status -o name").env("KUBECONFIG", &kubeconfig).spawn().unwrap()).await;
    assert_eq!(known.out, "swarm.shoal.dev/a\n", "{}", known.error);
    world.stop().await;
}

#[tokio::test]
async fn a_cluster_that_refuses_is_told_in_one_line() {
    let Some(world) = World::new().await else { return };
    let missing = world.run("status").await;
    let says = "error: the cluster knows no Swarms: install Shoal's chart, or choose another --context\n";
    assert_eq!((missing.code, missing.error.as_str()), (Some(1), says));

    let accounts: Api<ServiceAccount> = Api::namespaced(world.client.clone(), "default");
    let nobody = serde_json::from_value(json!({"metadata": {"name": "nobody"}})).unwrap();
    accounts.create(&PostParams::default(), &nobody).await.unwrap();
    let directory = world.plane().directory();
    let nobody = directory.join("nobody");
    world.plane().service_account("default", "nobody").await.unwrap().write_kubeconfig(&nobody).unwrap();
    for (file, says) in [(&nobody, "not allowed (swarms.shoal.dev is forbidden: ")] {
        for line in ["status", "status -w"] {
            let refused = ended(command(line).env("KUBECONFIG", file).spawn().unwrap()).await;
            assert_eq!((refused.code, refused.error.lines().count()), (Some(1), 1), "{line}: {}", refused.error);
            assert!(refused.error.contains(says), "{line}: {}", refused.error);
        }
    }
    let stranger = directory.join("stranger");
    world.plane().with_token("not.a.token").write_kubeconfig(&stranger).unwrap();
    let unknown = ended(command("status").env("KUBECONFIG", &stranger).spawn().unwrap()).await;
    assert!(unknown.error.contains("the API server doesn't know who you are"), "{}", unknown.error);

    let kubeconfig = world.kubeconfig().to_owned();
    let copy = std::env::temp_dir().join(format!("shoal-cli-kubeconfig-{}", std::process::id()));
    fs::copy(kubeconfig, &copy).unwrap();
    world.stop().await;
    let gone = ended(command("status").env("KUBECONFIG", &copy).spawn().unwrap()).await;
    fs::remove_file(copy).unwrap();
    let says = "error: Swarms: the API server doesn't answer (Connection refused (os error 111)): \
                check the kubeconfig and the network\n";
    assert_eq!((gone.code, gone.error.as_str()), (Some(1), says));
}
