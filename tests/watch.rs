//! `mqns tap` and `mqns top`: those who look on. What is sent is accounted for; nobody waits for who looks; the
//! screen is a function of what was seen, and the terminal is given back as it was.

mod harness;
#[path = "../src/cli/top/view.rs"]
#[allow(dead_code)]
mod view;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use harness::StateDir;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};
use view::{Depth, Queue, Request, Sample, Sort, State, View};

fn mqns(state: &StateDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mqns"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MQNS_")) {
        command.env_remove(name);
    }
    command.env_remove("LD_PRELOAD").env_remove("ASAN_OPTIONS").env_remove("NO_COLOR").env("TZ", "UTC");
    command.env("MQNS_LIB", harness::library()).env("MQNS_DIR", state.path()).stdin(Stdio::null()).args(arguments);
    command
}

#[track_caller]
fn says(state: &StateDir, arguments: &[&str]) -> String {
    let output = mqns(state, arguments).output().expect("run mqns");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{arguments:?}");
    text(&output.stdout).to_string()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// Waits for something that is about to be so.
#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `mqns tap`, that has begun to tap; killed in the end.
struct Tap {
    child: Child,
    lines: Option<BufReader<ChildStdout>>,
}

impl Tap {
    fn start(state: &StateDir, queue: &str, arguments: &[&str]) -> Tap {
        let openers = || {
            let stat: Value = serde_json::from_str(&says(state, &["stat", "-J", queue])).expect("JSON");
            stat["queues"][0]["openers"].as_array().expect("a list").len()
        };
        let before = openers();
        let mut command = mqns(state, &["tap"]);
        let mut child =
            command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run mqns");
        until("it has the queue open", || openers() > before);
        // It is asleep: all its queues are tapped.
        let (pid, lines) = (child.id(), child.stdout.take().map(BufReader::new));
        until("it waits", || is_asleep(pid));
        Tap { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.as_mut().expect("not ended").read_line(&mut line).expect("read from mqns");
        line.trim_end().to_string()
    }

    fn signal(&self, signal: i32) {
        // SAFETY: no memory is passed; the child is not reaped yet.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// What it still says, and how it ends.
    fn end(mut self) -> Output {
        let mut rest = Vec::new();
        self.lines.take().expect("not ended").read_to_end(&mut rest).expect("read from mqns");
        let mut said = Vec::new();
        self.child.stderr.take().expect("a pipe").read_to_end(&mut said).expect("read from mqns");
        Output { status: self.child.wait().expect("wait"), stdout: rest, stderr: said }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether all threads of a process sleep, of which there are several.
fn is_asleep(pid: u32) -> bool {
    let tasks: Vec<_> = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten().collect();
    let sleeps = |task: &fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S'))
    };
    tasks.len() > 1 && tasks.iter().all(sleeps)
}

/// Whether senders record what they send: somebody taps, as far as they know.
fn ring_bytes(state: &StateDir) -> u64 {
    state.files().iter().filter(|(path, ..)| path.extension().is_some_and(|x| x == "s")).map(|file| file.2).sum()
}

#[test]
fn tap_shows_what_is_there_and_what_is_sent() {
    let state = StateDir::new();
    says(&state, &["mk", "/jobs"]);
    says(&state, &["send", "/jobs", "there"]);
    says(&state, &["send", "-p", "7", "/jobs", "sooner"]);
    let mut tap = Tap::start(&state, "/jobs", &["jobs", "--priority"]);
    assert_eq!([tap.line(), tap.line()], ["7 sooner", "0 there"]);
    let mut new = Tap::start(&state, "/jobs", &["/jobs", "--from-now", "--json"]);
    // A sender has nobody to wake, and a message in front of its own.
    says(&state, &["send", "-p", "3", "/jobs", "more"]);
    assert_eq!(tap.line(), "3 more");
    let object: Value = serde_json::from_str(&new.line()).expect("JSON");
    let time = object["time"].as_str().expect("a time").to_string();
    let expected = json!({ "queue": "/jobs", "time": time, "priority": 3, "bytes": 4, "text": "more" });
    assert_eq!(object.to_string(), expected.to_string());
    assert!(time.len() == "2026-11-29T18:52:07.123456+0000".len() && time.ends_with("+0000"), "{time}");
    assert_eq!(says(&state, &["purge", "/jobs"]), "/jobs: took away 3 messages\n");
    // It goes to one who waits, and is never in the queue.
    let mut receiver = mqns(&state, &["recv", "/jobs"]).stdout(Stdio::piped()).spawn().expect("run mqns");
    until("it waits", || says(&state, &["ls", "-nro", "RECV"]) == "1\n");
    says(&state, &["send", "/jobs", "given"]);
    assert!(receiver.wait().expect("wait").success());
    assert_eq!(tap.line(), "0 given");
    // Nobody else has it open: that is the end.
    says(&state, &["rm", "/jobs"]);
    for (tap, rest) in [(tap, ""), (new, "\"given\"}\n")] {
        let ended = tap.end();
        assert_eq!((ended.status.code(), text(&ended.stderr)), (Some(0), ""));
        assert!(text(&ended.stdout).ends_with(rest), "{ended:?}");
    }
    assert_eq!(ring_bytes(&state), 0);
}

#[test]
fn tap_has_the_forms_of_peek() {
    let state = StateDir::new();
    says(&state, &["mk", "a"]);
    says(&state, &["mk", "b"]);
    says(&state, &["send", "a", "x\u{1}"]);
    let one = |arguments: &[&str]| says(&state, &[&["tap", "a", "-c", "1"], arguments].concat());
    assert_eq!((&*one(&["--text"]), &*one(&["--hex"]), &*one(&["--raw"])), ("x\\x01\n", "7801\n", "x\u{1}"));
    assert_eq!(one(&["-J"]), "{\"queue\":\"/a\",\"time\":null,\"priority\":0,\"bytes\":2,\"text\":\"x\\u0001\"}\n");
    assert_eq!((&*one(&["-T"]), &*one(&["-Tp"])), ("- x\\x01\n", "- 0 x\\x01\n"));
    // Of several, with their names.
    let mut tap = Tap::start(&state, "b", &["a", "b", "-p"]);
    assert_eq!(tap.line(), "/a 0 x\\x01");
    says(&state, &["send", "b", "y"]);
    assert_eq!(tap.line(), "/b 0 y");
    says(&state, &["send", "-p1", "a", "z"]);
    assert_eq!(tap.line(), "/a 1 z");
    // The one ends; the other goes on.
    says(&state, &["rm", "a"]);
    says(&state, &["send", "b", "and on"]);
    assert_eq!(tap.line(), "/b 0 and on");
    says(&state, &["rm", "b"]);
    assert_eq!(tap.end().status.code(), Some(0));
}

#[test]
fn tap_ends_as_it_is_told_to() {
    let state = StateDir::new();
    says(&state, &["mk", "q"]);
    let refused = |arguments: &[&str], status: i32, said: &str| {
        let output = mqns(&state, arguments).output().expect("run mqns");
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(status), ""), "{output:?}");
        assert!(text(&output.stderr).contains(said), "{output:?}");
    };
    refused(&["tap", "q", "--timeout", "0.1"], 124, "mqns: /q: nothing was sent; send to it (mqns send)");
    refused(&["tap", "q", "no"], 1, "mqns: /no: no such queue in this namespace");
    refused(&["tap"], 125, "QUEUE");
    refused(&["tap", "q", "--count", "0"], 125, "--count");
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let mut tap = Tap::start(&state, "q", &["q"]);
        says(&state, &["send", "q", "x"]);
        assert_eq!(tap.line(), "x");
        says(&state, &["purge", "q"]);
        let most = ring_bytes(&state);
        tap.signal(signal);
        let ended = tap.end();
        assert_eq!((ended.status.signal(), text(&ended.stdout), text(&ended.stderr)), (Some(signal), "", ""));
        assert!(ring_bytes(&state) < most, "the memory is given back: {} of {most}", ring_bytes(&state));
    }
    // Who reads goes away: at once, and not with the next message.
    let mut tap = Tap::start(&state, "q", &["q"]);
    drop(tap.lines.take());
    assert_eq!(tap.child.wait().expect("wait").signal(), Some(libc::SIGPIPE));
    // Without a word.
    let tap = Tap::start(&state, "q", &["q"]);
    says(&state, &["send", "q", "x"]);
    let most = ring_bytes(&state);
    tap.signal(libc::SIGKILL);
    tap.end();
    let pump = harness::program("watch_pump").into_os_string().into_string().expect("UTF-8");
    let receiver = mqns(&state, &["run", &pump, "receive", "/q", "40"]).spawn().expect("run mqns");
    says(&state, &["run", &pump, "send", "/q", "40", "1", "x"]);
    assert!(receiver.wait_with_output().expect("wait").status.success());
    assert!(ring_bytes(&state) < most, "senders have given the memory back: {} of {most}", ring_bytes(&state));
    // There may be others who send, name or not.
    let waits = mqns(&state, &["run", &pump, "receive", "/q", "10"]).spawn().expect("run mqns");
    until("it waits", || says(&state, &["ls", "-nro", "RECV"]) == "1\n");
    let mut tap = Tap::start(&state, "q", &["q"]);
    // SAFETY: no memory is passed.
    unsafe { libc::kill(waits.id() as i32, libc::SIGSTOP) };
    until("it is stopped", || {
        fs::read_to_string(format!("/proc/{}/stat", waits.id())).is_ok_and(|stat| stat.contains(") T "))
    });
    says(&state, &["rm", "q"]);
    std::thread::sleep(Duration::from_millis(50));
    assert!(tap.child.try_wait().expect("wait").is_none(), "somebody has it open");
    // SAFETY: no memory is passed.
    unsafe { libc::kill(waits.id() as i32, libc::SIGKILL) };
    let _ = waits.wait_with_output();
    assert_eq!(tap.end().status.code(), Some(0));
}

#[test]
fn tap_takes_permission_to_read() {
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } != 0 {
        return eprintln!("skipped: takes another user, so root");
    }
    let state = StateDir::new();
    let nobody = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_mqns")]).args(arguments);
        command.env("MQNS_LIB", harness::library()).env("MQNS_DIR", state.path()).output().expect("run setpriv")
    };
    says(&state, &["mk", "open", "--mode", "644"]);
    says(&state, &["mk", "shut", "--mode", "622"]);
    says(&state, &["send", "open", "x"]);
    let seen = nobody(&["tap", "open", "--count", "1"]);
    assert_eq!((seen.status.code(), text(&seen.stdout)), (Some(0), "x\n"), "{seen:?}");
    let refused = nobody(&["tap", "shut", "--count", "1"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("permission denied"), "{refused:?}");
}

/// Two who send, two who receive, a tap that reads and one that is stopped meanwhile: all that was sent is seen once, in
/// order, or said to be missed; nobody who sends waits for them.
#[test]
fn tap_accounts_for_a_storm() {
    const EACH: u64 = 30_000;
    let state = StateDir::new();
    says(&state, &["mk", "q"]);
    let pump = harness::program("watch_pump").into_os_string().into_string().expect("UTF-8");
    let mut taps = ["q", "q"].map(|queue| Tap::start(&state, queue, &[queue, "--json"]));
    let stopped = taps[1].child.id();
    taps[1].signal(libc::SIGSTOP);
    let accounts = std::thread::scope(|scope| {
        let readers = taps.each_mut().map(|tap| {
            scope.spawn(move || {
                let (mut seen, mut missed) = (0, 0);
                let mut last: HashMap<(String, u64), u64> = HashMap::new();
                while seen + missed < 2 * EACH {
                    let object: Value = serde_json::from_str(&tap.line()).expect("JSON");
                    if let Some(count) = object["missed"].as_u64() {
                        missed += count;
                        continue;
                    }
                    seen += 1;
                    let text = object["text"].as_str().expect("a text");
                    let [who, priority, number] = text.split('-').collect::<Vec<_>>()[..] else { panic!("{text:?}") };
                    assert_eq!(object["priority"].to_string(), priority, "{text}");
                    let number: u64 = number.parse().expect("a number");
                    let before = last.insert((who.into(), object["priority"].as_u64().expect("a number")), number);
                    assert!(before < Some(number), "{text} after {before:?}");
                }
                (seen, missed)
            })
        });
        let each = EACH.to_string();
        let start =
            |arguments: &[&str]| mqns(&state, &[&["run", &pump], arguments].concat()).spawn().expect("run mqns");
        let pumps = ["a", "b"].map(|who| [start(&["receive", "/q", &each]), start(&["send", "/q", &each, "3", who])]);
        for mut pump in pumps.into_iter().flatten() {
            assert!(pump.wait().expect("wait").success(), "nobody waits for one who is stopped");
        }
        // SAFETY: no memory is passed.
        unsafe { libc::kill(stopped as i32, libc::SIGCONT) };
        readers.map(|reader| reader.join().expect("a reader"))
    });
    eprintln!("seen and missed: {accounts:?}");
    assert!(accounts.iter().all(|(seen, missed)| seen + missed == 2 * EACH));
    assert!(accounts[0].0 > 0 && accounts[1].1 > 0, "{accounts:?}");
    // Both are where they should be.
    says(&state, &["send", "q", "the end"]);
    for tap in &mut taps {
        assert!(tap.line().contains("the end"));
    }
    says(&state, &["rm", "q"]);
    for tap in taps {
        let ended = tap.end();
        assert_eq!((ended.status.code(), text(&ended.stdout)), (Some(0), ""));
    }
}

// What top shows.

fn queue(name: &str, messages: u64, sent: u64) -> Queue {
    let state = State {
        bytes: messages * 100,
        sent,
        received: sent - messages,
        receivers: 0,
        senders: 0,
        notify: None,
        created: 1,
    };
    Queue { namespace: 1, name: name.into(), depth: Some(Depth { messages, maxmsg: 10 }), state: Some(state) }
}

fn sample(at: f64, queues: Vec<Queue>) -> Sample {
    Sample { at, clock: "12:00:00".into(), namespaces: vec![1, 2], queues, hidden: 0 }
}

/// The screen as text, without what is blank at the ends.
fn screen(view: &View, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| view.draw(frame)).expect("draw");
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_string();
    (0..height).map(line).collect()
}

fn view() -> View {
    let mut view = View::new(Some(1), Sort::Rate, false);
    view.sample(sample(0.0, vec![queue("/a", 0, 100), queue("/b", 10, 10)]));
    let hidden = Queue { namespace: 1, name: "/secret".into(), depth: None, state: None };
    view.sample(sample(2.0, vec![queue("/a", 5, 4105), queue("/b", 10, 10), hidden, queue("/new", 1, 1)]));
    view
}

fn press(view: &mut View, keys: &str) -> Vec<Request> {
    keys.chars()
        .map(|key| {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\u{1b}' => KeyCode::Esc,
                '\t' => KeyCode::Tab,
                'v' => KeyCode::Down,
                c => KeyCode::Char(c),
            };
            view.key(KeyEvent::new(code, KeyModifiers::NONE))
        })
        .collect()
}

/// Names in the order of the table.
fn names(view: &View) -> Vec<&str> {
    view.rows().iter().map(|shown| &*shown.queue.name).collect()
}

#[test]
fn top_shows_depths_and_rates() {
    let lines = screen(&view(), 100, 16);
    let expected = [
        "12:00:00  ipc:[1]  4 queues, 2.0K/s in, 2.0K/s out, by rate",
        "NAME                                   DEPTH             MSGS  BYTES   IN/s  OUT/s RECV SEND  NOTIFY",
        "/a                                     █████             5/10    500   2.0K   2.0K    0    0       -",
        "/b                                     ██████████       10/10   1.0K      0      0    0    0       -",
        "/new                                   █                 1/10    100      -      -    0    0       -",
        "/secret                                -                    -      -      -      -    -    -       -",
    ];
    assert_eq!(lines[..6], expected);
    assert!(lines[9].starts_with("/a: depth, of 10") && lines[9].contains("in/s, up to 2.0K"), "{lines:#?}");
    assert_eq!(lines[14].matches('█').count(), 3, "{lines:#?}");
    assert!(lines[15].starts_with("[q]uit"));
}

#[test]
fn top_sorts_filters_and_selects() {
    let mut view = view();
    assert_eq!(names(&view), ["/a", "/b", "/new", "/secret"]);
    press(&mut view, "d");
    assert_eq!(names(&view), ["/b", "/a", "/new", "/secret"]);
    press(&mut view, "bR");
    assert_eq!(names(&view), ["/secret", "/new", "/a", "/b"]);
    press(&mut view, "Rn");
    assert_eq!(names(&view), ["/a", "/b", "/new", "/secret"]);
    // What is typed is no command.
    assert_eq!(press(&mut view, "/eq"), [Request::None; 3]);
    assert!(names(&view).is_empty());
    assert_eq!(screen(&view, 60, 8)[7], "/eq_  (Enter: keep, Esc: all)");
    press(&mut view, "\u{1b}/e\n");
    assert_eq!(names(&view), ["/new", "/secret"]);
    // The selected one stays selected, wherever it goes; the graph is its own.
    press(&mut view, "v");
    assert!(screen(&view, 60, 20)[13].starts_with("/secret: depth"), "{:#?}", screen(&view, 60, 20));
    press(&mut view, "\u{1b}d");
    assert!(screen(&view, 60, 20)[13].starts_with("/secret: depth"));
    press(&mut view, "g");
    assert!(!screen(&view, 60, 20).iter().any(|line| line.contains(": depth")));
    assert_eq!(press(&mut view, "q"), [Request::Quit]);
    let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    assert_eq!((view.key(control('c')), view.key(control('z'))), (Request::Quit, Request::Suspend));
}

#[test]
fn top_goes_from_namespace_to_namespace() {
    let mut view = view();
    assert_eq!((press(&mut view, "\t"), view.scope), (vec![Request::Sample], Some(2)));
    view.sample(sample(3.0, vec![Queue { namespace: 2, ..queue("/c", 0, 0) }]));
    assert_eq!(names(&view), ["/c"]);
    assert_eq!((press(&mut view, "\t"), view.scope), (vec![Request::Sample], Some(1)));
    assert_eq!((press(&mut view, "a"), view.scope), (vec![Request::Sample], None));
    view.sample(Sample {
        hidden: 3,
        ..sample(4.0, vec![queue("/a", 0, 0), Queue { namespace: 2, ..queue("/a", 0, 0) }])
    });
    let lines = screen(&view, 100, 8);
    assert_eq!(lines[0], "12:00:00  all namespaces  2 queues, 0/s in, 0/s out, by rate; 3 not for this user to see");
    assert!(lines[1].contains(" NS ") && lines[3].contains(" 2 "), "{lines:#?}");
}

#[test]
fn top_knows_when_a_rate_is_none() {
    let mut view = View::new(Some(1), Sort::Name, false);
    let rates = |view: &View| view.rows()[0].rates.map(|rates| (rates.sent, rates.received));
    view.sample(sample(0.0, vec![queue("/a", 0, 50)]));
    assert_eq!(rates(&view), None);
    view.sample(sample(0.5, vec![queue("/a", 10, 80)]));
    assert_eq!(rates(&view), Some((60.0, 40.0)));
    // Given back by one who had been given it.
    view.sample(sample(1.0, vec![queue("/a", 11, 80)]));
    assert_eq!(rates(&view), Some((0.0, 0.0)));
    // Another one of that name.
    let mut other = queue("/a", 0, 500);
    other.state.as_mut().expect("known").created = 2;
    view.sample(sample(2.0, vec![other]));
    assert_eq!(rates(&view), None);
    view.sample(sample(2.0, vec![]));
    assert!(view.rows().is_empty());
    assert_eq!(view::number(999.4) + &view::number(999.6) + &view::number(0.25), "9991.0K0.2");
}

#[test]
fn top_is_drawn_on_any_terminal() {
    let mut view = view();
    for width in [1, 2, 7, 20, 61, 500] {
        for height in [1, 2, 3, 7, 13, 100] {
            for keys in ["", "/x", "\u{1b}", "a"] {
                press(&mut view, keys);
                screen(&view, width, height);
            }
        }
    }
}

#[test]
fn top_has_colours_only_if_it_may() {
    let colours = |colour: bool| {
        let mut view = View::new(Some(1), Sort::Rate, colour);
        view.sample(sample(0.0, vec![queue("/a", 5, 10)]));
        let mut terminal = Terminal::new(TestBackend::new(80, 20)).expect("a terminal");
        terminal.draw(|frame| view.draw(frame)).expect("draw");
        let cells = terminal.backend().buffer().content();
        cells.iter().filter(|cell| cell.fg != ratatui::style::Color::Reset).count()
    };
    assert_eq!(colours(false), 0);
    assert!(colours(true) > 0);
}

#[test]
fn top_prints_tables_where_there_is_no_terminal() {
    let state = StateDir::new();
    let output = mqns(&state, &["top"]).output().expect("run mqns");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(125), ""));
    assert_eq!(
        text(&output.stderr),
        "mqns: standard input and output: not a terminal; give it one, or print tables: mqns top --batch -n N\n"
    );
    says(&state, &["mk", "/a"]);
    says(&state, &["send", "/a", "12345"]);
    let shown = says(&state, &["top", "-b", "-n2", "-d", "0.1"]);
    let tables: Vec<_> = shown.split("\n\n").collect();
    assert_eq!(tables.len(), 2, "{shown}");
    for table in tables {
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[0].starts_with("mqns top - ") && lines.len() == 3, "{shown}");
        assert_eq!(lines[1], "NAME MSGS MAXMSG BYTES IN/s OUT/s RECV SEND NOTIFY");
        assert_eq!(lines[2], "/a      1     10     5  0.0   0.0    0    0      -");
    }
    // Of all namespaces, that of another process among them.
    let mut other = mqns(&state, &["run", "--privileges", "generous", "--ipc", "sh", "-c"]);
    let script = format!("'{}' mk /inner && echo made && exec sleep 1000", env!("CARGO_BIN_EXE_mqns"));
    let mut other = other.arg(script).stdout(Stdio::piped()).spawn().expect("run mqns");
    let mut said = String::new();
    let _ = BufReader::new(other.stdout.take().expect("a pipe")).read_line(&mut said);
    let shown = says(&state, &["top", "-ba", "-n1", "-d", "0.1", "--privileges", "generous"]);
    let (_, _) = (other.kill(), other.wait());
    assert_eq!(said, "made\n");
    assert!(shown.contains("/inner") && shown.contains("/a ") && shown.contains(" NS "), "{shown}");
}

/// A terminal of its own, by tmux.
struct Terminals<'a>(&'a StateDir);

impl Terminals<'_> {
    fn tmux(&self, arguments: &[&str]) -> String {
        let socket = self.0.path().join("tmux");
        let mut command = Command::new("tmux");
        command.args(["-f", "/dev/null", "-S"]).arg(socket).args(arguments).stdin(Stdio::null());
        let output = command.env_remove("TMUX").env_remove("NO_COLOR").output().expect("run tmux (scripts/setup test)");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        text(&output.stdout).to_string()
    }

    fn shows(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    #[track_caller]
    fn until_it_shows(&self, parts: &[&str]) {
        let begin = Instant::now();
        loop {
            let shown = self.shows();
            if parts.iter().all(|part| shown.contains(part)) {
                return;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{parts:?} is not in\n{shown}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }
}

impl Drop for Terminals<'_> {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

#[test]
fn top_gives_the_terminal_back() {
    let state = StateDir::new();
    says(&state, &["mk", "/jobs"]);
    says(&state, &["mk", "/replies"]);
    says(&state, &["send", "/jobs", "x"]);
    let terminal = Terminals(&state);
    let environment = [("MQNS_LIB", harness::library().display()), ("MQNS_DIR", state.path().display())]
        .map(|(name, value)| format!("{name}={value}"));
    let [library, directory] = environment.each_ref().map(|pair| &**pair);
    let ps1 = "PS1=ready> ";
    let shell = ["new-session", "-d", "-x", "90", "-y", "20", "env", "-i", library, directory, ps1, "TERM=screen"];
    let path = format!("PATH={}", std::env::var("PATH").expect("PATH"));
    terminal.tmux(&[&shell[..], &[&path, "sh", "-i"]].concat());
    terminal.until_it_shows(&["ready>"]);
    let top = format!("{} top -d 0.1", env!("CARGO_BIN_EXE_mqns"));
    let pid = || {
        let pids = terminal.tmux(&["list-panes", "-F", "#{pane_pid}"]);
        let of_shell = Command::new("pgrep").args(["-P", pids.trim()]).output().expect("run pgrep");
        text(&of_shell.stdout).trim().parse::<i32>().expect("a process id")
    };
    let is_as_it_was = |status: &str| {
        terminal.until_it_shows(&["ready>"]);
        terminal.keys(&["clear; stty -a | tr ';' '\\n' | grep -o ' icanon\\| echo '; echo status=$?", "Enter"]);
        terminal.until_it_shows(&["icanon", "echo", status]);
        let screen = terminal.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        assert_eq!(screen.trim(), "0 1", "the other screen, the cursor");
        terminal.keys(&["clear", "Enter"]);
    };
    let start = || {
        terminal.keys(&["true; ", &top, "; echo it ended by $?", "Enter"]);
        terminal.until_it_shows(&["/jobs", "/replies", "[q]uit", "1/10"]);
    };
    // By its key, having done what keys do.
    start();
    says(&state, &["send", "/jobs", "y"]);
    terminal.until_it_shows(&["2/10"]);
    terminal.keys(&["/", "repl", "Enter"]);
    terminal.until_it_shows(&["1 queue,", "/repl  [q]uit"]);
    assert!(!terminal.shows().contains("/jobs "));
    terminal.tmux(&["resize-window", "-x", "60", "-y", "9"]);
    terminal.until_it_shows(&["/replies", "/repl  [q]uit"]);
    terminal.tmux(&["resize-window", "-x", "90", "-y", "20"]);
    terminal.until_it_shows(&["/replies: depth"]);
    terminal.keys(&["q"]);
    terminal.until_it_shows(&["it ended by 0"]);
    is_as_it_was("status=0");
    says(&state, &["recv", "/jobs"]);
    // By a signal.
    start();
    // SAFETY: no memory is passed.
    unsafe { libc::kill(pid(), libc::SIGTERM) };
    terminal.until_it_shows(&["it ended by 143"]);
    is_as_it_was("status=0");
    // Suspended, by its key and by the signal, and continued.
    start();
    terminal.keys(&["C-z"]);
    terminal.until_it_shows(&["ready>"]);
    is_as_it_was("status=0");
    terminal.keys(&["fg", "Enter"]);
    terminal.until_it_shows(&["/jobs", "[q]uit"]);
    // SAFETY: no memory is passed.
    unsafe { libc::kill(pid(), libc::SIGTSTP) };
    is_as_it_was("status=0");
    terminal.keys(&["fg", "Enter"]);
    terminal.until_it_shows(&["/jobs", "[q]uit"]);
    terminal.keys(&["C-c"]);
    is_as_it_was("status=0");
    // By a panic, once it has the terminal: Rust makes no thread whose stack finds no memory. What it says is to be read.
    let stack = format!("export RUST_MIN_STACK={}; echo this was before", 1_u64 << 62);
    terminal.keys(&[&stack, "Enter"]);
    terminal.keys(&["true; ", &top, "; echo it ended by $?", "Enter"]);
    terminal.until_it_shows(&["this was before", "panicked at", "failed to spawn thread", "it ended by 134"]);
    is_as_it_was("status=0");
}
