//! The election: the Lease read and written, and what only its holder does.
//!
//! State: the Lease's rules ([`Elector`]).
//! Invariants: what the leader does is dropped where it waits as soon as its time is over, and before the Lease is given up. A write names
//! the version that it replaces.
//! Absent on purpose: what the leader does.

use std::time::Duration;

use futures_util::future::BoxFuture;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use shoal_telemetry::with_causes;
use shoal_types::{Rng, Time};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::lease::{Elector, RENEW_WITHIN, RETRY};
use super::seed;

/// An attempt that takes longer leaves no time for another one.
const ATTEMPT: Duration = Duration::from_secs(4);
/// What giving the Lease up may take, at the end.
const RELEASE: Duration = Duration::from_secs(2);

/// A replica that would lead.
pub(crate) struct Election {
    leases: Api<Lease>,
    name: String,
    elector: Elector,
    started: Instant,
    rng: Rng,
    until: watch::Sender<Option<Instant>>,
}

/// Whether this replica leads.
#[derive(Clone, Debug)]
pub(crate) struct Leadership(watch::Receiver<Option<Instant>>);

impl Leadership {
    /// Whether it does now. Asked before each thing that only a leader may do: a process that stood still doesn't know yet that it is late.
    pub(crate) fn holds(&self) -> bool {
        self.0.borrow().is_some_and(|until| Instant::now() < until)
    }

    async fn won(&mut self) {
        if self.0.wait_for(|until| until.is_some_and(|until| Instant::now() < until)).await.is_err() {
            std::future::pending().await
        }
    }

    async fn lost(&mut self) {
        loop {
            let Some(until) = *self.0.borrow_and_update() else { return };
            tokio::select! {
                () = sleep_until(until) => return,
                changed = self.0.changed() => if changed.is_err() { return },
            }
        }
    }
}

impl Election {
    /// For the Lease of this name; `identity` is this pod's name.
    pub(crate) fn new(client: Client, namespace: &str, name: String, identity: String) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            name,
            elector: Elector::new(identity),
            started: Instant::now(),
            rng: Rng::new(seed()),
            until: watch::Sender::new(None),
        }
    }

    /// Takes part until the stop, and does `lead` whenever this replica leads: from its beginning each time.
    pub(crate) async fn run(
        mut self,
        lead: impl Fn(Leadership) -> BoxFuture<'static, ()> + Send,
        stop: CancellationToken,
    ) {
        let mut leadership = Leadership(self.until.subscribe());
        let acting = async {
            loop {
                leadership.won().await;
                let held = leadership.clone();
                tracing::info!("this replica leads: it writes status, events and digests");
                tokio::select! {
                    () = lead(held) => {}
                    () = leadership.lost() => {}
                }
                tracing::info!("this replica leads no more");
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.elect() => {}
            () = acting => {}
        }
        self.release().await;
    }

    async fn elect(&mut self) {
        loop {
            let pause = RETRY.mul_f64(0.9 + 0.2 * self.rng.unit());
            match timeout(ATTEMPT, self.attempt()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(error = with_causes(&error), "the Lease can't be read or written");
                }
                Err(_) => tracing::warn!("the Lease can't be read or written: the API server takes too long"),
            }
            let until = self.elector.leads_until().map(|until| self.started + until.since(Time::ZERO));
            self.until.send_if_modified(|known| std::mem::replace(known, until) != until);
            sleep(pause).await;
        }
    }

    async fn attempt(&mut self) -> Result<(), kube::Error> {
        let there = self.leases.get_opt(&self.name).await?;
        let began = Time::ZERO + self.started.elapsed();
        let spec = there.as_ref().and_then(|lease| lease.spec.as_ref());
        let Some(write) = self.elector.consider(spec, began, now()) else { return Ok(()) };
        match self.write(there, &write).await {
            Ok(()) => self.elector.written(write, began),
            // Another one was faster: the next look says who.
            Err(kube::Error::Api(error)) if error.code == 409 => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn write(&self, there: Option<Lease>, spec: &LeaseSpec) -> Result<(), kube::Error> {
        let params = PostParams::default();
        match there {
            Some(lease) => {
                let lease = Lease { spec: Some(spec.clone()), ..lease };
                self.leases.replace(&self.name, &params, &lease).await?;
            }
            None => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                self.leases.create(&params, &Lease { metadata, spec: Some(spec.clone()) }).await?;
            }
        }
        Ok(())
    }

    /// Lets another one lead at once.
    async fn release(mut self) {
        self.until.send_replace(None);
        if self.elector.leads_until().is_none() {
            return;
        }
        let released = async {
            let Some(lease) = self.leases.get_opt(&self.name).await? else { return Ok(()) };
            let free = self.elector.release(lease.spec.as_ref().unwrap_or(&LeaseSpec::default()), now());
            match free {
                Some(free) => self.write(Some(lease), &free).await,
                None => Ok(()),
            }
        };
        match timeout(RELEASE, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(error = with_causes(&error), "the Lease isn't given up: it runs out"),
            Err(_) => tracing::debug!("the Lease isn't given up: it runs out"),
        }
    }
}

/// In microseconds, as the API server keeps it: what is read back is what was written.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

const _: () = assert!(ATTEMPT.as_secs() + 3 * RETRY.as_secs() <= RENEW_WITHIN.as_secs(), "one attempt may fail");
