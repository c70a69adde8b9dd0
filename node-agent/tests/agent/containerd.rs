//! A real containerd of its own, with root, state and socket in a directory that goes with it.
//!
//! State: its process. Invariants: nothing outside the directory is touched; the process is killed and awaited at the end, also of a test
//! that fails. Absent on purpose: containers. What is tested is images, and nothing is run.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Longer than it takes to start on a busy machine.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// Longer than a call takes there.
const CALL_WITHIN: &str = "60";

pub(crate) struct Containerd {
    dir: PathBuf,
    child: Child,
}

impl Containerd {
    /// Starts one; none, and a loud word, where there is no containerd or no right to start it.
    pub(crate) fn start() -> Option<Self> {
        Self::started(false)
    }

    fn started(cri: bool) -> Option<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let version = Command::new("containerd").arg("--version").output();
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
        if version.is_err() || !is_root {
            eprintln!("SKIPPED: this test needs root, and containerd and ctr in the PATH (apt-get install containerd)");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("shoal-containerd-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let at = dir.display();
        let off = [
            if cri { "snapshotter.v1.none" } else { "grpc.v1.cri" },
            "internal.v1.opt",
            "snapshotter.v1.aufs",
            "snapshotter.v1.btrfs",
            "snapshotter.v1.devmapper",
            "snapshotter.v1.zfs",
        ]
        .map(|plugin| format!("\"io.containerd.{plugin}\""))
        .join(", ");
        // Blobs that no image holds would be collected some moments after the start.
        let config = format!(
            "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\ndisabled_plugins = [{off}]\n\
             [grpc]\naddress = \"{at}/grpc.sock\"\n[ttrpc]\naddress = \"{at}/ttrpc.sock\"\n\
             [plugins.\"io.containerd.gc.v1.scheduler\"]\nstartup_delay = \"1h\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\nrestrict_oom_score_adj = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"{at}/cni\"\nconf_dir = \"{at}/cni\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"{at}/certs\"\n"
        );
        std::fs::write(dir.join("config.toml"), config).unwrap();
        let child = Self::spawn(&dir);
        let started = Self { dir, child };
        started.await_answer();
        Some(started)
    }

    /// One that pulls through CRI as well.
    #[allow(dead_code, reason = "the unit tests, which share this file, have no registry")]
    pub(crate) fn with_cri() -> Option<Self> {
        Self::started(true)
    }

    /// Has CRI's pulls of a plain-http registry go to a mirror first.
    #[allow(dead_code, reason = "the unit tests, which share this file, have no registry")]
    pub(crate) fn ask_first(&self, origin: SocketAddr, mirror: SocketAddr) {
        let dir = self.dir.join("certs").join(origin.to_string());
        let host = |address| format!("[host.\"http://{address}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
        let text = format!("server = \"http://{origin}\"\n{}{}", host(mirror), host(origin));
        std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(dir.join("hosts.toml"), text)).unwrap();
    }

    fn spawn(dir: &Path) -> Child {
        let log = std::fs::File::create(dir.join("log")).unwrap();
        Command::new("containerd")
            .args(["--log-level", "warn", "--config"])
            .arg(dir.join("config.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    fn await_answer(&self) {
        let until = Instant::now() + STARTS_WITHIN;
        while !self.try_ctr(&["version"]).status.success() {
            assert!(Instant::now() < until, "containerd doesn't start: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again after [`Self::kill`].
    pub(crate) fn restart(&mut self) {
        self.child = Self::spawn(&self.dir);
        self.await_answer();
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("grpc.sock")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// `ctr` in the kubelet's namespace; it has to succeed.
    pub(crate) fn ctr(&self, args: &[&str]) -> String {
        let output = self.try_ctr(args);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "ctr {args:?}: {error}; {}", self.log());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn try_ctr(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// `ctr`, to be started; it ends by itself within a minute.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-k", "5", CALL_WITHIN, "ctr", "-n", "k8s.io", "-a"]).arg(self.socket()).args(args);
        command.stdin(Stdio::null());
        command
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
