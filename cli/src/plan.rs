//! `kubectl swarm plan`: how long a distribution takes from the registry alone, at best, and with Shoal.
//!
//! State: none. Invariant: what was simulated is told with what it says.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use serde_json::{Value, json};
use shoal_sim::forecast::{Distribution, Forecast};

use crate::args::{Document, PlanArgs};
use crate::failure::Failure;
use crate::output;
use crate::table::Table;
use crate::text;

pub(crate) fn run(args: &PlanArgs) -> Result<(), Failure> {
    let planned = Distribution {
        nodes: args.nodes,
        size_bytes: args.size.bytes(),
        node_rate: args.node_rate,
        origin_rate: args.origin_rate,
    };
    if std::io::stderr().is_terminal() {
        eprintln!("Simulating: a few seconds …");
    }
    let forecast = planned.forecast().map_err(|error| Failure::Usage(error.to_string()))?;
    match args.output {
        Some(Document::Json) => output::print(&output::json(&document(&planned, &forecast))?),
        Some(Document::Yaml) => output::print(&output::yaml(&document(&planned, &forecast))?),
        None => output::print(&page(&planned, &forecast)),
    }
}

fn page(planned: &Distribution, forecast: &Forecast) -> String {
    let Distribution { nodes, size_bytes, node_rate, origin_rate } = *planned;
    let mut page = format!(
        "{} to {nodes} nodes with {} each, from a registry with {}\n\n",
        text::bytes(size_bytes),
        text::bits(node_rate),
        text::bits(origin_rate)
    );
    let mut table = Table::new(&["HOW", "LAST NODE", "COPIES FROM THE REGISTRY"]);
    for (how, seconds, copies) in [
        ("each node from the registry", forecast.client_server_seconds, nodes.to_string()),
        ("with Shoal, simulated", forecast.shoal_seconds, format!("{:.2}", forecast.origin_copies)),
        ("the least that is possible", forecast.bound_seconds, "1".to_owned()),
    ] {
        table.row(vec![how.into(), text::precise(seconds).into(), copies.into()]);
    }
    page.push_str(&table.render(false));
    let (simulated, bytes) = (forecast.simulated_nodes, text::bytes(forecast.simulated_bytes));
    let _ = write!(
        page,
        "\nSimulated: {simulated} of {nodes} nodes, {bytes} of {}, with the agents' own exchange: {:.2} times the least that is possible",
        text::bytes(size_bytes),
        forecast.over_bound
    );
    let is_whole = simulated == nodes && forecast.simulated_bytes == size_bytes;
    page.push_str(if is_whole { ".\n" } else { ", which is taken for the whole.\n" });
    page.push_str("Not in it: unpacking, slower disks, and whatever else the links carry.\n");
    page
}

fn document(planned: &Distribution, forecast: &Forecast) -> Value {
    json!({
        "nodes": planned.nodes,
        "sizeBytes": planned.size_bytes,
        "nodeBytesPerSecond": planned.node_rate,
        "originBytesPerSecond": planned.origin_rate,
        "clientServerSeconds": forecast.client_server_seconds,
        "boundSeconds": forecast.bound_seconds,
        "shoalSeconds": forecast.shoal_seconds,
        "shoalOverBound": forecast.over_bound,
        "shoalOriginCopies": forecast.origin_copies,
        "simulated": {"nodes": forecast.simulated_nodes, "sizeBytes": forecast.simulated_bytes},
    })
}
