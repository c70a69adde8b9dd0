//! Errors as people read them: on one line, with what caused them.
//!
//! State: none.

/// An error and its causes, on one line. A cause whose text is there already isn't said twice: some errors tell their cause's text themselves.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        source = cause.source();
    }
    line.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{said}")]
    struct Says {
        said: &'static str,
        source: Option<Box<Says>>,
    }

    #[test]
    fn causes_are_said_once_and_on_one_line() {
        let says = |said, cause: Option<Says>| Says { said, source: cause.map(Box::new) };
        let cause = says("refused\nby peer", None);
        let told = says("reading: no route", Some(says("no route", Some(cause))));
        assert_eq!(with_causes(&says("starting", Some(told))), "starting: reading: no route: refused by peer");
    }
}
