//! Wrong arguments, no cluster, and what needs none.

use crate::world::{command, ended};

#[tokio::test]
async fn wrong_arguments_are_one_line_and_exit_code_2() {
    for (line, says) in [
        ("stats", "unrecognized subcommand 'stats'"),
        ("status --nonsense", "unexpected argument '--nonsense'"),
        ("status -o toml", "[possible values: json, yaml, wide, name]"),
        ("status --timeout 5m", "required arguments were not provided: --watch"),
        ("status -w --timeout 5", "write a number above zero and s, m or h"),
        ("status -w -o json", "cannot be used with"),
    ] {
        let ended = ended(command(line).spawn().unwrap()).await;
        assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{line}: {}", ended.error);
        assert!(ended.error.starts_with("error: ") && ended.error.contains(says), "{line}: {}", ended.error);
        assert_eq!(ended.error.lines().count(), 1, "{line}: {}", ended.error);
    }
}

#[tokio::test]
async fn help_and_version_need_no_cluster() {
    for line in ["--help", "status --help"] {
        let ended = ended(command(line).spawn().unwrap()).await;
        assert_eq!((ended.code, ended.error.as_str()), (Some(0), ""), "{line}");
        assert!(
            ended.out.contains("Usage: kubectl swarm") && ended.out.contains("Exit codes: 0 done;"),
            "{}",
            ended.out
        );
    }
    let version = ended(command("--version").spawn().unwrap()).await;
    assert_eq!(version.out, format!("kubectl-swarm {}\n", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn no_kubeconfig_and_a_wrong_one_are_exit_code_2() {
    for (line, says) in [
        ("status", "error: there is no cluster to ask: give --kubeconfig, or set KUBECONFIG\n"),
        ("status --context a", "error: there is no kubeconfig for --context: give --kubeconfig, or set KUBECONFIG\n"),
        (
            "status --kubeconfig /nonexistent/file",
            "error: the kubeconfig can't be used (failed to read kubeconfig from '\"/nonexistent/file\"': \
             No such file or directory (os error 2)): see `kubectl config view`\n",
        ),
    ] {
        let ended = ended(command(line).spawn().unwrap()).await;
        assert_eq!((ended.code, ended.error.as_str()), (Some(2), says), "{line}");
    }
}
