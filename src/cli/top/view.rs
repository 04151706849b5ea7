//! What `mqns top` shows, as a function of what was seen: no clock, no terminal, no queue.

use std::collections::{BTreeMap, VecDeque};

use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row, Sparkline, Table, TableState};

/// Samples remembered of each queue: as many as a wide terminal has columns for.
const HISTORY: usize = 512;
/// Lines of the graph, its heading included.
const GRAPH: u16 = 6;

/// A queue at one moment. What is not for this user to know is `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct Queue {
    /// Number of its namespace.
    pub namespace: u64,
    /// With its slash, printable.
    pub name: String,
    pub depth: Option<Depth>,
    pub state: Option<State>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Depth {
    pub messages: u64,
    pub maxmsg: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    pub bytes: u64,
    /// Messages since it was made.
    pub sent: u64,
    pub received: u64,
    /// Threads that wait.
    pub receivers: u32,
    pub senders: u32,
    /// The process registered for notification.
    pub notify: Option<u32>,
    /// When the queue was made: one that has taken another's name is not the same.
    pub created: u64,
}

/// All queues at one moment.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Seconds, of any clock that goes on.
    pub at: f64,
    /// For people.
    pub clock: String,
    /// The namespaces that can be switched to, in their order.
    pub namespaces: Vec<u64>,
    pub queues: Vec<Queue>,
    /// Namespaces that this user may not look into.
    pub hidden: usize,
}

/// Messages a second, since the sample before.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    pub sent: f64,
    pub received: f64,
}

/// A line of the table.
#[derive(Clone, Debug)]
pub struct Shown {
    pub queue: Queue,
    /// `None`: it was not there before.
    pub rates: Option<Rates>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Point {
    messages: u64,
    rates: Rates,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sort {
    Rate,
    Depth,
    Bytes,
    Waiters,
    Name,
}

impl Sort {
    fn name(self) -> &'static str {
        match self {
            Sort::Rate => "rate",
            Sort::Depth => "depth",
            Sort::Bytes => "bytes",
            Sort::Waiters => "waiters",
            Sort::Name => "name",
        }
    }
}

/// What a key asks for that is not for the view to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    None,
    /// Another scope: the next sample now.
    Sample,
    Suspend,
    Quit,
}

type Key = (u64, String);

/// All that the screen depends on.
pub struct View {
    /// The namespace that is shown; `None`: all.
    pub scope: Option<u64>,
    pub sort: Sort,
    pub reverse: bool,
    pub filter: String,
    /// The filter is being typed.
    typing: bool,
    graph: bool,
    colour: bool,
    selected: Option<Key>,
    sample: Sample,
    shown: Vec<Shown>,
    history: BTreeMap<Key, VecDeque<Point>>,
}

impl View {
    pub fn new(scope: Option<u64>, sort: Sort, colour: bool) -> View {
        View {
            scope,
            sort,
            reverse: false,
            filter: String::new(),
            typing: false,
            graph: true,
            colour,
            selected: None,
            sample: Sample::default(),
            shown: Vec::new(),
            history: BTreeMap::new(),
        }
    }

    /// Takes a sample in.
    pub fn sample(&mut self, sample: Sample) {
        let before: BTreeMap<_, _> = self.sample.queues.iter().map(|q| ((q.namespace, &q.name), q.state)).collect();
        let seconds = sample.at - self.sample.at;
        let rates = |queue: &Queue| {
            let (old, new) = (before.get(&(queue.namespace, &queue.name)).copied().flatten()?, queue.state?);
            let rate = |old: u64, new: u64| (new.wrapping_sub(old) as i64) as f64 / seconds;
            // What is given back counts as not received: that is no rate.
            (old.created == new.created && new.sent >= old.sent && seconds > 0.0)
                .then(|| Rates { sent: rate(old.sent, new.sent), received: rate(old.received, new.received).max(0.0) })
        };
        self.shown = sample.queues.iter().map(|queue| Shown { queue: queue.clone(), rates: rates(queue) }).collect();
        let mut history = std::mem::take(&mut self.history);
        for shown in &self.shown {
            let key = (shown.queue.namespace, shown.queue.name.clone());
            let mut points = history.remove(&key).unwrap_or_default();
            let messages = shown.queue.depth.map_or(0, |depth| depth.messages);
            points.push_back(Point { messages, rates: shown.rates.unwrap_or_default() });
            if points.len() > HISTORY {
                points.pop_front();
            }
            self.history.insert(key, points);
        }
        self.sample = sample;
        self.arrange();
    }

    fn arrange(&mut self) {
        let rate = |shown: &Shown| shown.rates.map_or(-1.0, |rates| rates.sent + rates.received);
        let full = |shown: &Shown| shown.queue.depth.map_or(-1.0, |d| d.messages as f64 / d.maxmsg.max(1) as f64);
        let bytes = |shown: &Shown| shown.queue.state.map(|state| state.bytes);
        let waiters = |shown: &Shown| shown.queue.state.map(|state| state.receivers + state.senders);
        let (sort, reverse) = (self.sort, self.reverse);
        self.shown.sort_by(|a, b| {
            let order = match sort {
                Sort::Rate => rate(b).total_cmp(&rate(a)),
                Sort::Depth => full(b).total_cmp(&full(a)),
                Sort::Bytes => bytes(b).cmp(&bytes(a)),
                Sort::Waiters => waiters(b).cmp(&waiters(a)),
                Sort::Name => std::cmp::Ordering::Equal,
            };
            let order = order.then_with(|| (&a.queue.name, a.queue.namespace).cmp(&(&b.queue.name, b.queue.namespace)));
            if reverse { order.reverse() } else { order }
        });
    }

    /// The lines of the table, in their order.
    pub fn rows(&self) -> Vec<&Shown> {
        self.shown.iter().filter(|shown| shown.queue.name.contains(&self.filter)).collect()
    }

    fn position(&self) -> usize {
        let is_it = |shown: &&Shown| {
            self.selected.as_ref().is_some_and(|(ns, name)| shown.queue.namespace == *ns && shown.queue.name == *name)
        };
        self.rows().iter().position(is_it).unwrap_or(0)
    }

    fn select(&mut self, at: usize) {
        let rows = self.rows();
        let row = rows.get(at.min(rows.len().saturating_sub(1)));
        self.selected = row.map(|shown| (shown.queue.namespace, shown.queue.name.clone()));
    }

    /// A key was pressed.
    pub fn key(&mut self, key: KeyEvent) -> Request {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Request::Quit,
                KeyCode::Char('z') => Request::Suspend,
                KeyCode::Char('l') => Request::Sample,
                _ => Request::None,
            };
        }
        if self.typing {
            match key.code {
                KeyCode::Enter => self.typing = false,
                KeyCode::Esc => {
                    self.typing = false;
                    self.filter.clear();
                }
                KeyCode::Backspace => {
                    self.filter.pop();
                }
                KeyCode::Char(c) => self.filter.push(c),
                _ => {}
            }
            return Request::None;
        }
        let at = self.position();
        let mut sort = |by| {
            self.sort = by;
            self.arrange();
        };
        match key.code {
            KeyCode::Char('q') => return Request::Quit,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('r') => sort(Sort::Rate),
            KeyCode::Char('d') => sort(Sort::Depth),
            KeyCode::Char('b') => sort(Sort::Bytes),
            KeyCode::Char('w') => sort(Sort::Waiters),
            KeyCode::Char('n') => sort(Sort::Name),
            KeyCode::Char('R') => {
                self.reverse = !self.reverse;
                self.arrange();
            }
            KeyCode::Char('g') => self.graph = !self.graph,
            KeyCode::Up | KeyCode::Char('k') => self.select(at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select(at + 1),
            KeyCode::PageUp => self.select(at.saturating_sub(10)),
            KeyCode::PageDown => self.select(at + 10),
            KeyCode::Home => self.select(0),
            KeyCode::End => self.select(usize::MAX),
            KeyCode::Char('a') => {
                self.scope = match self.scope {
                    Some(_) => None,
                    None => self.sample.namespaces.first().copied(),
                };
                return Request::Sample;
            }
            KeyCode::Tab => {
                let all = &self.sample.namespaces;
                let next = self.scope.and_then(|scope| all.iter().position(|&ns| ns == scope)).map_or(0, |at| at + 1);
                self.scope = all.get(next).or(all.first()).copied();
                return Request::Sample;
            }
            _ => {}
        }
        Request::None
    }

    fn coloured(&self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    /// The whole screen.
    pub fn draw(&self, frame: &mut Frame) {
        let rows = self.rows();
        let selected = rows.get(self.position()).copied();
        let area = frame.area();
        let graph = if self.graph && selected.is_some() && area.height >= GRAPH + 7 { GRAPH } else { 0 };
        let [title, table, below, help] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Min(0),
            Constraint::Length(graph),
            Constraint::Length(1),
        ])
        .areas(area);
        frame.render_widget(self.title(&rows), title);
        self.table(frame, table, &rows);
        if let (Some(selected), true) = (selected, graph > 0) {
            self.graph(frame, below, selected);
        }
        frame.render_widget(self.help(), help);
    }

    fn title(&self, rows: &[&Shown]) -> Line<'_> {
        let scope = self.scope.map_or("all namespaces".into(), |scope| format!("ipc:[{scope}]"));
        let sum = |rate: fn(&Rates) -> f64| {
            rows.iter().filter_map(|shown| shown.rates.as_ref()).map(rate).fold(0.0, |a, b| a + b)
        };
        let plural = if rows.len() == 1 { "" } else { "s" };
        let mut text = format!(
            "{}  {scope}  {} queue{plural}, {}/s in, {}/s out, by {}",
            self.sample.clock,
            rows.len(),
            number(sum(|rates| rates.sent)),
            number(sum(|rates| rates.received)),
            self.sort.name()
        );
        if self.sample.hidden > 0 {
            text += &format!("; {} not for this user to see", self.sample.hidden);
        }
        Line::styled(text, Style::new().add_modifier(Modifier::BOLD))
    }

    fn table(&self, frame: &mut Frame, area: Rect, rows: &[&Shown]) {
        let all = self.scope.is_none();
        let right = |text: String| Cell::from(Line::from(text).right_aligned());
        let known = |value: Option<String>| right(value.unwrap_or("-".into()));
        let line = |shown: &&Shown| {
            let (state, depth) = (shown.queue.state, shown.queue.depth);
            let mut cells = vec![Cell::from(shown.queue.name.clone())];
            if all {
                cells.push(right(shown.queue.namespace.to_string()));
            }
            cells.extend([
                depth.map_or(Cell::from("-"), |depth| Cell::from(self.bar(depth))),
                known(depth.map(|depth| format!("{}/{}", depth.messages, depth.maxmsg))),
                known(state.map(|state| number(state.bytes as f64))),
                known(shown.rates.map(|rates| number(rates.sent))),
                known(shown.rates.map(|rates| number(rates.received))),
                known(state.map(|state| state.receivers.to_string())),
                known(state.map(|state| state.senders.to_string())),
                known(state.and_then(|state| state.notify).map(|pid| pid.to_string())),
            ]);
            Row::new(cells)
        };
        let mut columns = vec![("NAME", Constraint::Min(8))];
        if all {
            columns.push(("NS", Constraint::Length(10)));
        }
        columns.extend([
            ("DEPTH", Constraint::Length(BAR as u16)),
            ("MSGS", Constraint::Length(11)),
            ("BYTES", Constraint::Length(6)),
            ("IN/s", Constraint::Length(6)),
            ("OUT/s", Constraint::Length(6)),
            ("RECV", Constraint::Length(4)),
            ("SEND", Constraint::Length(4)),
            ("NOTIFY", Constraint::Length(7)),
        ]);
        let heading = |&(name, _): &(&'static str, Constraint)| match name {
            "NAME" | "DEPTH" => Cell::from(name),
            _ => right(name.into()),
        };
        let header = Row::new(columns.iter().map(heading)).style(Style::new().add_modifier(Modifier::REVERSED));
        let table = Table::new(rows.iter().map(line), columns.iter().map(|&(_, width)| width))
            .header(header)
            .row_highlight_style(Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED));
        let mut state = TableState::default().with_selected((!rows.is_empty()).then(|| self.position()));
        frame.render_stateful_widget(table, area, &mut state);
    }

    fn bar(&self, depth: Depth) -> Line<'static> {
        let eighths = (depth.messages * BAR as u64 * 8).div_ceil(depth.maxmsg.max(1)).min(BAR as u64 * 8) as usize;
        let mut text = "█".repeat(eighths / 8);
        text.extend([' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'].get(eighths % 8).filter(|_| !eighths.is_multiple_of(8)));
        let colour = match depth.messages * 4 / depth.maxmsg.max(1) {
            0 | 1 => Color::Green,
            2 => Color::Yellow,
            _ => Color::Red,
        };
        Line::from(Span::styled(text, self.coloured(colour)))
    }

    fn graph(&self, frame: &mut Frame, area: Rect, shown: &Shown) {
        let key = (shown.queue.namespace, shown.queue.name.clone());
        let points = self.history.get(&key).cloned().unwrap_or_default();
        let most = |value: fn(&Point) -> f64| points.iter().map(value).fold(0.0, f64::max);
        let maxmsg = shown.queue.depth.map_or(0, |depth| depth.maxmsg);
        let name = &shown.queue.name;
        type Value = fn(&Point) -> f64;
        let graphs: [(String, Value, u64, Color); 3] = [
            (format!("{name}: depth, of {maxmsg}"), |point| point.messages as f64, maxmsg, Color::Cyan),
            (
                format!("in/s, up to {}", number(most(|point| point.rates.sent))),
                |point| point.rates.sent,
                most(|point| point.rates.sent).ceil() as u64,
                Color::Green,
            ),
            (
                format!("out/s, up to {}", number(most(|point| point.rates.received))),
                |point| point.rates.received,
                most(|point| point.rates.received).ceil() as u64,
                Color::Magenta,
            ),
        ];
        let areas: [Rect; 3] = Layout::horizontal([Constraint::Fill(1); 3]).spacing(1).areas(area);
        for ((title, value, most, colour), area) in graphs.into_iter().zip(areas) {
            let [heading, graph] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
            frame.render_widget(Line::styled(title, Style::new().add_modifier(Modifier::UNDERLINED)), heading);
            let room = usize::from(graph.width);
            // Something is something, however little of it.
            let data = points.iter().skip(points.len().saturating_sub(room)).map(|point| value(point).ceil() as u64);
            let sparkline = Sparkline::default().max(most.max(1)).style(self.coloured(colour));
            frame.render_widget(sparkline.data(data.collect::<Vec<_>>()), graph);
        }
    }

    fn help(&self) -> Line<'static> {
        if self.typing {
            return Line::from(format!("/{}_  (Enter: keep, Esc: all)", self.filter));
        }
        let mut text = String::new();
        if !self.filter.is_empty() {
            text = format!("/{}  ", self.filter);
        }
        text += "[q]uit [/]filter [r]ate [d]epth [b]ytes [w]aiters [n]ame [R]everse [Tab]namespace [a]ll [g]raph";
        Line::from(text)
    }
}

/// Columns of a depth's bar.
const BAR: usize = 10;

/// A number in six columns.
pub fn number(value: f64) -> String {
    let mut value = value;
    for unit in ["", "K", "M", "G"] {
        if value < 999.5 {
            let whole = value >= 99.95 || unit.is_empty() && value.fract() == 0.0;
            return if whole { format!("{value:.0}{unit}") } else { format!("{value:.1}{unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.0}T")
}
