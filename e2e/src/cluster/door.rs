//! A door into a namespace: what connects to it here is connected to an address there.
//!
//! State: a listener of this machine's loopback and a thread that lives in the other namespace. A socket belongs to the namespace in which it was made,
//! so the thread makes one end and was given the other. Invariant: the thread ends with the door.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::network::Place;

/// An open door.
#[derive(Debug)]
pub(super) struct Door {
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
    stop: Option<DropGuard>,
}

impl Door {
    /// Opens one to an address of a place.
    pub(super) fn open(place: &Place, to: SocketAddr) -> Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("loopback has no free port")?;
        listener.set_nonblocking(true).context("a listener can't be made to wait")?;
        let address = listener.local_addr().context("a port is unknown")?;
        let namespace = File::open(place.path()).with_context(|| format!("{} is gone", place.path().display()))?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let serve = move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
            runtime.block_on(stopped.run_until_cancelled(pass(listener, to)));
            std::io::Result::Ok(())
        };
        let thread = std::thread::Builder::new().name(format!("door to {to}")).spawn(move || {
            if let Err(error) = serve() {
                eprintln!("the door to {to} can't be opened: {error}");
            }
        });
        Ok(Self { address, thread: Some(thread.context("a thread can't be started")?), stop: Some(stop.drop_guard()) })
    }

    /// Where it is.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        drop(self.stop.take());
        // A thread that has panicked has said so.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn pass(listener: std::net::TcpListener, to: SocketAddr) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    // They end with the runtime, which is this thread's.
    while let Ok((mut here, _)) = listener.accept().await {
        tokio::spawn(async move {
            if let Ok(mut there) = TcpStream::connect(to).await {
                // Either end's failure closes both, which is what a door can tell.
                let _ = copy_bidirectional(&mut here, &mut there).await;
            }
        });
    }
}
