//! What the program says when it is started wrongly. (The program itself is tried against a real API server by e2e.)

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-operator"));
    // Neither this machine's cluster nor a developer's settings are meant.
    command.args(arguments).env_clear().output().unwrap()
}

#[test]
fn what_is_wrong_is_said_with_what_to_do_and_the_exit_code_is_2() {
    let replica = ["run", "--namespace", "x", "--pod-name", "y", "--pod-ip", "127.0.0.1"];
    let with = |more: &[&'static str]| [&replica[..], more].concat();
    for (arguments, said) in [
        (vec!["run"], "--namespace <NAME>"),
        (with(&["--nonsense"]), "unexpected argument '--nonsense'"),
        (with(&[]), "run in a pod with a service account, or give --kubeconfig FILE"),
        (with(&["--kubeconfig", "/none"]), "check the kubeconfig"),
    ] {
        let output = run(&arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.starts_with("error: ") && text.contains(said), "{arguments:?}: {text}");
    }
}
