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
