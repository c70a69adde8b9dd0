//! Ports for processes that must be told theirs before they listen.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Where ports are looked for: below those that Linux gives to outgoing connections, of which a run has hundreds. One of them could take a port
/// between the moment in which it is found free and the one in which its user listens.
const PORTS: std::ops::Range<u16> = 10_240..32_768;

/// Free ports of an address, all different: they are held until the last one is known. Somebody else may take one before its user does;
/// then that process says so and ends.
///
/// # Errors
/// If there are none.
pub fn free_ports(address: IpAddr, count: usize) -> io::Result<Vec<SocketAddr>> {
    // Each process begins elsewhere, and each call behind the one before.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let room = PORTS.end - PORTS.start;
    let of_process = std::process::id().wrapping_mul(97).to_le_bytes();
    let of_process = u16::from_le_bytes([of_process[0], of_process[1]]);
    let mut held = Vec::new();
    for _ in PORTS {
        if held.len() == count {
            break;
        }
        let at = of_process.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % room;
        held.extend(TcpListener::bind((address, PORTS.start + at)).ok());
    }
    if held.len() < count {
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, format!("{address} has no {count} free ports")));
    }
    held.iter().map(TcpListener::local_addr).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ() {
        let mut ports = free_ports(IpAddr::from([127, 0, 0, 1]), 20).unwrap();
        ports.sort();
        ports.dedup();
        assert_eq!(ports.len(), 20);
    }
}
