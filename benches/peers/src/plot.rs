//! Draws lines on two logarithmic axes, as SVG.

use std::fmt::Write;

/// A line: its name and its points.
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    /// Drawn thick, because the plot is about it.
    pub strong: bool,
}

const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 560.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 210.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 58.0;
/// The smallest distance between two names at the right edge.
const NAME_HEIGHT: f64 = 17.0;
const COLOURS: [&str; 11] = [
    "#0b5cad", "#3a9bdc", "#0f8a6a", "#79b851", "#444444", "#b8860b", "#d0731c", "#c2352b", "#a1378b",
    "#6a51a3", "#8c6d5a",
];

/// The powers of ten just below the smallest value and just above the largest.
fn decades(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let low = values.clone().fold(f64::INFINITY, f64::min).log10().floor();
    let high = values.fold(f64::NEG_INFINITY, f64::max).log10().ceil();
    (low, high.max(low + 1.0))
}

fn number(value: f64) -> String {
    if value >= 1.0 { format!("{value:.0}") } else { format!("{value}") }
}

/// The whole picture.
pub fn draw(title: &str, lines: &[Line]) -> String {
    let all = || lines.iter().flat_map(|line| line.points.iter().copied());
    let ((x_low, x_high), (y_low, y_high)) = (decades(all().map(|p| p.0)), decades(all().map(|p| p.1)));
    let x = |value: f64| LEFT + (value.log10() - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT);
    let y =
        |value: f64| HEIGHT - BOTTOM - (value.log10() - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM);
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="system-ui, sans-serif" font-size="13">
<rect width="{WIDTH}" height="{HEIGHT}" fill="#fcfcfa"/>
<text x="{LEFT}" y="30" font-size="17" font-weight="600" fill="#222">{title}</text>
"##
    );
    let mut grid = |x1: f64, y1: f64, x2: f64, y2: f64, major: bool| {
        let colour = if major { "#cfcfc8" } else { "#ecece6" };
        let _ = writeln!(svg, r#"<path d="M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}" stroke="{colour}"/>"#);
    };
    let mut labels = String::new();
    for decade in x_low as i32..=x_high as i32 {
        let value = 10f64.powi(decade);
        let at = x(value);
        let _ = writeln!(
            labels,
            r##"<text x="{at:.1}" y="{:.1}" text-anchor="middle" fill="#444">{}</text>"##,
            bottom + 20.0,
            number(value)
        );
        for step in 1..10 {
            let at = x(value * f64::from(step));
            if at <= right + 0.1 {
                grid(at, TOP, at, bottom, step == 1);
            }
        }
    }
    for decade in y_low as i32..=y_high as i32 {
        let value = 10f64.powi(decade);
        let at = y(value);
        let _ = writeln!(
            labels,
            r##"<text x="{:.1}" y="{:.1}" text-anchor="end" fill="#444">{}</text>"##,
            LEFT - 8.0,
            at + 4.5,
            number(value)
        );
        for step in 1..10 {
            let at = y(value * f64::from(step));
            if at >= TOP - 0.1 {
                grid(LEFT, at, right, at, step == 1);
            }
        }
    }
    svg += &labels;
    let _ = writeln!(
        svg,
        r##"<text x="{:.1}" y="{:.1}" text-anchor="middle" fill="#222">files saved together</text>"##,
        (LEFT + right) / 2.0,
        HEIGHT - 14.0
    );
    let _ = writeln!(
        svg,
        r##"<text transform="translate(20 {:.1}) rotate(-90)" text-anchor="middle" fill="#222">milliseconds</text>"##,
        (TOP + bottom) / 2.0
    );
    let mut names = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let width = if line.strong { 3.2 } else { 1.7 };
        let mut path = String::new();
        for (step, point) in line.points.iter().enumerate() {
            let _ = write!(path, "{}{:.1} {:.1}", if step == 0 { 'M' } else { 'L' }, x(point.0), y(point.1));
            let _ = writeln!(
                svg,
                r#"<circle cx="{:.1}" cy="{:.1}" r="{width}" fill="{colour}"/>"#,
                x(point.0),
                y(point.1)
            );
        }
        let _ = writeln!(
            svg,
            r#"<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-linejoin="round"/>"#
        );
        if let Some(last) = line.points.last() {
            names.push((y(last.1), x(last.0), y(last.1), index));
        }
    }
    // Names must not overlap: they are pushed down, and up again from the lower edge.
    names.sort_by(|a, b| a.0.total_cmp(&b.0));
    for index in 1..names.len() {
        names[index].0 = names[index].0.max(names[index - 1].0 + NAME_HEIGHT);
    }
    let mut limit = bottom;
    for name in names.iter_mut().rev() {
        name.0 = name.0.min(limit);
        limit = name.0 - NAME_HEIGHT;
    }
    for (at, from_x, from_y, index) in names {
        let colour = COLOURS[index % COLOURS.len()];
        let weight = if lines[index].strong { 700 } else { 400 };
        let _ = writeln!(
            svg,
            r#"<path d="M{from_x:.1} {from_y:.1}L{:.1} {at:.1}" stroke="{colour}" stroke-width="0.8" stroke-dasharray="2 2"/>"#,
            right + 14.0
        );
        let _ = writeln!(
            svg,
            r#"<text x="{:.1}" y="{:.1}" fill="{colour}" font-weight="{weight}">{}</text>"#,
            right + 18.0,
            at + 4.5,
            lines[index].name
        );
    }
    svg += "</svg>\n";
    svg
}
