//! The tree before and after: tables, every moment of a crash, and random trees.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::disk::Disk;
use super::*;

const OTHERS: &str = "server = \"https://harbor.example\"\n\n# Ours.\n[host.\"https://harbor.example\"]\n  capabilities = [\"pull\"]\n  ca = \"harbor.crt\"\n";
const SECTION: &str = "# Begin of what shoal-agent wrote. \"shoal-agent hosts restore\" takes it back.\n\
    [host.\"http://127.0.0.1:5050\"]\ncapabilities = [\"pull\", \"resolve\"]\ndial_timeout = \"200ms\"\n\
    [host.\"http://127.0.0.1:5050\".header]\nx-shoal = \"s3cret\"\n# End of what shoal-agent wrote.\n";

/// A directory of its own, gone with its test.
struct Temp(PathBuf);

impl Temp {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("shoal-hosts-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // In memory where there is such a place: each step waits for the disk.
        let memory = PathBuf::from("/dev/shm");
        let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let path = parent.canonicalize().unwrap().join(name);
        fs::create_dir(&path).unwrap();
        fs::create_dir(path.join("certs.d")).unwrap();
        Self(path)
    }

    fn root(&self) -> PathBuf {
        self.0.join("certs.d")
    }

    fn open(&self) -> CertsDir {
        CertsDir::open(&self.root()).unwrap()
    }

    /// With a disk that fails after so many steps.
    fn open_for(&self, steps: usize) -> CertsDir {
        let mut dir = self.open();
        dir.disk = Disk { steps_left: Some(Cell::new(steps)) };
        dir
    }

    /// Makes a file, or a link if the text begins with `->`.
    fn make(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match text.strip_prefix("->") {
            Some(target) => symlink(target, path).unwrap(),
            None => fs::write(path, text).unwrap(),
        }
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap()
    }

    /// All that is below, links as links.
    fn snapshot(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        snapshot(&self.0, &mut found);
        found
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn snapshot(path: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let head = format!("{:o} {} {}", metadata.mode(), metadata.uid(), metadata.gid());
        let text = if metadata.is_symlink() {
            format!("{head} -> {}", fs::read_link(&path).unwrap().display())
        } else if metadata.is_dir() {
            snapshot(&path, found);
            head
        } else {
            format!("{head} {:?} {:?}", metadata.modified().unwrap(), fs::read(&path).unwrap())
        };
        found.insert(path, text);
    }
}

fn host(text: &str) -> RegistryHost {
    text.parse().unwrap()
}

fn mirror() -> Mirror {
    let secret = SecretHeader::new("x-shoal", "s3cret").unwrap();
    Mirror { address: "127.0.0.1:5050".parse().unwrap(), secret: Some(secret) }
}

fn only(hosts: &[&str]) -> Targets {
    let registries = hosts.iter().map(|name| Target { host: host(name), endpoint: None }).collect();
    Targets { rest: false, registries }
}

fn rest() -> Targets {
    Targets { rest: true, registries: Vec::new() }
}

/// A tree with one of everything.
fn varied() -> Temp {
    let temp = Temp::new();
    temp.make("docker.io/hosts.toml", OTHERS);
    temp.make("docker.io/harbor.crt", "PEM");
    fs::set_permissions(temp.root().join("docker.io/hosts.toml"), fs::Permissions::from_mode(0o640)).unwrap();
    // Only root may; the tests hold for others too, with one thing less to keep.
    let _ = chown(temp.root().join("docker.io/hosts.toml"), Some(1), Some(1));
    temp.make("r.io_5000_/hosts.toml", "");
    temp.make("r.io:5000/hosts.toml", OTHERS);
    temp.make("certs.io/ca.crt", "PEM");
    temp.make("certs.io/me.cert", "PEM");
    temp.make("certs.io/me.key", "PEM");
    temp.make("linked.io/hosts.toml", "->../../elsewhere.toml");
    fs::write(temp.0.join("elsewhere.toml"), OTHERS).unwrap();
    temp.make("alias.io", "->docker.io");
    temp.make("outside.io", "->../outside");
    fs::create_dir(temp.0.join("outside")).unwrap();
    fs::write(temp.0.join("outside/hosts.toml"), OTHERS).unwrap();
    temp.make("broken.io", "->nowhere");
    temp.make("wrong.io/hosts.toml", "[host");
    temp.make("README", "a file");
    temp
}

fn targets() -> Targets {
    let mut targets = only(&["docker.io", "r.io:5000", "certs.io", "linked.io", "new.io:443"]);
    targets
        .registries
        .push(Target { host: host("plain.io:80"), endpoint: Some("http://10.0.0.1:80".parse().unwrap()) });
    targets.rest = true;
    targets
}

#[test]
fn a_new_file_has_the_mirror_and_nothing_else() {
    let temp = Temp::new();
    let report = temp.open().install(&mirror(), &only(&["docker.io", "r.io:5000"])).unwrap();
    assert_eq!(
        (report.directories, report.changed, report.skipped),
        (vec!["docker.io".into(), "r.io:5000".into()], 2, vec![])
    );
    assert_eq!(temp.read("docker.io/hosts.toml"), SECTION);
    assert_eq!(fs::metadata(temp.root().join("docker.io/hosts.toml")).unwrap().mode() & 0o777, 0o600);
    let all = temp.open().install(&mirror(), &rest()).unwrap();
    assert_eq!((all.directories, all.changed), (vec!["_default".into()], 3));
    assert_eq!(fs::read_dir(temp.root()).unwrap().count(), 2, "_default and the journal");
    temp.open().restore().unwrap();
    assert_eq!(fs::read_dir(temp.root()).unwrap().count(), 0);
}

#[test]
fn what_was_there_follows_the_mirror_byte_for_byte() {
    let temp = varied();
    let owner = |temp: &Temp| {
        fs::metadata(temp.root().join("docker.io/hosts.toml"))
            .map(|file| (file.uid(), file.gid(), file.mode()))
            .unwrap()
    };
    let before = owner(&temp);
    let report = temp.open().install(&mirror(), &targets()).unwrap();
    let expected = ["_default", "certs.io", "docker.io", "linked.io", "plain.io:80", "r.io:5000", "r.io_5000_"];
    assert_eq!(report.directories, expected);
    let skipped: Vec<_> =
        report.skipped.iter().map(|skipped| skipped.path.strip_prefix(temp.root()).unwrap().to_owned()).collect();
    assert_eq!(skipped, [Path::new("outside.io"), Path::new("wrong.io/hosts.toml")]);

    let (server, section) = OTHERS.split_at(OTHERS.find("# Ours").unwrap());
    assert_eq!(temp.read("docker.io/hosts.toml"), format!("{server}{SECTION}{section}"));
    assert_eq!(owner(&temp), before);
    assert_eq!(temp.read("linked.io/hosts.toml"), temp.read("docker.io/hosts.toml"));
    assert!(fs::symlink_metadata(temp.root().join("linked.io/hosts.toml")).unwrap().is_file());
    assert_eq!(fs::read_to_string(temp.0.join("elsewhere.toml")).unwrap(), OTHERS);
    assert_eq!(fs::read_to_string(temp.0.join("outside/hosts.toml")).unwrap(), OTHERS);

    let (begin, section) = SECTION.split_at(SECTION.find("[host").unwrap());
    let certificates = "ca = [\"ca.crt\"]\nclient = [[\"me.cert\", \"me.key\"]]\n";
    assert_eq!(temp.read("certs.io/hosts.toml"), format!("{begin}{certificates}{section}"));
    let end = section.find("# End").unwrap();
    let plain = "[host.\"http://10.0.0.1:80\"]\ncapabilities = [\"pull\", \"resolve\"]\n";
    let server = "server = \"http://10.0.0.1:80\"\n";
    let (section, end) = section.split_at(end);
    assert_eq!(temp.read("plain.io:80/hosts.toml"), format!("{begin}{server}{section}{plain}{end}"));
}

#[test]
fn installing_again_touches_nothing_and_restoring_gives_the_tree_back() {
    let temp = varied();
    let before = temp.snapshot();
    temp.open().install(&mirror(), &targets()).unwrap();
    let installed = temp.snapshot();
    assert_eq!(temp.open().install(&mirror(), &targets()).unwrap().changed, 0);
    assert_eq!(temp.snapshot(), installed);
    // With another port, and with fewer registries.
    let other = Mirror { address: "127.0.0.1:6060".parse().unwrap(), secret: None };
    temp.open().install(&other, &targets()).unwrap();
    assert!(
        temp.read("docker.io/hosts.toml").contains(":6060") && !temp.read("docker.io/hosts.toml").contains(":5050")
    );
    temp.open().install(&mirror(), &only(&["docker.io"])).unwrap();
    assert_eq!(temp.read("r.io_5000_/hosts.toml"), "");
    temp.open().install(&mirror(), &targets()).unwrap();
    temp.open().restore().unwrap();
    assert_eq!(temp.snapshot(), before);
    assert_eq!(temp.open().restore().unwrap(), Report::default());
}

#[test]
fn a_directory_of_its_own_says_what_the_default_said() {
    let temp = Temp::new();
    temp.make("_default/hosts.toml", OTHERS);
    temp.open().install(&mirror(), &only(&["docker.io"])).unwrap();
    let text = temp.read("docker.io/hosts.toml");
    assert!(text.contains("ca = \"../_default/harbor.crt\"") && text.contains(SECTION), "{text}");
    assert_eq!(temp.read("_default/hosts.toml"), OTHERS);
    // Once the default has the mirror, the directory isn't needed; with an endpoint it is, and its chain is still the one before us.
    temp.open().install(&mirror(), &Targets { rest: true, ..only(&["docker.io"]) }).unwrap();
    assert!(!temp.root().join("docker.io").exists());
    let mut targets = rest();
    targets.registries.push(Target { host: host("docker.io"), endpoint: Some("https://hub.example".parse().unwrap()) });
    temp.open().install(&mirror(), &targets).unwrap();
    assert_eq!(temp.read("docker.io/hosts.toml"), text);
    temp.open().restore().unwrap();
    assert_eq!(temp.read("_default/hosts.toml"), OTHERS);
    assert_eq!(fs::read_dir(temp.root()).unwrap().count(), 1);
}

#[test]
fn what_others_change_afterwards_stays() {
    let temp = varied();
    let install = || temp.open().install(&mirror(), &targets()).unwrap();
    install();
    // Written anew, changed around our section, removed, and put into the directory that we made.
    temp.make("docker.io/hosts.toml", "server = \"https://new.example\"\n");
    let edited = temp.read("linked.io/hosts.toml") + "[host.\"https://late.example\"]\n";
    temp.make("linked.io/hosts.toml", &edited);
    fs::remove_file(temp.root().join("r.io_5000_/hosts.toml")).unwrap();
    temp.make("_default/late.crt", "PEM");
    for again in [false, true] {
        if again {
            install();
            assert!(temp.read("docker.io/hosts.toml").contains(":5050"));
            assert!(temp.read("_default/hosts.toml").contains("ca = [\"late.crt\"]"));
            assert_eq!(install().changed, 0);
        }
        temp.open().restore().unwrap();
        assert_eq!(temp.read("docker.io/hosts.toml"), "server = \"https://new.example\"\n");
        assert_eq!(temp.read("linked.io/hosts.toml"), format!("{OTHERS}[host.\"https://late.example\"]\n"));
        assert!(!temp.root().join("r.io_5000_/hosts.toml").exists());
        assert_eq!(temp.read("_default/late.crt"), "PEM");
        assert!(!temp.root().join("_default/hosts.toml").exists() && !temp.root().join(".shoal").exists());
    }
}

/// After a crash every file is the one before or the one after.
fn nothing_is_torn(temp: &Temp, before: &BTreeMap<PathBuf, String>, after: &BTreeMap<PathBuf, String>) {
    let bytes = |text: &String| text.split(" [").nth(1).map(str::to_owned);
    for (path, text) in temp.snapshot() {
        if path.file_name().is_some_and(|name| name == "hosts.toml") {
            let known = [before.get(&path), after.get(&path)].map(|text| text.and_then(bytes));
            assert!(bytes(&text).is_none() || known.contains(&bytes(&text)), "{}: {text}", path.display());
        }
    }
}

#[test]
fn a_crash_after_any_step_is_made_good() {
    let undisturbed = varied();
    undisturbed.open().install(&mirror(), &targets()).unwrap();
    let install_steps = (0..).find(|steps| varied().open_for(*steps).install(&mirror(), &targets()).is_ok()).unwrap();
    assert!(install_steps > 40, "{install_steps}");
    let relative = |temp: &Temp| -> BTreeMap<PathBuf, String> {
        let times = |text: String| {
            text.split("SystemTime").next().map(str::to_owned).unwrap() + text.split(" [").nth(1).unwrap_or_default()
        };
        temp.snapshot()
            .into_iter()
            .map(|(path, text)| (path.strip_prefix(&temp.0).unwrap().to_owned(), times(text)))
            .collect()
    };
    for steps in 0..install_steps {
        for go_on in [false, true] {
            let temp = varied();
            let before = temp.snapshot();
            temp.open_for(steps).install(&mirror(), &targets()).unwrap_err();
            if go_on {
                temp.open().install(&mirror(), &targets()).unwrap();
                let (mut found, mut expected) = (relative(&temp), relative(&undisturbed));
                // The journal may remember more than one text.
                found.remove(Path::new("certs.d/.shoal/journal"));
                expected.remove(Path::new("certs.d/.shoal/journal"));
                assert_eq!(found, expected, "after {steps} steps");
            }
            temp.open().restore().unwrap();
            assert_eq!(temp.snapshot(), before, "after {steps} steps");
        }
    }
    for steps in 0.. {
        let temp = varied();
        let before = temp.snapshot();
        temp.open().install(&mirror(), &targets()).unwrap();
        let after = temp.snapshot();
        let done = temp.open_for(steps).restore().is_ok();
        nothing_is_torn(&temp, &before, &after);
        if steps % 2 == 0 {
            temp.open().install(&mirror(), &targets()).unwrap();
        }
        temp.open().restore().unwrap();
        assert_eq!(temp.snapshot(), before, "after {steps} steps");
        if done {
            break;
        }
    }
}

#[test]
fn a_crash_while_the_mirror_moves_is_made_good() {
    let other = Mirror { address: "127.0.0.1:6060".parse().unwrap(), secret: None };
    for steps in 0.. {
        let temp = varied();
        let before = temp.snapshot();
        temp.open().install(&mirror(), &targets()).unwrap();
        let done = temp.open_for(steps).install(&other, &targets()).is_ok();
        if steps % 3 > 0 {
            let _ = temp.open_for(steps % 7).install(&mirror(), &targets());
        }
        temp.open().restore().unwrap();
        assert_eq!(temp.snapshot(), before, "after {steps} steps");
        if done {
            break;
        }
    }
}

#[test]
fn the_chain_is_what_was_configured_before_us() {
    let temp = varied();
    let chain = |name: &str| existing_chain(&temp.root(), &host(name)).unwrap();
    let registry = Upstream { pull: true, resolve: true, ..Upstream::default() };
    let at = |path: &str| temp.root().join(path);
    let harbor = |directory: &str| {
        let api_root = Some("https://harbor.example/v2".to_owned());
        let first = Upstream {
            api_root: api_root.clone(),
            pull: true,
            ca: vec![at(directory).join("harbor.crt")],
            ..Upstream::default()
        };
        vec![first, Upstream { api_root, ..registry.clone() }]
    };
    for installed in [false, true] {
        if installed {
            temp.open().install(&mirror(), &targets()).unwrap();
        }
        assert_eq!(chain("docker.io"), harbor("docker.io"));
        assert_eq!(chain("alias.io"), harbor("docker.io"));
        assert_eq!(chain("linked.io"), harbor("linked.io"));
        // The empty file of the directory that counts.
        assert_eq!(chain("r.io:5000"), std::slice::from_ref(&registry));
        assert_eq!(chain("wrong.io"), std::slice::from_ref(&registry));
        assert_eq!(chain("new.io"), std::slice::from_ref(&registry));
        assert_eq!(chain("plain.io:80"), std::slice::from_ref(&registry));
        let certificates = Upstream {
            ca: vec![at("certs.io/ca.crt")],
            client: vec![(at("certs.io/me.cert"), Some(at("certs.io/me.key")))],
            ..registry.clone()
        };
        assert_eq!(chain("certs.io"), [certificates]);
    }
    temp.make(
        "all.io/hosts.toml",
        "
        server = 'all.io'
        skip_verify = true
        [host.'https://b.example/v2/cache/']
        override_path = true
        client = ['/b.pem', ['b.cert', 'b.key']]
        [host.'a.example/hub'.header]
        x = ['1', '2']
        [host.'a.example/hub']
        capabilities = ['PULL', 'resolve', 'push']
        ",
    );
    let [b, a, server] = &chain("all.io")[..] else { panic!("{:?}", chain("all.io")) };
    assert_eq!(b.api_root.as_deref(), Some("https://b.example/v2/cache"));
    let pair = (at("all.io/b.cert"), Some(at("all.io/b.key")));
    assert_eq!(b.client, [(PathBuf::from("/b.pem"), None), pair]);
    assert_eq!(a.api_root.as_deref(), Some("https://a.example/hub/v2"));
    assert_eq!(a.headers, [("x".to_owned(), "1".to_owned()), ("x".to_owned(), "2".to_owned())]);
    assert!(a.pull && a.resolve && !a.skip_verify);
    assert_eq!((server.api_root.as_deref(), server.skip_verify), (Some("https://all.io/v2"), true));
}

#[test]
fn sections_find_their_place() {
    let (head, tail) = ("server = \"s\"\n", "[host.\"https://a\"]\n");
    let cases = [
        (String::new(), String::new(), String::new()),
        (head.to_owned(), String::new(), String::new()),
        (String::new(), tail.to_owned(), String::new()),
        (head.to_owned(), tail.to_owned(), String::new()),
        (format!("{head}\n"), format!("  # About a.\n# More.\n  {tail}"), "comments".to_owned()),
        ("# Only a comment.\n".to_owned() + head + "\n", tail.to_owned(), "comment".to_owned()),
        (String::new(), format!("# About a.\n{tail}[host.\"https://a\".header]\nx = 1\n"), "at once".to_owned()),
        ("x = \"\"\"\n[host.\"b\"]\n\"\"\"\n".to_owned(), tail.to_owned(), "a text".to_owned()),
        (String::new(), "[other]\n[host.\"https://a\"]\r\n".to_owned(), "other tables".to_owned()),
        (String::new(), "[[other]]\nx = 1\n".to_owned(), "lists of tables".to_owned()),
    ];
    for (before, after, what) in cases {
        let text = text::insert(&format!("{before}{after}"), &mirror()).unwrap();
        assert_eq!(text, format!("{before}{SECTION}{after}"), "{what}");
        assert_eq!(text::cut(&text).unwrap(), format!("{before}{after}"));
    }
    assert_eq!(text::insert("server = \"s\"", &mirror()).unwrap(), format!("server = \"s\"\n{SECTION}"));
    for refused in ["[host", "host = 1", "host = {}", "[host.\"http://127.0.0.1:5050\"]", "[[host]]\nx = 1\n"] {
        let reason = text::insert(refused, &mirror()).unwrap_err();
        assert!(!reason.contains('\n') && reason.contains(": "), "{refused}: {reason}");
    }
}

#[test]
fn errors_say_what_to_do() {
    let temp = Temp::new();
    let missing = CertsDir::open(&temp.0.join("nothing")).unwrap_err().to_string();
    assert!(missing.contains("nothing: not a readable directory") && missing.contains("config_path"), "{missing}");
    let held = temp.open();
    let busy = CertsDir::open(&temp.root()).unwrap_err();
    assert!(matches!(busy, HostsError::Busy { .. }), "{busy}");
    drop(held);
    for journal in [
        "",
        "{\"version\": 2, \"directories\": {}}",
        "{\"version\": 1, \"directories\": {\"../x\": {\"made\": true, \"written\": []}}}",
    ] {
        temp.make(".shoal/journal", journal);
        let error = temp.open().restore().unwrap_err().to_string();
        assert!(error.contains(".shoal/journal: ") && !error.contains('\n'), "{error}");
    }
    fs::remove_file(temp.root().join(".shoal/journal")).unwrap();
    temp.make(".shoal/docker.io.saved", OTHERS);
    assert!(temp.open().restore().is_err());
    for (name, value) in [("", "x"), ("a b", "x"), ("a", ""), ("a", "x\ny"), ("a", "é")] {
        assert!(SecretHeader::new(name, value).is_err());
    }
    assert_eq!(format!("{:?}", SecretHeader::new("a", "secret").unwrap()), "SecretHeader(a: …)");
}

/// A directory of a random tree.
fn arbitrary_directory() -> impl Strategy<Value = (String, Vec<(String, String)>)> {
    const NAMES: [&str; 6] = ["_default", "docker.io", "r.io:5000", "r.io_5000_", "other.io", "not a host"];
    let toml = "(server = \"https://[ab]\"\n)?(# c\n)?(\n\\[host\\.\"https://[a-c]\"\\]\n( capabilities = \\[\"pull\"\\]\n)?){0,1}";
    let text = prop_oneof![4 => toml, 1 => "[\\[\\]a-c=\"\n#]{0,20}", 1 => Just(String::new())];
    let hosts =
        prop_oneof![4 => text, 1 => Just("->../other.io/hosts.toml".to_owned()), 1 => Just("->gone".to_owned())];
    let file = prop_oneof![
        4 => hosts.prop_map(|text| ("hosts.toml".to_owned(), text)),
        1 => Just(("ca.crt".to_owned(), "PEM".to_owned())),
        1 => Just(("sub/hosts.toml".to_owned(), "x".to_owned())),
    ];
    (prop::sample::select(&NAMES[..]).prop_map(str::to_owned), prop::collection::vec(file, 0..3))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn install_and_restore_is_the_identity(
        tree in prop::collection::vec(arbitrary_directory(), 0..5),
        all: bool,
        link in prop::option::of("(docker\\.io|\\.\\.|gone)"),
        crash in prop::option::of(0_usize..40),
    ) {
        let temp = Temp::new();
        for (directory, files) in tree {
            fs::create_dir_all(temp.root().join(&directory)).unwrap();
            for (file, text) in files {
                let path = format!("{directory}/{file}");
                if fs::symlink_metadata(temp.root().join(&path)).is_err() {
                    temp.make(&path, &text);
                }
            }
        }
        if let Some(target) = link {
            temp.make("linked.io", &format!("->{target}"));
        }
        let before = temp.snapshot();
        let chains = || ["docker.io", "r.io:5000", "linked.io", "new.io"].map(|name| existing_chain(&temp.root(), &host(name)).unwrap());
        let configured = chains();
        let targets = Targets { rest: all, ..only(&["docker.io", "r.io:5000", "linked.io", "new.io"]) };
        match crash {
            Some(steps) => drop(temp.open_for(steps).install(&mirror(), &targets)),
            None => drop(temp.open().install(&mirror(), &targets).unwrap()),
        }
        prop_assert_eq!(chains(), configured);
        temp.open().restore().unwrap();
        prop_assert_eq!(temp.snapshot(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_mirror_is_in_front_while_it_answers() {
    let temp = Temp::new();
    temp.make("r.example/hosts.toml", OTHERS);
    let before = temp.snapshot();
    let (answering, stop) = (Cell::new(false), CancellationToken::new());
    let looks = Cell::new(0);
    let answers = async || {
        looks.set(looks.get() + 1);
        answering.get()
    };
    let (root, mirror, targets) = (temp.root(), mirror(), Targets { rest: true, ..Targets::default() });
    let keeping = keep(&root, &mirror, &targets, answers, &stop);
    let in_front = |name: &str| temp.read(&format!("{name}/hosts.toml")).contains("127.0.0.1:5050");
    let watching = async {
        let more = async |count: u32| {
            let until = looks.get() + count;
            while looks.get() < until {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        };
        more(2).await;
        assert_eq!(temp.snapshot(), before, "nobody answers");
        answering.set(true);
        more(1).await;
        assert!(in_front("r.example") && in_front("_default"));
        // k3s writes its own files anew when it starts.
        temp.make("r.example/hosts.toml", OTHERS);
        more(2).await;
        assert!(in_front("r.example"), "what was written over it has it again");
        answering.set(false);
        more(1).await;
        assert!(in_front("r.example"), "one look is an agent that starts again");
        more(2).await;
        assert_eq!(temp.read("r.example/hosts.toml"), OTHERS, "the mirror is gone");
        let gone = temp.snapshot();
        assert!(gone.keys().eq(before.keys()), "{gone:?}");
        answering.set(true);
        more(1).await;
        assert!(in_front("_default"));
        stop.cancel();
        gone
    };
    let (kept, before) = tokio::join!(keeping, watching);
    kept.unwrap();
    assert_eq!(temp.snapshot(), before, "taken back at the end");
}
