//! What processes and the machine have used.
//!
//! State: none. Invariants: a process that is gone has used nothing. Absent on purpose: sampling; the kernel keeps sums and peaks.

use std::fs;

/// CPU seconds of a process so far.
#[allow(clippy::cast_precision_loss, reason = "ticks of a run, far below 2^53")]
pub(super) fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    ticks(&stat).unwrap_or(0) as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// User and system ticks. The name in parentheses may have spaces of its own.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let mut field = || fields.next()?.parse::<u64>().ok();
    Some(field()? + field()?)
}

/// The most memory that a process has had resident, in MiB.
pub(super) fn peak_rss_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    peak.unwrap_or(0) / 1024
}

/// The machine's ticks so far: busy, and all.
pub(super) fn machine_ticks() -> (u64, u64) {
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
        assert_eq!(ticks("12 (a b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0"), Some(300));
        assert_eq!(parse_machine("cpu  10 1 20 100 5 2 3 4 0 0\ncpu0 1 1\n"), (40, 145));
        assert!(peak_rss_mib(std::process::id()) > 0);
    }
}
