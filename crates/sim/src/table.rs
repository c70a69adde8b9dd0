//! `table`: measures what is asked of the system and what its alternatives do, and writes the page about it.
//!
//! State: `docs/simulation.json`, every measurement with its command and its date. The page and the plot are made from it alone, so a part
//! can be measured again without the rest.
//! Invariants: equal measurements give equal pages; a measurement is kept before the next one starts.
//! Absent on purpose: judgement beyond the limits. What a figure means is for the reader.

mod page;
mod rows;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::cli::JOBS;
use crate::plot;
use crate::report::Report;
use crate::scenario::{Draft, Preset, Scenario, Size, Usual, run as run_seeds};

/// Larger swarms take hours.
const USUAL_NODES: usize = 1_000;

/// What the table is to be made of.
#[derive(Args, Debug)]
pub(crate) struct Table {
    /// Measures swarms of up to so many nodes; the rest stays as it is.
    #[arg(long, value_name = "N", default_value_t = USUAL_NODES)]
    up_to: usize,
    /// And of no fewer than this.
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: usize,
    /// The same as --up-to 10000: hours, and 3 GiB of memory.
    #[arg(long, conflicts_with = "up_to")]
    large: bool,
    /// Measures these only, by the letter of their row or as `presets` or `variants`; the rest stays as it is.
    #[arg(long, value_name = "PART,…", value_delimiter = ',')]
    only: Vec<String>,
    /// Measures nothing: writes the page anew.
    #[arg(long, conflicts_with_all = ["only", "large", "up_to", "from"])]
    render: bool,
    /// Where simulation.md, simulation.svg and simulation.json are.
    #[arg(long, value_name = "DIR", default_value = "docs")]
    docs: PathBuf,
}

/// A scenario to measure.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) scenario: &'static str,
    pub(crate) preset: Preset,
    pub(crate) nodes: usize,
    pub(crate) size_bytes: u64,
    pub(crate) settings: &'static [&'static str],
    pub(crate) seeds: u64,
}

/// What was measured, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) date: String,
    pub(crate) report: Report,
}

/// All measurements by their commands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Store(BTreeMap<String, Measured>);

impl Wanted {
    fn draft(&self) -> Result<Draft, String> {
        let size = Size::new(self.size_bytes).ok_or("a size of nothing")?;
        let settings: Vec<String> = self.settings.iter().map(|&setting| setting.to_owned()).collect();
        Scenario::named(self.scenario)?.draft(self.preset, self.nodes, size, &settings)
    }

    /// The command that measures it.
    pub(crate) fn command(&self) -> Result<String, String> {
        Ok(format!("{} --seeds {}", self.draft()?.command(), self.seeds))
    }
}

impl Store {
    /// A measurement, if it was made.
    pub(crate) fn of(&self, wanted: &Wanted) -> Option<&Report> {
        Some(&self.0.get(&wanted.command().ok()?)?.report)
    }

    fn load(path: &Path) -> Result<Self, String> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn save(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        write(path, &(text + "\n"))
    }

    fn dates(&self) -> Option<(&str, &str)> {
        let dates = || self.0.values().map(|measured| measured.date.as_str());
        Some((dates().min()?, dates().max()?))
    }

    fn violations(&self) -> impl Iterator<Item = &str> {
        self.0.values().flat_map(|measured| measured.report.violations.iter().map(String::as_str))
    }
}

/// Whether the parts that are asked for exist, and where the page goes.
///
/// # Errors
/// One line that names them all.
pub(crate) fn check(table: &Table) -> Result<(), String> {
    let parts = rows::parts();
    if let Some(unknown) = table.only.iter().find(|only| parts.iter().all(|(part, _)| part != *only)) {
        let mut names: Vec<_> = parts.iter().map(|(part, _)| part.as_str()).collect();
        names.dedup();
        return Err(format!("there is no part '{unknown}'; the parts are {}", names.join(", ")));
    }
    if !table.docs.is_dir() {
        return Err(format!(
            "there is no directory '{}': --docs names the one that the page is in",
            table.docs.display()
        ));
    }
    Ok(())
}

/// Measures and writes.
///
/// # Errors
/// One line: a file that can't be read or written.
pub(crate) fn run(table: &Table) -> Result<(), String> {
    let file = |name: &str| table.docs.join(name);
    let mut store = Store::load(&file("simulation.json"))?;
    let date = today();
    let usual = Usual::default();
    let mut wanted: Vec<Wanted> = Vec::new();
    for (part, of_part) in rows::parts() {
        if !table.render && (table.only.is_empty() || table.only.contains(&part)) {
            let up_to = if table.large { usize::MAX } else { table.up_to };
            wanted.extend(of_part.into_iter().filter(|wanted| (table.from..=up_to).contains(&wanted.nodes)));
        }
    }
    // Small ones first, and undisturbed ones before those that are compared with them.
    wanted.sort_by_key(|wanted| (wanted.nodes, wanted.scenario != "burst"));
    let mut once: Vec<Wanted> = Vec::new();
    wanted.into_iter().for_each(|wanted| {
        if !once.contains(&wanted) {
            once.push(wanted)
        }
    });
    for (at, wanted) in once.iter().enumerate() {
        let command = wanted.command()?;
        eprintln!("[{}/{}] {command}", at + 1, once.len());
        let report = measure(wanted, &usual)?;
        report.violations.iter().for_each(|line| eprintln!("violated: {line}"));
        store.0.insert(command, Measured { date: date.clone(), report });
        store.save(&file("simulation.json"))?;
    }
    write(&file("simulation.svg"), &plot::svg("1 GiB", &rows::lines(&store)))?;
    write(&file("simulation.md"), &page::markdown(&store))
}

fn measure(wanted: &Wanted, usual: &Usual) -> Result<Report, String> {
    let draft = wanted.draft()?;
    let started = Instant::now();
    let samples = run_seeds(&draft, 1..=wanted.seeds, JOBS, usual);
    Ok(Report::new(&draft, &samples, started.elapsed().as_secs_f64()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Today's date, in UTC.
fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    date_of(seconds / 86_400)
}

/// The Gregorian date of a day since 1970-01-01, counted in years that begin in March, so that a leap day is a year's last one.
fn date_of(day: u64) -> String {
    // Days from 0000-03-01 to 1970-01-01, and the days of 400, 100, 4 and 1 years.
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Five months from March on have 153 days, and so have the next five.
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_the_calendars() {
        for (day, date) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_778, "2026-11-21"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            assert_eq!(date_of(day), date, "day {day}");
        }
    }

    #[test]
    fn everything_wanted_can_be_run() {
        for (part, wanted) in rows::parts() {
            for wanted in wanted {
                assert!(wanted.command().is_ok(), "{part}: {wanted:?}");
            }
        }
    }
}
