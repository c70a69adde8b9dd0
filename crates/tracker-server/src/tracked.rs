//! Tasks of a connection that are waited for.
//!
//! State: the tracker that counts them. Absent on purpose: ending them, which is their connection's.

use tokio_util::task::TaskTracker;

/// Spawns a connection's requests so that they are waited for.
#[derive(Clone)]
pub(crate) struct Tracked(pub(crate) TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}
