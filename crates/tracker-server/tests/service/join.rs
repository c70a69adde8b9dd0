//! Joining, renewing, and whom nobody lets in.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, PKCS_ED25519, SanType};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use shoal_tracker_server::{Authority, CERTIFICATE_LIFE, JoinToken};

use crate::harness::{Bare, Cluster, start};

fn request() -> (KeyPair, String) {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    (key, request)
}

#[tokio::test]
async fn a_good_token_makes_a_member_that_is_one_again_after_a_restart_without_it() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker().await;
    let node = cluster.node("node-a", &tracker).await;
    let identity = node.identity().await;
    let certificate = identity.certificate();
    assert_eq!(certificate.contact.name().as_str(), "node-a");
    assert_eq!(certificate.contact.zone().name(), "zone-1");
    assert_eq!(certificate.contact.address(), "127.0.0.1:7001".parse().unwrap());
    let life = certificate.not_after.duration_since(SystemTime::now()).unwrap();
    assert!(life > CERTIFICATE_LIFE - Duration::from_secs(60) && life <= CERTIFICATE_LIFE);
    assert!(certificate.not_before < SystemTime::now() - Duration::from_secs(240), "clocks may differ");
    assert!(certificate.key.verifies(b"bytes", &identity.sign(b"bytes")));
    assert!(!certificate.key.verifies(b"other", &identity.sign(b"bytes")));
    assert_eq!(identity.trust().verify_node(&identity.chain()[0], SystemTime::now()).unwrap(), *certificate);
    node.stop().await;
    for file in ["identity.pem", "peers.json"] {
        let path = cluster.dir.path().join("node-a").join(file);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }

    let mut config = cluster.config("node-a", &[]);
    config.token_file = cluster.dir.path().join("none");
    let mut node = start(config).await;
    node.connected().await;
    assert_eq!(node.identity().await.certificate(), certificate, "nothing was asked for");
    node.stop().await;
    tracker.stop().await;
}

#[tokio::test]
async fn wrong_tokens_and_wrong_fingerprints_make_no_member() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker().await;
    let other = Authority::generate().unwrap();
    let config = |name: &str, token: &str| {
        let mut config = cluster.config(name, &[tracker.address]);
        config.token_file = cluster.dir.path().join(format!("{name}-token"));
        std::fs::write(&config.token_file, token).unwrap();
        config
    };
    let wrong = JoinToken::generate(cluster.authority.fingerprint()).unwrap().reveal();
    let pinned_wrong =
        cluster.token.reveal().replace(&cluster.authority.fingerprint().to_string(), &other.fingerprint().to_string());
    let bare = cluster.token.reveal().split(':').next().unwrap().to_owned();
    let cases = [
        ("secret", wrong, "the token isn't valid"),
        ("pin", pinned_wrong, "can't connect: invalid peer certificate: UnknownIssuer"),
        ("none", bare.clone(), "nothing says which CA to trust"),
    ];
    for (name, token, says) in cases {
        let node = start(config(name, &token)).await;
        let problem = node.problem().await;
        assert!(problem.contains(says), "{name}: {problem}");
        assert!(node.client.identity().borrow().is_none());
        node.stop().await;
    }
    let metrics = tracker.metrics();
    assert!(metrics.contains(r#"joins_total{outcome="refused"} "#), "{metrics}");
    assert!(!metrics.contains(r#"outcome="admitted""#), "{metrics}");

    // The secret alone does with the CA's certificate.
    let mut config = config("file", &bare);
    config.ca_file = Some(cluster.dir.path().join("ca.pem"));
    std::fs::write(cluster.dir.path().join("ca.pem"), cluster.authority.trust().to_pem()).unwrap();
    let mut node = start(config).await;
    node.connected().await;
    node.stop().await;
    tracker.stop().await;
}

#[tokio::test]
async fn a_node_renews_with_its_certificate_and_keeps_its_name() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker().await;
    let node = cluster.node("node-a", &tracker).await;
    let first = node.identity().await;
    node.stop().await;

    // Another port than the certificate's is a reason to renew at once. The token is gone.
    let mut config = cluster.config("node-a", &[tracker.address]);
    config.token_file = cluster.dir.path().join("none");
    config.peer_port = 7_002;
    let node = start(config).await;
    let mut identity = node.client.identity();
    let renewed = |identity: &Option<Arc<_>>| {
        identity.as_ref().is_some_and(|identity: &Arc<shoal_tracker_server::client::NodeIdentity>| {
            identity.certificate().contact.address().port() == 7_002
        })
    };
    tokio::time::timeout(crate::harness::LONG, identity.wait_for(renewed)).await.unwrap().unwrap();
    let second = node.identity().await;
    assert_eq!(second.node(), first.node());
    assert_ne!(second.certificate().key, first.certificate().key, "a new key each time");

    // Links that were signed before are still good: both keys are known.
    let keys = loop {
        match node.client.keys(&[first.node()]).await {
            Ok(keys) => break keys[&first.node()].clone(),
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert!(keys.contains(&first.certificate().key) && keys.contains(&second.certificate().key));

    // Not under another name.
    let bare = Bare::as_node(tracker.address, &second).await;
    let (_, csr) = request();
    let body = json!({"name": "node-b", "zone": "", "peer_port": 7_001, "csr": csr}).to_string();
    let (status, answer) = bare.ask("POST", "/v1/join", body).await.unwrap();
    assert_eq!(status, 403, "{answer:?}");
    node.stop().await;
    tracker.stop().await;
}

#[tokio::test]
async fn expired_and_foreign_certificates_are_refused() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker().await;
    let certify = |authority: &Authority, not_after: SystemTime| {
        let pem = authority.to_pem();
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
        let key = KeyPair::from_der_and_sign_algo(&key, &PKCS_ED25519).unwrap();
        let root = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let issuer = Issuer::from_ca_cert_der(&root, key).unwrap();
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI("shoal://node/node-a".try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = (SystemTime::now() - Duration::from_secs(7_200)).into();
        params.not_after = not_after.into();
        let certificate = params.signed_by(&key, &issuer).unwrap().der().clone();
        (vec![certificate], PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))
    };
    let hour = Duration::from_secs(3_600);
    let foreign = Authority::generate().unwrap();
    let cases = [
        ("expired", certify(&cluster.authority, SystemTime::now() - hour)),
        ("foreign", certify(&foreign, SystemTime::now() + hour)),
        // Of the right CA, by somebody else than this tracker: it lacks a node's place.
        ("no place", certify(&cluster.authority, SystemTime::now() + hour)),
    ];
    for (case, certificate) in cases {
        let bare = Bare::connect(tracker.address, cluster.authority.trust(), Some(certificate)).await;
        assert!(bare.ask("GET", "/v1/members", "").await.is_err(), "{case}");
    }
    tracker.stop().await;
}

#[tokio::test]
async fn strangers_may_join_and_nothing_else() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker().await;
    let bare = Bare::connect(tracker.address, cluster.authority.trust(), None).await;
    assert_eq!(bare.ask("GET", "/healthz", "").await.unwrap().0, 200);
    let (status, bundle) = bare.ask("GET", "/v1/ca", "").await.unwrap();
    assert_eq!((status, bundle), (200, cluster.authority.trust().to_pem().into()));
    for (method, path) in [
        ("GET", "/v1/members"),
        ("GET", "/v1/events"),
        ("GET", "/v1/contacts"),
        ("GET", "/v1/keys"),
        ("GET", "/v1/swarm"),
        ("GET", "/v1/replicas"),
        ("POST", "/v1/announce"),
        ("POST", "/v1/resolve"),
        ("POST", "/v1/pull-secret"),
    ] {
        assert_eq!(bare.ask(method, path, "").await.unwrap().0, 401, "{path}");
    }
    assert_eq!(bare.ask("GET", "/v1/nothing", "").await.unwrap().0, 404);
    assert_eq!(bare.ask("GET", "/v1/join", "").await.unwrap().0, 405);
    assert_eq!(bare.ask("GET", "/v1/status", "").await.unwrap().0, 403);
    let status = |token: &JoinToken| {
        let secret = token.reveal().split(':').next().unwrap().to_owned();
        hyper::Request::builder()
            .uri("https://127.0.0.1/v1/status")
            .header("authorization", format!("Bearer {secret}"))
            .body(Default::default())
            .unwrap()
    };
    assert_eq!(bare.request(status(&cluster.token)).await.unwrap().0, 403, "a join token isn't the admin's");
    let (code, answer) = bare.request(status(&cluster.admin)).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!((code, answer["nodes_connected"].as_u64()), (200, Some(0)));
    tracker.stop().await;
}

#[tokio::test]
async fn what_a_request_asks_for_beside_its_key_is_ignored() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker().await;
    let bare = Bare::connect(tracker.address, cluster.authority.trust(), None).await;
    let secret = cluster.token.reveal().split(':').next().unwrap().to_owned();
    let join = async |csr: &str, ip: Option<&str>| {
        let body = json!({"name": "node-a", "zone": "z", "peer_port": 7_001, "peer_ip": ip, "csr": csr}).to_string();
        let request =
            hyper::Request::post("https://127.0.0.1/v1/join").header("authorization", format!("Bearer {secret}"));
        bare.request(request.body(http_body_util::Full::new(body.into())).unwrap()).await.unwrap()
    };
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI("shoal://tracker/t9".try_into().unwrap()));
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let greedy = params.serialize_request(&key).unwrap().pem().unwrap();
    let (status, answer) = join(&greedy, None).await;
    assert_eq!(status, 200, "{answer:?}");
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    let certificate = CertificateDer::from_pem_slice(answer["certificate"].as_str().unwrap().as_bytes()).unwrap();
    let certificate = cluster.authority.trust().verify_node(&certificate, SystemTime::now()).unwrap();
    assert_eq!(certificate.contact.name().as_str(), "node-a");

    let ecdsa = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let ecdsa = CertificateParams::default().serialize_request(&ecdsa).unwrap().pem().unwrap();
    for (case, csr, ip, wanted) in [
        ("another kind of key", ecdsa.as_str(), None, 400),
        ("no request", "garbage", None, 400),
        ("another's address", &request().1, Some("10.9.9.9"), 403),
    ] {
        assert_eq!(join(csr, ip).await.0, wanted, "{case}");
    }
    tracker.stop().await;
}

#[tokio::test]
async fn roots_are_changed_in_steps_while_everybody_stays_a_member() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker().await;
    let old = cluster.node("old", &tracker).await;
    let next = Authority::generate().unwrap();
    let next_pem = next.to_pem();

    // Trusted first, then signing.
    let first = Authority::from_pem(&cluster.authority.to_pem()).unwrap().trusting(&next.trust().to_pem()).unwrap();
    tracker.handle.set_authority(Arc::new(first)).unwrap();
    let middle = cluster.node("middle", &tracker).await;
    let second = Authority::from_pem(&next_pem).unwrap().trusting(&cluster.authority.trust().to_pem()).unwrap();
    assert_eq!(second.fingerprint(), next.fingerprint());
    tracker.handle.set_authority(Arc::new(second)).unwrap();

    // Who joined between knows both; its certificate, of the old root, opens new connections.
    let identity = middle.identity().await;
    let bare = Bare::as_node(tracker.address, &identity).await;
    assert_eq!(bare.ask("GET", "/v1/members", "").await.unwrap().0, 200);
    let (code, bundle) = bare.ask("GET", "/v1/ca", "").await.unwrap();
    assert_eq!((code, bundle.windows(10).filter(|text| text == b"-----BEGIN").count()), (200, 2));
    old.stop().await;
    middle.stop().await;
    tracker.stop().await;
}

#[tokio::test]
async fn a_ca_is_made_once_and_read_again() {
    let cluster = Cluster::new();
    let dir = cluster.dir.path().join("ca");
    let authorities = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| Authority::load_or_create(&dir).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap().fingerprint()).collect::<Vec<_>>()
    });
    assert!(authorities.iter().all(|fingerprint| *fingerprint == authorities[0]), "whoever comes first makes it");
    let file = dir.join("ca.pem");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1, "nothing is left behind");
    assert_eq!(Authority::load_or_create(&dir).unwrap().fingerprint(), authorities[0]);
    std::fs::write(&file, "garbage").unwrap();
    assert!(Authority::load_or_create(&dir).is_err(), "what is unusable isn't replaced silently");
    let foreign = Authority::generate().unwrap();
    let mixed =
        cluster.authority.to_pem().split_once("-----BEGIN CERT").unwrap().0.to_owned() + &foreign.trust().to_pem();
    assert!(Authority::from_pem(&mixed).is_err(), "a key with another one's certificate");
}
