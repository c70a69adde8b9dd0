//! `shoal-agent hosts keep` as the chart runs it, root without capabilities, over what people have in a runtime's directory of registries.

use std::ffi::OsString;
use std::fs;

use shoal_e2e::certs;
use shoal_e2e::processes::Fleet;
use shoal_e2e::scratch::Scratch;

use crate::world::{LAB, World, until};

const TREES: u64 = 20;

#[tokio::test]
async fn twenty_trees_are_as_they_were_when_the_keeper_has_ended() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: trees have others' files in them; run the tests as root");
        return;
    }
    let mut world = World::new("hosts", 1 << 20, "").await;
    let node = world.node("node-0");
    world.agent(&node, None).await;
    // In memory: each step waits for the disk.
    let trees = Scratch::in_memory("shoal-certs", false).unwrap();
    for seed in 0..TREES {
        let root = trees.path().join(seed.to_string());
        fs::create_dir(&root).unwrap();
        certs::make_up(&root, seed).unwrap();
        let before = certs::entries(&root).unwrap();
        let mut keeper = Fleet::new(trees.path());
        let words = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--", LAB, "agent"];
        let mut command: Vec<OsString> = words.map(OsString::from).into();
        command.extend(["hosts".into(), "keep".into(), "--dir".into(), root.clone().into()]);
        command.extend(["--mirror".into(), node.mirror.to_string().into()]);
        if seed % 4 == 3 {
            // Some registries instead of all.
            let registries =
                "docker.io,foreign.example,registry.example:5000,alias.example,new.example=http://new.example";
            command.extend(["--registry".into(), registries.into()]);
        }
        keeper.start("keeper", &command).unwrap();
        let address = node.mirror.to_string();
        until("the mirror is in front", async || {
            keeper.check().unwrap();
            certs::mentions(&root, &address).unwrap()
        })
        .await;
        keeper.end().await;
        assert_eq!(certs::entries(&root).unwrap(), before, "tree {seed}");
    }
    world.end().await;
}
