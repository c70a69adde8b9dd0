//! Below HTTP: TLS, proxies, time limits, connections kept.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use shoal_oci::Reference;
use shoal_oci::guard::Reason;
use shoal_oci::origin::{Cause, ConfigError, Origin};
use shoal_oci::testing::{Content, Fault, Options, Registry, Trouble};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::{app, impatient, origin, origin_with, read, registry};

fn v1() -> Reference {
    "v1".parse().unwrap()
}

/// A registry with a certificate for 127.0.0.1 of an authority of its own, and that authority's certificate.
async fn with_tls() -> (Registry, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    let registry = Registry::start(Options { tls: Some(Arc::new(tls)), ..Options::default() }).await.unwrap();
    registry.push_image(&app(), "v1", &[100], 1);
    (registry, authority.pem())
}

#[tokio::test]
async fn a_private_authority_is_trusted_where_it_is_configured() {
    let (registry, authority) = with_tls().await;
    let origin = origin_with(&registry, |config| {
        config.plain_http = false;
        config.ca_bundle = Some(authority.clone());
    });
    origin.manifest(&app(), &v1()).await.unwrap();

    let error = origin_with(&registry, |config| config.retries = 0).manifest(&app(), &v1()).await.unwrap_err();
    assert!(matches!(error.cause(), Cause::Unreachable(_)), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");

    // From https to http is a way down, even at home.
    registry.inject(Fault::once("/manifests/", Trouble::Redirect { to: format!("http://{}/", registry.address()) }));
    let error = origin.manifest(&app(), &v1()).await.unwrap_err();
    assert!(matches!(error.cause(), Cause::Refused(refused) if refused.reason == Reason::Downgrade), "{error}");
}

#[tokio::test]
async fn a_configuration_that_cant_be_used_is_refused() {
    let registry = registry().await;
    let refused = |change: fn(&mut shoal_oci::origin::RegistryConfig)| {
        let mut config = registry.config().unwrap();
        change(&mut config);
        Origin::new(config).unwrap_err()
    };
    assert!(matches!(refused(|config| config.plain_http = false), ConfigError::Endpoint { .. }));
    assert!(matches!(
        refused(|config| config.endpoint = "ftp://a.example".parse().unwrap()),
        ConfigError::Endpoint { .. }
    ));
    assert!(matches!(
        refused(|config| config.endpoint = "https://u:p@a.example".parse().unwrap()),
        ConfigError::Endpoint { .. }
    ));
    for bundle in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let mut config = registry.config().unwrap();
        config.ca_bundle = Some(bundle.into());
        assert!(matches!(Origin::new(config), Err(ConfigError::CaBundle { .. })), "{bundle}");
    }
}

#[tokio::test]
async fn plain_requests_go_through_the_proxy_except_where_none_is_to_be_used() {
    // A registry answers a proxy's requests as well: they only have the whole URL in their first line.
    let proxy = registry().await;
    proxy.push_image(&app(), "v1", &[100], 1);
    let through = |no_proxy: &str| {
        origin_with(&proxy, |config| {
            config.endpoint = "http://registry.invalid/".parse().unwrap();
            config.retries = 0;
            config.proxy.http = Some(proxy.url().clone());
            config.proxy.no_proxy = no_proxy.into();
        })
    };
    through("").manifest(&app(), &v1()).await.unwrap();
    assert_eq!(proxy.traffic(|_| true).requests, 1);
    let error = through("other.example,.invalid").manifest(&app(), &v1()).await.unwrap_err();
    assert!(matches!(error.cause(), Cause::Unreachable(_)), "{error}");
    assert_eq!(proxy.traffic(|_| true).requests, 1);
}

#[tokio::test]
async fn tls_goes_through_the_proxy_as_a_tunnel() {
    let (registry, authority) = with_tls().await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let target = registry.address();
    let _proxying = AbortOnDropHandle::new(tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let mut client = BufReader::new(client);
        let mut line = String::new();
        client.read_line(&mut line).await.unwrap();
        assert!(line.starts_with("CONNECT localhost:"), "{line}");
        while line != "\r\n" {
            line.clear();
            client.read_line(&mut line).await.unwrap();
        }
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let mut server = TcpStream::connect(target).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    }));
    let origin = origin_with(&registry, |config| {
        config.endpoint = format!("https://localhost:{}/", target.port()).parse().unwrap();
        config.ca_bundle = Some(authority);
        config.proxy.https = Some(proxy.parse().unwrap());
    });
    origin.manifest(&app(), &v1()).await.unwrap();
}

#[tokio::test]
async fn silence_has_its_limits() {
    let registry = registry().await;
    registry.push_image(&app(), "v1", &[100], 1);
    let origin = origin_with(&registry, |config| {
        impatient(config);
        config.timeouts.connect = Duration::from_millis(100);
        config.retries = 0;
    });
    registry.inject(Fault::once("/manifests/", Trouble::Delay(Duration::from_secs(3600))));
    let error = origin.manifest(&app(), &v1()).await.unwrap_err();
    assert!(matches!(error.cause(), Cause::TimedOut { what: "answer", .. }), "{error}");
    registry.inject(Fault::once("/manifests/", Trouble::Stall { after: 5 }));
    let error = origin.manifest(&app(), &v1()).await.unwrap_err();
    assert!(matches!(error.cause(), Cause::TimedOut { what: "byte", .. }), "{error}");
    assert!(error.is_transient());

    let address = registry.address();
    drop(registry);
    let error = origin.manifest(&app(), &v1()).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("{address}/team/app: ")), "{error}");
    assert!(matches!(error.cause(), Cause::Unreachable(_) | Cause::Broken(_)), "{error}");
}

#[tokio::test]
async fn connections_are_opened_ahead_and_kept() {
    let registry = registry().await;
    registry.push_image(&app(), "v1", &[100], 1);
    let origin = origin(&registry);
    origin.warm(NonZeroUsize::new(3).unwrap()).await.unwrap();
    let opened = registry.connections();
    assert!((1..=3).contains(&opened), "{opened}");
    for _ in 0..5 {
        origin.manifest(&app(), &v1()).await.unwrap();
    }
    // An error's body is read to its end, so that it costs no connection.
    assert!(origin.manifest(&app(), &"none".parse().unwrap()).await.is_err());
    origin.manifest(&app(), &v1()).await.unwrap();
    assert_eq!(registry.connections(), opened);
}

/// What comes in at `from` leaves at `to` so much later, without a limit on how much that is.
async fn pass_late(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (sender, mut late) = tokio::sync::mpsc::unbounded_channel();
    let read = async move {
        let mut bytes = BytesMut::new();
        while from.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {
            let _ = sender.send((Instant::now() + delay, bytes.split()));
        }
    };
    let write = async move {
        while let Some((at, bytes)) = late.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}

/// Makes a registry as far away as that, one way.
async fn distant(registry: &Registry, delay: Duration) -> (SocketAddr, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, registry) = (listener.local_addr().unwrap(), registry.address());
    let accepting = tokio::spawn(async move {
        let mut passing = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            let (client_reads, client_writes) = client.into_split();
            let (registry_reads, registry_writes) = TcpStream::connect(registry).await.unwrap().into_split();
            passing.spawn(pass_late(client_reads, registry_writes, delay));
            passing.spawn(pass_late(registry_reads, client_writes, delay));
        }
    });
    (address, AbortOnDropHandle::new(accepting))
}

#[tokio::test]
async fn a_distant_registry_is_asked_for_larger_parts() {
    const SIZE: u64 = 16 << 20;
    let registry = registry().await;
    let digest = registry.push_blob(&app(), Content::random(9, SIZE));
    let (address, _passing) = distant(&registry, Duration::from_millis(50)).await;
    let origin = origin_with(&registry, |config| config.endpoint.set_port(Some(address.port())).unwrap());
    let began = Instant::now();
    let (bytes, error) = read(origin.blob(&app(), digest, SIZE, 0..SIZE)).await;
    println!("16 MiB from 100 ms away: {:.2} s", began.elapsed().as_secs_f64());
    assert!(error.is_none() && bytes.len() as u64 == SIZE);
    // 64 of the first one's size; connections would wait for answers most of the time.
    let traffic = registry.blob_traffic();
    assert!((5..40).contains(&traffic.ranged), "{traffic:?}");
}
