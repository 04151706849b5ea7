//! What README.md and docs/*.md say is true: sessions that they show are run and compared, commands are parsed by
//! the real command, links lead somewhere, files and variables exist, and the table of supported calls is that of
//! the library.
//!
//! A code block whose first line begins with `$ ` or `# ` is a session. Its commands are run in order, where the
//! kernel has no message queues, in one shell for the page; what they print has to be what the page shows. Blanks are
//! folded, dates are not compared, a line `...` stands for any lines. HTML comments in front of a block, which
//! readers do not see, say the rest:
//!
//! * `<!-- docs: varies: 4711 1735689123 -->`: these words stand for others (process ids, numbers of namespaces,
//!   times). They are bound where they are first printed, mean the same from then on, and are replaced in commands.
//! * `<!-- docs: any order -->`: lines of output may come in any.
//! * `<!-- docs: before: CMD -->`: is run first and not shown. `$BIN/NAME` is `tests/programs/NAME.c`, compiled, `$ROOT` the
//!   repository;
//!   `eventually CMD` waits until CMD succeeds.
//! * `<!-- docs: new shell -->`, `<!-- docs: new shell: CMD -->`: from here on another shell (started by CMD), without
//!   queues, in an empty directory.
//! * `<!-- docs: script -->`: a block without prompts; each of its commands has to succeed.
//! * `<!-- docs: not run: REASON -->`: shown only. Options of `mqns` are checked here, too, as everywhere.
//!
//! A shell has a mount and a pid namespace of its own, and root's rights but for CAP_SYS_RESOURCE (which some roots
//! have and some have not); the machine's root file system is read-only to it, and /mnt empty. Where all that cannot be
//! had its trial says "skipped".

mod harness;
#[path = "../src/interpose/symbols.rs"]
mod symbols;

use harness::StateDir;
use libtest_mimic::{Arguments, Failed, Trial};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a command of a page may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The descriptor of a shell that its commands read from, above all that are in use when it is started.
const SILENCE: i32 = 99;

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = vec![Trial::test("supported_calls_are_those_of_the_library", supported_calls)];
    trials.push(Trial::test("examples_of_help_are_parsed", examples_of_help));
    trials.push(Trial::test("clients_work_as_the_table_says", clients));
    for page in pages() {
        let name = page.name.clone();
        let trial = |kind: &str, check: fn(&Page) -> Result<(), Failed>| {
            let page = page.clone();
            Trial::test(format!("{kind}::{name}"), move || check(&page))
        };
        trials.push(trial("links", links));
        trials.push(trial("names", names));
        trials.push(trial("commands", commands));
        trials.push(trial("sessions", sessions));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

// ---- pages and their parts --------------------------------------------------------------------

#[derive(Clone)]
struct Page {
    /// Below the repository.
    name: String,
    text: String,
}

/// A code block.
#[derive(Debug)]
struct Block {
    /// Of its first line, from 1.
    line: usize,
    /// What stands behind the fence; empty for an indented block.
    language: String,
    lines: Vec<String>,
    /// What the comments in front of it say.
    notes: Vec<String>,
}

fn pages() -> Vec<Page> {
    let docs = fs::read_dir(root().join("docs")).expect("docs").flatten().map(|e| e.path());
    let mut paths: Vec<PathBuf> = docs.chain([root().join("README.md")]).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "md"));
    paths.sort();
    let page = |path: PathBuf| Page {
        name: path.strip_prefix(root()).expect("below the repository").display().to_string(),
        text: fs::read_to_string(&path).expect("a page"),
    };
    paths.into_iter().map(page).collect()
}

impl Page {
    /// Its code blocks, and its other lines with their numbers.
    fn parts(&self) -> (Vec<Block>, Vec<(usize, &str)>) {
        let (mut blocks, mut prose): (Vec<Block>, _) = (Vec::new(), Vec::new());
        let mut notes = Vec::new();
        let mut lines = self.text.lines().enumerate().map(|(i, l)| (i + 1, l)).peekable();
        let mut after_blank = true;
        while let Some((number, line)) = lines.next() {
            let inner = line.trim_start();
            if let Some(fence) = ["```", "~~~"].iter().find(|f| inner.starts_with(**f)) {
                let indent = line.len() - inner.len();
                let mut block = Vec::new();
                for (_, line) in lines.by_ref().take_while(|(_, l)| l.trim() != *fence) {
                    block.push(line.get(indent..).unwrap_or("").to_string());
                }
                let language = inner[fence.len()..].trim().to_string();
                blocks.push(Block { line: number + 1, language, lines: block, notes: std::mem::take(&mut notes) });
            } else if line.starts_with("    ") && !inner.is_empty() && after_blank {
                let mut block = vec![line.to_string()];
                while let Some((_, line)) = lines.next_if(|(_, l)| l.starts_with("    ") || l.trim().is_empty()) {
                    block.push(line.to_string());
                }
                while block.last().is_some_and(|l| l.trim().is_empty()) {
                    block.pop();
                }
                let indent =
                    block.iter().filter(|l| !l.trim().is_empty()).map(|l| l.len() - l.trim_start().len()).min();
                let block = block.iter().map(|l| l.get(indent.unwrap_or(0)..).unwrap_or("").to_string()).collect();
                blocks.push(Block {
                    line: number,
                    language: String::new(),
                    lines: block,
                    notes: std::mem::take(&mut notes),
                });
                after_blank = true;
                continue;
            } else if let Some(note) = inner.strip_prefix("<!-- docs:").and_then(|n| n.trim_end().strip_suffix("-->")) {
                notes.push(note.trim().to_string());
            } else {
                prose.push((number, line));
                if !inner.is_empty() {
                    notes.clear();
                }
            }
            after_blank = inner.is_empty() || inner.starts_with("<!--");
        }
        (blocks, prose)
    }

    fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.name)
    }
}

/// What stands between backquotes in a line of prose.
fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// What a block is to the tests.
enum Kind {
    /// Commands, each with its line and what it prints.
    Session(Vec<(usize, String, Vec<String>)>),
    Script(Vec<(usize, String)>),
    /// Commands that are not run.
    Shown,
    /// No commands: code, a picture, a file, output.
    Other,
}

impl Block {
    fn note(&self, name: &str) -> Option<&str> {
        self.notes.iter().find_map(|note| note.strip_prefix(name).map(|rest| rest.trim_start_matches(':').trim()))
    }

    /// The prompts that begin a command here.
    fn prompts(&self) -> &'static [&'static str] {
        let console = ["", "console", "text"].contains(&self.language.as_str());
        match self.lines.first() {
            Some(line) if console && line.starts_with("$ ") => &["$ "],
            Some(line) if console && line.starts_with("# ") => &["# ", "$ "],
            _ => &[],
        }
    }

    fn kind(&self) -> Result<Kind, Failed> {
        for note in &self.notes {
            let known = ["varies:", "any order", "before:", "new shell", "script", "not run:"];
            if !known.iter().any(|k| note.starts_with(k)) {
                return Err(format!("{note:?}: no such note; there are {known:?}").into());
            }
        }
        let shown = self.note("not run").is_some();
        let mut session: Vec<(usize, String, Vec<String>)> = Vec::new();
        let mut script: Vec<(usize, String)> = Vec::new();
        let prompts = self.prompts();
        let mut lines = self.lines.iter().enumerate().map(|(i, l)| (self.line + i, l));
        while let Some((number, line)) = lines.next() {
            let command = prompts.iter().find_map(|p| line.strip_prefix(p));
            let command = if prompts.is_empty() { Some(line.as_str()) } else { command };
            let Some(command) = command else {
                session.last_mut().expect("a prompt comes first").2.push(line.clone());
                continue;
            };
            let mut command = command.to_string();
            while ["\\", "|", "&&"].iter().any(|end| command.ends_with(end)) {
                let Some((_, more)) = lines.next() else { break };
                command = format!("{command}\n{}", more.strip_prefix("> ").unwrap_or(more));
            }
            if prompts.is_empty() {
                script.push((number, command));
            } else {
                session.push((number, command, Vec::new()));
            }
        }
        if !prompts.is_empty() {
            return Ok(if shown { Kind::Shown } else { Kind::Session(session) });
        }
        script.retain(|(_, command)| !command.trim().is_empty() && !command.trim_start().starts_with('#'));
        if self.note("script").is_some() {
            return Ok(Kind::Script(script));
        }
        if shown {
            return Ok(Kind::Shown);
        }
        let begins = script.first().map_or("", |(_, command)| command.as_str());
        if ["", "sh", "bash", "console"].contains(&self.language.as_str()) && is_command(begins) {
            let what = format!("{begins:?} looks like a command; say whether to run it");
            return Err(format!("{what}: <!-- docs: script --> or <!-- docs: not run: REASON -->").into());
        }
        Ok(Kind::Other)
    }
}

/// Does the line begin with something that can be run?
fn is_command(line: &str) -> bool {
    let is_assignment = |word: &&String| word.split_once('=').is_some_and(|(name, _)| name.chars().all(is_name));
    let first = simple_commands(line).pop();
    let Some(word) = first.iter().flatten().find(|word| !is_assignment(word)) else { return false };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = || std::env::split_paths(&path).any(|dir| dir.join(word).is_file());
    let file = word.starts_with("./") || word.ends_with("/mqns") || root().join(word).is_file();
    word == "mqns" || file || !word.contains('/') && found()
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// All that is wrong with a page, if anything is.
fn verdict(wrong: Vec<String>) -> Result<(), Failed> {
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

// ---- links and names --------------------------------------------------------------------------

/// The anchor that a heading gets, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(page: &Page) -> BTreeSet<String> {
    let headings = page.parts().1.into_iter().filter_map(|(_, line)| line.strip_prefix('#'));
    headings.map(|heading| anchor(heading.trim_start_matches('#'))).collect()
}

fn links(page: &Page) -> Result<(), Failed> {
    let mut wrong = Vec::new();
    for (number, line) in page.parts().1 {
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|t| !t.contains("://") && !t.starts_with("mailto:")) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let here = root().join(&page.name);
            let file = if path.is_empty() { here } else { here.parent().expect("a directory").join(path) };
            if !file.exists() {
                wrong.push(format!("{}: no such file: {target}", page.at(number)));
            } else if !anchor.is_empty() {
                let text = fs::read_to_string(&file).unwrap_or_default();
                if !anchors(&Page { name: String::new(), text }).contains(anchor) {
                    wrong.push(format!("{}: no such heading: {target}", page.at(number)));
                }
            }
        }
    }
    verdict(wrong)
}

/// All files of the repository that may read or set a variable.
fn sources(dir: &Path, out: &mut String) {
    for path in fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()) {
        if path.is_dir() {
            sources(&path, out);
        } else {
            out.push_str(&fs::read_to_string(path).unwrap_or_default());
        }
    }
}

/// Files of the repository that a page names exist, and variables mean something.
fn names(page: &Page) -> Result<(), Failed> {
    let mut wrong = Vec::new();
    let mut code = String::new();
    for dir in ["src", "cshim", "tests", "scripts", "benches", ".ci"] {
        sources(&root().join(dir), &mut code);
    }
    code.push_str(&fs::read_to_string(root().join("build.rs")).expect("build.rs"));
    let (blocks, prose) = page.parts();
    let in_blocks = blocks.iter().flat_map(|b| b.lines.iter().enumerate().map(|(i, l)| (b.line + i, l.as_str(), true)));
    for (number, line, block) in prose.into_iter().map(|(number, line)| (number, line, false)).chain(in_blocks) {
        for word in line.split(|c: char| !is_name(c) && !"/.-*…".contains(c)) {
            let word = word.trim_end_matches(['.', '-', '/']);
            // In a block paths may be a reader's own.
            let all = ["scripts/", "src/", "tests/", "benches/", "cshim/", "docs/"];
            let rooted = all[..if block { 1 } else { all.len() }].iter().any(|d| word.starts_with(d));
            let pattern = word.contains(['*', '…']) || word.ends_with("NAME.c");
            if rooted && !pattern && !root().join(word).exists() {
                wrong.push(format!("{}: no such file: {word}", page.at(number)));
            }
            let variable = word.starts_with("MQNS_") && word.len() > 5 && !pattern;
            if variable && !code.contains(word) {
                wrong.push(format!("{}: no such variable: {word}", page.at(number)));
            }
        }
    }
    verdict(wrong)
}

// ---- commands ---------------------------------------------------------------------------------

/// The simple commands of a line of shell: their words, without quotes. `$(…)` becomes the word 1, and what is in
/// it further commands; comments and redirections are left out.
fn simple_commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    let (mut words, mut word): (Vec<String>, Option<String>) = (Vec::new(), None);
    let mut chars = line.chars().peekable();
    // Of a redirection, the next word is a file.
    let mut skip = false;
    fn end(words: &mut Vec<String>, word: &mut Option<String>, skip: &mut bool) {
        if let Some(word) = word.take()
            && !std::mem::take(skip)
        {
            words.push(word);
        }
    }
    while let Some(c) = chars.next() {
        match c {
            '\'' => word.get_or_insert_default().extend(chars.by_ref().take_while(|c| *c != '\'')),
            '"' => word.get_or_insert_default().extend(chars.by_ref().take_while(|c| *c != '"')),
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(c) => word.get_or_insert_default().push(c),
            },
            '$' if chars.peek() == Some(&'(') => {
                chars.next();
                let mut depth = 1;
                let inner: String = chars
                    .by_ref()
                    .take_while(|c| {
                        depth += i32::from(*c == '(') - i32::from(*c == ')');
                        depth > 0
                    })
                    .collect();
                commands.extend(simple_commands(&inner));
                word.get_or_insert_default().push('1');
            }
            '#' if word.is_none() => chars.by_ref().take_while(|c| *c != '\n').for_each(drop),
            '>' | '<' => {
                // `2>` is no word.
                word = word.take().filter(|w| !w.chars().all(|c| c.is_ascii_digit()));
                end(&mut words, &mut word, &mut skip);
                while chars.next_if(|c| ">&<".contains(*c)).is_some() {}
                skip = true;
            }
            ';' | '&' | '|' | '(' | ')' | '\n' => {
                end(&mut words, &mut word, &mut skip);
                commands.push(std::mem::take(&mut words));
            }
            c if c.is_whitespace() => end(&mut words, &mut word, &mut skip),
            c => word.get_or_insert_default().push(c),
        }
    }
    end(&mut words, &mut word, &mut skip);
    commands.push(words);
    commands.retain(|words| !words.is_empty());
    commands
}

/// The arguments of `mqns` in a simple command, if it is one: by itself, or behind variables, sudo, time and the like.
fn mqns_arguments(words: &[String]) -> Option<&[String]> {
    let before = |w: &str| w.contains('=') || ["sudo", "exec", "time", "timeout", "env", "xargs", "-r"].contains(&w);
    let is_number = |w: &str| w.chars().all(|c| c.is_ascii_digit() || c == '.');
    let first = words.iter().position(|w| !before(w) && !is_number(w))?;
    (words[first] == "mqns" || words[first].ends_with("/mqns")).then(|| &words[first + 1..])
}

fn mqns_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mqns"));
    command.env_remove("LD_PRELOAD").stdin(Stdio::null());
    command
}

/// What the real command says to these arguments, without doing anything: the last one asks for help, which
/// is given only if everything before it has been understood.
fn parsed(arguments: &[String]) -> Result<(), String> {
    let mut line: Vec<String> = arguments.to_vec();
    let end = match line.first().map(String::as_str) {
        Some("run" | "enter") => {
            let help = mqns_command().args([&line[0], "--help"]).output().expect("run mqns");
            let help = String::from_utf8(help.stdout).expect("UTF-8");
            let takes_value = |w: &str| {
                let mut lines = help.lines().map(|l| l.trim_start());
                lines.any(|l| l.starts_with('-') && l.contains(" <") && l.split([' ', ',']).any(|o| o == w))
            };
            let mut end = 1;
            while end < line.len() && line[end].starts_with('-') && line[end] != "--" {
                end += 1 + usize::from(takes_value(&line[end]));
            }
            end.min(line.len())
        }
        _ => line.iter().position(|w| w == "--").unwrap_or(line.len()),
    };
    line.insert(end, "--help".into());
    let output = mqns_command().args(&line).output().expect("run mqns");
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said.lines().next().unwrap_or("").to_string())
}

/// A line of a synopsis as command lines: brackets and dots go, of alternatives the first is taken, placeholders get
/// a value, `mqns ls, stat QUEUE` is two.
fn synopsis(line: &str) -> Vec<String> {
    let line = line.replace(['[', ']', '…'], " ").replace("...", " ");
    let words = line.split_whitespace().map(|word| {
        let word = if word.starts_with('-') || word.contains(['\'', '"', '/']) {
            word
        } else {
            word.split('|').next().unwrap_or(word)
        };
        match word {
            "PID" | "NS" | "N" | "NUMBER" | "SECONDS" | "BYTES" => "1",
            "MODE" => "600",
            "NAME=VALUE" => "msg_max=1",
            word => word.strip_suffix("=N").map_or(word, |name| if name == "msg_max" { "msg_max=1" } else { word }),
        }
    });
    let mut verbs: Vec<String> = vec![String::new()];
    for word in words {
        match word.strip_suffix(',') {
            Some(verb) if verbs[0].starts_with("mqns") && verb.chars().all(|c| c.is_ascii_lowercase()) => {
                let other = format!("{}{verb} ", verbs[0]);
                verbs.push(other);
            }
            _ => verbs[0] += &format!("{word} "),
        }
    }
    verbs
}

/// Every use of `mqns` on a page is understood by the command: in blocks, run or not, and in prose.
fn commands(page: &Page) -> Result<(), Failed> {
    let mut wrong = Vec::new();
    let mut check = |number: usize, line: &str| {
        for words in simple_commands(line) {
            if let Some(arguments) = mqns_arguments(&words)
                && !arguments.iter().any(|w| w == "COMMAND" || w == "…")
                && !arguments.is_empty()
                && let Err(error) = parsed(arguments)
            {
                wrong.push(format!("{}: {line}\n    {error}", page.at(number)));
            }
            // What is given to a shell, or to another mqns.
            for inner in words.iter().filter(|w| w.contains("mqns ") && w.contains(' ')) {
                for words in simple_commands(inner) {
                    if let Some(arguments) = mqns_arguments(&words)
                        && let Err(error) = parsed(arguments)
                    {
                        wrong.push(format!("{}: {inner}\n    {error}", page.at(number)));
                    }
                }
            }
        }
    };
    let (blocks, prose) = page.parts();
    for block in &blocks {
        match block.kind() {
            Ok(Kind::Session(commands)) => commands.iter().for_each(|(n, c, _)| check(*n, c)),
            Ok(Kind::Script(commands)) => commands.iter().for_each(|(n, c)| check(*n, c)),
            // A synopsis, a service file, a fragment of another language: what begins with the command.
            Ok(Kind::Shown | Kind::Other) | Err(_) => {
                for (i, line) in block.lines.iter().enumerate() {
                    let line = line.trim_start().trim_start_matches("$ ").trim_start_matches("# ");
                    // Two columns of a synopsis: the second is prose.
                    let command = line.split("    ").next().unwrap_or(line);
                    if command.starts_with("mqns ") || command.contains("/mqns ") {
                        synopsis(command).iter().for_each(|c| check(block.line + i, c));
                    }
                }
            }
        }
    }
    for (number, line) in prose {
        let spans = code_spans(line).filter(|s| s.starts_with("mqns "));
        for span in spans {
            // An option may be named without its value.
            let value =
                if span.split(' ').next_back().is_some_and(|w| w.starts_with("--")) { Some(" 1") } else { None };
            for command in synopsis(span) {
                let without = simple_commands(&command)
                    .iter()
                    .all(|words| mqns_arguments(words).is_none_or(|a| parsed(a).is_ok()));
                check(number, &if without { command } else { command + value.unwrap_or("") });
            }
        }
    }
    verdict(wrong)
}

/// The same for the examples that the command gives itself.
fn examples_of_help() -> Result<(), Failed> {
    let help = |arguments: &[&str]| {
        let output = mqns_command().args(arguments).output().expect("run mqns");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let mut wrong = Vec::new();
    let mut examples = 0;
    let overview = help(&["--help"]);
    let verbs = overview.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    for verb in verbs.filter_map(|l| l.split_whitespace().next()).filter(|v| *v != "help") {
        let text = help(&[verb, "--help"]);
        for line in text.lines().skip_while(|l| *l != "Examples:").filter(|l| l.contains("mqns ")) {
            for words in simple_commands(line) {
                let Some(arguments) = mqns_arguments(&words) else { continue };
                examples += 1;
                if let Err(error) = parsed(arguments) {
                    wrong.push(format!("mqns {verb} --help: {}\n    {error}", line.trim()));
                }
            }
        }
    }
    if examples < 20 {
        wrong.push(format!("only {examples} examples found"));
    }
    verdict(wrong)
}

// ---- sessions ---------------------------------------------------------------------------------

/// A shell that commands are written to.
struct Shell {
    child: Child,
    input: File,
    output: File,
    /// Both ends of what commands read from: nothing comes, and no end either, as from a terminal.
    _silence: [OwnedFd; 2],
    /// Words of the page that stand for others, and what for, once it is known.
    varies: BTreeMap<String, Option<String>>,
    _state: StateDir,
    work: StateDir,
}

fn pipe() -> [OwnedFd; 2] {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors, which are nobody else's.
    unsafe {
        assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
        ends.map(|fd| OwnedFd::from_raw_fd(fd))
    }
}

/// What a shell runs in: namespaces of its own, no kernel queues, root but for one capability; what it
/// can write to is its two directories, /mnt (empty) and other mounts than the root's.
fn surroundings(state: &StateDir, work: &StateDir) -> Command {
    const MOUNT: &str = r#"for own; do [ "$own" = -- ] && break; mount --bind "$own" "$own" && shift || exit; done; shift
        mount -o remount,bind,ro / && mount -t tmpfs none /mnt && cd "$HOME" && exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", MOUNT, "sh"]);
    command.arg(state.path()).arg(work.path()).args(["--", "setpriv"]);
    command.args(["--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource"]);
    command.arg(harness::program("nokernel")).env("HOME", work.path()).env("TMPDIR", work.path());
    command
}

fn surroundings_can_be_had() -> bool {
    surroundings(&StateDir::new(), &StateDir::new()).arg("true").output().is_ok_and(|o| o.status.success())
}

impl Shell {
    /// `by`: the command that starts it.
    fn start(by: &str) -> Shell {
        let (state, work) = (StateDir::new(), StateDir::new());
        let [silence, end] = pipe();
        let [output, write] = pipe();
        let mut command = surroundings(&state, &work);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MQNS_") {
                command.env_remove(name);
            }
        }
        let mqns = Path::new(env!("CARGO_BIN_EXE_mqns")).parent().expect("a directory");
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .args(["sh", "-c", &format!("umask 022; ulimit -q 819200; exec {by}")])
            .env("PATH", format!("{}:{path}:/usr/sbin:/sbin", mqns.display()))
            .env("BIN", harness::binaries())
            .env("ROOT", root())
            .env("MQNS_DIR", state.path())
            .env("MQNS_LIB", harness::library())
            .envs([("LC_ALL", "C.UTF-8"), ("TZ", "UTC"), ("SHELL", "/bin/sh")])
            .env_remove("LD_PRELOAD")
            .env_remove("BASH_ENV")
            .stdin(Stdio::piped())
            .stdout(write.try_clone().expect("dup"))
            .stderr(write)
            .process_group(0);
        let quiet = silence.as_raw_fd();
        // SAFETY: one system call between fork and exec.
        unsafe {
            command.pre_exec(move || match libc::dup2(quiet, SILENCE) {
                SILENCE => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            })
        };
        let mut child = command.spawn().expect("start a shell");
        let input = File::from(OwnedFd::from(child.stdin.take().expect("piped")));
        let shell = Shell {
            child,
            input,
            output: File::from(output),
            _silence: [silence, end],
            varies: BTreeMap::new(),
            _state: state,
            work,
        };
        // The command has its own copies.
        drop(command);
        shell
    }

    /// Runs a command of the page; what it printed, and its exit status.
    fn run(&mut self, command: &str) -> Result<(Vec<String>, i32), String> {
        // No shell prints this by itself.
        const END: &str = "\u{1e}end ";
        let command = self.replaced(command);
        let line = format!("{{ {command}\n}} <&{SILENCE}; printf '\\n\\036end %d\\n' $?\n");
        self.input.write_all(line.as_bytes()).map_err(|e| format!("{command}: the shell has gone: {e}"))?;
        let mut bytes = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = String::from_utf8_lossy(&bytes);
            if let Some((said, status)) = text.split_once(END)
                && let Some(status) = status.strip_suffix('\n')
            {
                let said = said.replace(&*self.work.path().to_string_lossy(), "~");
                let said = said.strip_suffix('\n').unwrap_or(&said);
                let lines = said.lines().filter(|l| !is_notice(l)).map(str::to_string).collect();
                return Ok((lines, status.parse().map_err(|e| format!("{status}: {e}"))?));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let mut poll = libc::pollfd { fd: self.output.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd, valid for the call.
            if unsafe { libc::poll(&mut poll, 1, left.as_millis() as i32) } == 0 {
                return Err(format!("{command}: has not ended after {PATIENCE:?}; it printed:\n{text}"));
            }
            let mut more = [0; 4096];
            match self.output.read(&mut more) {
                Ok(0) | Err(_) => return Err(format!("{command}: the shell has gone; it printed:\n{text}")),
                Ok(n) => bytes.extend(&more[..n]),
            }
        }
    }

    /// The command with the words that vary as they are here.
    fn replaced(&self, command: &str) -> String {
        let word = |w: &str| self.varies.get(w).and_then(|v| v.clone()).unwrap_or(w.to_string());
        tokens(command).into_iter().map(word).collect()
    }

    /// Is this what the page shows, but for the order of lines? Binds words that vary.
    fn matches_in_any_order(&mut self, shown: &[String], printed: &[String]) -> bool {
        let Some((line, rest)) = shown.split_first() else { return printed.is_empty() };
        (0..printed.len()).any(|i| {
            let before = self.varies.clone();
            let mut others = printed.to_vec();
            let said = others.remove(i);
            let matches = self.line_matches(line, &said) && self.matches_in_any_order(rest, &others);
            if !matches {
                self.varies = before;
            }
            matches
        })
    }

    /// Is this what the page shows? Binds words that vary.
    fn matches(&mut self, shown: &[String], printed: &[String]) -> bool {
        let Some((line, rest)) = shown.split_first() else { return printed.is_empty() };
        if line.trim() == "..." || line.trim() == "…" {
            return (0..=printed.len()).any(|skipped| self.matches(rest, &printed[skipped..]));
        }
        let Some((said, later)) = printed.split_first() else { return false };
        let before = self.varies.clone();
        if self.line_matches(line, said) && self.matches(rest, later) {
            return true;
        }
        self.varies = before;
        false
    }

    fn line_matches(&mut self, shown: &str, printed: &str) -> bool {
        let [shown, printed] = [shown, printed].map(comparable);
        let [shown, printed] = [tokens(&shown), tokens(&printed)];
        shown.len() == printed.len()
            && shown.iter().zip(&printed).all(|(s, p)| match self.varies.get_mut(*s) {
                Some(Some(meaning)) => meaning == p,
                Some(meaning) => {
                    *meaning = Some(p.to_string());
                    true
                }
                None => s == p,
            })
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // SAFETY: no memory is passed; the leader is not reaped yet.
        unsafe { libc::kill(-(self.child.id() as i32), libc::SIGKILL) };
        let _ = self.child.wait();
    }
}

/// What a shell says when a job of its ends by a signal, at a time of its own choosing.
fn is_notice(line: &str) -> bool {
    let ends = ["Terminated", "Killed", "Hangup"];
    line.strip_prefix("bash: line ").is_some_and(|rest| ends.iter().any(|e| rest.contains(e)))
}

/// Words, and what is between them, character by character.
fn tokens(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| !is_name(c)).filter(|_| is_name(first)).unwrap_or(rest.len());
        let end = if is_name(first) { end } else { first.len_utf8() };
        out.push(&rest[..end]);
        rest = &rest[end..];
    }
    out
}

/// With single blanks, and without dates.
fn comparable(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let digits = |w: &str, shape: &str| {
        w.len() == shape.len()
            && w.chars().zip(shape.chars()).all(|(c, s)| if s == '0' { c.is_ascii_digit() } else { c == s })
    };
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut out: Vec<&str> = Vec::new();
    let mut i = 0;
    while i < words.len() {
        let of = |n: usize| words.get(i + n).copied().unwrap_or("");
        let length = if digits(of(0), "0000-00-00") && digits(of(1), "00:00:00") {
            if digits(of(2), "+0000") { 3 } else { 2 }
        } else if months.contains(&of(0)) && of(1).parse::<u8>().is_ok() && digits(of(2), "00:00") {
            3
        } else {
            0
        };
        out.push(if length > 0 { "DATE" } else { of(0) });
        i += length.max(1);
    }
    out.join(" ")
}

/// Runs what a page shows.
fn sessions(page: &Page) -> Result<(), Failed> {
    let mut shell: Option<Shell> = None;
    let (blocks, _) = page.parts();
    let possible = surroundings_can_be_had();
    for block in &blocks {
        let kind = block.kind().map_err(|e| format!("{}: {}", page.at(block.line), e.message().unwrap_or("")))?;
        if !matches!(kind, Kind::Session(_) | Kind::Script(_)) {
            continue;
        }
        if !possible {
            eprintln!("skipped: {}: no mount and pid namespace of its own", page.at(block.line));
            continue;
        }
        if let Some(by) = block.note("new shell") {
            shell = Some(Shell::start(if by.is_empty() { "bash" } else { by }));
        }
        let shell = shell.get_or_insert_with(|| Shell::start("bash"));
        let wrong = |line: usize, text: String| Failed::from(format!("{}: {text}", page.at(line)));
        shell
            .run("eventually() { until \"$@\" >/dev/null 2>&1; do sleep 0.02; done; }")
            .map_err(|e| wrong(block.line, e))?;
        for note in &block.notes {
            if let Some(words) = note.strip_prefix("varies:") {
                for word in words.split_whitespace() {
                    shell.varies.entry(word.to_string()).or_insert(None);
                }
            }
            if let Some(command) = note.strip_prefix("before:") {
                for name in command.split("$BIN/").skip(1).filter_map(|rest| rest.split(|c| !is_name(c)).next()) {
                    harness::program(name);
                }
                let (said, status) = shell.run(command).map_err(|e| wrong(block.line, e))?;
                if status != 0 {
                    return Err(wrong(block.line, format!("{command}: exit status {status}\n{}", said.join("\n"))));
                }
            }
        }
        match kind {
            Kind::Session(commands) => {
                for (line, command, shown) in commands {
                    let (printed, _) = shell.run(&command).map_err(|e| wrong(line, e))?;
                    let shown = &shown[..shown.iter().rposition(|l| !l.trim().is_empty()).map_or(0, |n| n + 1)];
                    let matches = match block.note("any order") {
                        Some(_) => shell.matches_in_any_order(shown, &printed),
                        None => shell.matches(shown, &printed),
                    };
                    if !matches {
                        let [shown, printed] = [shown, &printed].map(|lines| lines.join("\n    "));
                        let varies = &shell.varies;
                        let text = format!("{command}\n  the page shows:\n    {shown}\n  printed is:\n    {printed}");
                        return Err(wrong(
                            line,
                            format!("{text}\n  words that vary, <!-- docs: varies: … -->: {varies:?}"),
                        ));
                    }
                }
            }
            Kind::Script(commands) => {
                for (line, command) in commands {
                    let (said, status) = shell.run(&command).map_err(|e| wrong(line, e))?;
                    if status != 0 {
                        return Err(wrong(line, format!("{command}: exit status {status}\n{}", said.join("\n"))));
                    }
                }
            }
            Kind::Shown | Kind::Other => unreachable!("left out above"),
        }
    }
    Ok(())
}

// ---- tables --------------------------------------------------------------------------------------

/// docs/compatibility.md, as far as it takes no download, and little time: `scripts/compat --check` is the whole of it.
fn clients() -> Result<(), Failed> {
    let output = Command::new(root().join("scripts/compat"))
        .args(["--installed", "--check", "--mqns", env!("CARGO_BIN_EXE_mqns"), "--lib"])
        .arg(harness::library())
        .args(["glibc", "fortify", "g++", "ctypes", "by numbers", "`-static`", "set-user-id", "bash", "sanitizer"])
        .stdin(Stdio::null())
        .output()
        .expect("run scripts/compat");
    if output.status.success() {
        return Ok(());
    }
    let said = [&output.stdout, &output.stderr].map(|b| String::from_utf8_lossy(b).into_owned());
    Err(said.concat().into())
}

/// README's table names functions that the library stands in for, all of them; of families with a row that ends in
/// "…", some.
fn supported_calls() -> Result<(), Failed> {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let section = readme.split("\n## Supported calls\n").nth(1).and_then(|s| s.split("\n## ").next());
    let rows = section.ok_or("no section")?.lines().filter(|l| l.starts_with("| ")).skip(2);
    let (mut named, mut open) = (BTreeSet::new(), BTreeSet::new());
    let family = |name: &str| symbols::SYMBOLS.iter().find(|(_, _, names)| names.contains(&name)).map(|f| f.0);
    let mut wrong = Vec::new();
    for row in rows {
        // The second column names some that belong to the first.
        let spans: Vec<&str> = code_spans(row).map(|s| s.split('(').next().unwrap_or(s)).collect();
        let is_function = |s: &&&str| {
            let name = s.trim_end_matches('*');
            name.chars().all(is_name) && name.contains(|c: char| c.is_ascii_lowercase()) && !name.starts_with("SYS_")
        };
        for span in spans.iter().filter(is_function) {
            let all = symbols::SYMBOLS.iter().flat_map(|(_, _, names)| names.iter().copied());
            let fits = |name: &str| match span.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == *span,
            };
            let found: Vec<&str> = all.filter(|name| fits(name)).collect();
            if found.is_empty() {
                wrong.push(format!("`{span}` is not interposed"));
            }
            if row.contains('…') {
                open.extend(found.iter().filter_map(|name| family(name)));
            }
            named.extend(found);
        }
    }
    for (name, symbol) in symbols::SYMBOLS.iter().flat_map(|(family, _, names)| names.iter().map(move |n| (family, *n)))
    {
        // Other names of the same: for large files, checked, internal.
        let plain = symbol.trim_start_matches("__").trim_end_matches("_chk").trim_end_matches("64");
        if !open.contains(name) && !named.contains(symbol) && !named.contains(plain) {
            wrong.push(format!("{symbol} ({name}) is in no row of the table"));
        }
    }
    if wrong.is_empty() && named.len() < 50 {
        wrong.push(format!("only {} functions found in the table", named.len()));
    }
    verdict(wrong)
}
