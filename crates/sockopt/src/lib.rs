//! `SO_RCVLOWAT`: how much has to have come before whoever waits for a socket is woken.
//!
//! State: none.
//! Invariants: the workspace's only unsafe code is [`set_receive_low_water`]'s one call.
//! Absent on purpose: every option that tokio, socket2 or rustix sets.

use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::{AsFd, AsRawFd as _};

/// Wakes nobody who waits for this socket to be readable before `bytes` have come, or the other end has closed, or there is no room for so
/// many. What is there can be read at any time. Setting it to less than has come wakes at once (Linux 4.17 and later).
///
/// # Errors
/// If it isn't a socket that has this option.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "neither the standard library nor a crate in the tree sets this option")]
pub fn set_receive_low_water(socket: impl AsFd, bytes: usize) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    let length = libc::socklen_t::try_from(size_of_val(&value)).expect("an int's size");
    // SAFETY: the descriptor is borrowed for the call and so is open; the kernel reads `length` bytes at the pointer, which are `value`'s.
    let result = unsafe {
        let fd = socket.as_fd().as_raw_fd();
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, (&raw const value).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs::File;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_has_it_and_a_file_does_not() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        set_receive_low_water(&stream, 16 << 10).unwrap();
        set_receive_low_water(&stream, usize::MAX).unwrap();
        set_receive_low_water(&stream, 1).unwrap();
        let error = set_receive_low_water(File::open("/dev/null").unwrap(), 1).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTSOCK));
    }
}
