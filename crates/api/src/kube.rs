//! The resource as `kube` knows it. Only operators and the command line need it.
//!
//! State: none. Invariant: `crds/` has what [`Swarm`]'s definition says; `cargo xtask generate` writes it. What a real API server makes of it is tested
//! in `e2e/tests/api`. Absent on purpose: a client.

pub use crate::resource::Swarm;

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt as _;
    use kube::core::Resource as _;

    use super::Swarm;

    #[test]
    fn the_definition_is_structural_and_describes_every_field() {
        let definition = serde_json::to_value(Swarm::crd()).unwrap();
        assert_eq!(Swarm::api_version(&()), format!("{}/{}", crate::GROUP, crate::VERSION));
        assert_eq!(Swarm::kind(&()), crate::KIND);
        assert_eq!(definition["spec"]["scope"], "Cluster");
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        let modes = serde_json::json!(["Auto", "PeerFirst", "OriginOnly", "Suspended"]);
        assert_eq!(schema["spec"]["properties"]["mode"]["enum"], modes);
        assert_eq!(schema["spec"]["properties"]["mode"]["default"], "Auto");
        described("spec", &schema["spec"]);
        described("status", &schema["status"]);
    }

    fn described(path: &str, schema: &serde_json::Value) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            assert!(property["description"].is_string(), "{path} has no description");
            for banned in ["oneOf", "anyOf", "$ref", "const"] {
                assert!(property[banned].is_null(), "{path} has {banned}");
            }
            described(&path, property);
            described(&path, &property["items"]);
        }
    }

    #[test]
    fn an_object_keeps_what_it_says() {
        let text = include_str!("../tests/swarm.yaml");
        let swarm: Swarm = serde_saphyr::from_str(text).unwrap();
        assert_eq!(swarm.spec.registries[0].host, "registry.example.com:5000");
        let again: Swarm = serde_json::from_value(serde_json::to_value(&swarm).unwrap()).unwrap();
        assert_eq!(again, swarm);
    }
}
