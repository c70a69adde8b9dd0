//! Numbers for people: bytes, ages, times.
//!
//! State: none. Absent on purpose: exactness. Who wants the bytes asks for JSON.

use k8s_openapi::jiff::Timestamp;

/// Bytes with two digits at least, as in 8Gi, 1.5Gi, 310Gi.
#[allow(clippy::cast_precision_loss, reason = "two or three digits are shown")]
pub(crate) fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while value >= 1023.5 {
        let Some(next) = units.next() else { break };
        (value, unit) = (value / 1024.0, next);
    }
    let text = if value < 9.95 { format!("{value:.1}") } else { format!("{value:.0}") };
    format!("{}{unit}", text.strip_suffix(".0").unwrap_or(&text))
}

/// Seconds in two units at most, as in 40s, 3m12s, 5h, 3d4h: finer as they are fewer, as kubectl has ages.
pub(crate) fn seconds(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: u64, unit: char, small: u64, of: char| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{of}") }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{days}d"),
        _ => two(days / 365, 'y', days % 365, 'd'),
    }
}

/// Seconds with two digits at least: 39ms, 6.9s, 69s, 3h49m.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time that is no less than nothing")]
pub(crate) fn precise(time: f64) -> String {
    match time {
        0.0..0.9995 => format!("{:.0}ms", time * 1e3),
        0.9995..9.95 => format!("{time:.1}s"),
        _ => seconds(time.round() as u64),
    }
}

/// Bytes a second as networks have them: 10Gbit/s.
pub(crate) fn bits(bytes_per_second: f64) -> String {
    let bits = bytes_per_second * 8.0;
    let (value, unit) = match bits {
        1e9.. => (bits / 1e9, "Gbit/s"),
        1e6.. => (bits / 1e6, "Mbit/s"),
        _ => (bits / 1e3, "kbit/s"),
    };
    // As many digits as it has, of those that anybody writes.
    format!("{}{unit}", (value * 1e3).round() / 1e3)
}

/// How long it is from one to the other; nothing if that isn't known. Clocks differ: what is yet to come is now.
pub(crate) fn between(earlier: Option<Timestamp>, later: Option<Timestamp>) -> String {
    let (Some(earlier), Some(later)) = (earlier, later) else { return "-".to_owned() };
    seconds(u64::try_from(later.as_second() - earlier.as_second()).unwrap_or(0))
}

/// A point in time as statuses have it.
pub(crate) fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_short() {
        for (count, text) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1Ki"),
            (1536, "1.5Ki"),
            ((1 << 20) - 1, "1Mi"),
            (8 << 30, "8Gi"),
            (310 << 30, "310Gi"),
            ((9 << 30) + (1 << 29), "9.5Gi"),
            (u64::MAX, "16Ei"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn times_and_rates_are_short() {
        for (time, text) in [(0.0394, "39ms"), (0.9999, "1.0s"), (6.87, "6.9s"), (68.7, "69s"), (13_744.0, "3h49m")] {
            assert_eq!(precise(time), text);
        }
        for (rate, text) in [(1.25e9, "10Gbit/s"), (3.125e8, "2.5Gbit/s"), (1.25e7, "100Mbit/s"), (1e3, "8kbit/s")] {
            assert_eq!(bits(rate), text);
        }
    }

    #[test]
    fn ages_are_as_kubectl_has_them() {
        for (count, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (192, "3m12s"),
            (3600, "60m"),
            (11_000, "3h3m"),
            (86_400, "24h"),
            (273_600, "3d4h"),
            (864_000, "10d"),
            (63_072_000, "2y"),
        ] {
            assert_eq!(seconds(count), text);
        }
        assert_eq!(between(time("2026-11-21T00:00:00Z"), time("2026-11-21T00:03:12Z")), "3m12s");
        assert_eq!(between(time("2026-11-21T00:00:05Z"), time("2026-11-21T00:00:00Z")), "0s");
        assert_eq!(between(time("then"), time("2026-11-21T00:00:00Z")), "-");
    }
}
