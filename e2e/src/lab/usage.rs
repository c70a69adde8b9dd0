//! What processes and the machine have used.
//!
//! State: what there was at a meter's start. Invariants: a process that is gone has used nothing. Absent on purpose: sampling; the kernel
//! keeps sums and peaks.

use std::fs;

use anyhow::Result;

use crate::figures::float;
use crate::network::Place;

/// What was used when it was started.
pub(super) struct Meter<'a> {
    origin: &'a Place,
    pids: Vec<(u32, f64)>,
    busy: (u64, u64),
    sent: u64,
}

/// What was used since.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    /// Of the processes together.
    pub(super) cpu_seconds: f64,
    /// Of the process that has ever had the most.
    pub(super) rss_max_mib: u64,
    /// Of the whole machine.
    pub(super) box_cpu_percent: f64,
    /// What left the origin, with headers and acknowledgements.
    pub(super) origin_wire_bytes: u64,
}

impl<'a> Meter<'a> {
    /// Starts to measure these processes, and the origin's link.
    pub(super) fn start(origin: &'a Place, pids: &[u32]) -> Result<Self> {
        let pids = pids.iter().map(|pid| (*pid, cpu_seconds(*pid))).collect();
        Ok(Self { origin, pids, busy: machine_ticks(), sent: origin.sent_bytes()? })
    }

    /// What was used since the start.
    pub(super) fn used(&self) -> Result<Used> {
        let (busy, all) = machine_ticks();
        Ok(Used {
            cpu_seconds: self.pids.iter().map(|(pid, before)| (cpu_seconds(*pid) - before).max(0.0)).sum(),
            rss_max_mib: self.pids.iter().map(|(pid, _)| peak_rss_mib(*pid)).max().unwrap_or(0),
            box_cpu_percent: 100.0 * float(busy - self.busy.0) / float((all - self.busy.1).max(1)),
            origin_wire_bytes: self.origin.sent_bytes()? - self.sent,
        })
    }
}

/// CPU seconds of a process so far.
#[allow(clippy::cast_precision_loss, reason = "ticks of a run, far below 2^53")]
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    times(&stat, 11).unwrap_or(0) as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// CPU seconds of the processes that this one has started and waited for.
#[allow(clippy::cast_precision_loss, reason = "ticks of a run, far below 2^53")]
pub(super) fn children_cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    times(&stat, 13).unwrap_or(0) as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// User and system ticks: the process's own at 11, of its children at 13. The name in parentheses may have spaces of its own.
fn times(stat: &str, at: usize) -> Option<u64> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(at);
    let mut field = || fields.next()?.parse::<u64>().ok();
    Some(field()? + field()?)
}

/// The most memory that a process has had resident, in MiB.
pub(crate) fn peak_rss_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    peak.unwrap_or(0) / 1024
}

/// The machine's ticks so far: busy, and all.
pub(crate) fn machine_ticks() -> (u64, u64) {
    parse_machine(&fs::read_to_string("/proc/stat").unwrap_or_default())
}

fn parse_machine(stat: &str) -> (u64, u64) {
    let first = stat.lines().next().unwrap_or_default();
    // user, nice, system, idle, iowait, irq, softirq, steal; what guests used is in user already.
    let fields: Vec<u64> = first.split_whitespace().skip(1).take(8).filter_map(|field| field.parse().ok()).collect();
    let all: u64 = fields.iter().sum();
    let idle: u64 = fields.iter().skip(3).take(2).sum();
    (all - idle, all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_sums_are_read() {
        let stat = "12 (a b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 7 8";
        assert_eq!((times(stat, 11), times(stat, 13)), (Some(300), Some(15)));
        assert_eq!(parse_machine("cpu  10 1 20 100 5 2 3 4 0 0\ncpu0 1 1\n"), (40, 145));
        assert!(peak_rss_mib(std::process::id()) > 0);
    }
}
