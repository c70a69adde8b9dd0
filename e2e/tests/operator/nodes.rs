//! Nodes with an agent and a containerd each, joined to the operator.
//!
//! State: the processes are a [`Fleet`]'s.

use std::ffi::OsString;

use shoal_e2e::containerd::{Containerd, Programs};
use shoal_e2e::processes::Fleet;

use crate::agents::{AgentProcess, LAB, Place};
use crate::world::{LONG, World, in_namespace};

/// All nodes have this address of the namespace; their ports tell them apart.
pub(crate) const NODES: u8 = 4;

pub(crate) struct Node {
    pub(crate) agent: AgentProcess,
    pub(crate) containerd: Containerd,
}

impl Node {
    /// A node whose containerd asks its agent for this plain-http registry's images first.
    pub(crate) async fn start(
        world: &World,
        fleet: &mut Fleet,
        name: &str,
        programs: &Programs,
        registry: &str,
    ) -> Self {
        let directory = world.control_plane.directory().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let containerd = Containerd::new(programs, &directory.join("containerd")).unwrap();
        let process = format!("containerd-of-{name}");
        fleet.start(&process, &containerd.command()).unwrap();
        fleet.until(&process, LONG, async || containerd.is_ready().await).await.unwrap();
        let place = Place { name, ip: in_namespace(NODES), rate: None, replicas: &[1] };
        let beside = [OsString::from("--containerd-socket"), containerd.socket().into()];
        let agent = AgentProcess::start(world, fleet, &place, &beside).await;
        containerd.ask_mirror(&[LAB.into(), "agent".into()], agent.node.mirror, registry).unwrap();
        Self { agent, containerd }
    }
}
