//! The containers' arguments are flags that our programs take.

use clap::Parser;
use serde_json::Value;

use crate::helm::{Helm, REGISTRY, find};
use crate::rendered::EVERYTHING;

/// What a container is started with; flags in place of the variables that a pod has and a test doesn't.
pub(crate) fn arguments(template: &Value, container: &str, variables: &[&str]) -> Vec<String> {
    let containers = template["spec"]["containers"].as_array().unwrap();
    let container = containers.iter().find(|found| found["name"] == container).unwrap();
    let args = container["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap().to_owned());
    std::iter::once("program".to_owned()).chain(args).chain(variables.iter().map(|&flag| flag.to_owned())).collect()
}

#[test]
fn programs_take_what_the_chart_gives_them() {
    let Some(helm) = Helm::get() else { return };
    for more in [&[][..], EVERYTHING] {
        let args: Vec<&str> = ["--set", REGISTRY].into_iter().chain(more.iter().copied()).collect();
        let objects = helm.objects(&args);
        let operator = &find(&objects, "Deployment", "shoal-operator")["spec"]["template"];
        let in_a_pod = ["--namespace=shoal", "--pod-name=o-1", "--pod-ip=10.0.0.1,fd00::1"];
        shoal_operator::Cli::try_parse_from(arguments(operator, "operator", &in_a_pod)).unwrap();
        let agent = &find(&objects, "DaemonSet", "shoal-agent")["spec"]["template"];
        shoal_agent::cli::Cli::try_parse_from(arguments(agent, "agent", &["--node-name=a"])).unwrap();
        shoal_agent::cli::Cli::try_parse_from(arguments(agent, "hosts", &[])).unwrap();
        let test = find(&objects, "Pod", "shoal-test-pull");
        shoal_agent::cli::Cli::try_parse_from(arguments(test, "pull", &[])).unwrap();
    }
}
