//! The page about the measurements, as Markdown.
//!
//! State: none. Invariants: it says nothing that isn't in the measurements; what wasn't measured is a dash.
//! Absent on purpose: hand-written conclusions. They would outlive what they were drawn from.

use std::fmt::Write as _;

use super::rows::{self, Asked, ROWS, Row, SCALES, VARIANTS, VARIANTS_AT};
use super::{Store, Wanted};
use crate::report::Report;
use crate::scenario::{Preset, SCENARIOS, Size};

const HEAD: &str = "# What the simulator shows

Written by `cargo xtask sim table`; measurements are in [simulation.json](simulation.json), this page's words in crates/sim/src/table, and
`cargo xtask sim table --render` puts both together. Without `--render` everything up to 1,000 nodes is measured anew, which takes hours:
`--only a,k,presets,variants` measures these parts, `--from 1000` leaves smaller swarms as they are, `--large` adds 3,000 and 10,000 nodes.
";

const MODEL: &str = "## What is simulated

The engine of every agent and the tracker's core are the real ones, driven in virtual time. Around them:

- Links have a rate up and a rate down, 10 Gbit/s unless said, that flows share max-min fairly. A round trip takes 0.5 ms. The origin
  has one link of 10 Gbit/s.
- A new connection costs 2 round trips and 1 ms of CPU at each end. Neighbours are connected before a pull begins, as they are in a
  cluster where agents run for days; `--set mesh=cold` takes that away.
- An announce costs the tracker 5 µs, one after the other.
- A core hashes 1.2 GB/s, while a chunk comes, and a node has two of them for it. Who fetches from the origin hashes a blob in order, and so
  on one: 1 GiB takes a lead 1.04 times the bound. Nothing is served before it is verified.
- What messages take of a link, TCP's slow start, losses, and encryption beyond the handshake are not simulated.
- Every choice comes from the seed. The same command gives the same trace on every machine.
- `kraken-policy` is what Kraken's source does by default (August 2026), on these links and without its own limits of 1.6 and 2.4 Gbit/s. Its
  origin is a peer that has everything. An agent asks for three pieces on each connection, random ones of those that it lacks, and
  whatever is asked of it goes out on each connection one piece after the other, on all of them side by side. (Its agents' shipped
  settings say rarest first; that changes nothing.) This takes longer than the 1.2 to 1.5 times the bound that row e asks for, and so the
  ratios to it prove nothing: what the origin's neighbours draw at random overlaps, and it sends 1.8 copies until the last piece has
  left it. With senders that give the rarest piece, even if another one was asked for, it would be 1.38.

`t_last` is when the last node is done that is to finish: not those that were killed, lie or accuse falsely; free riders count. The bound is the fluid one,
max(F/u_s, F/d_min, N·F/(u_s + Σu_i)), where F is the size, u_s the origin's rate, d_i and u_i the nodes'; only honest nodes' uplinks count.
For images F/u_s is over the distinct bytes, and for zones one copy has to cross the link between them. A figure is the 95th percentile
over the seeds, by nearest rank: with fewer than 20 seeds that is the worst. Row j's is the 5th. Counts are sums over all seeds. Of
`kraken-policy` alone, and of the presets over the number of nodes, it is the median: of two seeds the better one. `vs_undisturbed` compares with the run of the same seed in which nothing
goes wrong, and faults come at a fraction of that run's time. A ratio of two presets is the one's 95th percentile over the other's
median.
";

/// The page.
pub(super) fn markdown(store: &Store) -> String {
    let mut page = String::from(HEAD);
    if let Some((first, last)) = store.dates() {
        let dates = if first == last { format!("on {last}") } else { format!("between {first} and {last}") };
        let _ = writeln!(page, "Measured {dates}.");
    }
    asked(&mut page, store);
    scenarios(&mut page);
    presets(&mut page, store);
    variants(&mut page, store);
    page.push('\n');
    page.push_str(MODEL);
    commands(&mut page, store);
    violations(&mut page, store);
    page
}

fn asked(page: &mut String, store: &Store) {
    page.push_str("\n## What is asked and what was measured\n\n");
    page.push_str("Each cell has the limit, if there is one, and the measurement; ✗ marks a limit that isn't met. A dash: nothing is asked, or, behind a limit, it\nisn't measured yet.\n\n");
    page.push_str("| # | scenario | figure |");
    SCALES.iter().for_each(|(nodes, _)| page.push_str(&format!(" {} nodes |", thousands(*nodes))));
    page.push_str("\n|---|---|---|---|---|---|\n");
    for row in ROWS {
        let scenario = format!("`{}`, {}", row.scenario, spaced(row.size_bytes));
        let _ = write!(page, "| {} | {scenario} | {} |", row.id, row.figure);
        for scale in 0..SCALES.len() {
            let _ = write!(page, " {} |", cell(row, store, scale));
        }
        page.push('\n');
    }
}

fn scenarios(page: &mut String) {
    page.push('\n');
    for scenario in SCENARIOS.iter().filter(|scenario| ROWS.iter().any(|row| row.scenario == scenario.name)) {
        let _ = writeln!(page, "- `{}`: {}.", scenario.name, scenario.about);
    }
}

fn cell(row: &Row, store: &Store, scale: usize) -> String {
    let asked = row.asked[scale];
    let value = row.value(store, scale);
    let limit = match asked {
        Asked::Nothing => return "–".to_owned(),
        Asked::Shown => String::new(),
        Asked::AtMost(limit) => format!("≤ {}: ", figure(limit)),
        Asked::AtLeast(limit) => format!("≥ {}: ", figure(limit)),
    };
    let Some(value) = value else { return format!("{limit}–") };
    format!("{limit}**{}**{}", figure(value), if asked.is_met(value) { "" } else { " ✗" })
}

fn presets(page: &mut String, store: &Store) {
    let _ = write!(
        page,
        "\n## The presets over the number of nodes\n\n![Time until the last node is done, over the number of nodes](simulation.svg)\n\n\
         `burst` of {}: seconds until the last node is done, in the median, and how many times the bound that is.\n\n| nodes | bound |",
        spaced(rows::GIB)
    );
    Preset::ALL.iter().for_each(|preset| page.push_str(&format!(" `{}` |", preset.name())));
    page.push_str("\n|---|---|---|---|---|---|\n");
    let of = |preset: Preset, nodes: usize| {
        rows::points(preset).into_iter().find(|point| point.nodes == nodes).and_then(|point| store.of(&point))
    };
    for wanted in rows::points(Preset::Shoal) {
        let reports: Vec<Option<&Report>> = Preset::ALL.iter().map(|preset| of(*preset, wanted.nodes)).collect();
        let Some(bound) = reports.iter().flatten().map(|report| report.bound_seconds).next() else { continue };
        let _ = write!(page, "| {} | {bound:.3} s |", thousands(wanted.nodes));
        for report in reports {
            let times = report.map(|report| report.t_last_over_bound.median);
            let _ = match times {
                Some(times) => write!(page, " {:.3} s, {times:.2} × |", times * bound),
                None => write!(page, " – |"),
            };
        }
        page.push('\n');
    }
    page.push('\n');
    for preset in Preset::ALL {
        let _ = writeln!(page, "- `{}`: {}.", preset.name(), preset.about());
    }
}

fn variants(page: &mut String, store: &Store) {
    let (nodes, seeds) = VARIANTS_AT;
    let _ = write!(
        page,
        "\n## The exchange's variants\n\n`burst` with {nodes} nodes and {seeds} seeds, each with one thing changed. Small differences are \
         chance: other random numbers alone change 32 MiB by 0.04.\n\n| `--set` | what it is | t_last/bound, 1 GiB | p99/p50 | wasted | t_last/bound, 32 MiB |\n|---|---|---|---|---|---|\n"
    );
    for (settings, about) in VARIANTS {
        let name = if settings.is_empty() { "–".to_owned() } else { format!("`{}`", settings.join(" ")) };
        let [large, small] = rows::variant(settings).map(|wanted| store.of(&wanted));
        let show = |report: Option<&Report>, of: fn(&Report) -> f64| {
            report.map_or("–".to_owned(), |report| format!("{:.3}", of(report)))
        };
        let t_last: fn(&Report) -> f64 = |report| report.t_last_over_bound.p95;
        let _ = writeln!(
            page,
            "| {name} | {about} | {} | {} | {} | {} |",
            show(large, t_last),
            show(large, |report| report.p99_over_p50.p95),
            show(large, |report| report.wasted.p95),
            show(small, t_last)
        );
    }
}

fn commands(page: &mut String, store: &Store) {
    let scales: Vec<_> = SCALES.iter().map(|(nodes, seeds)| format!("{} and {seeds}", thousands(*nodes))).collect();
    let _ = write!(
        page,
        "\n## Commands\n\nEach figure can be had alone; N and K are {}. The presets and variants take 3 seeds, up to 300 nodes, and the table's \
         `--preset` or `--set`. The commands write t_last/bound `t_last_over_bound`, p99/p50 `p99_over_p50`, seconds over undisturbed \
         `delay_seconds`; row h's figure is `vs_undisturbed`, row j's `rider_over_giver_p5` with `--json`, which gives all figures of a run.\n\n| # | command |\n|---|---|\n",
        scales.join(", or ")
    );
    let mut shown: Vec<(&str, String)> = Vec::new();
    for row in ROWS {
        let mut wanted = (0..SCALES.len()).flat_map(|scale| row.wanted(scale));
        let Some(first) = wanted.next() else { continue };
        for preset in [row.preset].into_iter().chain(row.against) {
            let command = general(&Wanted { preset, ..first.clone() });
            if !shown.contains(&(row.id, command.clone())) {
                let _ = writeln!(page, "| {} | `{command}` |", row.id);
                shown.push((row.id, command));
            }
        }
    }
    let slowest = SCALES.map(|(nodes, seeds)| {
        let burst =
            Wanted { scenario: "burst", preset: Preset::Shoal, nodes, size_bytes: rows::GIB, settings: &[], seeds };
        (nodes, store.of(&burst).map(|report| report.wall_seconds))
    });
    let took: Vec<_> = slowest
        .iter()
        .filter_map(|(nodes, took)| Some(format!("{:.0} s with {} nodes", (*took)?, thousands(*nodes))))
        .collect();
    if !took.is_empty() {
        let _ = writeln!(page, "\nAll seeds of `burst` with {} together took {}.", spaced(rows::GIB), took.join(", "));
    }
}

/// A command for any number of nodes and seeds.
fn general(wanted: &Wanted) -> String {
    let command = wanted.command().unwrap_or_default();
    let command = command.replace(&format!("--nodes {} ", wanted.nodes), "--nodes N ");
    command.replace(&format!("--seeds {}", wanted.seeds), "--seeds K")
}

fn violations(page: &mut String, store: &Store) {
    page.push_str("\n## Invariants\n\n");
    let violated: Vec<&str> = store.violations().collect();
    if violated.is_empty() {
        page.push_str(
            "No run violated any of those on this page: everyone finished, no wrong byte was accepted, nobody honest was banned, \
             the origin and every agent's memory stayed within their bounds.\n\nOf swarms with random settings and several \
             faults at a time (`cargo xtask sim random`) some do; ARCHITECTURE.md says which, under what falls short.\n",
        );
        return;
    }
    page.push_str("These did not hold:\n\n");
    violated.iter().for_each(|line| page.push_str(&format!("- {line}\n")));
}

/// Three digits behind the point, fewer where they are zero.
fn figure(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    // A limit like 1.20 keeps its second digit.
    match text.split_once('.') {
        Some((_, digits)) if digits.len() == 1 => format!("{text}0"),
        _ => text.to_owned(),
    }
}

fn thousands(number: usize) -> String {
    if number < 1_000 { number.to_string() } else { format!("{},{:03}", number / 1_000, number % 1_000) }
}

fn spaced(bytes: u64) -> String {
    let size = Size::new(bytes).map(|size| size.to_string()).unwrap_or_default();
    let unit = size.find(|c: char| !c.is_ascii_digit()).unwrap_or(size.len());
    format!("{} {}", &size[..unit], &size[unit..])
}

#[cfg(test)]
mod tests {
    use super::super::Measured;
    use super::*;
    use crate::report::Figure;

    fn store(t_last: f64, violations: &[&str]) -> Store {
        let mut store = Store::default();
        for row in ROWS.iter().filter(|row| row.id == "a") {
            for wanted in row.wanted(0) {
                let report = Report {
                    t_last_over_bound: Figure { median: 1.0, p95: t_last },
                    violations: violations.iter().map(|&line| line.to_owned()).collect(),
                    ..Report::default()
                };
                let measured = Measured { date: "2026-11-21".to_owned(), report };
                store.0.insert(wanted.command().unwrap(), measured);
            }
        }
        store
    }

    #[test]
    fn a_cell_has_the_limit_the_measurement_and_a_mark() {
        assert!(
            markdown(&store(1.05, &[]))
                .contains("| a | `burst`, 1 GiB | t_last/bound | ≤ 1.08: **1.05** | ≤ 1.10: – |")
        );
        assert!(markdown(&store(1.2, &[])).contains("≤ 1.08: **1.20** ✗ |"));
        assert!(markdown(&store(1.2, &[])).contains("Measured on 2026-11-21."));
    }

    #[test]
    fn violations_are_shown() {
        assert!(markdown(&store(1.0, &[])).contains("No run violated any"));
        assert!(markdown(&store(1.0, &["seed 7: it burnt"])).contains("- seed 7: it burnt\n"));
    }

    #[test]
    fn every_row_of_a_table_has_its_columns() {
        let page = markdown(&Store::default());
        let lines: Vec<&str> = page.lines().collect();
        for block in lines.split(|line| !line.starts_with('|')).filter(|block| !block.is_empty()) {
            let columns = |line: &str| line.matches('|').count();
            assert!(block.iter().all(|line| columns(line) == columns(block[0])), "{block:?}");
        }
    }

    #[test]
    fn commands_are_for_any_scale() {
        let wanted = &rows::points(Preset::Classic)[2];
        assert_eq!(general(wanted), "cargo xtask sim burst --nodes N --size 1GiB --preset classic --seeds K");
    }

    #[test]
    fn numbers_are_short() {
        let cases = [(1.0, "1"), (1.2, "1.20"), (1.234, "1.234"), (0.0, "0"), (1.0624, "1.062"), (12.0004, "12")];
        cases.iter().for_each(|(value, text)| assert_eq!(figure(*value), *text));
        assert_eq!((thousands(100), thousands(10_000)), ("100".to_owned(), "10,000".to_owned()));
        assert_eq!(spaced(32 << 20), "32 MiB");
    }
}
