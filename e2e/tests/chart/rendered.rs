//! What helm renders: as it is checked in, for the defaults, each preset and everything at once.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::helm::{Helm, REGISTRY, chart, find};

const PRESETS: [&str; 4] = ["eks", "k3s", "rke2", "talos"];

/// What is off or empty by default, on.
pub(crate) const EVERYTHING: &[&str] = &[
    "--set=agent.defaultRegistry=docker.io,agent.downloadLimit=2Gbit,agent.mirrorTokenSecret=mirror,agent.plainPeers=true",
    "--set=agent.seLinuxOptions.type=spc_t,agent.trackers={https://a.example:9394,https://b.example:9394}",
    "--set=agent.uploadLimit=1Gbit,commonLabels.team=platform,image.pullSecrets[0].name=regcred,image.tag=1.2.3",
    "--set=monitoring.dashboard.enabled=true,monitoring.podMonitor.enabled=true,monitoring.rules.enabled=true",
    "--set=operator.secretNamespaces={team,shoal},operator.trackerNames={a.example,b.example}",
    "--set=proxy.https=http://proxy.example:3128,proxy.none=.local,otlpEndpoint=http://collector:4318,runtime.hosts.registries={r.example,s.example=http://s.example:5000}",
    "--set=operator.image.digest=sha256:0000000000000000000000000000000000000000000000000000000000000000",
    "--set=agent.extraEnv[0].name=A,agent.extraEnv[0].value=b,operator.extraEnv[0].name=A,operator.extraEnv[0].value=b",
];

/// Whether what is checked in is written anew instead of compared.
pub(crate) fn is_update() -> bool {
    std::env::var_os("SHOAL_UPDATE").is_some()
}

/// Compares a text with a file, or writes it.
pub(crate) fn compare(path: &Path, text: &str) {
    if is_update() {
        return fs::write(path, text).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    let same = expected.lines().zip(text.lines()).take_while(|(expected, text)| expected == text).count();
    assert!(
        expected == text,
        "{}, line {}: {:?} and not {:?}: look at the difference, then run the test with SHOAL_UPDATE=1",
        path.display(),
        same + 1,
        text.lines().nth(same),
        expected.lines().nth(same),
    );
}

#[test]
fn it_is_rendered_as_it_is_checked_in() {
    let Some(helm) = Helm::get() else { return };
    let preset = |name: &str| format!("--values={}", chart().join(format!("presets/{name}.yaml")).display());
    let presets = PRESETS.map(|name| (name, vec![preset(name)]));
    let everything = EVERYTHING.iter().map(|&arg| arg.to_owned()).collect();
    for (name, args) in presets.into_iter().chain([("default", Vec::new()), ("everything", everything)]) {
        // The definition is compared by `the_definition_is_the_generated_one`.
        let fixed = ["--set", REGISTRY, "--set=crds.enabled=false"];
        let args: Vec<&str> = fixed.into_iter().chain(args.iter().map(String::as_str)).collect();
        let snapshot = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/chart/snapshots/{name}.yaml"));
        compare(&snapshot, &helm.template(&args));
    }
    let there: Vec<_> = fs::read_dir(chart().join("presets")).unwrap().flatten().collect();
    assert_eq!(there.len(), PRESETS.len(), "a preset without a snapshot: {there:?}");
}

#[test]
fn helm_has_nothing_to_say_about_it() {
    let Some(helm) = Helm::get() else { return };
    let chart = chart();
    let chart = chart.to_str().unwrap();
    helm.said(["lint", "--strict", chart, "--set", REGISTRY]);
    helm.said(["lint", "--strict", chart, "--set", REGISTRY].iter().chain(EVERYTHING));
}

#[test]
fn what_is_wrong_is_refused_in_words() {
    let Some(helm) = Helm::get() else { return };
    let refused = helm.refuses(&[]);
    assert!(refused.contains("image.registry is empty: push what `cargo xtask images` writes"), "{refused}");
    for (wrong, word) in [
        ("agent.quotas=3Gi", "additional properties 'quotas' not allowed"),
        ("agnet.quota=3Gi", "additional properties 'agnet' not allowed"),
        ("runtime.containerd.sokcet=/a", "additional properties 'sokcet' not allowed"),
        ("monitoring.rules.enable=true", "additional properties 'enable' not allowed"),
        ("agent.uploadLimit=5Mb", "at '/agent/uploadLimit'"),
        ("agent.keepFree=120", "at '/agent/keepFree'"),
        ("agent.trackers={http://a:1}", "at '/agent/trackers/0'"),
        ("log.level=verbose", "at '/log/level'"),
        ("operator.image.digest=latest", "at '/operator/image/digest'"),
    ] {
        let refused = helm.refuses(&["--set", REGISTRY, "--set", wrong]);
        assert!(refused.contains(word), "{wrong}: {refused}");
    }
}

#[test]
fn the_definition_is_the_generated_one() {
    let Some(helm) = Helm::get() else { return };
    let generated = fs::read_to_string(chart().join("../../crds/shoal.dev_swarms.yaml")).unwrap();
    let generated: Value = serde_saphyr::from_str(&generated).unwrap();
    for (keep, annotation) in [(true, Value::from("keep")), (false, Value::Null)] {
        let objects = helm.objects(&["--set", REGISTRY, &format!("--set=crds.keep={keep}")]);
        let rendered = find(&objects, "CustomResourceDefinition", "swarms.shoal.dev");
        assert_eq!(rendered["spec"], generated["spec"]);
        assert_eq!(rendered["metadata"]["annotations"]["helm.sh/resource-policy"], annotation);
    }
}
