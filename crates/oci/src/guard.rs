//! Where a registry may send us: the rule for token realms and redirects.
//!
//! A registry names URLs that we then ask, from inside the cluster: so it could have us ask the node's own services or the cloud's metadata
//! server, and hand them a password. Private networks are no such place (private registries live there); these are: loopback, link-local,
//! unspecified, multicast and reserved addresses, and the clouds' metadata servers. They are refused unless the registry itself is
//! configured there, or the configuration names them.
//!
//! Plain http is for a registry that is configured so, and its host: what is in clear on the way to one of its ports is no more so on the way to another,
//! where its token server or its storage may be. Elsewhere it stays refused.
//!
//! State: the configuration.
//! Invariants: a [`Hop`] exists only for a URL that passed. The registry's own credentials go only where [`Door::Registry`] leads. Behind
//! [`Door::Elsewhere`] each address is checked when it is connected to, on the answer that is then used, so a second DNS answer
//! changes nothing.
//! Absent on purpose: lists of good hosts (registries move their storage at will), and checks of addresses that a proxy resolves: it
//! sees the network, we don't. Names and literal addresses are checked in front of a proxy too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use crate::names::Registry;

/// Redirects that are followed for one request. Registries need one (to their storage), content networks a second.
pub const MAX_REDIRECTS: usize = 5;

/// The longest URL that is followed. Signed storage URLs have 1 to 3 KiB.
const MAX_URL_BYTES: usize = 8 << 10;

/// The rule for one registry.
#[derive(Clone, Debug)]
pub struct Guard {
    own: Url,
    allowed: Vec<String>,
    proxies: Vec<String>,
}

/// A URL that may be asked.
#[derive(Clone, Debug)]
pub struct Hop {
    url: Url,
    door: Door,
}

impl Hop {
    /// A URL whose name has passed and whose address is still to be checked.
    #[cfg(test)]
    pub(crate) const fn elsewhere(url: Url) -> Self {
        Self { url, door: Door::Elsewhere }
    }

    /// The URL.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// Through which door.
    #[must_use]
    pub const fn door(&self) -> Door {
        self.door
    }
}

/// How far a URL's host is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The registry's own endpoint: any address, and its credentials.
    Registry,
    /// A host that the configuration names: any address.
    Allowed,
    /// Any other host, or another port of the registry's: only addresses that [`check_address`] lets pass.
    Elsewhere,
}

impl Guard {
    /// The rule for the registry at `endpoint`. Hosts in `allowed` may be named by it whatever their address is; over plain http too, if
    /// it is on plain http itself.
    #[must_use]
    pub fn new(endpoint: Url, allowed: &[Registry]) -> Self {
        let allowed = allowed.iter().map(|host| host.api_authority().to_owned()).collect();
        Self { own: endpoint, allowed, proxies: Vec::new() }
    }

    /// The same, with proxies: a registry may not send us to the proxy itself.
    #[must_use]
    pub fn with_proxies<'a>(mut self, proxies: impl IntoIterator<Item = &'a Url>) -> Self {
        self.proxies = proxies.into_iter().filter_map(Url::host_str).map(str::to_owned).collect();
        self
    }

    /// The way to the registry itself.
    #[must_use]
    pub fn home(&self, url: Url) -> Option<Hop> {
        self.is_own(&url).then_some(Hop { url, door: Door::Registry })
    }

    /// Checks where an answer from `from` wants us to go: the value of a `Location` header, or of a challenge's realm.
    ///
    /// # Errors
    /// If the registry may not send us there.
    pub fn follow(&self, from: &Url, target: &str) -> Result<Hop, Refused> {
        let refused = |reason| Refused { host: String::new(), reason };
        if target.len() > MAX_URL_BYTES {
            return Err(refused(Reason::TooLong));
        }
        let url = from.join(target).map_err(|_| refused(Reason::NoUrl))?;
        let host = url.host().ok_or_else(|| refused(Reason::NoUrl))?;
        let refused = |reason| Refused { host: host.to_string(), reason };
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refused(Reason::Scheme));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused(Reason::UserInfo));
        }
        if from.scheme() == "https" && url.scheme() == "http" {
            return Err(refused(Reason::Downgrade));
        }
        let door = if self.is_own(&url) {
            Door::Registry
        } else if self.allowed.contains(&authority(&url)) {
            Door::Allowed
        } else {
            if url.scheme() == "http" && !self.is_own_plain_host(&url) {
                return Err(refused(Reason::PlainHttp));
            }
            if self.proxies.iter().any(|proxy| url.host_str() == Some(proxy)) {
                return Err(refused(Reason::Proxy));
            }
            let verdict = match &host {
                Host::Domain(name) => check_name(name),
                Host::Ipv4(address) => check_address((*address).into()),
                Host::Ipv6(address) => check_address((*address).into()),
            };
            verdict.map_err(refused)?;
            Door::Elsewhere
        };
        Ok(Hop { url, door })
    }

    /// Whether it is the host of a registry that is itself on plain http, at whatever port.
    fn is_own_plain_host(&self, url: &Url) -> bool {
        self.own.scheme() == "http" && url.host() == self.own.host()
    }

    fn is_own(&self, url: &Url) -> bool {
        url.scheme() == self.own.scheme() && same_authority(url, &self.own)
    }
}

/// Whether two URLs lead to the same host and port.
pub(crate) fn same_authority(one: &Url, other: &Url) -> bool {
    one.host() == other.host() && one.port_or_known_default() == other.port_or_known_default()
}

/// Host, and the port where it isn't the scheme's.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Names that stand for this host or for a cloud's metadata server. Their addresses would be refused too; in front of a proxy the name is
/// all there is to see.
const FORBIDDEN_NAMES: [&str; 8] = [
    "localhost",
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "metadata.azure.internal",
    "metadata.azure.com",
    "instance-data",
    "instance-data.ec2.internal",
];

fn check_name(name: &str) -> Result<(), Reason> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if FORBIDDEN_NAMES.contains(&name.as_str()) || name.ends_with(".localhost") {
        return Err(Reason::Name);
    }
    Ok(())
}

/// Metadata servers outside of the link-local range: Alibaba, Oracle, Azure's wire server.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(168, 63, 129, 16)];

/// Checks an address that a registry's word leads to.
///
/// # Errors
/// If nothing that a registry names has any business there.
pub fn check_address(address: IpAddr) -> Result<(), Reason> {
    match address {
        IpAddr::V4(address) => check_v4(address),
        IpAddr::V6(address) => check_v6(address),
    }
}

fn check_v4(address: Ipv4Addr) -> Result<(), Reason> {
    match address.octets() {
        // "This network": Linux connects 0.0.0.0 to itself.
        [0, ..] => Err(Reason::Unspecified),
        [127, ..] => Err(Reason::Loopback),
        [169, 254, ..] => Err(Reason::LinkLocal),
        // Multicast, reserved and broadcast.
        [224..=255, ..] => Err(Reason::Multicast),
        _ if METADATA_V4.contains(&address) => Err(Reason::Metadata),
        _ => Ok(()),
    }
}

fn check_v6(address: Ipv6Addr) -> Result<(), Reason> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        check_v4(Ipv4Addr::new(a, b, c, d))
    };
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0] if g == 0 && h == 0 => Err(Reason::Unspecified),
        [0, 0, 0, 0, 0, 0] if g == 0 && h == 1 => Err(Reason::Loopback),
        // The forms that carry an IPv4 address: compatible, mapped, translated (RFC 2765), NAT64, 6to4.
        [0, 0, 0, 0, 0, 0 | 0xffff] | [0, 0, 0, 0, 0xffff, 0] | [0x64, 0xff9b, 0, 0, 0, 0] => embedded(g, h),
        [0x2002, ..] => embedded(b, c),
        [0xfe80..=0xfeff, ..] => Err(Reason::LinkLocal),
        [0xff00..=0xffff, ..] => Err(Reason::Multicast),
        // AWS keeps its instance services in this prefix; Google's metadata server is one address.
        [0xfd00, 0x0ec2, ..] => Err(Reason::Metadata),
        [0xfd20, 0x00ce, 0, 0, 0, 0] if g == 0 && h == 0x254 => Err(Reason::Metadata),
        _ => Ok(()),
    }
}

/// A URL that a registry may not send us to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused to go to \"{host}\", where the registry sends us: {reason}")]
pub struct Refused {
    /// The URL's host. The rest may hold a signature.
    pub host: String,
    /// Why.
    pub reason: Reason,
}

/// Why a URL is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Not a URL with a host.
    #[error("it isn't a URL")]
    NoUrl,
    /// Longer than any honest one.
    #[error("it is longer than 8 KiB")]
    TooLong,
    /// Neither http nor https.
    #[error("it is neither http nor https")]
    Scheme,
    /// From https to http.
    #[error("it leads from https to http")]
    Downgrade,
    /// Plain http to another host.
    #[error("it is plain http and isn't configured")]
    PlainHttp,
    /// A user name or password in the URL.
    #[error("it has a user name in it")]
    UserInfo,
    /// The proxy that we use.
    #[error("it is the proxy")]
    Proxy,
    /// A name of this host or of a metadata server.
    #[error("it names this host or a metadata server")]
    Name,
    /// 127.0.0.0/8, ::1.
    #[error("it is a loopback address")]
    Loopback,
    /// 169.254.0.0/16, fe80::/10.
    #[error("it is a link-local address")]
    LinkLocal,
    /// 0.0.0.0/8, ::.
    #[error("it is an unspecified address")]
    Unspecified,
    /// 224.0.0.0/3, ff00::/8.
    #[error("it is a multicast or reserved address")]
    Multicast,
    /// A cloud's metadata server.
    #[error("it is a metadata server")]
    Metadata,
    /// More redirects than [`MAX_REDIRECTS`].
    #[error("it is one redirect too many")]
    TooMany,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn guard(endpoint: &str, allowed: &[&str]) -> Guard {
        let allowed: Vec<_> = allowed.iter().map(|host| host.parse().unwrap()).collect();
        Guard::new(endpoint.parse().unwrap(), &allowed)
    }

    fn reason(guard: &Guard, target: &str) -> Option<Reason> {
        guard.follow(&guard.own, target).err().map(|refused| refused.reason)
    }

    /// Every way of writing an IPv4 address that some URL parser or resolver understands.
    fn spellings(address: Ipv4Addr) -> Vec<String> {
        let [a, b, c, d] = address.octets();
        let number = u32::from(address);
        let (high, low) = (number >> 16, number & 0xffff);
        vec![
            format!("{a}.{b}.{c}.{d}"),
            format!("{a}.{b}.{c}.{d}."),
            format!("{number}"),
            format!("0x{number:x}"),
            format!("0X{number:X}"),
            format!("0{number:o}"),
            format!("0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}"),
            format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
            format!("000{a:o}.0x{b:x}.{c}.{d}"),
            format!("{a}.{b}.{low}"),
            format!("{a}.{}", number & 0xff_ffff),
            format!("%{:02x}{}.{b}.{c}.{d}", a.to_string().as_bytes()[0], &a.to_string()[1..]),
            format!("{a}。{b}。{c}。{d}"),
            format!("[::ffff:{a}.{b}.{c}.{d}]"),
            format!("[::FFFF:{high:x}:{low:x}]"),
            format!("[0:0:0:0:0:ffff:{high:x}:{low:x}]"),
            format!("[::ffff:0:{high:x}:{low:x}]"),
            format!("[64:ff9b::{high:x}:{low:x}]"),
            format!("[2002:{high:x}:{low:x}::1]"),
        ]
    }

    #[test]
    fn two_hundred_urls_that_lead_astray_are_refused() {
        let addresses = [
            "127.0.0.1",
            "127.9.8.7",
            "169.254.169.254",
            "169.254.170.2",
            "0.0.0.0",
            "100.100.100.200",
            "168.63.129.16",
            "224.0.0.251",
        ];
        let mut table: Vec<String> = Vec::new();
        for (at, address) in addresses.iter().enumerate() {
            for (form, host) in spellings(address.parse().unwrap()).into_iter().enumerate() {
                // Each with a port, a path, a query or an odd scheme in turn.
                let decorated = match (at + form) % 5 {
                    0 => format!("https://{host}/"),
                    1 => format!("https://{host}:8443/latest/meta-data"),
                    2 => format!("HTTPS://{host}?service=x"),
                    3 => format!("//{host}/token"),
                    _ => format!("https:\\\\{host}\\token#registry.example"),
                };
                table.push(decorated);
            }
        }
        let names = [
            "localhost",
            "LocalHost",
            "localhost.",
            "a.b.localhost",
            "metadata",
            "metadata.google.internal",
            "Metadata.Google.Internal.",
            "metadata.goog",
            "metadata.azure.internal",
            "instance-data",
            "instance-data.ec2.internal",
            "[::1]",
            "[::]",
            "[fe80::1]",
            "[febf::1]",
            "[fec0::1]",
            "[ff02::1]",
            "[fd00:ec2::254]",
            "[FD00:0EC2::23]",
            "[fd20:ce::254]",
            "255.255.255.255",
            "240.0.0.1",
            "[0:0:0:0:0:0:0:1]",
            "ⓛocalhost",
            "ｌｏｃａｌｈｏｓｔ",
        ];
        for host in names {
            table.push(format!("https://{host}/"));
            table.push(format!("https://{host}:444/token?a=b"));
        }
        for odd in [
            "http://registry.example/",
            "http://example.com/",
            "HTTP://example.com/",
            "http:\\\\example.com",
            "https://registry.example@evil.example/",
            "https://user:pass@registry.example/",
            "https://a@127.0.0.1/",
            "https://registry.example:443@169.254.169.254/",
            "ftp://example.com/",
            "file:///etc/passwd",
            "gopher://127.0.0.1:11211/x",
            "data:text/plain,x",
            "unix:///run/containerd.sock",
            "javascript:alert(1)",
            "https://",
            "https:///",
            "https://[::1",
            "https://1.2.3.4.5/",
            "https://256.256.256.256/",
            "https://exa mple.com/",
            "https://a:99999/",
            "https://[fe80::1%25eth0]/",
            "https://0x100000000/",
        ] {
            table.push(odd.to_owned());
        }
        assert!(table.len() >= 200, "{}", table.len());
        let guard = guard("https://registry.example/", &[]);
        for url in &table {
            assert!(reason(&guard, url).is_some(), "{url} passed");
        }
        // Nor may a registry on plain http send us there, be it by http.
        let guard = self::guard("http://plain.example:5000/", &[]);
        for url in &table {
            assert!(reason(&guard, url).is_some(), "{url} passed");
            let plain = url.replacen("https:", "http:", 1);
            assert!(reason(&guard, &plain).is_some(), "{plain} passed");
        }
    }

    #[test]
    fn honest_urls_pass_through_the_right_door() {
        let guard = guard("https://registry.example/", &["10.1.2.3:8080", "localhost:5001", "auth.lan"]);
        for (url, door) in [
            ("/v2/a/blobs/x", Door::Registry),
            ("https://registry.example:443/token", Door::Registry),
            ("HTTPS://REGISTRY.EXAMPLE/token", Door::Registry),
            ("https://registry.example:8443/", Door::Elsewhere),
            ("https://auth.example/token?a=b", Door::Elsewhere),
            ("https://storage.example/x?signature=y%2F", Door::Elsewhere),
            ("https://10.0.0.1/", Door::Elsewhere),
            ("https://192.168.1.1:5000/", Door::Elsewhere),
            ("https://[fd12:3456::1]/", Door::Elsewhere),
            ("https://[64:ff9b::808:808]/", Door::Elsewhere),
            ("https://metadata.example/", Door::Elsewhere),
            ("https://localhost:5001/", Door::Allowed),
            ("https://auth.lan/", Door::Allowed),
        ] {
            assert_eq!(guard.follow(&guard.own, url).map(|hop| hop.door()), Ok(door), "{url}");
        }
    }

    #[test]
    fn a_registry_on_loopback_may_send_us_to_itself_and_nowhere_else_there() {
        let guard = guard("http://127.0.0.1:5000/", &["127.0.0.1:5001"]);
        assert_eq!(reason(&guard, "http://127.0.0.1:5000/token"), None);
        assert_eq!(reason(&guard, "http://2130706433:5000/token"), None);
        assert_eq!(reason(&guard, "http://127.0.0.1:5001/token"), None);
        for elsewhere in ["http://127.0.0.1:10250/pods", "https://127.0.0.1:10250/pods", "http://2130706433:10250/pods"]
        {
            assert_eq!(reason(&guard, elsewhere), Some(Reason::Loopback), "{elsewhere}");
        }
        assert_eq!(reason(&guard, "http://127.0.0.2:5000/token"), Some(Reason::PlainHttp));
        assert_eq!(reason(&guard, "http://[::1]:10250/pods"), Some(Reason::PlainHttp));
        assert_eq!(reason(&guard, "http://example.com/"), Some(Reason::PlainHttp));
        assert_eq!(reason(&guard, "https://example.com/"), None);
    }

    #[test]
    fn plain_http_is_for_the_host_that_is_configured_so() {
        let plain = guard("http://registry.lan:5000/", &[]);
        for (url, door) in [
            ("/token", Door::Registry),
            ("http://registry.lan:5001/token", Door::Elsewhere),
            ("HTTP://Registry.LAN/token?service=x", Door::Elsewhere),
            ("https://registry.lan:5001/token", Door::Elsewhere),
            ("https://auth.lan/token", Door::Elsewhere),
        ] {
            assert_eq!(plain.follow(&plain.own, url).map(|hop| hop.door()), Ok(door), "{url}");
        }
        for other in [
            "http://auth.lan:5001/token",
            "http://registry.lan.:5001/token",
            "http://a.registry.lan:5001/token",
            "http://registry.lan.example:5001/token",
            "http://registry.la:5001/token",
            "//auth.lan:5000/token",
            "http://10.0.0.1:5001/token",
            "http://169.254.169.254/latest/meta-data",
            "http://metadata.google.internal/computeMetadata/v1/",
        ] {
            assert_eq!(reason(&plain, other), Some(Reason::PlainHttp), "{other}");
        }
        assert_eq!(reason(&plain, "http://registry.lan@auth.lan:5001/token"), Some(Reason::UserInfo));
        // Once it has led to https there is no way back.
        let storage = "https://storage.lan/".parse().unwrap();
        let back = plain.follow(&storage, "http://registry.lan:5001/x").unwrap_err();
        assert_eq!(back.reason, Reason::Downgrade);
        // By its address the same; and its port alone makes no host.
        let address = guard("http://10.77.0.3:5000/", &[]);
        assert_eq!(
            address.follow(&address.own, "http://10.77.0.3:5001/token").map(|hop| hop.door()),
            Ok(Door::Elsewhere)
        );
        assert_eq!(reason(&address, "http://10.77.0.4:5000/token"), Some(Reason::PlainHttp));
        // A registry on https says nothing about plain http, its own host's included.
        let secure = guard("https://registry.lan:5000/", &[]);
        assert_eq!(reason(&secure, "http://registry.lan:5001/token"), Some(Reason::Downgrade));
    }

    #[test]
    fn the_proxy_is_no_place_to_be_sent_to() {
        let proxy: Url = "http://10.0.0.9:3128".parse().unwrap();
        let guard = guard("https://registry.example/", &[]).with_proxies([&proxy]);
        assert_eq!(reason(&guard, "https://10.0.0.9:8443/"), Some(Reason::Proxy));
    }

    proptest! {
        #[test]
        fn a_registry_can_name_anything(target in "(https?://)?\\PC{0,60}") {
            let guard = guard("https://registry.example/", &[]);
            if let Ok(hop) = guard.follow(&guard.own, &target) {
                prop_assert_eq!(hop.url().scheme(), "https");
                prop_assert!(hop.url().username().is_empty());
            }
        }

        #[test]
        fn an_address_in_an_address_is_judged_as_itself(number in any::<u32>()) {
            let inner = Ipv4Addr::from(number);
            prop_assert_eq!(check_address(inner.to_ipv6_mapped().into()), check_address(inner.into()));
        }
    }
}
