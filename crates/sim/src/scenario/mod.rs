//! The scenarios: each is a name for a few settings.
//!
//! State: none. Invariants: a scenario is nothing that `--set` couldn't do, so each can be varied, and two can be combined.
//! Absent on purpose: figures. Which ones a run has follows from its settings.

mod keys;
mod knobs;
mod plan;
mod random;
mod run;
pub(crate) mod units;

pub(crate) use keys::{KEYS, apply};
pub(crate) use knobs::{Knobs, Preset};
pub(crate) use plan::Plan;
pub(crate) use run::{Sample, Usual, run};
pub(crate) use units::Size;

/// One scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    settings: &'static [&'static str],
}

/// All scenarios.
pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario("burst", "all nodes pull the same blob at once", &[]),
    scenario("staggered", "the nodes come one after the other, over the time that a burst's bound is", &["arrivals=1"]),
    scenario("churn", "30 % of the nodes are killed at half time; their connections close", &["killed=30%"]),
    scenario("liars", "10 % of the nodes corrupt every chunk they send", &["liars=10%"]),
    scenario("framers", "10 % of the nodes accuse honest ones and claim to have everything", &["framers=10%"]),
    scenario("lying-lead", "the first lead invents content, and links that fit it", &["lying-lead=yes"]),
    scenario("stragglers", "10 % of the nodes have a quarter of the uplink", &["stragglers=10%"]),
    scenario("tracker-outage", "the tracker dies at 30 % of the time, for good", &["tracker-dies-at=30%"]),
    scenario(
        "origin-outage",
        "the origin sends nothing for half a second, from half time on",
        &["origin-stops-at=50%"],
    ),
    scenario(
        "free-riders",
        "30 % of the nodes never upload, and all uplinks are half of the downlinks",
        &["free-riders=30%", "uplink=5Gbit"],
    ),
    scenario(
        "zones",
        "two zones; the link between them is a quarter of one zone's uplinks together",
        &["zones=2", "zone-link=25%"],
    ),
    scenario("images", "three images of 8 layers, the base layers in common; each node pulls one", &["images=3"]),
    scenario("lead-dies", "the lead dies at half time; its connections close", &["lead-dies-at=50%"]),
    scenario("lead-vanishes", "the lead falls silent at half time", &["lead-vanishes-at=50%"]),
    scenario(
        RANDOM,
        "small swarms with random settings and faults, of up to --nodes and --size; only invariants count",
        &[],
    ),
];

/// The scenario whose settings the seed draws.
const RANDOM: &str = "random";

const fn scenario(name: &'static str, about: &'static str, settings: &'static [&'static str]) -> Scenario {
    Scenario { name, about, settings }
}

impl Scenario {
    /// The scenario of this name.
    ///
    /// # Errors
    /// One line that names them all.
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        SCENARIOS.iter().find(|scenario| scenario.name == name).copied().ok_or_else(|| {
            let names: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
            format!("there is no scenario '{name}'; the scenarios are {}", names.join(", "))
        })
    }

    /// What is run: the preset's values, then the scenario's, then those of the command line.
    ///
    /// # Errors
    /// One line that names what would be valid.
    pub(crate) fn draft(self, preset: Preset, nodes: usize, size: Size, settings: &[String]) -> Result<Draft, String> {
        let mut knobs = Knobs::of(preset);
        let own = self.settings.iter().copied();
        own.chain(settings.iter().map(String::as_str)).try_for_each(|setting| apply(&mut knobs, setting))?;
        let plan = Plan { knobs, nodes, size };
        plan.check()?;
        let draft = Draft { scenario: self, preset, settings: settings.to_vec(), plan };
        if self.name == RANDOM {
            random::check(&draft.plan)?;
        }
        Ok(draft)
    }
}

/// A scenario with all that the command line says, and a plan for every seed.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) scenario: Scenario,
    pub(crate) preset: Preset,
    pub(crate) settings: Vec<String>,
    pub(crate) plan: Plan,
}

impl Draft {
    /// What this seed runs: the same, but for random swarms, which are bursts with drawn settings.
    pub(crate) fn of_seed(&self, seed: u64) -> Self {
        if self.scenario.name != RANDOM {
            return self.clone();
        }
        let (plan, drawn) = random::plan(&self.plan, seed);
        let settings = self.settings.iter().cloned().chain(drawn).collect();
        Self { scenario: SCENARIOS[0], settings, plan, preset: self.preset }
    }

    /// The command that runs it, but for its seeds.
    pub(crate) fn command(&self) -> String {
        let Self { scenario, preset, settings, plan } = self;
        let mut command = format!("cargo xtask sim {} --nodes {} --size {}", scenario.name, plan.nodes, plan.size);
        if *preset != Preset::default() {
            command.push_str(&format!(" --preset {}", preset.name()));
        }
        settings.iter().for_each(|setting| command.push_str(&format!(" --set {setting}")));
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_valid_for_every_preset_that_exchanges() {
        for scenario in SCENARIOS {
            for preset in [Preset::Shoal, Preset::Classic, Preset::KrakenPolicy] {
                let draft = scenario.draft(preset, 100, Size::new(1 << 30).unwrap(), &[]);
                assert!(draft.is_ok(), "{}: {draft:?}", scenario.name);
            }
        }
    }

    #[test]
    fn a_command_says_all() {
        let scenario = Scenario::named("churn").unwrap();
        let settings = ["killed=5".to_owned(), "slots=3".to_owned()];
        let draft = scenario.draft(Preset::Classic, 7, Size::new(32 << 20).unwrap(), &settings).unwrap();
        let command = "cargo xtask sim churn --nodes 7 --size 32MiB --preset classic --set killed=5 --set slots=3";
        assert_eq!(draft.command(), command);
        assert!(Scenario::named("chrun").unwrap_err().contains("the scenarios are burst, staggered, churn"));
    }
}
