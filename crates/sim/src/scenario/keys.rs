//! What `--set` knows: one table of keys, each with its help and what it changes.
//!
//! State: none. Invariants: a key's name is unique; a value that can't work is refused with what would.
//! Absent on purpose: an order of application. Keys are applied as they are written, the scenario's own first.

use std::time::Duration;

use shoal_swarm::{ChunkOrder, Config, ServeOrder, Serving};
use shoal_types::ChunkSize;

use super::knobs::{Cut, Knobs};
use super::units::{self, Size};

/// One key.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// How a value looks.
    pub(crate) value: &'static str,
    pub(crate) help: &'static str,
    set: fn(&mut Knobs, &str) -> Result<(), String>,
}

const fn key(
    name: &'static str,
    value: &'static str,
    help: &'static str,
    set: fn(&mut Knobs, &str) -> Result<(), String>,
) -> Key {
    Key { name, value, help, set }
}

/// Applies `key=value`.
///
/// # Errors
/// One line that names what would be valid.
pub(crate) fn apply(knobs: &mut Knobs, setting: &str) -> Result<(), String> {
    let (name, value) = setting.split_once('=').ok_or_else(|| format!("expected key=value, not '{setting}'"))?;
    let Some(key) = KEYS.iter().find(|key| key.name == name) else {
        let names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        return Err(format!("there is no key '{name}'; the keys are {}", names.join(", ")));
    };
    (key.set)(knobs, value).map_err(|error| format!("{name}: {error}"))
}

/// All keys, by subject.
pub(crate) const KEYS: &[Key] = &[
    // The exchange: the engine's configuration.
    key("order", "rarest|random|sequential", "which chunk a leech asks for", |knobs, text| {
        let choices = [
            ("rarest", ChunkOrder::RarestFirst),
            ("random", ChunkOrder::Random),
            ("sequential", ChunkOrder::Sequential),
        ];
        choose(&mut knobs.config.order, text, &choices)
    }),
    key("random-first", "N", "first chunks that are drawn at random among the rare ones", |knobs, text| {
        number(&mut knobs.config.random_first_chunks, text)
    }),
    key(
        "stream-percent",
        "N",
        "of a hundred choices, those for the first chunk that the reader lacks",
        |knobs, text| number(&mut knobs.config.stream_percent, text),
    ),
    key("serve-order", "rarest|fifo", "which request a sender serves first", |knobs, text| {
        let choices = [("rarest", ServeOrder::RarestFirst), ("fifo", ServeOrder::Fifo)];
        choose(&mut knobs.config.serve_order, text, &choices)
    }),
    key("serving", "credit|tit-for-tat|open", "who is served", |knobs, text| {
        let choices = [
            ("credit", Config::default().serving),
            ("tit-for-tat", Config::classic().serving),
            ("open", Config::kraken_policy().serving),
        ];
        choose(&mut knobs.config.serving, text, &choices)
    }),
    key("slots", "N", "neighbours that are served at a time", |knobs, text| match &mut knobs.config.serving {
        Serving::Credit { slots, .. } | Serving::TitForTat { slots, .. } => number(slots, text),
        Serving::Open => Err("has no meaning with serving=open".to_owned()),
    }),
    key("sources", "N", "neighbours that one lets itself be served by", |knobs, text| {
        match &mut knobs.config.serving {
            Serving::Credit { sources, .. } => number(sources, text),
            _ => Err(ONLY_CREDIT.to_owned()),
        }
    }),
    key("idle", "TIME", "a place with nothing to get is given back after this time", |knobs, text| {
        match &mut knobs.config.serving {
            Serving::Credit { idle, .. } => time(idle, text),
            _ => Err(ONLY_CREDIT.to_owned()),
        }
    }),
    key("allowance", "N", "chunks that a peer may take before it gives", |knobs, text| {
        match &mut knobs.config.serving {
            Serving::Credit { allowance_chunks, .. } => number(allowance_chunks, text),
            _ => Err(ONLY_CREDIT.to_owned()),
        }
    }),
    key("rechoke", "TIME", "how often slots are dealt", |knobs, text| match &mut knobs.config.serving {
        Serving::Credit { rechoke, .. } | Serving::TitForTat { rechoke, .. } => time(rechoke, text),
        Serving::Open => Err("has no meaning with serving=open".to_owned()),
    }),
    key("optimistic", "TIME", "how often the optimistic slot moves", |knobs, text| match &mut knobs.config.serving {
        Serving::TitForTat { optimistic, .. } => time(optimistic, text),
        _ => Err("has a meaning only with serving=tit-for-tat".to_owned()),
    }),
    key("uploads-at-once", "N", "chunks that a node sends at a time", |knobs, text| {
        number(&mut knobs.config.uploads_at_once, text)
    }),
    key("uploads-per-link", "N", "of those, to one neighbour", |knobs, text| {
        number(&mut knobs.config.uploads_per_link, text)
    }),
    key("promises", "yes|no", "chunks may be asked for while they arrive at a neighbour", |knobs, text| {
        choose(&mut knobs.config.promises, text, &YES_NO)
    }),
    key("substitute", "yes|no", "another chunk is sent if the one asked for has got around", |knobs, text| {
        choose(&mut knobs.config.substitute, text, &YES_NO)
    }),
    key("queued-per-peer", "N", "requests that may wait for one peer", |knobs, text| {
        number(&mut knobs.config.queued_per_peer, text)
    }),
    key("max-peers", "N", "neighbours of a node", |knobs, text| number(&mut knobs.config.max_peers, text)),
    key("inflight-chunks", "N", "chunks asked for at a neighbour, at least", |knobs, text| {
        number(&mut knobs.config.inflight_chunks, text)
    }),
    key("inflight-round-trips", "N", "and in multiples of what it brings in a round trip", |knobs, text| {
        number(&mut knobs.config.inflight_round_trips, text)
    }),
    key("inflight-per-peer", "N", "and at most", |knobs, text| number(&mut knobs.config.inflight_per_peer, text)),
    key("endgame-percent", "N", "duplicate requests in the end, of a blob's chunks", |knobs, text| {
        number(&mut knobs.config.endgame_percent, text)
    }),
    key("snub-after", "TIME", "a silent peer loses its requests", |knobs, text| {
        time(&mut knobs.config.snub_after, text)
    }),
    key("have-interval", "TIME", "new chunks are told at most so often", |knobs, text| {
        time(&mut knobs.config.have_interval, text)
    }),
    key("impatient-after", "TIME", "no progress for so long asks for a lease", |knobs, text| {
        time(&mut knobs.config.impatient_after, text)
    }),
    key("zone-patience", "TIME", "no progress for so long crosses zones without being a gateway", |knobs, text| {
        time(&mut knobs.config.zone_patience, text)
    }),
    key("hole-patience", "TIME", "a lead waits so long for chunks that somebody should have", |knobs, text| {
        time(&mut knobs.config.hole_patience, text)
    }),
    key("lead-report", "TIME", "a lead tells so often how far it is", |knobs, text| {
        time(&mut knobs.config.lead_report, text)
    }),
    key("want-peers", "N", "peers asked for in an announce", |knobs, text| number(&mut knobs.config.want_peers, text)),
    key("upload-limit", "RATE", "what may leave a node", |knobs, text| limit(&mut knobs.config.upload_limit, text)),
    key("download-limit", "RATE", "what may come from peers", |knobs, text| {
        limit(&mut knobs.config.download_limit, text)
    }),
    // The place: links, zones, nodes.
    key("chunk-size", "SIZE", "how blobs are cut", |knobs, text| {
        let bytes = u32::try_from(text.parse::<Size>()?.bytes()).unwrap_or(u32::MAX);
        knobs.cut = Cut::Size(ChunkSize::new(bytes).map_err(|error| error.to_string())?);
        Ok(())
    }),
    key("target-chunks", "N", "into about how many chunks blobs are cut", |knobs, text| {
        let mut chunks = 0;
        number(&mut chunks, text)?;
        if chunks == 0 {
            return Err("expected at least 1".to_owned());
        }
        knobs.cut = Cut::Chunks(chunks);
        Ok(())
    }),
    key("rtt", "TIME", "a round trip between any two nodes", |knobs, text| time(&mut knobs.round_trip, text)),
    key("uplink", "RATE", "a node's link, up", |knobs, text| rate(&mut knobs.uplink, text)),
    key("downlink", "RATE", "a node's link, down", |knobs, text| rate(&mut knobs.downlink, text)),
    key("origin-rate", "RATE", "the origin's uplink", |knobs, text| rate(&mut knobs.origin_rate, text)),
    key("origin-connection-rate", "RATE", "one connection to the origin", |knobs, text| {
        knobs.origin_connection_rate = Some(units::rate(text)?);
        Ok(())
    }),
    key(
        "origin",
        "registry|peer",
        "whether a lead fetches from the origin or it exchanges as a peer",
        |knobs, text| choose(&mut knobs.origin_is_peer, text, &[("registry", false), ("peer", true)]),
    ),
    key("zones", "N", "zones, with equal numbers of nodes", |knobs, text| {
        number(&mut knobs.zones, text)?;
        if (1..=16).contains(&knobs.zones) { Ok(()) } else { Err("expected 1 to 16".to_owned()) }
    }),
    key("zone-link", "SHARE", "the link between two zones, of one zone's uplinks together", |knobs, text| {
        let fraction = units::percent(text)?;
        knobs.zone_link = Some(fraction).filter(|fraction| *fraction > 0.0);
        knobs.zone_link.map(|_| ()).ok_or_else(|| "expected more than 0%".to_owned())
    }),
    key("mesh", "standing|cold", "whether neighbours are connected before the pull", |knobs, text| {
        choose(&mut knobs.standing_mesh, text, &[("standing", true), ("cold", false)])
    }),
    key("announce-every", "TIME", "instead of the tracker's own interval", |knobs, text| {
        knobs.announce_every = Some(units::duration(text)?).filter(|every| *every >= MIN_ANNOUNCE);
        knobs.announce_every.map(|_| ()).ok_or_else(|| "expected at least 10ms".to_owned())
    }),
    key("cores", "N", "cores of a node that hash", |knobs, text| {
        number(&mut knobs.cores, text)?;
        if (1..=64).contains(&knobs.cores) { Ok(()) } else { Err("expected 1 to 64".to_owned()) }
    }),
    // The demand.
    key("arrivals", "X", "the last node comes after X times the bound, the others evenly before", |knobs, text| {
        number(&mut knobs.arrivals, text)?;
        if (0.0..=100.0).contains(&knobs.arrivals) { Ok(()) } else { Err("expected 0 to 100".to_owned()) }
    }),
    key(
        "images",
        "N",
        "images of 8 layers with three in common, one for each node; 0: a single blob",
        |knobs, text| {
            number(&mut knobs.images, text)?;
            if knobs.images <= 16 { Ok(()) } else { Err("expected 0 to 16".to_owned()) }
        },
    ),
    // What goes wrong.
    key("liars", "N|SHARE", "nodes that corrupt every chunk they send", |knobs, text| {
        knobs.trouble.liars = text.parse()?;
        Ok(())
    }),
    key("framers", "N|SHARE", "nodes that accuse and claim falsely", |knobs, text| {
        knobs.trouble.framers = text.parse()?;
        Ok(())
    }),
    key("free-riders", "N|SHARE", "nodes that never upload", |knobs, text| {
        knobs.trouble.riders = text.parse()?;
        Ok(())
    }),
    key("lying-lead", "yes|no", "the first lead's links fit its wrong bytes", |knobs, text| {
        choose(&mut knobs.trouble.lying_lead, text, &YES_NO)
    }),
    key("stragglers", "N|SHARE", "nodes with a slower uplink", |knobs, text| {
        knobs.trouble.stragglers = text.parse()?;
        Ok(())
    }),
    key("straggler-uplink", "SHARE", "their uplink, of the others'", |knobs, text| {
        knobs.trouble.straggler_uplink = units::percent(text)?;
        if knobs.trouble.straggler_uplink > 0.0 { Ok(()) } else { Err("expected more than 0%".to_owned()) }
    }),
    key("killed", "N|SHARE", "nodes that die; their connections close", |knobs, text| {
        knobs.trouble.killed = text.parse()?;
        Ok(())
    }),
    key("killed-at", "SHARE", "when, of the undisturbed time", |knobs, text| {
        knobs.trouble.killed_at = units::percent(text)?;
        Ok(())
    }),
    key("lead-dies-at", "SHARE", "the lead dies; its connections close", |knobs, text| {
        knobs.trouble.lead_dies_at = Some(units::percent(text)?);
        Ok(())
    }),
    key("lead-vanishes-at", "SHARE", "the lead falls silent", |knobs, text| {
        knobs.trouble.lead_vanishes_at = Some(units::percent(text)?);
        Ok(())
    }),
    key("tracker-dies-at", "SHARE", "the tracker is gone for good", |knobs, text| {
        knobs.trouble.tracker_dies_at = Some(units::percent(text)?);
        Ok(())
    }),
    key("origin-stops-at", "SHARE", "the origin sends nothing", |knobs, text| {
        knobs.trouble.origin_stops_at = Some(units::percent(text)?);
        Ok(())
    }),
    key("origin-outage", "TIME", "for so long", |knobs, text| time(&mut knobs.trouble.origin_outage, text)),
];

const ONLY_CREDIT: &str = "has a meaning only with serving=credit";
const YES_NO: [(&str, bool); 2] = [("yes", true), ("no", false)];

/// An interval of nothing would announce for ever at one point in time.
const MIN_ANNOUNCE: Duration = Duration::from_millis(10);

fn choose<T: Copy>(place: &mut T, text: &str, choices: &[(&str, T)]) -> Result<(), String> {
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
        *place = *value;
        return Ok(());
    }
    let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
    Err(format!("expected {}, not '{text}'", names.join(" or ")))
}

fn number<T: std::str::FromStr>(place: &mut T, text: &str) -> Result<(), String> {
    *place = text.parse().map_err(|_| format!("expected a number, not '{text}'"))?;
    Ok(())
}

fn time(place: &mut Duration, text: &str) -> Result<(), String> {
    *place = units::duration(text)?;
    Ok(())
}

fn rate(place: &mut f64, text: &str) -> Result<(), String> {
    *place = units::rate(text)?;
    Ok(())
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is positive and at most 1e15")]
fn limit(place: &mut Option<u64>, text: &str) -> Result<(), String> {
    *place = Some(units::rate(text)? as u64);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::knobs::Preset;
    use super::*;

    #[test]
    fn names_are_unique_and_a_key_changes_something() {
        for (at, key) in KEYS.iter().enumerate() {
            assert!(KEYS[..at].iter().all(|other| other.name != key.name), "{}", key.name);
        }
        for setting in
            ["slots=7", "max-peers=3", "chunk-size=128KiB", "rtt=3ms", "mesh=cold", "liars=5%", "order=random"]
        {
            let mut knobs = Knobs::of(Preset::Shoal);
            apply(&mut knobs, setting).unwrap();
            assert_ne!(knobs, Knobs::of(Preset::Shoal), "{setting}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_in_one_line() {
        for (setting, says) in [
            ("slots", "expected key=value"),
            ("nonsense=1", "the keys are order, "),
            ("order=best", "expected rarest or random or sequential"),
            ("max-peers=-1", "expected a number"),
            ("max-peers=70000", "expected a number"),
            ("optimistic=1s", "only with serving=tit-for-tat"),
            ("chunk-size=3MiB", "power of two"),
            ("chunk-size=1TiB", "power of two"),
            ("target-chunks=0", "at least 1"),
            ("liars=101%", "0% to 100%"),
            ("zones=0", "1 to 16"),
            ("zone-link=0%", "more than 0%"),
            ("announce-every=0s", "at least 10ms"),
        ] {
            let error = apply(&mut Knobs::of(Preset::Shoal), setting).expect_err(setting);
            assert!(error.contains(says) && !error.contains('\n'), "{setting}: {error}");
        }
    }
}
