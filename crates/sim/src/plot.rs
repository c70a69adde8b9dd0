//! The plot: how long a distribution takes over the number of nodes, for everything compared beside the bound.
//!
//! Two panels with the same horizontal axis, in powers of ten, or of two if it is short. The left one has seconds, in powers of ten too:
//! there the client-server line rises with the nodes and the others stay flat. The right one has multiples of the bound, linear and only
//! as far as the lines that stay near it need: there one sees how flat.
//!
//! State: none. Invariants: the same lines give the same bytes; every label is inside the picture, and none covers another one.
//! Absent on purpose: a plotting library. Two panels with straight lines need no more than this page of text.

use std::fmt::Write as _;

/// What was measured of one way to distribute: nodes, seconds until the last one is done, the bound's seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What stands beside the line.
    pub name: &'static str,
    /// As SVG says it.
    pub colour: &'static str,
    /// By the number of nodes.
    pub points: Vec<(usize, f64, f64)>,
}

/// Four that are told apart with any colour vision, after Okabe and Ito.
pub const COLOURS: [&str; 4] = ["#0072b2", "#009e73", "#e69f00", "#d55e00"];

const WIDTH: f64 = 1080.0;
const HEIGHT: f64 = 460.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 396.0;
/// Labels at the lines' ends keep this distance.
const LABEL_GAP: f64 = 17.0;
/// The right panel shows at least so many times the bound, and at most so many.
const LEAST_TIMES: f64 = 1.3;
const MOST_TIMES: f64 = 4.0;
const BOUND: &str = "bound";

/// One panel: where it is, and what its axes span.
struct Panel {
    left: f64,
    right: f64,
    nodes: (f64, f64),
    values: (f64, f64),
    logarithmic: bool,
}

/// A line as it is drawn.
struct Drawn {
    name: &'static str,
    colour: &'static str,
    dashed: bool,
    points: Vec<(f64, f64)>,
}

/// The picture of what was measured when all nodes pulled so much.
#[must_use]
pub fn svg(size: &str, lines: &[Line]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"#1f2933\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let drawn = to_draw(lines, |seconds, _| seconds);
    let nodes = span(drawn.iter().flat_map(|line| line.points.iter().map(|(nodes, _)| *nodes)), (10.0, 1_000.0));
    let values = span(drawn.iter().flat_map(|line| line.points.iter().map(|(_, value)| *value)), (0.5, 10.0));
    let values = (10_f64.powf(values.0.log10().floor()), 10_f64.powf(values.1.log10().ceil()));
    let panel = Panel { left: 62.0, right: 430.0, nodes, values, logarithmic: true };
    panel.frame(&mut svg, &format!("Seconds until the last node has {size}"));
    panel.draw(&mut svg, &drawn);
    let near: Vec<Line> = lines.iter().filter(|line| line.most_times() < MOST_TIMES).cloned().collect();
    let drawn = to_draw(&near, |seconds, bound| seconds / bound);
    let (_, most) = span(drawn.iter().flat_map(|line| line.points.iter().map(|(_, value)| *value)), (1.0, 1.0));
    let values = (0.9, (most + 0.05).clamp(LEAST_TIMES, MOST_TIMES));
    let panel = Panel { left: 640.0, right: 920.0, nodes, values, logarithmic: false };
    panel.frame(&mut svg, "The same as a multiple of the bound");
    panel.draw(&mut svg, &drawn);
    svg.push_str("</svg>\n");
    svg
}

impl Line {
    fn most_times(&self) -> f64 {
        self.points.iter().map(|(_, seconds, bound)| seconds / bound).fold(0.0, f64::max)
    }
}

/// The lines and the bound's, by what is made of a point's seconds and its bound's.
#[allow(clippy::cast_precision_loss, reason = "a number of nodes")]
fn to_draw(lines: &[Line], value: fn(f64, f64) -> f64) -> Vec<Drawn> {
    let longest = lines.iter().max_by_key(|line| line.points.len());
    let bound = longest.map(|line| line.points.iter().map(|(nodes, _, bound)| (*nodes as f64, value(*bound, *bound))));
    let of = |line: &Line| Drawn {
        name: line.name,
        colour: line.colour,
        dashed: false,
        points: line.points.iter().map(|(nodes, seconds, bound)| (*nodes as f64, value(*seconds, *bound))).collect(),
    };
    let bound = Drawn { name: BOUND, colour: "#52606d", dashed: true, points: bound.into_iter().flatten().collect() };
    lines.iter().map(of).chain([bound]).filter(|line| !line.points.is_empty()).collect()
}

impl Panel {
    fn x(&self, nodes: f64) -> f64 {
        let (low, high) = (self.nodes.0.log10(), self.nodes.1.log10());
        self.left + (self.right - self.left) * (nodes.log10() - low) / (high - low).max(1e-9)
    }

    fn y(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.logarithmic { value.log10() } else { value };
        let (low, high) = (scale(self.values.0), scale(self.values.1));
        BOTTOM - (BOTTOM - TOP) * (scale(value) - low) / (high - low).max(1e-9)
    }

    /// The title, the axes, their ticks and the grid.
    fn frame(&self, svg: &mut String, title: &str) {
        let Self { left, right, .. } = *self;
        let _ = writeln!(svg, "<text x=\"{left}\" y=\"34\" font-size=\"15\" font-weight=\"bold\">{title}</text>");
        for value in self.value_ticks() {
            let y = self.y(value);
            let _ = writeln!(
                svg,
                "<line x1=\"{left}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#e4e7eb\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 8.0,
                y + 4.5,
                number(value)
            );
        }
        for nodes in self.nodes_ticks() {
            let x = self.x(nodes);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{}\" stroke=\"#e4e7eb\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                BOTTOM + 5.0,
                BOTTOM + 21.0,
                number(nodes)
            );
        }
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {TOP}V{BOTTOM}H{right}\" fill=\"none\" stroke=\"#7b8794\"/>\
             <text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">nodes</text>",
            f64::midpoint(left, right),
            BOTTOM + 44.0
        );
    }

    fn nodes_ticks(&self) -> Vec<f64> {
        let (low, high) = self.nodes;
        if high >= low * 100.0 {
            return powers(self.nodes);
        }
        std::iter::successors(Some(low), |nodes| Some(nodes * 2.0)).take_while(|nodes| *nodes <= high * 1.001).collect()
    }

    fn value_ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            return powers(self.values);
        }
        let step = if self.values.1 - self.values.0 > 1.2 { 0.5 } else { 0.1 };
        let first = (self.values.0 / step).ceil();
        (0..20_u8).map(|tick| (first + f64::from(tick)) * step).filter(|value| *value <= self.values.1 + 1e-9).collect()
    }

    fn draw(&self, svg: &mut String, lines: &[Drawn]) {
        for line in lines {
            let path: Vec<_> = line
                .points
                .iter()
                .map(|(nodes, value)| format!("{:.1} {:.1}", self.x(*nodes), self.y(*value)))
                .collect();
            let (colour, dash) = (line.colour, if line.dashed { " stroke-dasharray=\"6 5\"" } else { "" });
            let _ = writeln!(
                svg,
                "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.2\"{dash}/>",
                path.join("L")
            );
            for (nodes, value) in line.points.iter().filter(|_| !line.dashed) {
                let (x, y) = (self.x(*nodes), self.y(*value));
                let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.2\" fill=\"{colour}\"/>");
            }
        }
        let ends: Vec<f64> = lines.iter().filter_map(|line| Some(self.y(line.points.last()?.1))).collect();
        for (line, y) in lines.iter().zip(apart(&ends)) {
            let Some((nodes, value)) = line.points.last() else { continue };
            let (x, end) = (self.x(*nodes), self.y(*value));
            let text = if line.dashed { BOUND.to_owned() } else { format!("{}, {}", line.name, number(*value)) };
            let at = self.right + 18.0;
            // A thin leader, because a label may have moved and a line may end early.
            let _ = writeln!(
                svg,
                "<line x1=\"{:.1}\" y1=\"{end:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"{}\" stroke-width=\"0.8\" opacity=\"0.6\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" fill=\"{}\">{text}</text>",
                x + 4.0,
                at - 3.0,
                line.colour,
                y + 4.5,
                line.colour
            );
        }
    }
}

/// Places for labels near the ends of their lines and so far from each other that all can be read.
fn apart(ends: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..ends.len()).collect();
    order.sort_by(|one, other| ends[*one].total_cmp(&ends[*other]));
    let mut places = ends.to_vec();
    // From the bottom up, so that the lines that lie close to the bound keep below each other above the axis.
    let mut below = BOTTOM + LABEL_GAP / 2.0;
    for at in order.into_iter().rev() {
        places[at] = ends[at].min(below - LABEL_GAP);
        below = places[at];
    }
    places
}

fn span(values: impl Iterator<Item = f64>, otherwise: (f64, f64)) -> (f64, f64) {
    let (low, high) = values.fold((f64::MAX, 0.0), |(low, high): (f64, f64), value| (low.min(value), high.max(value)));
    if low < high { (low, high) } else { otherwise }
}

/// The powers of ten within the span.
fn powers((low, high): (f64, f64)) -> Vec<f64> {
    (-3..=6).map(|power| 10_f64.powi(power)).filter(|value| (low * 0.999..=high * 1.001).contains(value)).collect()
}

/// Two or three digits, and a comma at the thousands.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number on an axis")]
fn number(value: f64) -> String {
    match value {
        value if value >= 999.5 => {
            let whole = value.round() as u64;
            format!("{},{:03}", whole / 1_000, whole % 1_000)
        }
        value if value >= 10.0 => format!("{value:.0}"),
        value if value >= 2.0 => format!("{value:.1}").trim_end_matches(".0").to_owned(),
        value => {
            let text = format!("{value:.2}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = ["shoal", "classic", "kraken-policy", "client-server"];

    fn lines() -> Vec<Line> {
        let points = |name: &str| {
            let seconds = |nodes: f64| if name == "client-server" { nodes * 0.86 } else { 0.93 };
            [10_u16, 100, 1_000].map(|nodes| (usize::from(nodes), seconds(f64::from(nodes)), 0.86)).to_vec()
        };
        NAMES.into_iter().zip(COLOURS).map(|(name, colour)| Line { name, colour, points: points(name) }).collect()
    }

    #[test]
    fn everything_compared_and_the_bound_have_a_line() {
        let svg = svg("1 GiB", &lines());
        for name in NAMES {
            assert!(svg.contains(&format!(">{name}, ")), "{name}");
        }
        // Left: the bound and all; right: without client-server.
        assert_eq!(svg.matches("stroke-width=\"2.2\"").count(), 5 + 4);
        assert_eq!(svg.matches(">bound<").count(), 2);
        assert!(svg.contains(">client-server, 860<") && svg.contains(">Seconds until the last node has 1 GiB<"));
    }

    #[test]
    fn few_nodes_are_shown_in_powers_of_two() {
        let points = [1, 2, 4, 8, 16].map(|nodes| (nodes, 1.0, 1.0)).to_vec();
        let svg = svg("1 MiB", &[Line { name: "shoal", colour: COLOURS[0], points }]);
        for nodes in [1, 2, 4, 8, 16] {
            assert_eq!(svg.matches(&format!("text-anchor=\"middle\">{nodes}<")).count(), 2, "{nodes}");
        }
    }

    #[test]
    fn labels_keep_apart_and_in_the_picture() {
        let places = apart(&[390.0, 391.0, 392.0, 60.0, 392.5]);
        let mut sorted = places.clone();
        sorted.sort_by(f64::total_cmp);
        assert!(sorted.windows(2).all(|pair| pair[1] - pair[0] >= LABEL_GAP - 1e-9), "{places:?}");
        assert!(sorted[4] <= BOTTOM && (places[3] - 60.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_measured_is_an_empty_picture() {
        let svg = svg("1 GiB", &[]);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && !svg.contains("NaN"));
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in
            [(0.859, "0.86"), (1.0, "1"), (1.1, "1.1"), (8.6, "8.6"), (86.4, "86"), (10_000.0, "10,000")]
        {
            assert_eq!(number(value), text);
        }
    }
}
