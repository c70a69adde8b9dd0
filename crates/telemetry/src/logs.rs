//! Logs: text for people, JSON for machines, both to standard error.
//!
//! State: none. Absent on purpose: filters as a language. What dependencies say matters when something is wrong, so theirs begin at `warn`.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, fmt as layer};

/// From which level on something is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// What went wrong.
    Error,
    /// What may go wrong.
    Warn,
    /// What happened.
    #[default]
    Info,
    /// Why it happened.
    Debug,
    /// Each chunk.
    Trace,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

const LEVELS: [(&str, LogLevel); 5] = [
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];
const FORMATS: [(&str, LogFormat); 3] =
    [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];

impl LogLevel {
    fn filter(self) -> LevelFilter {
        match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

impl FromStr for LogLevel {
    type Err = UnknownSetting;

    fn from_str(text: &str) -> Result<Self, UnknownSetting> {
        by_name(&LEVELS, text).ok_or(UnknownSetting("write error, warn, info, debug or trace"))
    }
}

impl FromStr for LogFormat {
    type Err = UnknownSetting;

    fn from_str(text: &str) -> Result<Self, UnknownSetting> {
        by_name(&FORMATS, text).ok_or(UnknownSetting("write auto, text or json"))
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        name_of(&LEVELS, self).fmt(f)
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        name_of(&FORMATS, self).fmt(f)
    }
}

fn by_name<T: Copy>(names: &[(&str, T)], text: &str) -> Option<T> {
    names.iter().find(|(name, _)| *name == text).map(|(_, value)| *value)
}

fn name_of<T: PartialEq>(names: &[(&'static str, T)], value: &T) -> &'static str {
    names.iter().find(|(_, other)| other == value).map_or("", |(name, _)| name)
}

/// A setting that isn't known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown: {0}")]
pub struct UnknownSetting(&'static str);

/// What is let through: our own crates from a level on, others from `warn` on, or from a higher level.
pub(crate) fn targets(level: LogLevel) -> Targets {
    let own = level.filter();
    // Every crate of ours is called shoal_….
    Targets::new().with_default(own.min(LevelFilter::WARN)).with_target("shoal", own)
}

/// The layer that writes lines.
pub(crate) fn lines<S, W>(level: LogLevel, format: LogFormat, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let terminal = io::stderr().is_terminal();
    let text = match format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    if text {
        layer::layer().with_ansi(terminal).with_writer(writer).with_filter(targets(level)).boxed()
    } else {
        let json = layer::layer().json().flatten_event(true).with_span_list(false);
        json.with_writer(writer).with_filter(targets(level)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn settings_are_written_as_they_are_read() {
        for (name, level) in LEVELS {
            assert_eq!((name.parse(), level.to_string().as_str()), (Ok(level), name));
        }
        for (name, format) in FORMATS {
            assert_eq!((name.parse(), format.to_string().as_str()), (Ok(format), name));
        }
        assert_eq!(
            "verbose".parse::<LogLevel>().unwrap_err().to_string(),
            "unknown: write error, warn, info, debug or trace"
        );
        assert!("Text".parse::<LogFormat>().is_err());
    }

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: LogLevel, format: LogFormat) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let subscriber = tracing_subscriber::registry().with(lines(level, format, move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!(target: "shoal_x", "pull", repository = "a/b").entered();
            tracing::info!(target: "shoal_x", bytes = 5, "served");
            tracing::debug!(target: "shoal_x", "details");
            tracing::info!(target: "hyper", "noise");
            tracing::warn!(target: "hyper", "trouble");
        });
        String::from_utf8(memory.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_has_an_object_a_line_with_fields_and_span() {
        let text = logged(LogLevel::Info, LogFormat::Json);
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(
            (&lines[0]["message"], &lines[0]["bytes"], &lines[0]["level"]),
            (&"served".into(), &5.into(), &"INFO".into())
        );
        assert_eq!(lines[0]["span"]["repository"], "a/b");
        assert!(lines[0]["timestamp"].is_string());
        assert_eq!(lines[1]["message"], "trouble");
    }

    #[test]
    fn the_level_is_ours_and_others_begin_at_warn() {
        let seen =
            |level| ["served", "details", "noise", "trouble"].map(|word| logged(level, LogFormat::Text).contains(word));
        assert_eq!(seen(LogLevel::Trace), [true, true, false, true]);
        assert_eq!(seen(LogLevel::Info), [true, false, false, true]);
        assert_eq!(seen(LogLevel::Error), [false, false, false, false]);
    }
}
