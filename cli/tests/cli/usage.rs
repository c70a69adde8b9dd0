//! Wrong arguments, no cluster, and what needs none.

use crate::world::{PROGRAM, command, ended};

#[tokio::test]
async fn wrong_arguments_are_one_line_and_exit_code_2() {
    for (line, says) in [
        ("stats", "unrecognized subcommand 'stats'"),
        ("status --nonsense", "unexpected argument '--nonsense'"),
        ("status -o toml", "[possible values: json, yaml, wide, name]"),
        ("status --timeout 5m", "required arguments were not provided: --watch"),
        ("status -w --timeout 5", "write a number above zero and s, m or h"),
        ("status -w -o json", "cannot be used with"),
        ("nodes", "required arguments were not provided: <NAME>"),
        ("preheat nginx:1", "no registry: write registry/repository:tag"),
        ("preheat r.io/a:1 --nodes a=b --swarm c", "cannot be used with"),
        ("preheat r.io/a:1 --remove --wait", "cannot be used with"),
        (
            "plan --size 8gb --nodes 2 --node-rate 1Gbit --origin-rate 1Gbit",
            "bytes are written as a number and one of Ki",
        ),
        ("plan --size 8Gi --nodes 2 --node-rate fast --origin-rate 1Gbit", "Gbit"),
        ("plan --size 8Gi --nodes 0 --node-rate 1Gbit --origin-rate 1Gbit", "nodes: expected 1 to 100000, not 0"),
        ("completion tcsh", "[possible values: bash, elvish, fish, powershell, zsh]"),
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
async fn a_plan_needs_no_cluster_and_says_what_was_simulated() {
    let line = "plan --size 64Mi --nodes 8 --node-rate 1Gbit --origin-rate 1Gbit";
    let page = ended(command(line).spawn().unwrap()).await;
    assert_eq!((page.code, page.error.as_str()), (Some(0), ""));
    let (first, rest) = page.out.split_once('\n').unwrap();
    assert_eq!(first, "64Mi to 8 nodes with 1Gbit/s each, from a registry with 1Gbit/s");
    for (how, says) in [
        ("each node from the registry", "4.3s    "),
        ("the least that is possible", "537ms   "),
        ("Simulated: 8 of 8 nodes, 64Mi of 64Mi", "times the least that is possible.\n"),
    ] {
        assert!(rest.contains(how) && rest.contains(says), "{}", page.out);
    }
    let json = ended(command(&format!("{line} -o json")).spawn().unwrap()).await.out;
    let plan: serde_json::Value = serde_json::from_str(&json).unwrap();
    let seconds = |key: &str| plan[key].as_f64().unwrap();
    assert!(seconds("boundSeconds") < seconds("shoalSeconds"), "{json}");
    assert!(seconds("shoalSeconds") < seconds("clientServerSeconds"), "{json}");
}

#[tokio::test]
async fn shells_get_their_completions() {
    for (shell, says) in [
        ("bash", "complete -F _kubectl_swarm"),
        ("zsh", "#compdef kubectl-swarm"),
        ("fish", "complete -c kubectl-swarm"),
    ] {
        let script = ended(command(&format!("completion {shell}")).spawn().unwrap()).await;
        assert_eq!((script.code, script.error.as_str()), (Some(0), ""));
        assert!(script.out.contains(says) && script.out.contains("preheat"), "{shell}: {}", script.out);
    }
}

#[test]
fn bash_completes_subcommands_and_their_flags() {
    let complete = |words: &str, last: &str| {
        let script = format!(
            "source <({PROGRAM} completion bash); complete -p kubectl-swarm >/dev/null || exit 1; COMP_WORDS=({words} {last}); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _kubectl_swarm kubectl-swarm '{last}' '{words}'; echo \"${{COMPREPLY[@]}}\""
        );
        let output = std::process::Command::new("bash").args(["-c", &script]).output();
        match output {
            Ok(output) => Some(String::from_utf8(output.stdout).unwrap().trim().to_owned()),
            Err(error) => {
                eprintln!("SKIPPED: bash can't be started ({error})");
                None
            }
        }
    };
    for (words, last, expected) in [("kubectl-swarm", "sta", "status"), ("kubectl-swarm status", "--wa", "--watch")] {
        if let Some(completed) = complete(words, last) {
            assert_eq!(completed, expected, "{words} {last}");
        }
    }
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
