//! `mqns top`: the queues of a namespace, or of all, as they change.

mod view;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::crossterm::{cursor, execute};
use ratatui::layout::Rect;

use super::look::{glance, local};
use super::lsns;
use super::preloaded::{Preloaded, namespace_of};
use super::queue::go;
use super::signals::Signals;
use super::table::{Heading, Kind, Table, printable};
use super::{Cause, Exit, Failure, Top, print};
use view::{Depth, Queue, Request, Sample, Sort, State, View};

impl From<super::TopSort> for Sort {
    fn from(sort: super::TopSort) -> Sort {
        match sort {
            super::TopSort::Rate => Sort::Rate,
            super::TopSort::Depth => Sort::Depth,
            super::TopSort::Bytes => Sort::Bytes,
            super::TopSort::Waiters => Sort::Waiters,
            super::TopSort::Name => Sort::Name,
        }
    }
}

/// Where samples are taken.
struct Source {
    library: Preloaded,
    /// That of the arguments.
    own: fs::File,
    number: u64,
    begin: Instant,
}

impl Source {
    fn new(library: Preloaded) -> Result<Source, Failure> {
        // Of this thread, whose namespace changes with each that is looked at.
        const OWN: &str = "/proc/thread-self/ns/ipc";
        let fail = |e: io::Error| Failure::new(Exit::Failed, OWN, Cause(&e), "mount /proc: mount -t proc proc /proc");
        let own = fs::File::open(OWN).map_err(fail)?;
        let link = fs::read_link(OWN).map_err(fail)?;
        let number = lsns::id(link.as_os_str().as_bytes()).unwrap_or(0);
        Ok(Source { library, own, number, begin: Instant::now() })
    }

    /// `scope`: of one namespace; `None`: of all.
    fn sample(&self, scope: Option<u64>) -> Result<Sample, Failure> {
        let now = local(std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()), c"%T");
        let mut sample = Sample { at: self.begin.elapsed().as_secs_f64(), clock: now, ..Sample::default() };
        let mut members: BTreeMap<u64, u32> = BTreeMap::new();
        for pid in lsns::processes()? {
            if let Some(id) = lsns::namespace_number(pid) {
                members.entry(id).or_insert(pid);
            }
        }
        sample.namespaces = vec![self.number];
        sample.namespaces.extend(members.keys().copied().filter(|&id| id != self.number));
        for &id in sample.namespaces.iter().filter(|&&id| scope.is_none_or(|scope| scope == id)) {
            if id == self.number {
                self.look(id, &mut sample.queues)?;
                continue;
            }
            let file = members.get(&id).and_then(|&pid| fs::File::open(namespace_of(pid)).ok());
            match file.and_then(|file| self.library.join(&file).ok()) {
                Some(()) => {
                    let looked = self.look(id, &mut sample.queues);
                    self.library.join(&self.own).map_err(|e| {
                        Failure::new(Exit::Failed, "the namespace of mqns", Cause(&e), "start it again, as root")
                    })?;
                    looked?;
                }
                None => sample.hidden += 1,
            }
        }
        Ok(sample)
    }

    fn look(&self, namespace: u64, to: &mut Vec<Queue>) -> Result<(), Failure> {
        for (name, attributes, state) in glance(&self.library)? {
            let depth = attributes.map(|a| Depth { messages: a.messages, maxmsg: a.maxmsg });
            let state = state.map(|state| State {
                bytes: state.bytes,
                sent: state.sent,
                received: state.sent.saturating_sub(state.messages.into()),
                receivers: state.receivers,
                senders: state.senders,
                notify: u32::try_from(state.notify_pid).ok(),
                created: state.created,
            });
            to.push(Queue { namespace, name: printable(name.as_bytes()), depth, state });
        }
        Ok(())
    }
}

/// Shows them until it is to end.
pub fn top(arguments: Top) -> Result<(), Failure> {
    let terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    if !arguments.batch && !terminal {
        let (object, cause) = ("standard input and output", "not a terminal");
        return Err(Failure::new(Exit::Failed, object, cause, "give it one, or print tables: mqns top --batch -n N"));
    }
    let library = go(&arguments.at)?;
    let source = Source::new(library)?;
    let scope = if arguments.all { None } else { Some(source.number) };
    let colour = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut view = View::new(scope, arguments.sort.into(), colour);
    view.sample(source.sample(scope)?);
    if arguments.batch { batch(&arguments, &source, view) } else { live(&arguments, &source, view) }
}

/// Tables, one after each interval: so their rates are those of that interval.
fn batch(arguments: &Top, source: &Source, mut view: View) -> Result<(), Failure> {
    let mut left = arguments.iterations.unwrap_or(u64::MAX);
    let mut next = Instant::now();
    while left > 0 {
        next += arguments.delay;
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let sample = source.sample(view.scope)?;
        let mut text = format!("mqns top - {}\n", sample.clock);
        view.sample(sample);
        let heading = |name, kind| Heading { name, kind };
        let mut headings = vec![heading("NAME", Kind::Text)];
        if view.scope.is_none() {
            headings.push(heading("NS", Kind::Number));
        }
        let numbers = ["MSGS", "MAXMSG", "BYTES", "IN/s", "OUT/s", "RECV", "SEND", "NOTIFY"];
        headings.extend(numbers.map(|name| heading(name, Kind::Number)));
        let rate = |value: f64| (value * 10.0).round() / 10.0;
        let rows = view.rows().into_iter().map(|shown| {
            let (queue, state, rates) = (&shown.queue, shown.queue.state, shown.rates);
            let mut row = vec![queue.name.clone().into()];
            if view.scope.is_none() {
                row.push(queue.namespace.into());
            }
            row.extend([
                queue.depth.map(|depth| depth.messages).into(),
                queue.depth.map(|depth| depth.maxmsg).into(),
                state.map(|state| state.bytes).into(),
                rates.map(|rates| rate(rates.sent)).into(),
                rates.map(|rates| rate(rates.received)).into(),
                state.map(|state| state.receivers).into(),
                state.map(|state| state.senders).into(),
                state.and_then(|state| state.notify).into(),
            ]);
            row
        });
        let table = Table { name: "queues", rows: rows.collect(), headings };
        text += &table.aligned(true, None);
        left -= 1;
        if left > 0 {
            text.push('\n');
        }
        print(&text)?;
    }
    Ok(())
}

/// Something to react to.
enum Happened {
    Key(KeyEvent),
    Resized,
    Signal(i32),
    /// The terminal is gone.
    Gone,
}

/// The terminal as it was, whatever has become of it.
fn restore() {
    let _ = disable_raw_mode();
    let _ = execute!(io::stdout(), LeaveAlternateScreen, cursor::Show);
}

type Screen = Terminal<CrosstermBackend<io::Stdout>>;

/// The terminal as the view needs it, also if somebody has changed it meanwhile.
fn take(screen: &mut Screen) -> io::Result<()> {
    let _ = disable_raw_mode();
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, cursor::Hide)?;
    // Not `clear`, which asks the terminal where its cursor is: the answer goes to whoever reads keys.
    let size = screen.size()?;
    screen.resize(Rect::new(0, 0, size.width, size.height))
}

fn live(arguments: &Top, source: &Source, view: View) -> Result<(), Failure> {
    let signals = Signals::block(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGTSTP, libc::SIGCONT]);
    let said = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore();
        said(info);
    }));
    let failed = |e: io::Error| Failure::new(Exit::Failed, "the terminal", Cause(&e), "see TERM, or use --batch");
    let shown = || -> Result<_, Failure> {
        let mut screen = Terminal::new(CrosstermBackend::new(io::stdout())).map_err(failed)?;
        take(&mut screen).map_err(failed)?;
        show(arguments, source, view, &signals, &mut screen)
    };
    let shown = shown();
    restore();
    if let Some(signal) = shown? {
        signals.end_by(signal);
    }
    Ok(())
}

/// Until it is to end; the signal that asked for it.
fn show(
    arguments: &Top,
    source: &Source,
    mut view: View,
    signals: &Signals,
    screen: &mut Screen,
) -> Result<Option<i32>, Failure> {
    let failed = |e: io::Error| Failure::new(Exit::Failed, "the terminal", Cause(&e), "see TERM, or use --batch");
    let (to, from) = channel();
    let tell = to.clone();
    signals.watch(move |signal| drop(tell.send(Happened::Signal(signal))));
    thread::spawn(move || {
        loop {
            let happened = match event::read() {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => Happened::Key(key),
                Ok(Event::Resize(..)) => Happened::Resized,
                Ok(_) => continue,
                Err(_) => Happened::Gone,
            };
            let gone = matches!(happened, Happened::Gone);
            if to.send(happened).is_err() || gone {
                return;
            }
        }
    });
    let mut left = arguments.iterations.unwrap_or(u64::MAX);
    let mut next = Instant::now() + arguments.delay;
    loop {
        screen.draw(|frame| view.draw(frame)).map_err(failed)?;
        let mut sample_now = false;
        match from.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(Happened::Key(key)) => match view.key(key) {
                Request::None => {}
                Request::Sample => sample_now = true,
                Request::Suspend => suspend(screen).map_err(failed)?,
                Request::Quit => return Ok(None),
            },
            Ok(Happened::Resized) => {}
            Ok(Happened::Signal(libc::SIGTSTP)) => suspend(screen).map_err(failed)?,
            Ok(Happened::Signal(libc::SIGCONT)) => take(screen).map_err(failed)?,
            Ok(Happened::Signal(signal)) => return Ok(Some(signal)),
            Ok(Happened::Gone) | Err(RecvTimeoutError::Disconnected) => return Ok(Some(libc::SIGHUP)),
            Err(RecvTimeoutError::Timeout) => {
                left -= 1;
                if left == 0 {
                    return Ok(None);
                }
                next = (next + arguments.delay).max(Instant::now());
                sample_now = true;
            }
        }
        if sample_now {
            view.sample(source.sample(view.scope)?);
        }
    }
}

/// As the terminal's suspend key does with other programs; returns when continued.
fn suspend(screen: &mut Screen) -> io::Result<()> {
    restore();
    io::stdout().flush()?;
    // SAFETY: no memory is passed. (SIGTSTP itself is kept off.)
    unsafe { libc::raise(libc::SIGSTOP) };
    take(screen)
}

/// For clap: an interval that is worth a screen.
pub fn delay(text: &str) -> Result<Duration, String> {
    super::message::seconds(text).and_then(|delay| {
        if delay < Duration::from_millis(50) { Err("not less than 0.05 seconds".into()) } else { Ok(delay) }
    })
}
