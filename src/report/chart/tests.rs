//! Properties of every chart, checked on its SVG: it is well-formed, has a title and a description, stays within its bounds, and
//! no label covers another.

use super::*;
use crate::stats::Interval;

/// An element's opening tag, with the text that follows it.
struct SvgElement {
    name: String,
    attributes: Vec<(String, String)>,
    text: String,
}

impl SvgElement {
    fn get(&self, key: &str) -> &str {
        self.attributes.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value)
    }

    fn number(&self, key: &str) -> f64 {
        self.get(key).parse().unwrap_or_else(|_| panic!("{key} of <{}>: `{}`", self.name, self.get(key)))
    }

    /// The points of its path.
    fn points(&self) -> Vec<(f64, f64)> {
        let d = self.get("d").replace(['M', 'L', 'Z'], " ");
        let numbers: Vec<f64> = d.split_whitespace().map(|number| number.parse().unwrap()).collect();
        numbers.chunks(2).map(|pair| (pair[0], pair[1])).collect()
    }
}

/// Elements in order of appearance; fails on XML that is not well-formed.
fn read(svg: &str) -> Vec<SvgElement> {
    let (mut elements, mut open): (Vec<SvgElement>, Vec<String>) = (Vec::new(), Vec::new());
    let mut rest = svg.trim_end();
    while let Some(tag) = rest.strip_prefix('<') {
        let end = tag.find('>').expect("unclosed tag");
        let (inside, after) = (&tag[..end], &tag[end + 1..]);
        let next = after.find('<').unwrap_or(after.len());
        assert!(!inside.contains('<'), "`<` within <{inside}>");
        if let Some(name) = inside.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "</{name}> does not match the last opening tag");
        } else {
            let (inside, single) = inside.strip_suffix('/').map_or((inside, false), |inside| (inside, true));
            let (name, mut list) = inside.split_once(' ').unwrap_or((inside, ""));
            let mut attributes = Vec::new();
            while let Some((key, value)) = list.trim_start().split_once("=\"") {
                let (value, more) = value.split_once('"').expect("unclosed value");
                assert!(attributes.iter().all(|(other, _)| other != key), "{key} twice in <{name}>");
                attributes.push((key.to_string(), value.to_string()));
                list = more;
            }
            assert!(list.trim().is_empty(), "left over in <{name}>: {list}");
            if !single {
                open.push(name.into());
            }
            elements.push(SvgElement { name: name.into(), attributes, text: plain(&after[..next]) });
        }
        rest = &after[next..];
    }
    assert!(rest.is_empty() && open.is_empty(), "{} left, {open:?} open", rest.len());
    elements
}

fn plain(text: &str) -> String {
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    let bare = entities.iter().fold(text.to_string(), |text, (entity, _)| text.replace(entity, ""));
    assert!(!bare.contains('&') && !bare.contains('>'), "not escaped: {text}");
    entities.iter().fold(text.to_string(), |text, (entity, c)| text.replace(entity, c))
}

/// The bounding box of a text, by the chart's own estimate of its width.
fn bounds(text: &SvgElement) -> (f64, f64, f64, f64) {
    let size = if text.get("class") == "title" { svg::TITLE } else { svg::TEXT };
    let (x, y, width) = (text.number("x"), text.number("y"), svg::width_of(&text.text, size));
    let left = match text.get("text-anchor") {
        "start" => x,
        "middle" => x - width / 2.0,
        _ => x - width,
    };
    (left, y - 0.8 * size, left + width, y + 0.25 * size)
}

#[track_caller]
fn check(svg: &str) -> Vec<SvgElement> {
    let elements = read(svg);
    let root = &elements[0];
    assert_eq!((root.name.as_str(), root.get("role")), ("svg", "img"));
    assert_eq!((elements[1].name.as_str(), elements[2].name.as_str()), ("title", "desc"));
    assert!(!elements[1].text.is_empty() && !elements[2].text.is_empty());

    let (width, height) = (root.number("width"), root.number("height"));
    let within = |x: f64, y: f64| (0.0..=width).contains(&x) && (0.0..=height).contains(&y);
    for element in &elements {
        match element.name.as_str() {
            "path" => assert!(element.points().iter().all(|&(x, y)| within(x, y)), "outside: {}", element.get("d")),
            "circle" => assert!(within(element.number("cx"), element.number("cy"))),
            "rect" if element.get("class") == "cell" => {
                let (x, y) = (element.number("x"), element.number("y"));
                assert!(within(x, y) && within(x + element.number("width"), y + element.number("height")));
            }
            _ => {}
        }
    }
    let texts: Vec<&SvgElement> = elements.iter().filter(|element| element.name == "text").collect();
    for (i, a) in texts.iter().enumerate() {
        let (left, top, right, bottom) = bounds(a);
        assert!(
            left >= -0.5 && right <= width + 0.5 && top >= -0.5 && bottom <= height + 0.5,
            "`{}` is outside",
            a.text
        );
        for b in &texts[..i] {
            let other = bounds(b);
            let apart = right <= other.0 || other.2 <= left || bottom <= other.1 || other.3 <= top;
            assert!(apart, "`{}` covers `{}`", a.text, b.text);
        }
    }
    elements
}

fn of_class<'a>(elements: &'a [SvgElement], class: &'a str) -> impl Iterator<Item = &'a SvgElement> {
    elements.iter().filter(move |element| element.get("class") == class)
}

const ARMS: [&str; 9] = [
    "reasoning",
    "planning",
    "code",
    "knowledge recall",
    "null-example",
    "none",
    "answer-only",
    "tag-swap",
    "a <b> & \"c\"",
];

/// Lines whose ends are close together.
pub fn curves(label: &str, unit: &str, height: f64) -> LineChart {
    let arm = |(i, name): (usize, &&str)| {
        let seed = |seed: u64| {
            let stream = crate::rng::Stream::new(seed, crate::rng::Purpose::Test, &[i as u64]);
            (0..=25u64)
                .map(|step| {
                    let rise = 1.0 - (-(step as f64) / (4.0 + i as f64 / 3.0)).exp();
                    (step, height * (0.3 + 0.5 * rise + 0.02 * stream.normal(step)))
                })
                .collect::<Vec<_>>()
        };
        Series::over_seeds(name, &[seed(1), seed(2), seed(3)])
    };
    LineChart {
        description: "Nine arms, the mean of three seeds each, with a band from the lowest to the highest.".into(),
        x: Axis::new("step", ""),
        y: Axis::new(label, unit),
        series: ARMS.iter().enumerate().map(arm).collect(),
    }
}

pub fn forest() -> Forest {
    let row = |(i, name): (usize, &&str)| {
        let value = 2.5 * i as f64 - 9.0;
        let around = |reach: f64| Some(Interval { low: value - reach, high: value + reach });
        let note = if value > 5.0 { "higher" } else { "no verdict: power 23 %" };
        ForestRow {
            label: name.to_string(),
            value,
            interval: around(3.0 + i as f64 / 2.0),
            second: around(7.0),
            note: note.into(),
        }
    };
    let group = |heading: &str| ForestGroup {
        heading: heading.into(),
        rows: ARMS.iter().take(8).enumerate().map(row).collect(),
    };
    Forest {
        title: "Each arm compared with no prompt".into(),
        description: "Differences of accuracy with 95 % intervals.".into(),
        axis: Axis::new("difference of accuracy", "points"),
        zero: true,
        legend: "Thick bar: 95 % interval over training seeds. Thin line: over questions.".into(),
        groups: vec![group("MATH-500"), group("AIME 2024")],
    }
}

pub fn heat() -> HeatMap {
    let value = |r: usize, c: usize| (r != 2 || c != 1).then_some((r as f64 - 3.0) * 7.3 + c as f64 * 2.0);
    HeatMap {
        title: "Behaviors: change from the base".into(),
        description: "Share of completions with each behavior, minus the base model's share.".into(),
        legend: "percentage points of completions".into(),
        rows: ARMS.iter().map(|arm| arm.to_string()).collect(),
        columns: ["verification", "backtracking", "subgoals", "code"].map(String::from).to_vec(),
        values: (0..ARMS.len()).map(|r| (0..4).map(|c| value(r, c)).collect()).collect(),
        decimals: 1,
        scale: Scale::Diverging,
    }
}

pub fn mosaic() -> Mosaic {
    let solved = |r: usize, c: usize| ((r * 31 + c * 17) % 5) as f64 / 4.0;
    Mosaic {
        title: "Questions solved".into(),
        description: "Nine arms by 120 questions.".into(),
        legend: "darker: more of the completions are right".into(),
        rows: ARMS.iter().map(|arm| arm.to_string()).collect(),
        columns: (0..120).map(|c| format!("question <{c}>")).collect(),
        values: (0..ARMS.len()).map(|r| (0..120).map(|c| solved(r, c)).collect()).collect(),
    }
}

#[test]
fn lines() {
    let chart = curves("reward", "", 1.0);
    let elements = check(&chart.panel());
    assert_eq!(of_class(&elements, "band").count(), 9);
    assert_eq!(of_class(&elements, "series").count(), 9);
    // A line is inside its band.
    let (band, line) =
        (of_class(&elements, "band").next().unwrap().points(), of_class(&elements, "series").next().unwrap());
    for (i, (x, y)) in line.points().into_iter().enumerate() {
        let (high, low) = (band[i], band[band.len() - 1 - i]);
        assert!(high.0 == x && low.0 == x && high.1 <= y + 0.01 && y <= low.1 + 0.01, "{high:?} {y} {low:?}");
    }
    assert_eq!(chart.panel(), chart.panel());
}

#[test]
fn gaps_and_empty_charts() {
    let mut chart = curves("reward", "", 1.0);
    chart.series.truncate(1);
    chart.series[0].points[5].y = f64::NAN;
    chart.series[0].points[10].band = None;
    let elements = check(&chart.panel());
    assert_eq!(of_class(&elements, "series").map(|line| line.points().len()).collect::<Vec<_>>(), [5, 20]);
    assert_eq!(of_class(&elements, "band").count(), 3);
    chart.series[0].points.clear();
    check(&chart.panel());
    chart.series.clear();
    check(&chart.panel());
    let points = Series::over_seeds("a", &[vec![(0, 1.0), (1, f64::NAN)], vec![(0, 3.0), (2, 5.0)]]).points;
    let point = |x, y, band| ChartPoint { x, y, band };
    assert_eq!(points, [point(0.0, 2.0, Some((1.0, 3.0))), point(2.0, 5.0, None)]);
}

#[test]
fn panels_have_no_title_and_no_names() {
    for (label, unit, height) in [("length", "tokens", 1_400.0), ("divergence", "nats", 1e-5), ("sampler gap", "", 0.0)]
    {
        let panel = curves(label, unit, height).panel();
        assert!(panel.contains("<title>Nine arms, the mean"), "{panel}");
        let elements = check(&panel);
        assert_eq!((of_class(&elements, "band").count(), of_class(&elements, "title").count()), (9, 0));
    }
}

#[test]
fn mosaics_show_every_share() {
    let elements = check(&mosaic().svg());
    // One path for each of four shades in each row, with a subpath per cell; 1 of 5 questions is not solved at all.
    let areas: Vec<usize> = of_class(&elements, "area").map(|area| area.get("d").matches('M').count()).collect();
    assert_eq!((areas.len(), areas.iter().sum::<usize>()), (9 * 4, 9 * 120 * 4 / 5));
    let told = elements.iter().filter(|element| element.name == "title" && element.text.starts_with("question <"));
    assert_eq!(told.count(), 120);
    let mut many = mosaic();
    many.columns = vec!["q".into(); 1_319];
    many.values = vec![vec![0.5; 1_319]; ARMS.len()];
    check(&many.svg());
    many.rows.clear();
    many.values.clear();
    check(&many.svg());
}

#[test]
fn forest_plots_have_intervals_and_a_zero_line() {
    let elements = check(&forest().svg());
    let zero = of_class(&elements, "axis").next().unwrap().points()[0].0;
    let dots: Vec<f64> = of_class(&elements, "dot").map(|dot| dot.number("cx")).collect();
    assert_eq!(dots.len(), 16);
    for (i, x) in dots.iter().enumerate() {
        let value = 2.5 * (i % 8) as f64 - 9.0;
        assert_eq!(*x > zero, value > 0.0, "{value} at {x}, zero at {zero}");
    }
    // No line crosses the row of a heading.
    for heading in of_class(&elements, "heading") {
        let y = heading.number("y") - 0.35 * svg::TEXT;
        for line in elements.iter().filter(|it| ["axis", "rule"].contains(&it.get("class"))) {
            let points = line.points();
            assert!(!(points[0].1..points[1].1).contains(&y), "a line crosses `{}`", heading.text);
        }
    }
    let bars = of_class(&elements, "bar").map(SvgElement::points);
    for (bar, dot) in bars.zip(dots.iter().flat_map(|dot| [dot, dot])) {
        assert!(bar[0].0 < *dot && *dot < bar[1].0);
    }
}

#[test]
fn heat_maps_print_values_in_cells() {
    let elements = check(&heat().svg());
    let cells: Vec<&SvgElement> = of_class(&elements, "cell").collect();
    let values: Vec<&str> = of_class(&elements, "value number").map(|value| value.text.as_str()).collect();
    assert_eq!((cells.len(), values.len()), (35, 35));
    for (cell, value) in cells.iter().zip(values) {
        let blue = cell.get("style").contains("--s0");
        assert_eq!(blue, !value.starts_with('+'), "{value}");
    }
    let mut none = heat();
    none.values.iter_mut().flatten().for_each(|value| *value = Some(0.0));
    assert!(!check(&none.svg()).iter().any(|element| element.text.contains(['+', '−'])));
}

#[test]
fn hostile_text_is_escaped() {
    let mut chart = curves("</svg><script>", "\u{0}&", 1.0);
    chart.description = "a \"title\" <b>&amp;</b> ".repeat(20);
    chart.series[0].name = "]]><!-- -->".repeat(30);
    let elements = check(&chart.panel());
    assert!(elements.iter().all(|element| !["b", "script"].contains(&element.name.as_str())));
}

/// Writes the examples of this file to the folder in `RFT_CHARTS`, for visual inspection.
#[test]
fn write_examples() {
    let Some(folder) = std::env::var_os("RFT_CHARTS") else { return };
    let charts = [
        ("forest", forest().svg()),
        ("heat", heat().svg()),
        ("mosaic", mosaic().svg()),
        ("panel", curves("length", "tokens", 1_400.0).panel()),
    ];
    for (name, svg) in charts {
        std::fs::write(std::path::Path::new(&folder).join(name).with_extension("svg"), svg).unwrap();
    }
}
