//! What goes wrong in a run on purpose, and when.
//!
//! State: the processes that are to die. Invariants: who is to die is no longer watched from the start on; a fault that never came about
//! is an error, not a good result.
//! Absent on purpose: faults that the agent itself would have to know about. Who lies is another program ([`super::liar`]).

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;

use super::cluster::{Cluster, Places, name};
use crate::figures::float;
use crate::network::Network;
use crate::processes::Fleet;

/// How often is looked at what has come: a thousandth of a run of ours.
const LOOK: Duration = Duration::from_millis(50);

/// A fault, as on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// So many nodes send each chunk with a wrong bit in it.
    Liars(u32),
    /// So many agents are killed when so much of all bytes has come.
    Kill(u32, Moment),
    /// The tracker is killed then.
    KillTracker(Moment),
}

/// When something happens: by how much of the bytes that all nodes want has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// 1 to 99.
    Percent(u8),
    /// Another one each time. Not in the last tenth: who dies there often dies too late to be missed.
    Random,
}

impl Moment {
    fn percent(self) -> u8 {
        match self {
            Self::Percent(percent) => percent,
            // The standard library's maps are seeded anew each.
            Self::Random => u8::try_from(RandomState::new().build_hasher().finish() % 90 + 1).unwrap_or(50),
        }
    }
}

impl Fault {
    /// How many nodes' agents are no good any more in the end: the last ones.
    pub(super) const fn lost_agents(self) -> u32 {
        match self {
            Self::Liars(count) | Self::Kill(count, _) => count,
            Self::KillTracker(_) => 0,
        }
    }

    /// How many of them lie.
    pub(super) const fn liars(self) -> u32 {
        match self {
            Self::Liars(count) => count,
            Self::Kill(..) | Self::KillTracker(_) => 0,
        }
    }

    /// Takes the processes that are to die out of the cluster; none where nobody is to.
    pub(super) fn prepare(self, cluster: &mut Cluster, nodes: usize) -> Result<Option<Strike>> {
        let (names, at): (Vec<_>, _) = match self {
            Self::Liars(_) => return Ok(None),
            Self::Kill(count, at) => ((nodes - count as usize..nodes).map(name).collect(), at),
            Self::KillTracker(at) => (vec!["tracker".to_owned()], at),
        };
        Ok(Some(Strike { doomed: cluster.fleet.part(&names)?, percent: at.percent() }))
    }
}

/// A death that is still to come.
pub(super) struct Strike {
    doomed: Fleet,
    percent: u8,
}

impl Strike {
    /// Waits until so much of `bytes` has come to all nodes together, and kills. `wire_per_payload` is what the links carry for a byte.
    pub(super) async fn fall(
        &mut self,
        network: &Network,
        places: &Places,
        bytes: u64,
        wire_per_payload: f64,
    ) -> Result<()> {
        let before = network.received_bytes(&places.nodes)?;
        let due = float(bytes) * wire_per_payload * f64::from(self.percent) / 100.0;
        while float(network.received_bytes(&places.nodes)? - before) < due {
            sleep(LOOK).await;
        }
        eprintln!("{} % has come: killing", self.percent);
        self.doomed.kill().await;
        Ok(())
    }
}

/// Does the work, and has the strike fall meanwhile.
pub(super) async fn struck<T>(
    work: impl Future<Output = Result<T>>,
    strike: impl Future<Output = Result<()>>,
) -> Result<T> {
    tokio::pin!(work);
    tokio::select! {
        done = &mut work => {
            done?;
            anyhow::bail!("all had ended before the fault came: pull more, or have it come earlier")
        }
        fallen = strike => fallen.context("the fault can't be brought about")?,
    }
    work.await
}

impl FromStr for Fault {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const KINDS: &str = "write liars:COUNT, kill:COUNT@PERCENT or kill-tracker@PERCENT, as in kill:5@50";
        let count = |text: &str| text.parse().ok().filter(|count| *count > 0).ok_or(KINDS);
        let moment = |text: &str| match text.parse().ok().filter(|percent| (1..100).contains(percent)) {
            Some(percent) => Ok(Moment::Percent(percent)),
            None if text == "random" => Ok(Moment::Random),
            None => Err("a fault comes at 1 to 99 percent, or at random"),
        };
        if let Some(liars) = text.strip_prefix("liars:") {
            return Ok(Self::Liars(count(liars)?));
        }
        match text.split_once('@').ok_or(KINDS)? {
            ("kill-tracker", at) => Ok(Self::KillTracker(moment(at)?)),
            (kill, at) => Ok(Self::Kill(count(kill.strip_prefix("kill:").ok_or(KINDS)?)?, moment(at)?)),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Liars(count) => write!(f, "liars:{count}"),
            Self::Kill(count, at) => write!(f, "kill:{count}@{at}"),
            Self::KillTracker(at) => write!(f, "kill-tracker@{at}"),
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => percent.fmt(f),
            Self::Random => f.write_str("random"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_written_as_they_are_read() {
        for text in ["liars:2", "kill:5@50", "kill:1@random", "kill-tracker@99"] {
            assert_eq!(text.parse::<Fault>().unwrap().to_string(), text);
        }
        for text in
            ["", "liars", "liars:0", "kill:5", "kill:5@0", "kill:5@100", "kill@50", "kill-tracker", "kill-tracker@x"]
        {
            assert!(text.parse::<Fault>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_fault_that_never_comes_is_an_error() {
        let never = std::future::pending::<Result<()>>;
        assert!(struck(async { Ok(()) }, never()).await.is_err());
        let (tell, told) = tokio::sync::oneshot::channel();
        let work = async { Ok(told.await?) };
        assert_eq!(struck(work, async { tell.send(7).map_err(|_| anyhow::anyhow!("nobody")) }).await.unwrap(), 7);
    }
}
