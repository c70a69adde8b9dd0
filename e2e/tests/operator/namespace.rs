//! A network namespace for a test that needs addresses other than loopback's: the API server takes no others as endpoints.
//!
//! State: none here. The test runs again as a child in a namespace of its own, which ends with it.

use std::process::Command;

use crate::world;

/// Has everybody who sends from this port share a rate. Says so, where that can't be had.
pub(crate) fn limit(port: u16, rate: &str) -> bool {
    let lines = [
        "qdisc add dev lo root handle 1: htb default 1".to_owned(),
        "class add dev lo parent 1: classid 1:1 htb rate 20gbit".to_owned(),
        format!("class add dev lo parent 1: classid 1:2 htb rate {rate} burst 128k"),
        format!("filter add dev lo parent 1: protocol ip u32 match ip sport {port} 0xffff flowid 1:2"),
    ];
    let done = lines.iter().all(|line| Command::new("tc").args(line.split(' ')).status().is_ok_and(|s| s.success()));
    if !done {
        eprintln!("SKIPPED: what has a rate: it takes tc and a kernel with htb to give port {port} one");
    }
    done
}

/// Says to the child that it is one.
const INSIDE: &str = "SHOAL_TEST_IN_NAMESPACE";

/// Whether this is the child, and so the place to run the test. If not, the child has run it, or it is said that it was skipped.
pub(crate) async fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        let addresses = (1..=4).map(|number| format!("ip address add {}/32 dev lo", world::in_namespace(number)));
        let lines = std::iter::once("ip link set lo up".to_owned()).chain(addresses);
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success(), "{line}");
        }
        return true;
    }
    let usable = Command::new("unshare").args(["--net", "ip", "link"]).output();
    if !usable.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: {test} takes root, unshare and ip: it needs a network namespace");
        return false;
    }
    let _turn = world::turn().await;
    // In the namespace nothing could be fetched.
    if world::programs().await.is_none() {
        return false;
    }
    let itself = std::env::current_exe().unwrap();
    let mut child = tokio::process::Command::new("unshare");
    let child = child.arg("--net").arg(itself).args([test, "--exact", "--nocapture"]).env(INSIDE, "1");
    assert!(child.kill_on_drop(true).status().await.unwrap().success(), "{test} failed in its namespace");
    false
}
