//! That the commands in the documents are ones that the programs take: each is given to its program with `--help` behind it, which says what is wrong with
//! the rest of the line and else does nothing.
//!
//! State: none. Absent on purpose: what the commands do. The cluster's tests install, upgrade and uninstall as the documents say.

use std::path::Path;
use std::process::Command;

/// Beside the documents in `docs/`.
const DOCUMENTS: [&str; 3] = ["README.md", "ARCHITECTURE.md", "charts/shoal/README.md"];

/// How a line begins, and the program that it starts.
const PROGRAMS: [(&str, &str); 2] = [("kubectl swarm ", "kubectl-swarm"), ("shoal-agent ", "shoal-agent")];

/// The lines of a document's blocks of shell commands, without comments.
fn commands(document: &str) -> Vec<String> {
    let (mut commands, mut inside, mut begun) = (Vec::new(), false, String::new());
    for line in document.lines() {
        if line.starts_with("```") {
            inside = line == "```sh";
            continue;
        }
        let line = line.split(" #").next().unwrap_or_default().trim();
        if !inside || line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.strip_suffix('\\') {
            Some(first) => begun += first,
            None => commands.push(std::mem::take(&mut begun) + line),
        }
    }
    commands
}

/// What a line of `cargo xtask` comes to, as far as it is one of our programs.
fn of_xtask(line: &str) -> Option<(String, String)> {
    let runs = super::tests::runs(line);
    let line = runs.strip_prefix("RELEASE/")?;
    let (program, args) = line.split_once(' ').unwrap_or((line, ""));
    Some((program.to_owned(), args.to_owned()))
}

fn takes(program: &str, args: &str) -> Option<Result<(), String>> {
    let path = super::programs().unwrap().join(program);
    if !path.exists() {
        eprintln!("SKIPPED: {program} isn't built; `cargo test` of the whole workspace builds it");
        return None;
    }
    let output = Command::new(path).args(args.split_whitespace()).arg("--help").output().unwrap();
    let said = || String::from_utf8_lossy(&output.stderr).into_owned();
    Some(if output.status.success() { Ok(()) } else { Err(said()) })
}

#[test]
fn every_command_in_the_documents_is_one_that_its_program_takes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let documents = docs.filter(|path| path.extension().is_some_and(|end| end == "md"));
    let mut found = 0;
    for path in DOCUMENTS.iter().map(|name| root.join(name)).chain(documents) {
        for line in commands(&std::fs::read_to_string(&path).unwrap()) {
            let shown = format!("{}: {line}", path.display());
            let started = match line.strip_prefix("cargo xtask ") {
                // Those of several steps have arguments of xtask's own.
                Some(rest) if ["check", "images"].contains(&rest.split(' ').next().unwrap_or_default()) => {
                    super::tests::parse(rest).expect(&shown);
                    continue;
                }
                Some(rest) => of_xtask(rest),
                None => {
                    let line = line.trim_start_matches("source <(").trim_end_matches(')');
                    let program = PROGRAMS.iter().find(|(prefix, _)| line.starts_with(prefix));
                    program.map(|(prefix, program)| ((*program).to_owned(), line[prefix.len()..].to_owned()))
                }
            };
            let Some((program, args)) = started else { continue };
            found += 1;
            if let Some(Err(said)) = takes(&program, &args) {
                panic!("{shown}\n{said}");
            }
        }
    }
    assert!(found >= 10, "{found} commands: the documents' blocks are read in another way than they are written");
}

#[test]
fn comments_go_and_continued_lines_are_one() {
    let document = "text\n```sh\na b   # c\n# d\ne \\\n    f#g\n```\n```yaml\nh\n```\n";
    assert_eq!(commands(document), ["a b", "e f#g"]);
}
