//! Pictures as SVG that needs nothing else: values over named places or over numbers.

use super::doc::{escape, number, put};

const WIDTH: f64 = 820.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 620.0;
const TOP: f64 = 54.0;
const BOTTOM: f64 = 320.0;
/// Between two lines of the legend.
const LEGEND: f64 = 18.0;
/// Marks along an axis, about.
const MARKS: f64 = 5.0;
/// Told apart by the colour-blind too (M. Okabe, K. Ito, 2008).
const COLOURS: [&str; 8] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#8b6f47",
];

/// A value, with its interval where it has one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Dot {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) between: Option<(f64, f64)>,
}

#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: String,
    /// Filled and joined; others are open and dashed.
    pub(super) ranked: bool,
    pub(super) dots: Vec<Dot>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Plot {
    pub(super) title: String,
    pub(super) x: String,
    pub(super) y: String,
    /// Names for x = 0, 1, 2 ...; empty: x is a number.
    pub(super) places: Vec<String>,
    pub(super) series: Vec<Series>,
    /// A value to be held against.
    pub(super) level: Option<f64>,
    /// Dots that belong to no line.
    pub(super) scattered: bool,
    /// The axis need not begin with 0.
    pub(super) close: bool,
}

struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        self.from + (self.to - self.from) * share
    }
}

impl Plot {
    /// None: there is nothing to be seen.
    pub(super) fn svg(&self) -> Option<String> {
        let dots = || self.series.iter().flat_map(|it| &it.dots);
        let finite = |values: Vec<f64>| -> Option<(f64, f64)> {
            // Beyond this an axis would be longer than a number can tell; such a dot stands at its end.
            let drawn = |it: &f64| it.abs() < 1e300;
            let mut values: Vec<f64> = values.into_iter().filter(drawn).collect();
            values.sort_by(f64::total_cmp);
            Some((*values.first()?, *values.last()?))
        };
        let ys = dots().flat_map(|it| {
            [
                it.y,
                it.between.map_or(it.y, |it| it.1),
                it.between.map_or(it.y, |it| it.0),
            ]
        });
        let (mut low, high) = finite(ys.chain(self.level).collect())?;
        if !self.close {
            low = low.min(0.0);
        }
        let room = (0.06 * (high - low)).max(1e-3 * high.abs()).max(1e-9);
        let y = Axis {
            low: if self.close { low - room } else { low },
            high: high + room,
            from: BOTTOM,
            to: TOP,
        };
        let (left, right) = if self.places.is_empty() {
            let (low, high) = finite(dots().map(|it| it.x).collect())?;
            let room = (0.05 * (high - low)).max(1e-3 * high.abs()).max(1e-9);
            (low - room, high + room)
        } else {
            (-0.5, self.places.len() as f64 - 0.5)
        };
        let x = Axis {
            low: left,
            high: right,
            from: LEFT,
            to: RIGHT,
        };
        // The legend stands at the side, and may be longer than the picture is high.
        let height = HEIGHT.max(TOP + LEGEND * self.series.len() as f64);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             font-family=\"sans-serif\" font-size=\"12\" role=\"img\">\n<title>{}</title>\n",
            escape(&self.title)
        );
        words(&mut out, LEFT, 20.0, "start", &self.title);
        self.frame(&mut out, &x, &y);
        for (number, series) in self.series.iter().enumerate() {
            let colour = COLOURS.get(number % COLOURS.len()).unwrap_or(&"#000000");
            self.draw(&mut out, &x, &y, number, series, colour);
        }
        out.push_str("</svg>");
        Some(out)
    }

    fn frame(&self, out: &mut String, x: &Axis, y: &Axis) {
        for mark in marks(y.low, y.high) {
            let at = y.at(mark);
            put(
                out,
                format_args!(
                    "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{RIGHT}\" y2=\"{at:.1}\" stroke=\"#e4e4e4\"/>"
                ),
            );
            words(out, LEFT - 8.0, at + 4.0, "end", &number(mark));
        }
        if self.places.is_empty() {
            for mark in marks(x.low, x.high) {
                words(out, x.at(mark), BOTTOM + 18.0, "middle", &number(mark));
            }
        }
        for (place, name) in self.places.iter().enumerate() {
            words(out, x.at(place as f64), BOTTOM + 18.0, "middle", name);
        }
        if let Some(level) = self.level {
            let at = y.at(level);
            put(
                out,
                format_args!(
                    "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{RIGHT}\" y2=\"{at:.1}\" stroke=\"#333333\" stroke-dasharray=\"6 4\"/>"
                ),
            );
        }
        put(
            out,
            format_args!(
                "<path d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\" fill=\"none\" stroke=\"#333333\"/>"
            ),
        );
        words(out, LEFT, TOP - 12.0, "start", &self.y);
        words(out, RIGHT, BOTTOM + 38.0, "end", &self.x);
    }

    fn draw(
        &self,
        out: &mut String,
        x: &Axis,
        y: &Axis,
        place: usize,
        series: &Series,
        colour: &str,
    ) {
        // Side by side where they share a place.
        let aside = if self.places.is_empty() {
            0.0
        } else {
            let room = (RIGHT - LEFT) / self.places.len() as f64;
            let step = (room / (self.series.len() as f64 + 1.0)).min(5.0);
            step * (place as f64 - (self.series.len() as f64 - 1.0) / 2.0)
        };
        let (fill, dash) = if series.ranked {
            (colour, "")
        } else {
            ("none", " stroke-dasharray=\"3 3\"")
        };
        let mut path = String::new();
        for dot in series
            .dots
            .iter()
            .filter(|it| it.x.is_finite() && it.y.is_finite())
        {
            let (across, up) = (x.at(dot.x) + aside, y.at(dot.y));
            if let Some((low, high)) = dot
                .between
                .filter(|it| it.0.is_finite() && it.1.is_finite())
            {
                put(
                    out,
                    format_args!(
                        "<line x1=\"{across:.1}\" y1=\"{:.1}\" x2=\"{across:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>",
                        y.at(low),
                        y.at(high)
                    ),
                );
            }
            put(
                out,
                format_args!(
                    "<circle cx=\"{across:.1}\" cy=\"{up:.1}\" r=\"4\" fill=\"{fill}\" stroke=\"{colour}\"><title>{}: {}</title></circle>",
                    escape(&series.name),
                    number(dot.y)
                ),
            );
            let verb = if path.is_empty() { 'M' } else { 'L' };
            path.push_str(&format!("{verb}{across:.1} {up:.1}"));
        }
        if !self.scattered && !path.is_empty() {
            put(
                out,
                format_args!(
                    "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-opacity=\"0.6\"{dash}/>"
                ),
            );
        }
        let at = TOP + LEGEND * place as f64;
        put(
            out,
            format_args!(
                "<circle cx=\"{}\" cy=\"{at:.1}\" r=\"4\" fill=\"{fill}\" stroke=\"{colour}\"/>",
                RIGHT + 20.0
            ),
        );
        let told = if series.ranked {
            String::new()
        } else {
            " (not ranked)".to_owned()
        };
        words(
            out,
            RIGHT + 30.0,
            at + 4.0,
            "start",
            &format!("{}{told}", series.name),
        );
    }
}

fn words(out: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    put(
        out,
        format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
            escape(text)
        ),
    );
}

/// Round numbers between two others: multiples of 1, 2 or 5 times a power of ten.
fn marks(low: f64, high: f64) -> impl Iterator<Item = f64> {
    let rough = ((high - low) / MARKS).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0].into_iter().map(|step| step * power);
    let step = steps
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(10.0 * power);
    let first = (low / step).ceil();
    let all = (0..=3 * MARKS as u32).map(move |number| (first + f64::from(number)) * step);
    all.take_while(move |mark| *mark <= high)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_no_picture() {
        assert_eq!(Plot::default().svg(), None);
        let series = Series {
            name: "<x>".to_owned(),
            ranked: false,
            dots: vec![Dot {
                x: 0.0,
                y: 1.0,
                between: None,
            }],
        };
        let plot = Plot {
            places: vec!["a&b".to_owned()],
            series: vec![series],
            ..Plot::default()
        };
        let svg = plot.svg().unwrap();
        assert!(
            svg.contains("&lt;x&gt; (not ranked)")
                && svg.contains("a&amp;b")
                && svg.contains("fill=\"none\" stroke=\"#0072b2\"><title>")
        );
    }

    proptest! {
        #[test]
        fn everything_lies_on_the_page(dots in prop::collection::vec((-1e6..1e6_f64, prop::num::f64::ANY), 1..9), close in any::<bool>()) {
            let series = Series {
                name: "s".to_owned(),
                ranked: true,
                dots: dots.iter().map(|(x, y)| Dot { x: *x, y: *y, between: Some((*y, *y)) }).collect(),
            };
            let plot = Plot { series: vec![series], close, ..Plot::default() };
            if let Some(svg) = plot.svg() {
                prop_assert!(!svg.contains("NaN") && !svg.contains("inf"), "{}", svg);
            }
        }
    }
}
