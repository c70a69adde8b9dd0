//! A tar archive as a layer of an image.
//!
//! State: the archive so far. Invariant: the same entries in the same order give the same bytes: no times, no names of users.
//! Absent on purpose: links, long names, compression (its bytes are its library's, and registries and runtimes take layers without).

/// What is in a layer. An entry's directories come before it.
#[derive(Debug, Default)]
pub(super) struct Archive(Vec<u8>);

const BLOCK: usize = 512;

impl Archive {
    /// Adds a directory that everybody may read: `etc/`.
    pub(super) fn directory(&mut self, name: &str) {
        self.header(name, b'5', 0o755, 0);
    }

    /// Adds a file that everybody may read, and run if it is a program.
    pub(super) fn file(&mut self, name: &str, is_program: bool, bytes: &[u8]) {
        self.header(name, b'0', if is_program { 0o755 } else { 0o644 }, bytes.len());
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
    }

    /// The whole archive: it ends with two empty blocks.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }

    /// A header as POSIX.1-1988 (ustar) has it; root's.
    fn header(&mut self, name: &str, kind: u8, mode: u32, size: usize) {
        let mut header = [0; BLOCK];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        assert!(name.len() <= 100, "{name} is too long for its field");
        put(0, name);
        put(100, &format!("{mode:07o}"));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{size:011o}"));
        put(136, "00000000000");
        // The sum counts its own field as spaces.
        put(148, "        ");
        put(257, "ustar\x0000");
        header[156] = kind;
        let sum: u32 = header.iter().copied().map(u32::from).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend_from_slice(&header);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn tar_reads_it() {
        let mut archive = Archive::default();
        archive.directory("etc/");
        archive.file("etc/text", false, b"twelve bytes");
        archive.file("program", true, &[7; 1024]);
        let mut tar = Command::new("tar");
        tar.args(["--numeric-owner", "-tv"]).env("TZ", "UTC").stdin(Stdio::piped()).stdout(Stdio::piped());
        let Ok(mut tar) = tar.spawn() else {
            return eprintln!("SKIPPED: there is no tar");
        };
        tar.stdin.take().unwrap().write_all(&archive.finish()).unwrap();
        let output = tar.wait_with_output().unwrap();
        assert!(output.status.success());
        let lines = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Vec<&str>> = lines.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            lines,
            [
                ["drwxr-xr-x", "0/0", "0", "1970-01-01", "00:00", "etc/"],
                ["-rw-r--r--", "0/0", "12", "1970-01-01", "00:00", "etc/text"],
                ["-rwxr-xr-x", "0/0", "1024", "1970-01-01", "00:00", "program"],
            ]
        );
    }
}
