//! The bench's results, as text and as a plot.

use std::fmt::Write as _;

/// The results for one table size.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub slots: usize,
    /// CPU milliseconds of a client's steady turn: hsdo's, and the floor's.
    pub client_cpu: f64,
    pub floor_cpu: f64,
    /// The same turn with a report table.
    pub reporting_cpu: f64,
    /// HAProxy's CPU milliseconds in such a turn.
    pub haproxy_cpu: f64,
    /// Resident and peak MiB of the client.
    pub client_memory: (f64, f64),
    /// A client's steady turn: connections and commands to HAProxy, DynamoDB calls and read units.
    pub connections: f64,
    pub commands: f64,
    pub client_calls: f64,
    pub client_units: f64,
    /// CPU milliseconds of a server's steady turn.
    pub server_cpu: f64,
    /// The same with a pattern of groups, sizes, factors of groups and tags.
    pub selecting_cpu: f64,
    /// Resident and peak MiB of the server.
    pub server_memory: (f64, f64),
    /// A server's steady turn: AWS calls, read and write units.
    pub server_calls: f64,
    pub server_units: (f64, f64),
    /// From the answer of a restarted HAProxy's socket to its last server, in milliseconds, and HAProxy's CPU time for
    /// it.
    pub refill: (f64, f64),
    /// Milliseconds of a `--server --once` that fills an empty table, and its write calls.
    pub fill: f64,
    pub fill_writes: u64,
    /// Milliseconds of a `--client --once` on a filled HAProxy.
    pub start: f64,
}

/// The time from a change in the group to HAProxy, at one interval.
#[derive(Clone, Debug)]
pub struct Change {
    pub interval: f64,
    pub samples: usize,
    pub median: f64,
    pub high: f64,
}

type Line = (&'static str, fn(&Row) -> String);

const LINES: [Line; 17] = [
    ("client: CPU a steady turn, ms", |row| format!("{:.2}", row.client_cpu)),
    ("  floor: the same calls, nothing else, ms", |row| format!("{:.2}", row.floor_cpu)),
    ("  client / floor", |row| format!("{:.2}", row.client_cpu / row.floor_cpu)),
    ("  with a report table, ms", |row| format!("{:.2}", row.reporting_cpu)),
    ("  HAProxy's own CPU for it, ms", |row| format!("{:.2}", row.haproxy_cpu)),
    ("client: resident / peak, MiB", |row| format!("{:.1} / {:.1}", row.client_memory.0, row.client_memory.1)),
    ("client: connections / commands to HAProxy a turn", |row| format!("{:.2} / {:.2}", row.connections, row.commands)),
    ("client: DynamoDB calls / read units a turn", |row| format!("{:.2} / {:.2}", row.client_calls, row.client_units)),
    ("server: CPU a steady turn, ms", |row| format!("{:.2}", row.server_cpu)),
    ("&nbsp;&nbsp;with a pattern, sizes, factors and tags, ms", |row| format!("{:.2}", row.selecting_cpu)),
    ("server: resident / peak, MiB", |row| format!("{:.1} / {:.1}", row.server_memory.0, row.server_memory.1)),
    ("server: AWS calls a turn", |row| format!("{:.2}", row.server_calls)),
    ("server: read / write units a turn", |row| format!("{:.1} / {:.2}", row.server_units.0, row.server_units.1)),
    ("HAProxy restarted: filled again after / HAProxy's own CPU for it, ms", |row| {
        format!("{:.0} / {:.0}", row.refill.0, row.refill.1)
    }),
    ("empty table: filled by --once after, ms", |row| format!("{:.0}", row.fill)),
    ("empty table: DynamoDB write calls", |row| row.fill_writes.to_string()),
    ("client: --once from start to end, ms", |row| format!("{:.0}", row.start)),
];

/// The tables, ready for `tests/README.md`.
pub fn text(machine: &str, rows: &[Row], changes: &[Change]) -> String {
    let mut text = format!("{machine}\n\n| slots |");
    for row in rows {
        let _ = write!(text, " {} |", row.slots);
    }
    let _ = write!(text, "\n| --- |{}", " --- |".repeat(rows.len()));
    for (name, cell) in LINES {
        let cells: Vec<String> = rows.iter().map(cell).collect();
        let _ = write!(text, "\n| {} | {} |", name.replace("  ", "&nbsp;&nbsp;"), cells.join(" | "));
    }
    text.push_str("\n\n| from a change in the group to HAProxy, 100 slots | median, s | 99th percentile, s | samples |\n| --- | --- | --- | --- |");
    for Change { interval, samples, median, high } in changes {
        let _ = write!(text, "\n| `INTERVAL` {interval} (both roles) | {median:.2} | {high:.2} | {samples} |");
    }
    text.push('\n');
    text
}

/// CPU of a steady turn against slots, on logarithmic axes.
pub fn plot(rows: &[Row]) -> String {
    let (width, height, left, top) = (640.0, 400.0, 70.0, 30.0);
    let (low, high) = (-1.0_f64, 2.0_f64);
    let x = |slots: usize| left + ((slots as f64).log10() - 1.0) / 3.0 * (width - left - 150.0);
    let y = |millis: f64| top + (high - millis.max(0.1).log10()) / (high - low) * (height - top - 50.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{left}\" y=\"18\">CPU of a steady turn (ms) against slots</text>\n"
    );
    for (value, label) in [(0.1, "0.1"), (1.0, "1"), (10.0, "10"), (100.0, "100")] {
        let at = y(value);
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {at:.0}H{:.0}\" stroke=\"#ddd\"/><text x=\"30\" y=\"{at:.0}\">{label}</text>",
            width - 150.0
        );
    }
    for row in rows {
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x(row.slots),
            height - 25.0,
            row.slots
        );
    }
    type Series = (&'static str, &'static str, fn(&Row) -> f64);
    let series: [Series; 3] = [
        ("client", "#1f6fb2", |row| row.client_cpu),
        ("floor", "#888888", |row| row.floor_cpu),
        ("server", "#c2410c", |row| row.server_cpu),
    ];
    for (name, colour, value) in series {
        let points: Vec<String> = rows.iter().map(|row| format!("{:.0},{:.0}", x(row.slots), y(value(row)))).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            points.join(" ")
        );
        if let Some(last) = rows.last() {
            let _ = writeln!(
                svg,
                "<text x=\"{:.0}\" y=\"{:.0}\" fill=\"{colour}\">{name}</text>",
                x(last.slots) + 8.0,
                y(value(last)) + 4.0
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}
