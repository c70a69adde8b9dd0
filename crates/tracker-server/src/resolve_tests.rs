//! The cache in front of the origins, against one that does as it is told.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use shoal_tracker::ReplicaName;

use super::*;
use crate::authority::Authority;
use crate::record::{SignedRecord, VerifiedRecord};

struct Origin {
    asked: AtomicUsize,
    /// Each question takes one.
    gate: Semaphore,
    /// What it says; the last one again and again.
    says: Mutex<VecDeque<Result<Resolved, ResolveError>>>,
    policy: ResolvePolicy,
}

impl OriginResolver for Origin {
    fn resolve<'a>(&'a self, _name: &'a ImageName) -> BoxFuture<'a, Result<Resolved, ResolveError>> {
        async move {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.gate.acquire().await.unwrap().forget();
            let mut says = self.says.lock().unwrap();
            if says.len() > 1 { says.pop_front().unwrap() } else { says[0].clone() }
        }
        .boxed()
    }

    fn policy(&self, _name: &ImageName) -> ResolvePolicy {
        self.policy.clone()
    }
}

struct Setup {
    origin: Arc<Origin>,
    resolver: Resolver,
    authority: Arc<Authority>,
}

impl Setup {
    fn new(says: impl IntoIterator<Item = Result<Resolved, ResolveError>>, outage: OutagePolicy) -> Self {
        let origin = Arc::new(Origin {
            asked: AtomicUsize::new(0),
            gate: Semaphore::new(1_000_000),
            says: Mutex::new(says.into_iter().collect()),
            policy: ResolvePolicy { outage, ..ResolvePolicy::default() },
        });
        let authority = Arc::new(Authority::generate().unwrap());
        let credentials = Credentials::new(Arc::clone(&authority), ReplicaName::new("t").unwrap(), Vec::new()).unwrap();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let asked: Arc<dyn OriginResolver> = Arc::clone(&origin) as _;
        let resolver = Resolver::new(asked, Arc::new(credentials), Metrics::default(), tasks, stop);
        Self { origin, resolver, authority }
    }

    async fn ask(&self, name: &ImageName) -> Result<VerifiedRecord, ResolveError> {
        let json = self.resolver.ask(name).await?;
        Ok(SignedRecord::from_json(&json.0).unwrap().verify(self.authority.trust()).unwrap())
    }

    fn asked(&self) -> usize {
        self.origin.asked.load(Ordering::Relaxed)
    }
}

fn resolved(byte: u8) -> Resolved {
    let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
    Resolved { digest: Digest::Sha256([byte; 32]), media_type, size_bytes: 528, anonymous: Anonymous::Readable }
}

fn name(reference: &str) -> ImageName {
    ImageName::new("registry.example:5000", "library/app", reference).unwrap()
}

async fn advance(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_hundred_who_ask_at_once_are_one_question() {
    let setup = Setup::new([Ok(resolved(1))], OutagePolicy::Deny);
    let (v1, v2) = (name("v1"), name("v2"));
    let records = join_all((0..100).map(|_| setup.ask(&v1))).await;
    assert!(records.iter().all(|record| record.as_ref().unwrap().record().digest == resolved(1).digest));
    assert_eq!(setup.asked(), 1);
    setup.ask(&v2).await.unwrap();
    assert_eq!(setup.asked(), 2, "another name is another question");
    advance(59).await;
    setup.ask(&v1).await.unwrap();
    assert_eq!(setup.asked(), 2);
    advance(2).await;
    setup.ask(&v1).await.unwrap();
    assert_eq!(setup.asked(), 3, "a tag moves");
}

#[tokio::test(start_paused = true)]
async fn a_question_goes_on_when_the_asker_has_left() {
    let setup = Setup::new([Ok(resolved(1))], OutagePolicy::Deny);
    setup.origin.gate.forget_permits(1_000_000);
    let tag = name("v1");
    let left = tokio::time::timeout(Duration::from_secs(1), setup.ask(&tag)).await;
    assert!(left.is_err() && setup.asked() == 1);
    setup.origin.gate.add_permits(10);
    setup.ask(&tag).await.unwrap();
    assert_eq!(setup.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_digest_holds_for_long_and_must_be_what_comes_back() {
    let setup = Setup::new([Ok(resolved(1))], OutagePolicy::Deny);
    let right = name(&resolved(1).digest.to_string());
    setup.ask(&right).await.unwrap();
    advance(3_000).await;
    setup.ask(&right).await.unwrap();
    assert_eq!(setup.asked(), 1);
    let wrong = name(&resolved(2).digest.to_string());
    assert!(matches!(setup.ask(&wrong).await, Err(ResolveError::Unreachable(_))));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_repeated_for_a_short_time_and_ends_what_was_known() {
    let down = ResolveError::Unreachable("down".to_owned());
    let (not_found, denied) = (ResolveError::NotFound("unknown".to_owned()), ResolveError::Denied("log in".to_owned()));
    let says = [Ok(resolved(1)), Err(not_found.clone()), Ok(resolved(2)), Err(denied.clone()), Err(down.clone())];
    let setup = Setup::new(says, OutagePolicy::LastResolved);
    let tag = name("v1");
    setup.ask(&tag).await.unwrap();
    advance(61).await;
    assert_eq!(setup.ask(&tag).await, Err(not_found.clone()));
    assert_eq!(setup.ask(&tag).await, Err(not_found));
    assert_eq!(setup.asked(), 2);
    advance(6).await;
    assert_eq!(setup.ask(&tag).await.unwrap().record().digest, resolved(2).digest);
    advance(61).await;
    assert_eq!(setup.ask(&tag).await, Err(denied));
    advance(6).await;
    assert_eq!(setup.ask(&tag).await, Err(down), "what was denied isn't served from memory");
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_is_down_is_answered_for_where_that_is_allowed() {
    for (outage, served) in [(OutagePolicy::LastResolved, true), (OutagePolicy::Deny, false)] {
        let says = [Ok(resolved(1)), Err(ResolveError::Unreachable("down".to_owned())), Ok(resolved(2))];
        let setup = Setup::new(says, outage);
        let tag = name("v1");
        let first = setup.ask(&tag).await.unwrap();
        advance(61).await;
        let second = setup.ask(&tag).await;
        assert_eq!(second.is_ok(), served);
        if let Ok(second) = second {
            assert_eq!(second.record().digest, first.record().digest);
            assert_eq!(second.record().resolved_at, first.record().resolved_at);
        }
        advance(6).await;
        assert_eq!(setup.ask(&tag).await.unwrap().record().digest, resolved(2).digest, "it is asked again");
        assert_eq!(setup.asked(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_digest_that_a_tag_meant_is_answered_for_while_the_origin_is_down() {
    for outage in [OutagePolicy::LastResolved, OutagePolicy::Deny] {
        let down = ResolveError::Unreachable("down".to_owned());
        let gone = ResolveError::NotFound("gone".to_owned());
        let setup = Setup::new([Ok(resolved(1)), Err(down.clone()), Err(down), Err(gone)], outage);
        let (tag, digest) = (name("v1"), name(&resolved(1).digest.to_string()));
        setup.ask(&tag).await.unwrap();
        assert_eq!(setup.ask(&digest).await.unwrap().record().digest, resolved(1).digest);
        assert_eq!(setup.asked(), 2, "its own word is asked for first");
        assert!(setup.ask(&name(&resolved(2).digest.to_string())).await.is_err(), "nothing is known of another one");
        advance(6).await;
        assert!(setup.ask(&digest).await.is_err(), "the origin says that it is gone");
        assert_eq!(tag.place(), digest.place());
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_wants_to_be_left_alone_is() {
    let busy = Err(ResolveError::Busy { retry_after: Duration::from_secs(30) });
    let setup = Setup::new([Ok(resolved(1)), busy, Ok(resolved(2))], OutagePolicy::LastResolved);
    let known = name("v1");
    setup.ask(&known).await.unwrap();
    advance(61).await;
    assert_eq!(setup.ask(&known).await.unwrap().record().digest, resolved(1).digest, "what is known is served");
    assert_eq!(setup.asked(), 2);
    advance(10).await;
    let other = setup.ask(&name("v2")).await;
    assert!(
        matches!(other, Err(ResolveError::Busy { retry_after }) if retry_after <= Duration::from_secs(20)),
        "{other:?}"
    );
    let elsewhere = ImageName::new("other.example", "a", "b").unwrap();
    setup.ask(&elsewhere).await.unwrap();
    assert_eq!(setup.asked(), 3, "another registry isn't meant");
    advance(21).await;
    assert_eq!(setup.ask(&known).await.unwrap().record().digest, resolved(2).digest);
}

#[tokio::test(start_paused = true)]
async fn the_table_is_bounded_and_what_is_asked_often_stays() {
    let mut setup = Setup::new([Ok(resolved(1))], OutagePolicy::Deny);
    setup.resolver.max_names = 32;
    let often = name("often");
    for at in 0..200 {
        setup.ask(&often).await.unwrap();
        setup.ask(&name(&format!("v{at}"))).await.unwrap();
        assert!(setup.resolver.table().names.len() <= 32);
    }
    assert_eq!(setup.asked(), 201);

    setup.origin.gate.forget_permits(2_000_000);
    let names: Vec<ImageName> = (0..40).map(|at| name(&format!("slow{at}"))).collect();
    let asking = join_all(names.iter().map(|name| setup.ask(name)));
    let outcomes = tokio::time::timeout(Duration::from_secs(60), asking).await.unwrap();
    let overloaded = outcomes.iter().filter(|outcome| **outcome == Err(ResolveError::Overloaded)).count();
    assert_eq!(overloaded, 8, "no question under way is forgotten for another one");
}

#[test]
fn names_have_parts_that_can_be_theirs() {
    for reference in ["latest", "v1.2.3-rc_1", "_x", &Digest::Sha256([1; 32]).to_string()] {
        assert!(ImageName::new("docker.io", "library/app", reference).is_ok(), "{reference}");
    }
    let long = "a".repeat(256);
    let wrong = [
        ("", "a", "b"),
        ("a b", "a", "b"),
        ("r.example", "", "b"),
        ("r.example", "../etc", "b"),
        ("r.example", "a//b", "b"),
        ("r.example", "A", "b"),
        ("r.example", "a", ""),
        ("r.example", "a", "-x"),
        ("r.example", "a", "a/b"),
        ("r.example", "a", "md5:00"),
        ("r.example", "a", "x?y"),
        (&long, "a", "b"),
    ];
    for (registry, repository, reference) in wrong {
        assert_eq!(
            ImageName::new(registry, repository, reference),
            Err(ImageNameError),
            "{registry} {repository} {reference}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_afresh_hears_the_origin_and_everybody_after() {
    let down = ResolveError::Unreachable("down".to_owned());
    let setup = Setup::new([Ok(resolved(1)), Ok(resolved(2)), Err(down)], OutagePolicy::LastResolved);
    let tag = name("v1");
    setup.ask(&tag).await.unwrap();
    assert_eq!(setup.resolver.ask_afresh(&tag).await, Ok(resolved(2)));
    assert_eq!(setup.ask(&tag).await.unwrap().record().digest, resolved(2).digest);
    assert_eq!(setup.asked(), 2);
    assert_eq!(setup.resolver.ask_afresh(&tag).await, Ok(resolved(2)), "what it said last");
    assert_eq!(setup.asked(), 3);
}
