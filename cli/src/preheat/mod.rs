//! `kubectl swarm preheat`: has an artifact fetched ahead, waits for it, and takes it back.
//!
//! Without `--nodes` it is added to the Swarm that answers for its registry. The field manager is one for each artifact, so that what the user wrote stays
//! the user's, and another preheat takes nothing back. With `--nodes` it is a Swarm of its own, with that Swarm's registry.
//!
//! State: none. Invariants: nothing is forced. What was made here alone is taken back: an artifact by its field manager, a Swarm by its label.

mod name;
mod wait;

use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use shoal_api::kube::Swarm;
use shoal_api::{HostPattern, Reference, RegistrySpec};

use crate::access::ask;
use crate::args::PreheatArgs;
use crate::failure::Failure;
use crate::output::print;
use crate::selector;

const API_VERSION: &str = "shoal.dev/v1alpha1";
/// The label of Swarms that are made here.
const MADE_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "kubectl-swarm");

/// What is fetched ahead: in which Swarm, and under which name.
struct Pushed {
    swarm: String,
    artifact: String,
}

pub(crate) async fn run(args: &PreheatArgs, client: Client) -> Result<(), Failure> {
    let name = name::name(&args.reference, args.nodes.as_deref().unwrap_or_default());
    let api: Api<Swarm> = Api::all(client.clone());
    let swarms = ask("Swarms", api.list(&ListParams::default())).await?.items;
    if args.remove {
        return if args.nodes.is_some() {
            delete(&api, &swarms, &name).await
        } else {
            withdraw(args, &api, &swarms, &name).await
        };
    }
    let pushed = match &args.nodes {
        Some(nodes) => push_alone(args, &api, &swarms, name, nodes).await?,
        None => push(args, &api, &swarms, name).await?,
    };
    if args.wait { wait::until_there(client, &pushed.swarm, &pushed.artifact, args.timeout).await } else { Ok(()) }
}

/// Adds it to a Swarm, unless that has it already.
async fn push(args: &PreheatArgs, api: &Api<Swarm>, swarms: &[Swarm], artifact: String) -> Result<Pushed, Failure> {
    let reference = &args.reference;
    let swarm = target(args, swarms)?;
    let has = |known: &&shoal_api::ArtifactSpec| known.reference.parse::<Reference>().as_ref() == Ok(reference);
    let name = swarm.name_any();
    if let Some(known) = swarm.spec.artifacts.iter().find(has).filter(|known| known.name != artifact) {
        print(&format!("swarm.shoal.dev/{name} pushes {reference} already, as {}\n", known.name))?;
        return Ok(Pushed { swarm: name, artifact: known.name.clone() });
    }
    let entry = json!({"name": artifact, "reference": reference.to_string(), "placement": args.placement()});
    apply(api, &name, &artifact, &json!({"spec": {"artifacts": [entry]}})).await?;
    print(&format!(
        "swarm.shoal.dev/{name} pushes {reference} as {artifact}; to undo it: kubectl swarm preheat {reference} --remove\n"
    ))?;
    Ok(Pushed { swarm: name, artifact })
}

/// Makes a Swarm of it, for these nodes.
async fn push_alone(
    args: &PreheatArgs,
    api: &Api<Swarm>,
    swarms: &[Swarm],
    name: String,
    nodes: &str,
) -> Result<Pushed, Failure> {
    let reference = &args.reference;
    let selector = selector::parse(nodes).map_err(|error| Failure::Usage(format!("--nodes: {error}")))?;
    // How a registry is reached, and with which secret, somebody has written down already. The older Swarm goes on answering for pulls.
    let others: Vec<&Swarm> = swarms.iter().filter(|swarm| swarm.name_any() != name).collect();
    let registry = match answering(&others, reference).first() {
        Some((_, registry)) => json!(registry),
        None => json!({"host": reference.host().as_str()}),
    };
    let swarm = json!({
        "metadata": {"labels": {MADE_BY.0: MADE_BY.1}},
        "spec": {
            "nodeSelector": selector,
            "registries": [registry],
            "artifacts": [{"name": name, "reference": reference.to_string(), "placement": args.placement()}],
        },
    });
    apply(api, &name, &name, &swarm).await?;
    print(&format!("swarm.shoal.dev/{name} pushes {reference}; to undo it: kubectl delete swarm {name}\n"))?;
    Ok(Pushed { artifact: name.clone(), swarm: name })
}

/// The Swarm that was named, else the one that answers for the registry.
fn target<'a>(args: &PreheatArgs, swarms: &'a [Swarm]) -> Result<&'a Swarm, Failure> {
    if let Some(name) = &args.swarm {
        let named = swarms.iter().find(|swarm| swarm.name_any() == *name);
        return named.ok_or_else(|| Failure::Failed(format!("Swarm {name}: not found: see `kubectl swarm status`")));
    }
    let theirs: Vec<&Swarm> = swarms.iter().filter(|swarm| !is_own(swarm)).collect();
    answering(&theirs, &args.reference).first().map(|(swarm, _)| *swarm).ok_or_else(|| {
        let host = args.reference.host();
        Failure::Failed(format!("no Swarm answers for {host}: add it to one's spec.registries, or give --nodes"))
    })
}

/// The Swarms that answer for the reference's registry, and how: those that name it before those that take the rest, the older before the younger.
fn answering<'a>(swarms: &[&'a Swarm], reference: &Reference) -> Vec<(&'a Swarm, &'a RegistrySpec)> {
    let mut found: Vec<_> = swarms
        .iter()
        .flat_map(|swarm| swarm.spec.registries.iter().map(|registry| (*swarm, registry)))
        .filter_map(|(swarm, registry)| {
            let pattern: HostPattern = registry.host.parse().ok()?;
            let age = swarm.metadata.creation_timestamp.as_ref().map(|time| time.0);
            let rank = (pattern == HostPattern::Rest, age, swarm.name_any());
            pattern.matches(reference.host()).then_some((rank, swarm, registry))
        })
        .collect();
    found.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    found.into_iter().map(|(_, swarm, registry)| (swarm, registry)).collect()
}

fn is_own(swarm: &Swarm) -> bool {
    swarm.labels().get(MADE_BY.0).is_some_and(|by| by == MADE_BY.1)
}

/// Takes it back from the Swarms to which it was added.
async fn withdraw(args: &PreheatArgs, api: &Api<Swarm>, swarms: &[Swarm], artifact: &str) -> Result<(), Failure> {
    let reference = &args.reference;
    let is_manager = |swarm: &&Swarm| {
        swarm.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some(&manager(artifact)))
    };
    let is_meant = |swarm: &&Swarm| args.swarm.as_ref().is_none_or(|name| *name == swarm.name_any());
    let pushing: Vec<&Swarm> = swarms.iter().filter(is_manager).filter(is_meant).collect();
    if pushing.is_empty() {
        return Err(Failure::Failed(format!(
            "no Swarm pushes {reference} by preheat: `kubectl swarm status NAME` has what it pushes, and its specification why"
        )));
    }
    for swarm in pushing {
        let name = swarm.name_any();
        // What a manager no longer applies goes, unless somebody else applies it too.
        apply(api, &name, artifact, &json!({})).await?;
        print(&format!("swarm.shoal.dev/{name} no longer pushes {reference}\n"))?;
    }
    Ok(())
}

async fn delete(api: &Api<Swarm>, swarms: &[Swarm], name: &str) -> Result<(), Failure> {
    if !swarms.iter().any(|swarm| swarm.name_any() == name && is_own(swarm)) {
        return Err(Failure::Failed(format!(
            "there is no Swarm {name} of preheat's: give the reference and --nodes as they were given"
        )));
    }
    ask(&format!("Swarm {name}"), api.delete(name, &DeleteParams::default())).await?;
    print(&format!("swarm.shoal.dev/{name} deleted\n"))
}

async fn apply(api: &Api<Swarm>, name: &str, artifact: &str, part: &Value) -> Result<(), Failure> {
    let mut object = json!({"apiVersion": API_VERSION, "kind": "Swarm"});
    object["metadata"] = json!(ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() });
    if part["metadata"]["labels"].is_object() {
        object["metadata"]["labels"] = part["metadata"]["labels"].clone();
    }
    if part["spec"].is_object() {
        object["spec"] = part["spec"].clone();
    }
    let params = PatchParams::apply(&manager(artifact)).validation_strict();
    ask(&format!("Swarm {name}"), api.patch(name, &params, &Patch::Apply(object))).await?;
    Ok(())
}

/// One for each artifact: what a manager leaves out, it takes back.
fn manager(artifact: &str) -> String {
    format!("kubectl-swarm-{artifact}")
}
