//! The tracker's files: the Swarm and the registries' credentials, read again when they change, and the join token, made if there is none.
//!
//! State: when the first two were written last.
//! Invariants: a Swarm that can't be read never takes the place of one that could. A token file is readable by its owner alone, and there
//! with all its text or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use shoal_api::{Document, Policy};
use shoal_origins::DockerConfig;
use shoal_tracker_server::{Authority, JoinToken};

use crate::agent::StartError;

/// The largest Swarm file: 256 registries with a CA bundle each are less.
const MAX_BYTES: u64 = 1 << 20;

/// The Swarm's file.
#[derive(Debug)]
pub(super) struct SwarmFile {
    path: PathBuf,
    /// Time and length: a file that is written twice within the clock's tick differs in its length, mostly.
    seen: Option<(SystemTime, u64)>,
}

/// What it says.
#[derive(Clone, Debug)]
pub(super) struct Swarms {
    pub(super) document: Document,
    pub(super) policy: Arc<Policy>,
}

impl SwarmFile {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, seen: None }
    }

    /// Whether it has changed since it was read.
    pub(super) fn has_changed(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|file| self.seen != stamp(&file))
    }

    /// Reads it.
    pub(super) fn read(&mut self) -> Result<Swarms, StartError> {
        let failed = || StartError::file(&self.path, "reading the Swarm");
        let file = fs::metadata(&self.path).map_err(failed())?;
        if file.len() > MAX_BYTES {
            return Err(failed()(io::ErrorKind::FileTooLarge.into()));
        }
        let text = fs::read_to_string(&self.path).map_err(failed())?;
        // One that is wrong isn't read again before it changes.
        self.seen = stamp(&file);
        let document = Document::read_file(&self.path.display().to_string(), &text)?;
        // The tracker answers for all nodes, whichever Swarm selects them.
        let policy = Arc::new(Policy::compile(document.swarms().cloned()));
        for overruled in policy.overruled() {
            let (loser, winner) = (&overruled.loser, &overruled.winner);
            tracing::warn!(%loser, %winner, repositories = overruled.repositories, "two Swarms claim the same");
        }
        Ok(Swarms { document, policy })
    }
}

/// The file with the registries' credentials.
#[derive(Debug)]
pub(super) struct CredentialsFile {
    path: PathBuf,
    seen: Option<(SystemTime, u64)>,
}

impl CredentialsFile {
    /// Reads it for the first time.
    pub(super) fn open(path: PathBuf) -> Result<(Self, DockerConfig), StartError> {
        let mut file = Self { path, seen: None };
        let read = file.read()?;
        Ok((file, read))
    }

    /// Whether it has changed since it was read.
    pub(super) fn has_changed(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|file| self.seen != stamp(&file))
    }

    /// Reads it.
    pub(super) fn read(&mut self) -> Result<DockerConfig, StartError> {
        let failed = || StartError::file(&self.path, "reading the registries' credentials");
        let file = fs::metadata(&self.path).map_err(failed())?;
        if file.len() > MAX_BYTES {
            return Err(failed()(io::ErrorKind::FileTooLarge.into()));
        }
        let text = fs::read(&self.path).map_err(failed())?;
        // One that is wrong isn't read again before it changes.
        self.seen = stamp(&file);
        let read = DockerConfig::parse(&text);
        read.map_err(|error| StartError::Setting(format!("{}: {error}", self.path.display())))
    }
}

fn stamp(file: &fs::Metadata) -> Option<(SystemTime, u64)> {
    Some((file.modified().ok()?, file.len()))
}

/// Makes the token's file if there is none; one that is there must be for this CA.
pub(super) fn ensure_token(path: &Path, authority: &Authority) -> Result<(), StartError> {
    match fs::read_to_string(path) {
        Ok(text) => check(path, &text, authority),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = JoinToken::generate(authority.fingerprint())?;
            create(path, &token.reveal()).map_err(StartError::file(path, "writing the join token"))?;
            tracing::info!(file = %path.display(), "a join token was made: other hosts' agents read this file");
            Ok(())
        }
        Err(error) => Err(StartError::file(path, "reading the join token")(error)),
    }
}

fn check(path: &Path, text: &str, authority: &Authority) -> Result<(), StartError> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    for line in lines.filter(|line| !line.is_empty()) {
        let token: JoinToken = line.parse()?;
        if token.ca().is_some_and(|ca| ca != authority.fingerprint()) {
            return Err(StartError::Setting(format!(
                "{}: its token is for another CA ({} is this one): remove the file to have a new one made",
                path.display(),
                authority.fingerprint()
            )));
        }
    }
    Ok(())
}

fn create(path: &Path, token: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).and_then(|mut file| {
        writeln!(file, "{token}")?;
        file.sync_all()
    });
    // A link doesn't replace a file that somebody else has made meanwhile.
    let linked = written.and_then(|()| fs::hard_link(&new, path));
    let _ = fs::remove_file(&new);
    linked
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("shoal-standalone-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn swarm(registry: &str) -> String {
        let head = "apiVersion: shoal.dev/v1alpha1\nkind: Swarm\nmetadata: {name: test}\n";
        format!("{head}spec: {{registries: [{{host: {registry}}}]}}\n")
    }

    #[test]
    fn a_changed_file_is_noticed_once_and_a_wrong_one_is_an_error() {
        let dir = Dir::new("swarm");
        let path = dir.0.join("swarm.yaml");
        fs::write(&path, swarm("a.example")).unwrap();
        let mut file = SwarmFile::new(path.clone());
        assert!(file.has_changed());
        assert!(file.read().unwrap().policy.knows(&"a.example".parse().unwrap()));
        assert!(!file.has_changed());
        fs::write(&path, swarm("longer.example")).unwrap();
        assert!(file.has_changed());
        assert!(file.read().unwrap().policy.knows(&"longer.example".parse().unwrap()));
        fs::write(&path, "kind: Swarm").unwrap();
        let error = file.read().unwrap_err();
        assert!(error.is_configuration() && error.to_string().starts_with(&path.display().to_string()), "{error}");
        assert!(!file.has_changed(), "it is complained about once");
        fs::remove_file(&path).unwrap();
        assert!(!file.has_changed(), "a file that is gone for a moment is being replaced");
        assert!(!file.read().unwrap_err().is_configuration());
    }

    #[test]
    fn a_token_is_made_once_for_its_owner_alone_and_must_be_this_cas() {
        let dir = Dir::new("token");
        let path = dir.0.join("token");
        let authority = Authority::generate().unwrap();
        ensure_token(&path, &authority).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.trim().parse::<JoinToken>().unwrap().ca(), Some(authority.fingerprint()));
        ensure_token(&path, &authority).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        let error = ensure_token(&path, &Authority::generate().unwrap()).unwrap_err();
        assert!(error.is_configuration() && error.to_string().contains("another CA"), "{error}");
        assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 1, "nothing is left beside it");
    }
}
