//! Registry paths, error bodies, and the client of an origin registry.
