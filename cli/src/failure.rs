//! Why a command didn't do what it was told, and the exit code that says so to a script.
//!
//! State: none. Invariants: what is shown is one line that says what to do; the codes are those of [`EXIT_CODES`].

use kube::core::Status;

/// What `--help` says of them.
pub(crate) const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 refused, unreachable, not found, or a Swarm is stalled; 2 wrong arguments or kubeconfig; \
3 not there yet when --timeout had passed; 130 interrupted.";

/// A failure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Before anything was asked of a cluster.
    #[error("{0}")]
    Usage(String),
    /// The cluster's answer, or that there is none.
    #[error("{0}")]
    Failed(String),
    /// What was waited for hasn't come.
    #[error("{0}")]
    NotYet(String),
    /// By Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// What is printed has no reader any more, as with `| head`: no failure.
    #[error("nobody reads the output")]
    NobodyReads,
}

impl Failure {
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::NobodyReads => 0,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::NotYet(_) => 3,
            Self::Interrupted => 130,
        }
    }
}

/// What the API server's answer means for who asked; `what` is what was asked for.
impl Failure {
    pub(crate) fn of_request(what: &str, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(answer) => Self::of_answer(what, answer),
            kube::Error::Auth(error) => {
                Self::Failed(one_line(&format!("the kubeconfig's credentials can't be had ({error}): see its user")))
            }
            kube::Error::SerdeError(error) => Self::Failed(one_line(&format!(
                "{what}: the API server's answer can't be read ({error}): is this program as new as the operator?"
            ))),
            error => Self::Failed(one_line(&format!(
                "{what}: the API server doesn't answer ({}): check the kubeconfig and the network",
                innermost(error)
            ))),
        }
    }

    pub(crate) fn of_answer(what: &str, answer: &Status) -> Self {
        let message = one_line(&answer.message);
        Self::Failed(match answer.code {
            401 => {
                format!("{what}: the API server doesn't know who you are: log in again, or choose another --context")
            }
            403 => format!("{what}: not allowed ({message}): ask for the right, or choose another --context"),
            // An object that isn't there is told by its name; a resource that isn't, by nothing.
            404 if answer.message.contains("the server could not find the requested resource")
                || answer.message.starts_with("404 page not found") =>
            {
                NOT_INSTALLED.to_owned()
            }
            404 => format!("{what}: not found: see `kubectl swarm status`"),
            _ => format!("{what}: {message}"),
        })
    }
}

const NOT_INSTALLED: &str = "the cluster knows no Swarms: install Shoal's chart, or choose another --context";

/// The cause at the bottom: what is above says no more than that there was one.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// A message of several lines as one, without what would move a terminal's cursor.
pub(crate) fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).collect();
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_that_moves_no_cursor() {
        assert_eq!(one_line("a\n  b\t\u{1b}[31mc\r\n"), "a b [31mc");
    }
}
