//! From settings, numbers and a seed to a setup.
//!
//! State: none. Invariants: a plan that passed [`Plan::check`] gives a setup for every seed; a disturbed setup differs from the
//! undisturbed one of its seed in nothing but what goes wrong.
//! Absent on purpose: how long an undisturbed run takes. Whoever wants it disturbed has run that before.

use std::time::Duration;

use shoal_swarm::Serving;
use shoal_types::{Geometry, Rng, Time};

use super::knobs::{Knobs, Preset, Trouble};
use super::units::{Share, Size};
use crate::bound;
use crate::setup::{BlobSetup, Fault, NodeSetup, Role, Setup};

/// Nodes that anybody simulates: ten times the largest scenario.
pub(crate) const MAX_NODES: usize = 100_000;

/// The images' smallest layer.
const SMALLEST_LAYER: u64 = 100 << 10;

/// An image's other layers in 32nds of it, in the order of its manifest; 0 stands for the smallest one, and the last one is what is left.
/// The first three are the base.
const LAYERS: [u64; 7] = [3, 0, 1, 4, 16, 2, 5];
const BASE_LAYERS: usize = 3;

/// So long, and four round trips, a lead may be the only one that has a chunk: it is verified, told of, asked for, sent, and verified
/// again.
const ALONE_SECONDS: f64 = 0.025;

/// What happens in fewer runs than this isn't reckoned with.
const RARE: f64 = 1e-3;

/// A run is given up after so many times its bound, see [`give_up`].
const PATIENCE_BOUNDS: f64 = 30.0;

/// A run but for its seed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) knobs: Knobs,
    pub(crate) nodes: usize,
    pub(crate) size: Size,
}

/// Who plays which part.
#[derive(Debug)]
struct Cast {
    roles: Vec<Role>,
    slow: Vec<bool>,
    killed: Vec<u32>,
}

impl Plan {
    /// Whether it can be run.
    ///
    /// # Errors
    /// One line that names what would be valid.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Knobs { config, trouble, .. } = &self.knobs;
        let nodes = self.nodes;
        if !(1..=MAX_NODES).contains(&nodes) {
            return Err(format!("nodes: expected 1 to {MAX_NODES}, not {nodes}"));
        }
        config.validate().map_err(|error| error.to_string().replace('_', "-"))?;
        if self.knobs.images > 0 && self.size.bytes() < 64 * SMALLEST_LAYER {
            let least = Size::new(64 * SMALLEST_LAYER).map(|size| size.to_string()).unwrap_or_default();
            return Err(format!("size: an image has layers from 100KiB up and so at least {least}, not {}", self.size));
        }
        for (bytes, _) in self.blobs() {
            Geometry::new(bytes, self.knobs.chunk_size(bytes)).map_err(|error| format!("size: {error}"))?;
        }
        if self.knobs.zones > nodes || self.knobs.images > nodes {
            return Err(format!("zones and images: expected at most one for each of the {nodes} nodes"));
        }
        let lying = Share::Count(usize::from(trouble.lying_lead));
        let mut others = nodes;
        for (name, share) in [
            ("lying-lead", lying),
            ("liars", trouble.liars),
            ("framers", trouble.framers),
            ("free-riders", trouble.riders),
        ] {
            others = others.checked_sub(share.of(nodes)).filter(|others| *others > 0).ok_or_else(|| {
                format!(
                    "{name}: expected 0 to {} of {nodes} nodes, because one has to be honest, not {share}",
                    others - 1
                )
            })?;
        }
        let dying = usize::from(trouble.lead_dies_at.is_some()) + usize::from(trouble.lead_vanishes_at.is_some());
        for (name, share, most) in [
            ("stragglers", trouble.stragglers, nodes - 1),
            ("killed", trouble.killed, nodes.saturating_sub(1 + dying)),
            ("lead-dies-at and lead-vanishes-at", Share::Count(dying), nodes - 1),
        ] {
            if share.of(nodes) > most {
                return Err(format!("{name}: expected 0 to {most} of {nodes} nodes, not {share}"));
            }
        }
        let alone = self.knobs.preset == Preset::ClientServer;
        if alone && (others < nodes || trouble.tracker_dies_at.is_some()) {
            return Err("client-server: there is no exchange and no tracker that could go wrong".to_owned());
        }
        Ok(())
    }

    /// The run in which nothing goes wrong.
    pub(crate) fn undisturbed(&self, seed: u64) -> Setup {
        let quiet = Self { knobs: self.knobs.undisturbed(), ..self.clone() };
        quiet.setup(seed, Time::MAX)
    }

    /// The run with everything that goes wrong; `usual` is when the last node finished in the undisturbed run of this seed.
    pub(crate) fn setup(&self, seed: u64, usual: Time) -> Setup {
        let knobs = &self.knobs;
        let cast = self.cast(seed);
        let layers = self.blobs();
        let nodes = (0..self.nodes)
            .map(|ix| NodeSetup {
                zone: ix % knobs.zones,
                up: if cast.slow[ix] { knobs.uplink * knobs.trouble.straggler_uplink } else { knobs.uplink },
                down: knobs.downlink,
                role: cast.roles[ix],
                wants: self.wants(ix),
                pulls_at: Time::ZERO,
            })
            .collect();
        let blobs =
            layers.iter().map(|&(size_bytes, _)| BlobSetup { size_bytes, chunk_size: knobs.chunk_size(size_bytes) });
        let mut setup = Setup {
            nodes,
            blobs: blobs.collect(),
            config: knobs.config.clone(),
            seed,
            round_trip: knobs.round_trip,
            origin_up: knobs.origin_rate,
            origin_per_connection: knobs.origin_connection_rate,
            between_zones: knobs
                .zone_link
                .map(|fraction| fraction * knobs.uplink * f64_of(self.nodes) / f64_of(knobs.zones)),
            client_server: knobs.preset == Preset::ClientServer,
            standing_mesh: knobs.standing_mesh,
            announce_every: knobs.announce_every,
            faults: faults(&knobs.trouble, cast.killed, usual),
            cores: knobs.cores,
            give_up: Time::MAX,
        };
        self.stagger(&mut setup);
        if knobs.origin_is_peer {
            setup.nodes.push(NodeSetup {
                zone: 0,
                up: knobs.origin_rate,
                down: knobs.downlink,
                role: Role::Origin,
                wants: Vec::new(),
                pulls_at: Time::ZERO,
            });
        }
        setup.give_up = give_up(&setup);
        setup
    }

    /// The bytes of all blobs together, each once.
    pub(crate) fn distinct_bytes(&self) -> u64 {
        self.blobs().iter().map(|(bytes, _)| bytes).sum()
    }

    /// Copies of everything that the origin may be asked for: one and a twentieth; one more for each lead whose fetching may be in vain,
    /// because it lies or gives nothing; and what a lead had alone when it was lost, for each way of losing it. A copy for everybody who
    /// finds nobody, without exchange or without neighbours and tracker, and for everybody under policies that let a node wait until it
    /// is impatient, as the textbook's slots do that move every ten seconds. An origin that is a peer sends what its neighbours ask for.
    pub(crate) fn origin_budget(&self) -> f64 {
        if self.knobs.preset == Preset::ClientServer {
            return wanted_copies(self);
        }
        let trouble = &self.knobs.trouble;
        let stranger = trouble.tracker_dies_at.is_some() && !self.knobs.standing_mesh;
        if stranger || self.knobs.origin_is_peer || !matches!(self.knobs.config.serving, Serving::Credit { .. }) {
            return wanted_copies(self) + self.leads_in_vain();
        }
        let lost = [
            trouble.killed != Share::NONE,
            trouble.stragglers != Share::NONE,
            trouble.lead_dies_at.is_some(),
            trouble.lead_vanishes_at.is_some(),
            trouble.tracker_dies_at.is_some(),
            trouble.origin_stops_at.is_some(),
        ];
        let lost = lost.into_iter().filter(|lost| *lost).map(|_| 1.0).sum::<f64>();
        let alone = self.knobs.origin_rate * (ALONE_SECONDS + 4.0 * self.knobs.round_trip.as_secs_f64());
        1.05 + self.leads_in_vain() + lost * copies_of(alone, self.distinct_bytes()).min(1.0)
    }

    /// How many leads in a row fetch in vain: successors are drawn at random, so k of them with the kth power of these nodes' share.
    fn leads_in_vain(&self) -> f64 {
        let trouble = &self.knobs.trouble;
        let vain = f64_of(trouble.liars.of(self.nodes) + trouble.riders.of(self.nodes));
        let in_a_row = if vain > 0.0 { (RARE.ln() / (vain / f64_of(self.nodes)).ln()).ceil().min(vain) } else { 0.0 };
        in_a_row + if trouble.lying_lead { 1.0 } else { 0.0 }
    }

    /// Each blob's size, and the image it belongs to; none if it belongs to all.
    fn blobs(&self) -> Vec<(u64, Option<usize>)> {
        let size = self.size.bytes();
        if self.knobs.images == 0 {
            return vec![(size, None)];
        }
        let layer = |part: u64| if part == 0 { SMALLEST_LAYER } else { size / 32 * part };
        let last = size - LAYERS.iter().map(|part| layer(*part)).sum::<u64>();
        let base = LAYERS[..BASE_LAYERS].iter().map(|part| (layer(*part), None));
        let own = |image| {
            let layers = LAYERS[BASE_LAYERS..].iter().map(|part| layer(*part)).chain([last]);
            layers.map(move |bytes| (bytes, Some(image)))
        };
        base.chain((0..self.knobs.images).flat_map(own)).collect()
    }

    /// The blobs that a node wants, in the order of its manifest.
    fn wants(&self, node: usize) -> Vec<usize> {
        let image = node % self.knobs.images.max(1);
        let wanted = |(ix, (_, of)): (usize, &(u64, Option<usize>))| (of.is_none() || *of == Some(image)).then_some(ix);
        self.blobs().iter().enumerate().filter_map(wanted).collect()
    }

    /// Deals the parts. The riders come first, so that they are the same whether or not anything else goes wrong.
    fn cast(&self, seed: u64) -> Cast {
        let trouble = &self.knobs.trouble;
        let mut rng = Rng::new(seed).fork();
        let mut order: Vec<usize> = (0..self.nodes).collect();
        rng.shuffle(&mut order);
        let mut roles = vec![Role::Honest; self.nodes];
        if trouble.lying_lead {
            // The node whose announce comes first gets the lease, and all pull in their order.
            roles[0] = Role::LyingLead;
            order.retain(|node| *node != 0);
        }
        let mut rest = order.into_iter();
        for (role, share) in
            [(Role::Rider, trouble.riders), (Role::Liar, trouble.liars), (Role::Framer, trouble.framers)]
        {
            rest.by_ref().take(share.of(self.nodes)).for_each(|node| roles[node] = role);
        }
        let mut draw = |share: Share| {
            let mut all: Vec<usize> = (0..self.nodes).collect();
            rng.shuffle(&mut all);
            all.truncate(share.of(self.nodes));
            all
        };
        let mut slow = vec![false; self.nodes];
        draw(trouble.stragglers).into_iter().for_each(|node| slow[node] = true);
        let mut killed: Vec<u32> =
            draw(trouble.killed).into_iter().filter_map(|node| u32::try_from(node).ok()).collect();
        killed.sort_unstable();
        Cast { roles, slow, killed }
    }

    fn stagger(&self, setup: &mut Setup) {
        let last = bound::fluid(setup) * self.knobs.arrivals;
        let count = setup.nodes.len().max(2) - 1;
        for (ix, node) in setup.nodes.iter_mut().enumerate() {
            node.pulls_at = Time::ZERO + Duration::from_secs_f64(last * f64_of(ix) / f64_of(count));
        }
    }
}

/// When the faults happen.
fn faults(trouble: &Trouble, killed: Vec<u32>, usual: Time) -> Vec<(Time, Fault)> {
    let at = |fraction: f64| Time::ZERO + usual.since(Time::ZERO).mul_f64(fraction);
    let mut faults = Vec::new();
    if !killed.is_empty() {
        faults.push((at(trouble.killed_at), Fault::Kill { nodes: killed, silently: false }));
    }
    if let Some(fraction) = trouble.lead_dies_at {
        faults.push((at(fraction), Fault::KillLead { silently: false }));
    }
    if let Some(fraction) = trouble.lead_vanishes_at {
        faults.push((at(fraction), Fault::KillLead { silently: true }));
    }
    if let Some(fraction) = trouble.tracker_dies_at {
        faults.push((at(fraction), Fault::TrackerDies));
    }
    if let Some(fraction) = trouble.origin_stops_at {
        faults.push((at(fraction), Fault::OriginStops));
        faults.push((at(fraction) + trouble.origin_outage, Fault::OriginResumes));
    }
    faults
}

/// When a run is given up: a minute, in which every timer of the protocol has run out several times, and what thirty times as slow a
/// distribution as the bound takes. Without exchange the origin's link alone needs a copy for each node.
pub(crate) fn give_up(setup: &Setup) -> Time {
    let copies = if setup.client_server { bound::client_server(setup) } else { 0.0 };
    Time::ZERO + Duration::from_secs_f64(60.0 + PATIENCE_BOUNDS * bound::fluid(setup) + 2.0 * copies)
}

/// How many copies of so much that is.
#[allow(clippy::cast_precision_loss, reason = "bytes of a simulated run, far below 2^53")]
fn copies_of(bytes: f64, distinct: u64) -> f64 {
    bytes / distinct as f64
}

/// How many copies of everything the nodes want together.
#[allow(clippy::cast_precision_loss, reason = "bytes of a simulated run, far below 2^53")]
fn wanted_copies(plan: &Plan) -> f64 {
    let blobs = plan.blobs();
    let of_node = |node| plan.wants(node).into_iter().map(|blob| blobs[blob].0).sum::<u64>();
    let wanted: u64 = (0..plan.nodes).map(of_node).sum();
    copies_of(wanted as f64, plan.distinct_bytes())
}

#[allow(clippy::cast_precision_loss, reason = "a number of nodes")]
const fn f64_of(nodes: usize) -> f64 {
    nodes as f64
}

#[cfg(test)]
mod tests {
    use super::super::keys;
    use super::*;

    fn plan(nodes: usize, size: u64, settings: &[&str]) -> Plan {
        let mut knobs = Knobs::of(Preset::Shoal);
        settings.iter().for_each(|setting| keys::apply(&mut knobs, setting).unwrap());
        Plan { knobs, nodes, size: Size::new(size).unwrap() }
    }

    fn count(setup: &Setup, role: Role) -> usize {
        setup.nodes.iter().filter(|node| node.role == role).count()
    }

    #[test]
    fn parts_are_dealt_once_and_by_the_seed() {
        let plan = plan(100, 1 << 30, &["liars=10%", "framers=10%", "free-riders=30", "lying-lead=yes", "killed=30%"]);
        assert_eq!(plan.check(), Ok(()));
        let setup = plan.setup(7, Time::from_nanos(1_000_000_000));
        let counts = [Role::Liar, Role::Framer, Role::Rider, Role::LyingLead].map(|role| count(&setup, role));
        assert_eq!(counts, [10, 10, 30, 1]);
        let riders = |setup: &Setup| -> Vec<bool> { setup.nodes.iter().map(|node| node.role == Role::Rider).collect() };
        assert_eq!(riders(&setup), riders(&plan.undisturbed(7)));
        assert_ne!(riders(&setup), riders(&plan.undisturbed(8)));
        let [(at, Fault::Kill { nodes, silently: false })] = &setup.faults[..] else { panic!("{:?}", setup.faults) };
        assert_eq!((at.as_nanos(), nodes.len()), (500_000_000, 30));
        assert!(plan.undisturbed(7).faults.is_empty());
    }

    #[test]
    fn images_have_eight_layers_and_three_in_common() {
        let plan = plan(9, 1 << 30, &["images=3"]);
        assert_eq!(plan.check(), Ok(()));
        let setup = plan.undisturbed(1);
        assert_eq!(setup.blobs.len(), 3 + 3 * 5);
        for node in &setup.nodes {
            let sizes: Vec<u64> = node.wants.iter().map(|blob| setup.blobs[*blob].size_bytes).collect();
            assert_eq!((sizes.len(), sizes.iter().sum::<u64>()), (8, 1 << 30));
            assert_eq!(sizes.iter().max(), Some(&(512 << 20)));
            assert_eq!(sizes.iter().min(), Some(&(100 << 10)));
            assert_eq!(node.wants[..3], [0, 1, 2]);
        }
        assert_ne!(setup.nodes[0].wants, setup.nodes[1].wants);
        assert_eq!(setup.nodes[0].wants, setup.nodes[3].wants);
    }

    #[test]
    fn arrivals_spread_over_the_bounds_time() {
        let plan = plan(11, 1 << 30, &["arrivals=1"]);
        let setup = plan.undisturbed(1);
        let bound = (1_u64 << 30) as f64 / 1.25e9;
        let at = |ix: usize| setup.nodes[ix].pulls_at.as_secs_f64();
        assert!((at(10) - bound).abs() < 1e-6 && (at(5) - bound / 2.0).abs() < 1e-6 && at(0) < 1e-9);
    }

    #[test]
    fn the_origins_budget_grows_with_what_may_be_fetched_again() {
        let budget = |size, settings: &[&str]| plan(10, size, settings).origin_budget();
        let is = |budget: f64, expected: f64| assert!((budget - expected).abs() < 1e-9, "{budget}, {expected}");
        is(budget(1 << 30, &[]), 1.05);
        is(budget(1 << 30, &["lying-lead=yes", "liars=1"]), 3.05);
        // Half of the nodes: ten in a row are one run of a thousand, but there are only five.
        is(budget(1 << 30, &["free-riders=50%"]), 6.05);
        // 27 ms at 10 Gbit/s are less than a gigabyte and more than a megabyte.
        is(budget(1 << 30, &["lead-dies-at=50%"]), 1.05 + 0.027 * 1.25e9 / (1_u64 << 30) as f64);
        is(budget(1 << 20, &["lead-dies-at=50%", "killed=1"]), 3.05);
        is(budget(1 << 30, &["tracker-dies-at=0%", "mesh=cold"]), 10.0);
        let mut alone = plan(10, 1 << 20, &[]);
        alone.knobs.preset = Preset::ClientServer;
        is(alone.origin_budget(), 10.0);
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        for (nodes, size, settings, says) in [
            (0, 1, &[][..], "expected 1 to 100000"),
            (10, 1, &["liars=11"], "liars: expected 0 to 9 of 10 nodes"),
            (10, 1, &["liars=5", "framers=5"], "framers: expected 0 to 4 of 10 nodes"),
            (10, 1, &["free-riders=100%"], "free-riders: expected 0 to 9 of 10 nodes"),
            (1, 1, &["lying-lead=yes"], "lying-lead: expected 0 to 0 of 1 nodes"),
            (10, 1, &["killed=10"], "killed: expected 0 to 9"),
            (10, 1, &["killed=9", "lead-dies-at=50%"], "killed: expected 0 to 8"),
            (1, 1, &["lead-dies-at=50%"], "expected 0 to 0 of 1 nodes"),
            (10, 1, &["stragglers=10"], "stragglers: expected 0 to 9"),
            (10, 1 << 20, &["images=3"], "at least 6400KiB"),
            (2, 1 << 30, &["images=3"], "at most one for each"),
            (10, 5 << 40, &[], "more than 1048576 chunks"),
            (10, 1, &["uploads-at-once=0"], "uploads-at-once must be 1 to 64"),
        ] {
            let error = plan(nodes, size, settings).check().expect_err(says);
            assert!(error.contains(says) && !error.contains('\n'), "{says}: {error}");
        }
    }
}
