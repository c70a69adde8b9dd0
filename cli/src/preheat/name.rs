//! What a preheated artifact is called, in its Swarm and as a Swarm of its own.
//!
//! State: none. Invariant: the same reference and selector always give the same name, in every version: that is how it is found again to be undone.

use shoal_api::Reference;

/// What the API server takes for an artifact's name.
const LONGEST: usize = 63;

/// `preheat-pytorch-2-9-1c6e85bf`: what people recognise, and what tells it from others that look alike.
pub(super) fn name(reference: &Reference, nodes: &str) -> String {
    let repository = reference.repository().rsplit('/').next().unwrap_or_default();
    let words = format!("{repository} {}", reference.tag().unwrap_or_default());
    let words: Vec<&str> = words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let mut readable = format!("preheat-{}", words.join("-").to_ascii_lowercase());
    let hash = format!("-{:08x}", hash(format!("{reference} {nodes}").as_bytes()));
    readable.truncate(LONGEST - hash.len());
    readable.truncate(readable.trim_end_matches('-').len());
    readable + &hash
}

/// FNV-1a: it must be the same for ever, and keep apart what one user has.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_recognisable_short_and_apart() {
        let of = |text: &str, nodes| name(&text.parse().unwrap(), nodes);
        let torch = of("r.io/ml/PyTorch:2.9".to_lowercase().as_str(), "");
        assert!(torch.starts_with("preheat-pytorch-2-9-"), "{torch}");
        assert_eq!(torch, of("r.io/ml/pytorch:2.9", ""));
        assert_ne!(torch, of("s.io/ml/pytorch:2.9", ""));
        assert_ne!(torch, of("r.io/ml/pytorch:2.9", "gpu=a100"));
        assert_eq!(hash(b"a"), 0xe40c_292c, "as everybody's FNV-1a");
        let long = of(&format!("r.io/{}:{}", "a".repeat(200), "B_".repeat(60)), "");
        assert_eq!(long.len(), LONGEST);
        let digest = of(&format!("r.io/a@sha256:{}", "0".repeat(64)), "");
        assert!(digest.starts_with("preheat-a-") && digest.len() == "preheat-a-".len() + 8, "{digest}");
    }
}
