//! `kubectl swarm status`: all Swarms in a table, one in detail, or both as they change.
//!
//! State: none. Invariant: what a table has is what the API server's own columns have (`kubectl get swarms`), and in their order.

mod details;
mod live;

use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use shoal_api::SummaryStatus;
use shoal_api::kube::Swarm;

use crate::access::ask;
use crate::args::StatusArgs;
use crate::failure::Failure;
use crate::outlook::{condition, ready_cell};
use crate::output::{self, Format};
use crate::table::{Cell, Table};
use crate::text;

pub(crate) use live::{Show, not_yet};

pub(crate) async fn run(args: &StatusArgs, client: Client) -> Result<(), Failure> {
    if args.watch {
        return live::run(args.name.as_deref(), args.timeout, client).await;
    }
    let swarms: Api<Swarm> = Api::all(client);
    let (found, in_detail) = match &args.name {
        Some(name) => (vec![ask(&format!("Swarm {name}"), swarms.get(name)).await?], args.output.is_none()),
        // As many as people make: the largest clusters have a few hundred.
        None => (ask("Swarms", swarms.list(&ListParams::default())).await?.items, false),
    };
    if in_detail {
        let detailed = found.iter().map(|swarm| details::render(swarm, Timestamp::now(), output::is_colourful()));
        return output::print(&detailed.collect::<String>());
    }
    match args.output {
        Some(Format::Name) => output::print(&names(&found)),
        Some(format @ (Format::Json | Format::Yaml)) => {
            output::print(&output::objects(&found, format, args.name.is_some())?)
        }
        _ if found.is_empty() => {
            eprintln!("There are no Swarms yet: make one, see `kubectl explain swarm.spec`.");
            Ok(())
        }
        format => output::print(&table(&found, format.is_some(), Timestamp::now()).render(output::is_colourful())),
    }
}

fn names(swarms: &[Swarm]) -> String {
    swarms.iter().map(|swarm| format!("swarm.{}/{}\n", shoal_api::GROUP, swarm.name_any())).collect()
}

fn table(swarms: &[Swarm], wide: bool, now: Timestamp) -> Table {
    let columns = ["NAME", "READY", "NODES", "ARTIFACTS", "SAVED", "MODE", "AGE", "REASON", "ORIGIN", "PEERS"];
    let shown = if wide { columns.len() } else { columns.len() - 3 };
    let mut table = Table::new(&columns[..shown]);
    for swarm in swarms {
        let status = swarm.status.as_ref();
        let SummaryStatus { nodes, artifacts, saved, .. } =
            status.map(|status| status.summary.clone()).unwrap_or_default();
        let traffic = status.map(|status| status.traffic).unwrap_or_default();
        let moved = |quantity: shoal_api::Quantity| match quantity.bytes() {
            0 => String::new(),
            bytes => text::bytes(bytes),
        };
        let mut cells: Vec<Cell> = vec![
            swarm.name_any().into(),
            ready_cell(swarm),
            nodes.into(),
            artifacts.into(),
            saved.into(),
            format!("{:?}", swarm.spec.mode).into(),
            age(swarm, now).into(),
            condition(swarm, "Ready").map_or("", |ready| &ready.reason).into(),
            moved(traffic.from_origin).into(),
            moved(traffic.from_peers).into(),
        ];
        cells.truncate(shown);
        table.row(cells);
    }
    table
}

fn age(swarm: &Swarm, now: Timestamp) -> String {
    text::between(swarm.metadata.creation_timestamp.as_ref().map(|time| time.0), Some(now))
}
