//! Who else serves: the ready endpoints of the headless Service.
//!
//! State: none but what is followed.
//! Invariants: all replicas derive the same list from the same slices, so that agents and replicas agree on who owns a digest. A list is never
//! empty: a replica that sees nobody names itself.
//! Absent on purpose: asking the others whether they live: that is the kubelet's probe, and agents go on to the next one before it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use shoal_tracker::ReplicaName;
use shoal_tracker_server::{Handle, Replica, TrackerAddress};
use tokio_util::sync::CancellationToken;

use crate::cluster::Watched;

/// The replicas that the slices name; `this` one alone, if they name none.
pub(crate) fn replicas<'a>(slices: impl IntoIterator<Item = &'a EndpointSlice>, this: &Replica) -> Vec<Replica> {
    let ready = named(slices, this.address.port());
    if ready.is_empty() { vec![this.clone()] } else { in_order(ready) }
}

/// The others: who is to take over.
pub(crate) fn others<'a>(slices: impl IntoIterator<Item = &'a EndpointSlice>, this: &Replica) -> Vec<Replica> {
    let mut ready = named(slices, this.address.port());
    ready.remove(this.name.as_str());
    in_order(ready)
}

fn in_order(ready: BTreeMap<String, (ReplicaName, IpAddr, u16)>) -> Vec<Replica> {
    let replica = |(name, ip, port)| Replica { name, address: TrackerAddress::from(SocketAddr::new(ip, port)) };
    ready.into_values().map(replica).collect()
}

/// By name, because a pod may be in two slices for a while, or have addresses of both families.
fn named<'a>(
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    port: u16,
) -> BTreeMap<String, (ReplicaName, IpAddr, u16)> {
    let mut ready = BTreeMap::new();
    for endpoint in slices.into_iter().flat_map(|slice| &slice.endpoints) {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        // Of a pod that is ending `ready` is false, whatever its probe says.
        if conditions.ready == Some(false) {
            continue;
        }
        let pod = endpoint.target_ref.as_ref().and_then(|target| target.name.clone()).unwrap_or_default();
        let address = endpoint.addresses.first().and_then(|address| address.parse::<IpAddr>().ok());
        let (Ok(name), Some(ip)) = (ReplicaName::new(&pod), address) else { continue };
        let lowest = ready.entry(pod).or_insert((name, ip, port));
        lowest.1 = lowest.1.min(ip);
    }
    ready
}

/// Tells the tracker of every change, until this replica is to leave; then that the others remain.
pub(crate) async fn follow(
    mut slices: Watched<EndpointSlice>,
    this: Replica,
    tracker: Handle,
    leave: CancellationToken,
) {
    // Before that nobody is known, and those who are there would be told that nobody is.
    slices.listed().await;
    let mut known = Vec::new();
    loop {
        let all = slices.all();
        let slices_now = all.iter().map(AsRef::as_ref);
        let leaving = leave.is_cancelled();
        let now = if leaving { others(slices_now, &this) } else { replicas(slices_now, &this) };
        // The last one has nobody to hand over to.
        if now != known && !now.is_empty() {
            tracing::info!(replicas = now.len(), leaving, "the tracker's replicas have changed");
            if tracker.set_replicas(now.clone()).await.is_err() {
                return;
            }
            known = now;
        }
        tokio::select! {
            () = slices.changed() => {}
            () = leave.cancelled(), if !leaving => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(endpoints: serde_json::Value) -> EndpointSlice {
        serde_json::from_value(json!({"metadata": {}, "addressType": "IPv4", "endpoints": endpoints})).unwrap()
    }

    #[test]
    fn ready_pods_are_replicas_and_nobody_else_is() {
        let this = Replica { name: ReplicaName::new("o-1").unwrap(), address: "10.0.0.1:9394".parse().unwrap() };
        let endpoint = |pod: &str, ip: &str, ready: serde_json::Value| json!({"addresses": [ip], "conditions": {"ready": ready}, "targetRef": {"kind": "Pod", "name": pod}});
        let slices = [
            slice(json!([
                endpoint("o-2", "10.0.0.2", json!(true)),
                endpoint("o-1", "10.0.0.1", serde_json::Value::Null),
                endpoint("o-3", "10.0.0.3", json!(false)),
                {"addresses": ["10.0.0.9"], "conditions": {"ready": true}},
                endpoint("o-4", "nonsense", json!(true)),
            ])),
            slice(json!([endpoint("o-2", "10.0.0.2", json!(true))])),
        ];
        let shown = |replicas: Vec<Replica>| {
            replicas.iter().map(|replica| format!("{} {}", replica.name, replica.address)).collect::<Vec<_>>()
        };
        assert_eq!(shown(replicas(&slices, &this)), ["o-1 10.0.0.1:9394", "o-2 10.0.0.2:9394"]);
        assert_eq!(shown(others(&slices, &this)), ["o-2 10.0.0.2:9394"]);
        assert_eq!(shown(replicas(&[], &this)), ["o-1 10.0.0.1:9394"]);
        assert!(others(&[], &this).is_empty());
    }
}
