//! What can be made to go wrong.

use std::time::Duration;

use http::Method;

/// Something that goes wrong with the next requests of a kind.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Only paths with this text in them.
    pub path_contains: String,
    /// Only this method.
    pub method: Option<Method>,
    /// How often.
    pub times: u32,
    /// What.
    pub trouble: Trouble,
}

impl Fault {
    /// Once, with whatever method.
    #[must_use]
    pub fn once(path_contains: &str, trouble: Trouble) -> Self {
        Self { path_contains: path_contains.into(), method: None, times: 1, trouble }
    }

    /// From now on.
    #[must_use]
    pub fn always(path_contains: &str, trouble: Trouble) -> Self {
        Self { times: u32::MAX, ..Self::once(path_contains, trouble) }
    }

    /// The same, for this method only.
    #[must_use]
    pub fn on(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// Another status, with these headers and this body.
    Status {
        /// The status.
        status: u16,
        /// Headers.
        headers: Vec<(&'static str, String)>,
        /// The body.
        body: String,
    },
    /// A redirect to this URL; `{path}` in it stands for the request's path.
    Redirect {
        /// The URL.
        to: String,
    },
    /// The connection is closed after so many bytes of the body.
    Cut {
        /// How many.
        after: u64,
    },
    /// Nothing more comes after so many bytes of the body, and the connection stays open.
    Stall {
        /// How many.
        after: u64,
    },
    /// The body ends cleanly after so many bytes, without its length announced.
    Short {
        /// How many.
        after: u64,
    },
    /// So many bytes too many, without the length announced.
    Long {
        /// How many.
        by: u64,
    },
    /// A `Range` is ignored: 200 and the whole.
    IgnoreRange,
    /// A bit of this byte of the blob is flipped.
    FlipBit {
        /// The byte's offset.
        at: u64,
    },
    /// A header is replaced, or taken away.
    Header {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: Option<String>,
    },
    /// The answer comes later.
    Delay(Duration),
}
