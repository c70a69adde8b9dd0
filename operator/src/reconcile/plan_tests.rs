//! Plans in virtual time, against a cluster that does what is planned.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use serde_json::{Value, json};
use shoal_api::{Condition, SwarmSpec};
use shoal_tracker_server::{ArtifactReport, Report, TrafficReport};

use super::*;

/// A cluster that carries out what is planned, at once.
struct Cluster {
    planner: Planner,
    observed: Observed,
    at: Time,
    /// What origins say about a reference.
    origin: BTreeMap<String, Result<Digest, ResolveError>>,
    asked: Vec<String>,
    writes: Vec<String>,
    told: Vec<Event>,
    refuses: bool,
}

const ALL: &str = "all";

fn digest(byte: u8) -> Digest {
    Digest::Sha256([byte; 32])
}

impl Cluster {
    /// With so many nodes that are up, and their agents.
    fn new(nodes: usize) -> Self {
        let labels = |node: usize| BTreeMap::from([("parity".to_owned(), (node % 2).to_string())]);
        let name = |node: usize| -> Arc<str> { format!("node-{node:04}").into() };
        let observed = Observed {
            swarms: Vec::new(),
            nodes: Arc::new(Nodes::new((0..nodes).map(|node| (name(node), labels(node))))),
            up: (0..nodes).collect(),
            connected: (0..nodes).collect(),
            reports: Vec::new(),
            settled: true,
            secret_changes: 0,
        };
        let (origin, asked, writes, told) = (BTreeMap::new(), Vec::new(), Vec::new(), Vec::new());
        Self { planner: Planner::new(1), observed, at: Time::ZERO, origin, asked, writes, told, refuses: false }
    }

    /// Adds a Swarm, or edits it.
    fn apply(&mut self, name: &str, spec: Value) {
        let spec: SwarmSpec = serde_json::from_value(spec).unwrap();
        let created = self.observed.swarms.len() as u64;
        let check = |created| {
            let problems = |problems: Vec<shoal_api::Problem>| problems[0].to_string().into();
            Swarm::check(name, created, &spec).map(Arc::new).map_err(problems)
        };
        if let Some(seen) = self.observed.swarms.iter_mut().find(|seen| *seen.name == *name) {
            seen.meaning = check(0);
            seen.generation += 1;
            return;
        }
        self.observed.swarms.push(SeenSwarm {
            name: name.into(),
            uid: format!("{name}-{created}"),
            generation: 1,
            deleting: None,
            held: false,
            meaning: check(created),
            no_secret: None,
            status: SwarmStatus::default(),
        });
    }

    fn push(&mut self, name: &str, reference: &str) {
        let artifact = json!({"name": "a", "reference": reference, "placement": "Cache"});
        self.apply(name, json!({"registries": [{"host": "r.example"}], "artifacts": [artifact]}));
    }

    fn clock(&self) -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap() + self.at.since(Time::ZERO)
    }

    /// Plans and does, until nothing is to be done now; when to wake.
    fn settle(&mut self) -> Option<Time> {
        for _ in 0..100 {
            let now = Now { at: self.at, clock: self.clock() };
            let plan = self.planner.plan(&self.observed, now);
            if plan.actions.is_empty() {
                return plan.wake;
            }
            plan.actions.into_iter().for_each(|action| self.carry_out(action));
        }
        panic!("it doesn't come to rest: {:?}", self.writes);
    }

    fn carry_out(&mut self, action: Action) {
        let at = self.at;
        let seen =
            |swarms: &mut Vec<SeenSwarm>, name: &str| swarms.iter().position(|seen| *seen.name == *name).unwrap();
        match action {
            Action::LookUp { swarm, artifact, reference } => {
                self.asked.push(reference.to_string());
                let unknown = Err(ResolveError::NotFound("status 404, manifest unknown".to_owned()));
                let answer = self.origin.get(&reference.to_string()).cloned().unwrap_or(unknown);
                self.planner.looked_up(&swarm, &artifact, &reference, answer, at);
            }
            Action::Hold { swarm, on } => {
                let ix = seen(&mut self.observed.swarms, &swarm);
                self.planner.written(&swarm, true, at);
                if on {
                    self.observed.swarms[ix].held = true;
                } else {
                    self.observed.swarms.remove(ix);
                }
            }
            Action::Write { swarm, status } => {
                self.writes.push(swarm.to_string());
                self.planner.written(&swarm, !self.refuses, at);
                if !self.refuses {
                    let ix = seen(&mut self.observed.swarms, &swarm);
                    self.observed.swarms[ix].status = *status;
                }
            }
            Action::Tell { event, .. } => self.told.push(event),
        }
    }

    /// Lets time pass, with all that becomes due in it.
    fn pass(&mut self, span: Duration) {
        let end = self.at + span;
        for _ in 0..100_000 {
            match self.settle() {
                Some(wake) if wake <= end => self.at = wake.max(self.at),
                _ => {
                    self.at = end;
                    return;
                }
            }
        }
        panic!("it never sleeps");
    }

    /// Another leader begins, with what the status says.
    fn succeed(&mut self) {
        self.planner = Planner::new(2);
    }

    /// All nodes report this of Swarm "all", with bytes that they have moved.
    fn report(&mut self, complete: usize, digest: Digest, moved: u64) {
        let nodes = self.observed.nodes.len();
        self.observed.reports = (0..nodes).map(|node| (node, report(node < complete, digest, moved))).collect();
    }

    fn status(&self, name: &str) -> &SwarmStatus {
        &self.observed.swarms.iter().find(|seen| *seen.name == *name).unwrap().status
    }

    fn condition(&self, name: &str, kind: &str) -> &Condition {
        self.status(name).conditions.iter().find(|condition| condition.kind == kind).unwrap()
    }

    fn holds(&self, name: &str, kind: &str) -> Option<&str> {
        let condition = self.condition(name, kind);
        (condition.status == ConditionStatus::True).then_some(condition.reason.as_str())
    }

    fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told).into_iter().map(|event| event.reason).collect()
    }
}

fn report(is_complete: bool, digest: Digest, moved: u64) -> Arc<Report> {
    let state = if is_complete { ArtifactState::Complete } else { ArtifactState::Fetching };
    let artifact = ArtifactReport {
        swarm: ALL.to_owned(),
        name: "a".to_owned(),
        digest,
        state,
        done_bytes: if is_complete { 100 } else { 50 },
        total_bytes: 100,
        from_peers: 90,
        from_origin: 10,
    };
    let traffic = TrafficReport { from_peers: moved, to_peers: moved, from_origin: 0 };
    Arc::new(Report { traffic, artifacts: vec![artifact], ..Report::default() })
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn an_artifact_is_looked_up_pushed_counted_and_told_of() {
    let mut cluster = Cluster::new(4);
    cluster.origin.insert("r.example/a:1".to_owned(), Ok(digest(1)));
    cluster.push(ALL, "r.example/a:1");
    cluster.pass(seconds(1));
    assert_eq!(cluster.status(ALL).artifacts[0].digest, digest(1).to_string());
    assert_eq!(cluster.holds(ALL, "Reconciling"), Some("Distributing"));
    assert_eq!(cluster.told(), ["Resolved"]);
    cluster.report(2, digest(1), 0);
    cluster.pass(seconds(5));
    let artifact = cluster.status(ALL).artifacts[0].clone();
    assert_eq!((artifact.desired, artifact.complete, artifact.from_peers.bytes()), (4, 2, 360));
    assert!(artifact.started_at.is_some() && artifact.completed_at.is_none());
    cluster.report(4, digest(1), 0);
    cluster.pass(seconds(5));
    assert_eq!(cluster.holds(ALL, "Ready"), Some("Distributed"));
    assert_eq!(cluster.status(ALL).summary.artifacts, "1/1");
    assert!(cluster.status(ALL).artifacts[0].completed_at.is_some());
    assert_eq!(cluster.told(), ["Distributed"]);
    // The tag moves: seen within the interval, and it all begins again.
    cluster.origin.insert("r.example/a:1".to_owned(), Ok(digest(2)));
    cluster.pass(seconds(300));
    assert_eq!(cluster.status(ALL).artifacts[0].digest, digest(2).to_string());
    assert_eq!(cluster.status(ALL).artifacts[0].complete, 0);
    assert_eq!(cluster.holds(ALL, "Ready"), None);
    assert_eq!(cluster.told(), ["Resolved"]);
}

#[test]
fn where_nothing_happens_nothing_is_written() {
    let mut cluster = Cluster::new(10);
    for ix in 0..50 {
        let reference = format!("r.example/a:{ix}");
        cluster.origin.insert(reference.clone(), Ok(digest(1)));
        cluster.push(&format!("swarm-{ix:02}"), &reference);
    }
    // One that can't be had, and one that contradicts itself.
    cluster.push("unknown", "r.example/b:1");
    cluster.apply("wrong", json!({"registries": []}));
    cluster.pass(seconds(60));
    cluster.writes.clear();
    cluster.told.clear();
    cluster.asked.clear();
    cluster.pass(seconds(600));
    assert_eq!(cluster.writes, [""; 0]);
    assert_eq!(cluster.told(), [""; 0]);
    assert!((100..=300).contains(&cluster.asked.len()), "{} lookups", cluster.asked.len());
    // Neither does another leader write.
    cluster.succeed();
    cluster.pass(seconds(600));
    assert_eq!(cluster.writes, [""; 0]);
    assert_eq!(cluster.told(), [""; 0]);
}

#[test]
fn what_moves_is_written_every_few_seconds_and_bytes_alone_once_a_minute() {
    let mut cluster = Cluster::new(100);
    cluster.origin.insert("r.example/a:1".to_owned(), Ok(digest(1)));
    cluster.push(ALL, "r.example/a:1");
    cluster.report(0, digest(1), 0);
    cluster.pass(seconds(10));
    cluster.writes.clear();
    for node in 1..100 {
        cluster.report(node, digest(1), 0);
        cluster.pass(seconds(1));
    }
    assert!((30..=40).contains(&cluster.writes.len()), "{}", cluster.writes.len());
    cluster.report(100, digest(1), 0);
    cluster.pass(seconds(10));
    cluster.writes.clear();
    for moved in 1..=600 {
        cluster.report(100, digest(1), moved);
        cluster.pass(seconds(1));
    }
    assert!((9..=11).contains(&cluster.writes.len()), "{}", cluster.writes.len());
    let before = cluster.status(ALL).traffic.from_peers.bytes();
    assert!(before > 50_000);
    // Agents and leaders that begin again take nothing back.
    cluster.report(100, digest(1), 5);
    cluster.succeed();
    cluster.pass(seconds(120));
    cluster.report(100, digest(1), 7);
    cluster.pass(seconds(120));
    let after = cluster.status(ALL).traffic.from_peers.bytes();
    assert_eq!(after, before + 200);
}

#[test]
fn what_cannot_succeed_is_stalled_with_the_registrys_words_and_told_once() {
    let cases = [
        (ResolveError::NotFound("status 404: no such tag".to_owned()), "ArtifactNotFound", None),
        (ResolveError::Denied("status 401: no".to_owned()), "OriginRefused", None),
        (ResolveError::NotAllowed("no Swarm answers".to_owned()), "RegistryNotAllowed", None),
        (ResolveError::Unreachable("no such host".to_owned()), "OriginUnreachable", Some("OriginUnreachable")),
    ];
    for (error, reason, degraded) in cases {
        let mut cluster = Cluster::new(3);
        cluster.origin.insert("r.example/a:1".to_owned(), Err(error.clone()));
        cluster.push(ALL, "r.example/a:1");
        cluster.pass(seconds(3_600));
        assert_eq!(cluster.holds(ALL, "Stalled"), Some(reason));
        assert_eq!(cluster.holds(ALL, "OriginDegraded"), degraded);
        assert_eq!((cluster.holds(ALL, "Ready"), cluster.holds(ALL, "Reconciling")), (None, None));
        let message = cluster.condition(ALL, "Stalled").message.clone();
        assert_eq!(message, format!("a: r.example/a:1: {error}"));
        assert_eq!((cluster.told(), cluster.writes.len()), (vec![reason.to_owned()], 1));
        assert!((10..=40).contains(&cluster.asked.len()), "{} lookups in an hour", cluster.asked.len());
        // Another leader believes it until it knows better, and then it is repaired.
        cluster.succeed();
        cluster.pass(seconds(60));
        assert_eq!((cluster.told().len(), cluster.writes.len()), (0, 1));
        cluster.origin.insert("r.example/a:1".to_owned(), Ok(digest(1)));
        cluster.pass(seconds(300));
        assert_eq!(cluster.holds(ALL, "Stalled"), None);
        assert_eq!(cluster.told(), ["Resolved"]);
    }
}

#[test]
fn a_registry_that_is_down_takes_nothing_away() {
    let mut cluster = Cluster::new(3);
    cluster.origin.insert("r.example/a:1".to_owned(), Ok(digest(1)));
    cluster.push(ALL, "r.example/a:1");
    cluster.report(3, digest(1), 0);
    cluster.pass(seconds(10));
    for error in [ResolveError::Unreachable("down".to_owned()), ResolveError::Busy { retry_after: seconds(77) }] {
        cluster.origin.insert("r.example/a:1".to_owned(), Err(error));
        cluster.succeed();
        cluster.pass(seconds(900));
        assert_eq!(cluster.holds(ALL, "Ready"), Some("Distributed"));
        assert_eq!(cluster.status(ALL).artifacts[0].digest, digest(1).to_string());
    }
    assert_eq!(cluster.holds(ALL, "OriginDegraded"), Some("OriginBusy"));
    cluster.origin.insert("r.example/a:1".to_owned(), Ok(digest(1)));
    cluster.pass(seconds(600));
    assert_eq!(cluster.holds(ALL, "OriginDegraded"), None);
}

#[test]
fn an_edited_swarm_is_looked_up_at_once_and_a_secret_that_changed_too() {
    let mut cluster = Cluster::new(1);
    cluster.push(ALL, "r.example/a:1");
    cluster.pass(seconds(600));
    cluster.asked.clear();
    cluster.push(ALL, "r.example/a:2");
    cluster.settle();
    assert_eq!(cluster.asked, ["r.example/a:2"]);
    assert_eq!(cluster.status(ALL).observed_generation, Some(2));
    assert!(cluster.status(ALL).artifacts[0].digest.is_empty());
    cluster.pass(seconds(600));
    cluster.asked.clear();
    cluster.observed.secret_changes += 1;
    cluster.settle();
    assert_eq!(cluster.asked, ["r.example/a:2"]);
    cluster.observed.swarms[0].no_secret = Some("r.example: Secret shoal/regcred: there is none".into());
    cluster.pass(seconds(2));
    assert_eq!(cluster.holds(ALL, "Stalled"), Some("SecretUnusable"));
}

#[test]
fn lookups_that_fail_keep_nobody_else_waiting() {
    let mut cluster = Cluster::new(1);
    for ix in 0..100 {
        cluster.push(&format!("swarm-{ix:02}"), &format!("r.example/a:{ix}"));
    }
    // Sixteen answers, all of them failures, every three seconds: the first ones are due again before the last ones are asked at all.
    let mut asked: BTreeMap<Arc<str>, u32> = BTreeMap::new();
    for _ in 0..15 {
        let now = Now { at: cluster.at, clock: cluster.clock() };
        let plan = cluster.planner.plan(&cluster.observed, now);
        for action in plan.actions {
            let Action::LookUp { swarm, artifact, reference } = action else { continue };
            let failed = Err(ResolveError::Unreachable("no such host".to_owned()));
            cluster.planner.looked_up(&swarm, &artifact, &reference, failed, cluster.at);
            *asked.entry(swarm).or_default() += 1;
        }
        cluster.at += seconds(3);
        if asked.len() == 100 {
            return assert!(asked.values().all(|times| *times <= 2), "{asked:?}");
        }
    }
    panic!("only {} of 100 were asked", asked.len());
}

#[test]
fn of_swarms_that_claim_the_same_for_the_same_nodes_the_younger_one_says_so() {
    let mut cluster = Cluster::new(4);
    let of = |parity: &str| json!({"registries": [{"host": "r.example"}, {"host": "s.example"}], "nodeSelector": {"matchLabels": {"parity": parity}}});
    cluster.apply("even", of("0"));
    cluster.apply("odd", of("1"));
    cluster.apply("late", json!({"registries": [{"host": "s.example"}], "rules": [{"repository": "s.example/x/*", "mode": "OriginOnly"}]}));
    cluster.pass(seconds(2));
    assert_eq!((cluster.holds("even", "Conflict"), cluster.holds("odd", "Conflict")), (None, None));
    assert_eq!(cluster.holds("late", "Conflict"), Some("Overruled"));
    assert_eq!(cluster.holds("late", "Ready"), Some("Serving"), "it still has a say elsewhere");
    let message = &cluster.condition("late", "Conflict").message;
    assert!(message.ends_with(": s.example/** is even's"), "{message}");
    assert_eq!(cluster.told(), ["Conflict"]);
    cluster.apply("late", json!({"registries": [{"host": "t.example"}]}));
    cluster.pass(seconds(2));
    assert_eq!(cluster.holds("late", "Conflict"), None);
}

#[test]
fn what_means_nothing_says_why_and_keeps_what_nodes_have() {
    let mut cluster = Cluster::new(1);
    cluster.origin.insert("r.example/a:1".to_owned(), Ok(digest(1)));
    cluster.push(ALL, "r.example/a:1");
    cluster.pass(seconds(2));
    cluster.apply(ALL, json!({"registries": []}));
    cluster.pass(seconds(2));
    assert_eq!(cluster.holds(ALL, "Stalled"), Some("Invalid"));
    assert!(cluster.condition(ALL, "Ready").message.starts_with("spec.registries: "));
    assert_eq!(cluster.status(ALL).artifacts[0].digest, digest(1).to_string());
    assert!(cluster.told().contains(&"Invalid".to_owned()));
}

#[test]
fn a_deleted_swarm_goes_when_nobody_has_anything_of_it_and_in_a_minute_at_the_latest() {
    let gone_after = |nodes_let_go: bool, agents_are_there: bool, settled: bool| {
        let mut cluster = Cluster::new(3);
        cluster.origin.insert("r.example/a:1".to_owned(), Ok(digest(1)));
        cluster.push(ALL, "r.example/a:1");
        cluster.report(3, digest(1), 0);
        cluster.pass(seconds(10));
        assert!(cluster.observed.swarms[0].held);
        cluster.observed.swarms[0].deleting = Some(cluster.clock());
        cluster.observed.settled = settled;
        if !agents_are_there {
            cluster.observed.connected = NodeSet::default();
        }
        for passed in 0..=70 {
            if nodes_let_go && passed == 3 {
                cluster.observed.reports = (0..3).map(|node| (node, Arc::default())).collect();
            }
            cluster.settle();
            if cluster.observed.swarms.is_empty() {
                return passed;
            }
            cluster.pass(seconds(1));
        }
        panic!("it never goes");
    };
    assert_eq!(gone_after(true, true, true), 3);
    assert_eq!(gone_after(true, true, false), 3, "all are back already");
    assert_eq!(gone_after(false, true, true), 60);
    assert_eq!(gone_after(false, false, true), 0, "agents that are gone let nobody wait");
    assert_eq!(gone_after(false, false, false), 60, "right after a start nobody knows who is gone");
}

#[test]
fn nodes_that_are_down_are_not_waited_for_and_agents_that_are_missing_are() {
    let mut cluster = Cluster::new(4);
    cluster.origin.insert("r.example/a:1".to_owned(), Ok(digest(1)));
    cluster.push(ALL, "r.example/a:1");
    cluster.report(3, digest(1), 0);
    cluster.observed.connected = (0..3).collect();
    cluster.pass(seconds(10));
    assert_eq!(cluster.holds(ALL, "Reconciling"), Some("AgentsMissing"));
    assert_eq!(cluster.status(ALL).summary.nodes, "3/4");
    cluster.observed.up = (0..3).collect();
    cluster.pass(seconds(10));
    assert_eq!(cluster.holds(ALL, "Ready"), Some("Distributed"));
    assert_eq!(cluster.condition(ALL, "Ready").message, "a is on 3 of 4 nodes, the others are down");
    // A node that joins later makes it wait again, and is no second distribution.
    cluster.told();
    cluster.observed.connected = (0..4).collect();
    cluster.pass(seconds(10));
    assert_eq!(cluster.holds(ALL, "Reconciling"), Some("Distributing"));
    cluster.report(4, digest(1), 0);
    cluster.pass(seconds(10));
    assert_eq!(cluster.holds(ALL, "Ready"), Some("Distributed"));
    assert_eq!(cluster.told(), [""; 0]);
}

#[test]
fn right_after_a_start_what_was_finished_is_believed() {
    let mut cluster = Cluster::new(3);
    cluster.origin.insert("r.example/a:1".to_owned(), Ok(digest(1)));
    cluster.push(ALL, "r.example/a:1");
    cluster.report(3, digest(1), 0);
    cluster.pass(seconds(10));
    cluster.writes.clear();
    cluster.succeed();
    let reports = std::mem::take(&mut cluster.observed.reports);
    (cluster.observed.connected, cluster.observed.settled) = (NodeSet::default(), false);
    cluster.pass(seconds(9));
    assert_eq!(cluster.writes, [""; 0]);
    (cluster.observed.connected, cluster.observed.settled) = ((0..3).collect(), true);
    cluster.observed.reports = reports;
    cluster.pass(seconds(9));
    assert_eq!(cluster.writes, [""; 0]);
    // A tag that moved meanwhile is news all the same.
    cluster.origin.insert("r.example/a:1".to_owned(), Ok(digest(2)));
    cluster.succeed();
    cluster.observed.settled = false;
    cluster.pass(seconds(1));
    assert_eq!(cluster.holds(ALL, "Reconciling"), Some("Distributing"));
}

#[test]
fn a_write_that_fails_is_tried_again_later_and_later() {
    let mut cluster = Cluster::new(1);
    cluster.apply(ALL, json!({"registries": [{"host": "r.example"}]}));
    cluster.refuses = true;
    cluster.pass(seconds(600));
    assert!((10..=30).contains(&cluster.writes.len()), "{}", cluster.writes.len());
    cluster.refuses = false;
    cluster.pass(seconds(61));
    assert_eq!(cluster.holds(ALL, "Ready"), Some("Serving"));
}

#[test]
fn a_thousand_swarms_on_five_thousand_nodes_are_planned_in_no_time() {
    let mut cluster = Cluster::new(5_000);
    for ix in 0..1_000 {
        let reference = format!("r.example/a:{ix}");
        cluster.origin.insert(reference.clone(), Ok(digest(1)));
        let selector = json!({"matchLabels": {"parity": (ix % 2).to_string()}});
        let artifact = json!({"name": "a", "reference": reference, "placement": "Cache"});
        let registry = json!({"host": format!("r{ix}.example")});
        let spec =
            json!({"registries": [registry, {"host": "r.example"}], "nodeSelector": selector, "artifacts": [artifact]});
        cluster.apply(&format!("swarm-{ix:04}"), spec);
    }
    cluster.pass(seconds(60));
    assert!(cluster.writes.len() <= 1_000 * 2, "resolving, then what was found");
    assert!(cluster.observed.swarms.iter().all(|seen| !seen.status.artifacts[0].digest.is_empty()));
    cluster.writes.clear();
    cluster.pass(seconds(60));
    assert_eq!(cluster.writes, [""; 0]);
}

#[test]
fn nodes_whose_runtimes_pull_past_the_mirror_are_named_and_told_of_once() {
    let mut cluster = Cluster::new(10);
    cluster.apply(ALL, json!({"registries": [{"host": "r.example"}]}));
    let past = |why: &str| Arc::new(Report { bypass: Some(why.to_owned()), ..Report::default() });
    cluster.observed.reports = (0..5).map(|node| (node, past("set config_path"))).collect();
    cluster.observed.reports.push((7, past("look there")));
    cluster.observed.reports.push((8, Arc::default()));
    cluster.pass(seconds(5));
    assert_eq!(cluster.holds(ALL, "MirrorBypassed"), Some("RuntimeConfiguration"));
    assert_eq!(cluster.holds(ALL, "Ready"), Some("Serving"), "pulls work all the same");
    let message = cluster.condition(ALL, "MirrorBypassed").message.clone();
    assert_eq!(message, "node-0000, node-0001, node-0002 and 2 more nodes: set config_path; node-0007: look there");
    assert_eq!(cluster.told(), ["MirrorBypassed"]);
    cluster.observed.reports.clear();
    cluster.pass(seconds(5));
    assert_eq!(cluster.holds(ALL, "MirrorBypassed"), None);
    assert_eq!(cluster.told(), [""; 0]);
}

#[test]
fn a_node_is_called_banned_when_two_others_refuse_it_and_a_new_leader_does_not_say_it_again() {
    let mut cluster = Cluster::new(4);
    cluster.apply(ALL, json!({"registries": [{"host": "r.example"}]}));
    let liar = shoal_wire::node_id(&"node-0002".parse().unwrap());
    let refusing = || Arc::new(Report { banned: vec![liar], ..Report::default() });
    cluster.observed.reports = vec![(0, refusing()), (1, Arc::default()), (3, Arc::default())];
    cluster.pass(seconds(5));
    assert_eq!(cluster.holds(ALL, "PeerBanned"), None, "one node's word");
    cluster.observed.reports[2].1 = refusing();
    cluster.pass(seconds(5));
    assert_eq!(cluster.holds(ALL, "PeerBanned"), Some("FalseChunks"));
    assert!(cluster.condition(ALL, "PeerBanned").message.starts_with("node-0002 sent chunks that were proven false"));
    assert_eq!(cluster.holds(ALL, "Ready"), Some("Serving"), "the others pull on");
    assert_eq!(cluster.told(), ["PeerBanned"]);

    let reports = std::mem::take(&mut cluster.observed.reports);
    cluster.observed.settled = false;
    cluster.pass(seconds(5));
    cluster.observed.reports = reports;
    cluster.observed.settled = true;
    cluster.pass(seconds(5));
    assert_eq!(cluster.holds(ALL, "PeerBanned"), Some("FalseChunks"));
    assert_eq!(cluster.told(), [""; 0]);
    cluster.observed.reports.clear();
    cluster.pass(seconds(5));
    assert_eq!(cluster.holds(ALL, "PeerBanned"), None);
}
