//! Tests of the transport: over loopback where sockets and TLS matter, over memory with a paused clock where time does.

mod exchange;
mod handshakes;
mod secure;
mod support;
mod timing;
