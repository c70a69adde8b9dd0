//! What the Secret of the CA holds.
//!
//! | key | what |
//! |---|---|
//! | `signing.pem` | the key that signs, and its certificate |
//! | `next.pem` | the key that will sign next, and its certificate, which is trusted already |
//! | `retired.pem` | the certificate that signed before, and is trusted still |
//! | `since` | when that began, in seconds since 1970 |
//!
//! State: those. Invariant: `next.pem` and `retired.pem` aren't there both ([`Stage`]).
//! Absent on purpose: `tls.crt` and `tls.key`: nobody serves with a root.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use shoal_tracker_server::{Authority, AuthorityError};

use super::plan::{ROOT_LIFE, Stage, due_at};

const SIGNING: &str = "signing.pem";
const NEXT: &str = "next.pem";
const RETIRED: &str = "retired.pem";
const SINCE: &str = "since";

/// The data of a Secret.
pub(super) type Data = BTreeMap<String, ByteString>;

/// The roots.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Roots {
    signing: String,
    beside: Beside,
    since: SystemTime,
}

/// The root beside the one that signs.
#[derive(Clone, PartialEq, Eq)]
enum Beside {
    Nothing,
    Next(String),
    Retired(String),
}

/// The Secret isn't one of these.
#[derive(Debug, thiserror::Error)]
pub(super) enum RootsError {
    #[error("it has no {0}")]
    Missing(&'static str),
    #[error("its {0} can't be read")]
    Malformed(&'static str),
    #[error("it has both {NEXT} and {RETIRED}")]
    Both,
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl Roots {
    /// New ones.
    pub(super) fn generate() -> Result<Self, AuthorityError> {
        Self::generate_for(ROOT_LIFE)
    }

    pub(super) fn generate_for(life: Duration) -> Result<Self, AuthorityError> {
        let signing = Authority::generate_for(life)?.to_pem();
        Ok(Self { signing, beside: Beside::Nothing, since: SystemTime::now() })
    }

    pub(super) fn read(data: &Data) -> Result<Self, RootsError> {
        let text = |key: &'static str| {
            let bytes = data.get(key).map(|bytes| bytes.0.clone());
            bytes.map(|bytes| String::from_utf8(bytes).map_err(|_| RootsError::Malformed(key))).transpose()
        };
        let since = text(SINCE)?.ok_or(RootsError::Missing(SINCE))?;
        let since = since.trim().parse().map_err(|_| RootsError::Malformed(SINCE))?;
        let since = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(since));
        let roots = Self {
            signing: text(SIGNING)?.ok_or(RootsError::Missing(SIGNING))?,
            beside: match (text(NEXT)?, text(RETIRED)?) {
                (None, None) => Beside::Nothing,
                (Some(next), None) => Beside::Next(next),
                (None, Some(retired)) => Beside::Retired(retired),
                (Some(_), Some(_)) => return Err(RootsError::Both),
            },
            since: since.ok_or(RootsError::Malformed(SINCE))?,
        };
        // What can't be used isn't taken.
        roots.authority()?;
        Ok(roots)
    }

    pub(super) fn data(&self) -> Data {
        let since = self.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs().to_string();
        let beside = match &self.beside {
            Beside::Nothing => None,
            Beside::Next(pem) => Some((NEXT, pem)),
            Beside::Retired(pem) => Some((RETIRED, pem)),
        };
        let texts = [(SIGNING, &self.signing), (SINCE, &since)].into_iter().chain(beside);
        texts.map(|(key, text)| (key.to_owned(), ByteString(text.clone().into_bytes()))).collect()
    }

    /// What signs and is trusted now.
    pub(super) fn authority(&self) -> Result<Authority, AuthorityError> {
        let signing = Authority::from_pem(&self.signing)?;
        match &self.beside {
            Beside::Nothing => Ok(signing),
            Beside::Next(next) => signing.trusting(&Authority::from_pem(next)?.certificate_pem()),
            Beside::Retired(retired) => signing.trusting(retired),
        }
    }

    /// When the next step is due.
    pub(super) fn due_at(&self) -> Result<SystemTime, AuthorityError> {
        let stage = match self.beside {
            Beside::Nothing => Stage::Resting,
            Beside::Next(_) => Stage::Prepared,
            Beside::Retired(_) => Stage::Switched,
        };
        Ok(due_at(stage, self.since, Authority::from_pem(&self.signing)?.expires_at()))
    }

    /// As they are after the next step.
    pub(super) fn stepped(&self, now: SystemTime) -> Result<Self, AuthorityError> {
        let (signing, beside) = match &self.beside {
            Beside::Nothing => (self.signing.clone(), Beside::Next(Authority::generate_for(ROOT_LIFE)?.to_pem())),
            Beside::Next(next) => {
                (next.clone(), Beside::Retired(Authority::from_pem(&self.signing)?.certificate_pem()))
            }
            Beside::Retired(_) => (self.signing.clone(), Beside::Nothing),
        };
        Ok(Self { signing, beside, since: now })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_steps_bring_another_root_and_each_trusts_what_the_one_before_signs() {
        let mut roots = Roots::generate().unwrap();
        let first = roots.authority().unwrap();
        let mut before = roots.authority().unwrap();
        let mut counts = Vec::new();
        for _ in 0..3 {
            roots = roots.stepped(roots.due_at().unwrap()).unwrap();
            let again = Roots::read(&roots.data()).unwrap();
            assert_eq!(again.data(), roots.data());
            let now = roots.authority().unwrap();
            let signs = |authority: &Authority| authority.trust().certificates()[0].clone();
            assert!(now.trust().certificates().contains(&signs(&before)), "the old one's certificates are taken");
            assert!(before.trust().certificates().contains(&signs(&now)), "the new one's are, too");
            counts.push(now.trust().certificates().len());
            before = now;
        }
        assert_eq!(counts, [2, 2, 1]);
        assert_ne!(before.fingerprint(), first.fingerprint());
    }

    #[test]
    fn what_isnt_whole_is_refused() {
        let whole = Roots::generate().unwrap().stepped(SystemTime::now()).unwrap().data();
        assert!(Roots::read(&whole).is_ok());
        let with = |key: &str, value: Option<&str>| {
            let mut data = whole.clone();
            match value {
                Some(value) => drop(data.insert(key.to_owned(), ByteString(value.as_bytes().to_vec()))),
                None => drop(data.remove(key)),
            }
            Roots::read(&data).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(with(SINCE, None), "it has no since");
        assert_eq!(with(SINCE, Some("x")), "its since can't be read");
        assert_eq!(with(SINCE, Some("18446744073709551615")), "its since can't be read");
        assert_eq!(with(SIGNING, None), "it has no signing.pem");
        assert_eq!(with(RETIRED, Some("")), "it has both next.pem and retired.pem");
        assert!(with(SIGNING, Some("x")).contains("no Ed25519 private key"));
        assert!(with(NEXT, Some("x")).contains("no Ed25519 private key"));
    }
}
