//! The tracker as a service.
