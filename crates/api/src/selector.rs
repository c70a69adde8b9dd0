//! Label selectors, as Kubernetes has them.
//!
//! State: none. Absent on purpose: the type of k8s-openapi, which agents outside of clusters would compile for nothing else.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which labels a node must have. An empty selector matches every node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels and the values that they must have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Requirements that must hold as well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Vec<Requirement>,
}

/// What a label must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = crate::rules::requirement()))]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// How it is compared: In, NotIn, Exists or DoesNotExist.
    pub operator: Operator,
    /// The values for In and NotIn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operator {
    /// The label has one of the values.
    In,
    /// The label is missing or has another value.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is missing.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether something with these labels is meant.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.holds(labels.get(&requirement.key)))
    }
}

impl Requirement {
    fn holds(&self, value: Option<&String>) -> bool {
        let listed = value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_match_as_in_kubernetes() {
        let labels = BTreeMap::from([("os".to_owned(), "linux".to_owned()), ("gpu".to_owned(), "a100".to_owned())]);
        let require = |key: &str, operator, values: &[&str]| LabelSelector {
            match_expressions: vec![Requirement {
                key: key.into(),
                operator,
                values: values.iter().map(|value| (*value).to_owned()).collect(),
            }],
            ..LabelSelector::default()
        };
        let label = |key: &str, value: &str| LabelSelector {
            match_labels: BTreeMap::from([(key.to_owned(), value.to_owned())]),
            ..LabelSelector::default()
        };
        let cases = [
            (LabelSelector::default(), true),
            (label("os", "linux"), true),
            (label("os", "windows"), false),
            (label("zone", "a"), false),
            (require("gpu", Operator::In, &["h100", "a100"]), true),
            (require("gpu", Operator::In, &["h100"]), false),
            (require("zone", Operator::In, &["a"]), false),
            (require("gpu", Operator::NotIn, &["h100"]), true),
            (require("zone", Operator::NotIn, &["a"]), true),
            (require("gpu", Operator::NotIn, &["a100"]), false),
            (require("gpu", Operator::Exists, &[]), true),
            (require("zone", Operator::Exists, &[]), false),
            (require("zone", Operator::DoesNotExist, &[]), true),
            (require("gpu", Operator::DoesNotExist, &[]), false),
        ];
        for (selector, expected) in cases {
            assert_eq!(selector.matches(&labels), expected, "{selector:?}");
        }
    }
}
