//! The engine's settings, out of the Swarm's.
//!
//! State: none. Absent on purpose: the chunk size and the origin's connections, which aren't the engine's; and the node's limits on bytes a
//! second, which the connections keep: kept twice they would count twice.

use shoal_api::{Preset, Transfer};
use shoal_swarm::{Config, Serving};

/// What the Swarm says.
pub(super) fn config(transfer: &Transfer) -> Config {
    let preset = match transfer.preset {
        Preset::Datacenter => Config::default(),
        Preset::Classic => Config::classic(),
    };
    let slots = transfer.slots;
    let serving = match preset.serving {
        // As many flows leave a node as reach it.
        Serving::Credit { idle, allowance_chunks, .. } => {
            Serving::Credit { slots, sources: slots, idle, rechoke: transfer.rechoke, allowance_chunks }
        }
        Serving::TitForTat { .. } => {
            Serving::TitForTat { slots, rechoke: transfer.rechoke, optimistic: transfer.optimistic }
        }
        Serving::Open => Serving::Open,
    };
    let max_peers = transfer.max_peers;
    Config { serving, uploads_at_once: slots, max_peers, ..preset }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_presets_of_both_are_the_same() {
        assert_eq!(config(&Preset::Datacenter.transfer()), Config::default());
        assert_eq!(config(&Preset::Classic.transfer()), Config::classic());
        let wide = Transfer { slots: 8, ..Transfer::default() };
        let wide = config(&wide);
        assert_eq!(wide.uploads_at_once, 8);
        assert_eq!(wide.validate(), Ok(()));
    }
}
