//! Chunks of blobs on disk and in memory.
