//! The least time that a distribution can take.
//!
//! With F bytes wanted by N nodes, an origin that sends u_s bytes a second, and nodes that receive d_i and send u_i:
//!
//! > T ≥ max( F / u_s, F / d_min, N·F / (u_s + Σ u_i) )
//!
//! State: none. Absent on purpose: what the simulator's bound knows beyond this (arrivals, zones, several images): neither the demo nor the
//! lab has any of it.

/// A network of equal nodes around an origin, in bytes a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Network {
    /// How many nodes want the content.
    pub nodes: u32,
    /// What the origin sends.
    pub origin_up: f64,
    /// What a node sends.
    pub node_up: f64,
    /// What a node receives.
    pub node_down: f64,
}

impl Network {
    /// The least time in seconds in which every node has so many bytes.
    #[must_use]
    pub fn bound(&self, bytes: f64) -> f64 {
        let nodes = f64::from(self.nodes);
        let copies = nodes * bytes / (self.origin_up + nodes * self.node_up);
        (bytes / self.origin_up).max(bytes / self.node_down).max(copies)
    }

    /// The least time in seconds if the origin sends each node its copy.
    #[must_use]
    pub fn client_server(&self, bytes: f64) -> f64 {
        (f64::from(self.nodes) * bytes / self.origin_up).max(bytes / self.node_down)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_the_three_terms_can_be_the_largest() {
        let equal = Network { nodes: 8, origin_up: 10.0, node_up: 10.0, node_down: 10.0 };
        for (network, bound, client_server) in [
            (equal, 10.0, 80.0),
            (Network { origin_up: 5.0, ..equal }, 20.0, 160.0),
            (Network { node_down: 2.0, ..equal }, 50.0, 80.0),
            (Network { node_up: 1.0, ..equal }, 800.0 / 18.0, 80.0),
            (Network { nodes: 1, node_up: 1.0, ..equal }, 10.0, 10.0),
        ] {
            assert!((network.bound(100.0) - bound).abs() < 1e-9, "{network:?}: {}", network.bound(100.0));
            assert!((network.client_server(100.0) - client_server).abs() < 1e-9, "{network:?}");
        }
    }
}
