//! A process that is killed while it writes, again and again.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use shoal_store::{DiskStore, Store};
use shoal_types::{ChunkSet, Rng};

use crate::support::{Content, NO_QUOTA, TempDir, limits};

const ROUNDS: u64 = 16;
const DIR_VARIABLE: &str = "SHOAL_STORE_TEST_WRITER_DIR";
const SEED_VARIABLE: &str = "SHOAL_STORE_TEST_WRITER_SEED";

fn contents() -> Vec<Content> {
    (0..4).map(|seed| Content::chunks(seed, 40)).collect()
}

/// The process that is killed: this same test binary, told by its environment to write.
#[test]
fn writer() {
    let Some(dir) = std::env::var_os(DIR_VARIABLE) else { return };
    let seed = std::env::var(SEED_VARIABLE).unwrap().parse().unwrap();
    let store = DiskStore::open(Path::new(&dir), limits(NO_QUOTA)).unwrap();
    let contents = contents();
    let mut rng = Rng::new(seed);
    for content in &contents {
        store.begin(content.info).unwrap();
    }
    loop {
        let at = rng.below(contents.len());
        let content = &contents[at];
        let verified = store.stored(&content.key()).unwrap().verified;
        let missing: Vec<_> = verified.iter_missing().collect();
        match rng.choose(&missing) {
            Some(chunk) => {
                content.keep_in(&store, chunk.get()).unwrap();
                println!("\nkept {at} {chunk}");
            }
            None => {
                store.seal(&content.key()).unwrap();
                // So that there is always something to write.
                store.remove(&content.key()).unwrap();
                println!("\nremoved {at}");
                store.begin(content.info).unwrap();
            }
        }
    }
}

#[test]
fn sixteen_kills_lose_nothing_that_was_verified() {
    let dir = TempDir::new();
    let contents = contents();
    let mut said: Vec<ChunkSet> = contents.iter().map(|content| ChunkSet::empty(content.count())).collect();
    let (mut reused, mut verified_before) = (0_usize, 0_usize);
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::writer", "--nocapture", "--test-threads=1"])
            .env(DIR_VARIABLE, dir.path())
            .env(SEED_VARIABLE, round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut until_kill = Rng::new(round).below(60);
        // What it said before it was killed, and what was still in the pipe then.
        while let Some(Ok(line)) = lines.next() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["kept", at, chunk] => {
                    let chunk = shoal_types::ChunkIndex::new(chunk.parse().unwrap());
                    said[at.parse::<usize>().unwrap()].insert(chunk);
                }
                ["removed", at] => {
                    let at = at.parse::<usize>().unwrap();
                    said[at] = ChunkSet::empty(contents[at].count());
                }
                _ => continue,
            }
            if until_kill == 0 {
                child.kill().unwrap();
            }
            until_kill = until_kill.saturating_sub(1);
        }
        child.wait().unwrap();

        let store = DiskStore::open(dir.path(), limits(NO_QUOTA)).unwrap();
        for (content, said) in contents.iter().zip(&mut said) {
            let stored = store.stored(&content.key());
            let verified = stored.map_or_else(
                || ChunkSet::empty(content.count()),
                |stored| {
                    assert!(stored.suspect.is_empty());
                    stored.verified
                },
            );
            // A blob that is whole may have been removed just before it could say so.
            let removed_unsaid = verified.is_empty() && said.is_full();
            if !removed_unsaid {
                verified_before += said.len() as usize;
                reused += said.iter().filter(|chunk| verified.contains(*chunk)).count();
            }
            if store.stored(&content.key()).is_some() {
                content.check_in(&store, &verified);
            }
            *said = verified;
        }
    }
    println!("{reused} of {verified_before} verified chunks were used again after {ROUNDS} kills; no wrong byte");
    assert!(verified_before > 100, "the writer wrote");
    assert_eq!(reused, verified_before, "kept means kept");
}
