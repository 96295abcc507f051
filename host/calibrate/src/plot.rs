//! The trace as a picture: one SVG file that needs nothing else.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
/// Of the area that is drawn in.
const LEFT: f64 = 84.0;
const RIGHT: f64 = 740.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 384.0;
/// Marks along an axis, about.
const MARKS: f64 = 6.0;

/// A point that was tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dot {
    /// None: no request was answered.
    pub objective: Option<f64>,
    /// The constraint holds.
    pub kept: bool,
}

/// What is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot<'a> {
    /// Of what.
    pub title: &'a str,
    /// Along the vertical axis.
    pub unit: &'a str,
    /// What the declared defaults came to.
    pub declared: Dot,
    /// What the tuner suggested, in its order.
    pub tuned: &'a [Dot],
    /// What was drawn at random.
    pub random: &'a [Dot],
}

/// One way of trying, and how it looks.
struct Line<'a> {
    name: &'static str,
    colour: &'static str,
    dots: &'a [Dot],
}

/// Where numbers lie on the page.
struct Axes {
    low: f64,
    high: f64,
    last: f64,
}

impl Axes {
    fn x(&self, number: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * number / self.last
    }

    /// What is above the axis lies at its top.
    fn y(&self, value: f64) -> f64 {
        let share = (value - self.low) / (self.high - self.low);
        BOTTOM - (BOTTOM - TOP) * share.clamp(0.0, 1.0)
    }
}

impl Plot<'_> {
    /// The file's text.
    pub fn svg(&self) -> String {
        let lines = [
            Line {
                name: "random",
                colour: "#888888",
                dots: self.random,
            },
            Line {
                name: "tuned",
                colour: "#0b5fa5",
                dots: self.tuned,
            },
        ];
        let axes = self.axes();
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
        );
        write_text(&mut text, LEFT, 24.0, "start", self.title);
        self.frame(&mut text, &axes);
        if let Some(declared) = self.declared.objective {
            let y = axes.y(declared);
            put(
                &mut text,
                format_args!(
                    "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{RIGHT}\" y2=\"{y:.1}\" stroke=\"#b3541e\" stroke-dasharray=\"6 4\"/>"
                ),
            );
        }
        for line in &lines {
            self.line(&mut text, &axes, line);
        }
        legend(&mut text);
        text.push_str("</svg>\n");
        text
    }

    /// From the lowest value to the highest of most: a few that are far off lie at the top.
    fn axes(&self) -> Axes {
        let all = self.tuned.iter().chain(self.random).chain([&self.declared]);
        let mut values: Vec<f64> = all.filter_map(|dot| dot.objective).collect();
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        let low = values.first().copied().unwrap_or(0.0);
        let most = values.get(values.len().saturating_sub(1) * 9 / 10);
        let most = most.copied().unwrap_or(low);
        let declared = self.declared.objective.filter(|it| it.is_finite());
        let high = declared.map_or(most, |declared| declared.max(most));
        // Where all are alike there still is an axis.
        let room = (0.05 * (high - low)).max(1e-3 * high.abs()).max(1e-9);
        let last = self.tuned.len().max(self.random.len()).max(1);
        Axes {
            low: low - room,
            high: high + room,
            last: last as f64,
        }
    }

    fn frame(&self, text: &mut String, axes: &Axes) {
        for mark in marks(axes.low, axes.high) {
            let y = axes.y(mark);
            put(
                text,
                format_args!(
                    "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{RIGHT}\" y2=\"{y:.1}\" stroke=\"#e4e4e4\"/>"
                ),
            );
            write_text(text, LEFT - 8.0, y + 4.0, "end", &short(mark));
        }
        for mark in marks(0.0, axes.last).filter(|mark| mark.fract() == 0.0) {
            write_text(text, axes.x(mark), BOTTOM + 18.0, "middle", &short(mark));
        }
        put(
            text,
            format_args!(
                "<path d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\" fill=\"none\" stroke=\"#333333\"/>"
            ),
        );
        write_text(text, LEFT, TOP - 10.0, "start", self.unit);
        write_text(text, RIGHT, BOTTOM + 36.0, "end", "points tried");
    }

    /// The dots of one way, and the best of them so far as steps; the declared defaults come before the first.
    fn line(&self, text: &mut String, axes: &Axes, line: &Line) {
        let mut best = self.declared.objective.filter(|_| self.declared.kept);
        let mut path = String::new();
        let go = |text: &mut String, x: f64, y: f64| {
            let verb = if text.is_empty() { 'M' } else { 'L' };
            // A String takes whatever it is given.
            let _written = write!(text, "{verb}{x:.1} {y:.1}");
        };
        if let Some(best) = best {
            go(&mut path, axes.x(0.0), axes.y(best));
        }
        for (number, dot) in (1_u32..).zip(line.dots) {
            let Some(objective) = dot.objective.filter(|it| it.is_finite()) else {
                continue;
            };
            let x = axes.x(f64::from(number));
            let fill = if dot.kept { line.colour } else { "none" };
            put(
                text,
                format_args!(
                    "<circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{fill}\" stroke=\"{}\"/>",
                    axes.y(objective),
                    line.colour
                ),
            );
            if !dot.kept || best.is_some_and(|best| best <= objective) {
                continue;
            }
            if let Some(before) = best {
                go(&mut path, x, axes.y(before));
            }
            go(&mut path, x, axes.y(objective));
            best = Some(objective);
        }
        if let Some(best) = best {
            go(&mut path, axes.x(line.dots.len() as f64), axes.y(best));
            put(
                text,
                format_args!(
                    "<path d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"><title>best so far, {}</title></path>",
                    line.colour, line.name
                ),
            );
        }
    }
}

fn legend(text: &mut String) {
    let entries = [
        ("#0b5fa5", "#0b5fa5", "tuned"),
        ("#888888", "#888888", "random"),
        ("none", "#333333", "breaks the constraint"),
    ];
    let mut x = LEFT;
    for (fill, stroke, name) in entries {
        put(
            text,
            format_args!(
                "<circle cx=\"{:.1}\" cy=\"428\" r=\"3.5\" fill=\"{fill}\" stroke=\"{stroke}\"/>",
                x + 4.0
            ),
        );
        write_text(text, x + 14.0, 432.0, "start", name);
        x += 40.0 + 7.0 * name.len() as f64;
    }
    put(
        text,
        format_args!(
            "<line x1=\"{x}\" y1=\"428\" x2=\"{:.1}\" y2=\"428\" stroke=\"#b3541e\" stroke-dasharray=\"6 4\"/>",
            x + 26.0
        ),
    );
    write_text(text, x + 34.0, 432.0, "start", "declared defaults");
}

fn put(text: &mut String, line: std::fmt::Arguments) {
    // A String takes whatever it is given.
    let _written = writeln!(text, "{line}");
}

fn write_text(text: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let words = escaped(words);
    put(
        text,
        format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"),
    );
}

fn escaped(words: &str) -> String {
    let mut text = String::with_capacity(words.len());
    for character in words.chars() {
        match character {
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '&' => text.push_str("&amp;"),
            '"' => text.push_str("&quot;"),
            // XML has no place for these.
            other if other.is_control() => text.push(' '),
            other => text.push(other),
        }
    }
    text
}

/// Round numbers between two others: multiples of 1, 2 or 5 times a power of ten.
fn marks(low: f64, high: f64) -> impl Iterator<Item = f64> {
    let rough = ((high - low) / MARKS).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0]
        .into_iter()
        .map(|step| step * power)
        .find(|step| *step >= rough)
        .unwrap_or(10.0 * power);
    let first = (low / step).ceil();
    let marks = (0..=2 * MARKS as u32).map(move |number| (first + f64::from(number)) * step);
    marks.take_while(move |mark| *mark <= high)
}

/// A number without the dust of binary fractions.
fn short(value: f64) -> String {
    let rounded = format!("{value:.6}");
    let rounded = rounded.trim_end_matches('0').trim_end_matches('.');
    match rounded {
        "" | "-0" => "0".to_owned(),
        rounded => rounded.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(objective: f64, kept: bool) -> Dot {
        Dot {
            objective: Some(objective),
            kept,
        }
    }

    fn numbers(svg: &str, tag: &str, key: &str) -> Vec<f64> {
        let of_tag = svg.lines().filter(|line| line.starts_with(tag));
        let values = of_tag.filter_map(|line| {
            let value = line.split_once(&format!(" {key}=\""))?.1;
            value.split_once('"')?.0.parse().ok()
        });
        values.collect()
    }

    #[test]
    fn everything_lies_on_the_page_and_low_is_low() {
        let tuned = [dot(120.0, true), dot(90.0, false), dot(80.0, true)];
        let random = [
            dot(130.0, true),
            dot(1e9, true),
            Dot {
                objective: None,
                kept: false,
            },
        ];
        let plot = Plot {
            title: "fixed-speculate <0.1.0>",
            unit: "objective, ms",
            declared: dot(140.0, true),
            tuned: &tuned,
            random: &random,
        };
        let svg = plot.svg();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("fixed-speculate &lt;0.1.0&gt;"));
        let heights = numbers(&svg, "<circle", "cy");
        // Two of the random ones, three of the tuned, and three of the legend.
        assert_eq!(heights.len(), 8);
        assert!(heights[..5].iter().all(|y| (TOP..=BOTTOM).contains(y)));
        // The page grows downwards: the best is the lowest. What is far off lies at the top.
        assert!(heights[4] > heights[2] && heights[2] > heights[0]);
        assert_eq!(heights[1], TOP);
        assert!(
            numbers(&svg, "<circle", "cx")
                .iter()
                .all(|x| (0.0..=WIDTH).contains(x))
        );
        // Open where the constraint is broken.
        assert_eq!(svg.matches("fill=\"none\" stroke=\"#0b5fa5\"/>").count(), 1);
        // The steps of the tuned ones: from the defaults by 120 to 80, past 90, which is not kept.
        let path = svg.lines().find(|line| line.contains("best so far, tuned"));
        assert_eq!(path.unwrap().matches('L').count(), 5);
    }

    #[test]
    fn a_picture_of_nothing_is_a_picture() {
        for declared in [dot(0.0, true), dot(-5.0, false)] {
            let plot = Plot {
                title: "",
                unit: "",
                declared,
                tuned: &[],
                random: &[],
            };
            let svg = plot.svg();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn marks_are_round_numbers() {
        let of = |low, high| marks(low, high).map(short).collect::<Vec<String>>();
        assert_eq!(of(0.0, 40.0), ["0", "10", "20", "30", "40"]);
        assert_eq!(of(0.91, 1.32), ["1", "1.1", "1.2", "1.3"]);
        assert_eq!(of(-12.0, 9.0), ["-10", "-5", "0", "5"]);
        assert_eq!(short(1e-9), "0");
    }
}
