//! What is installed beside the command: man pages, and completions in real shells.

mod harness;

use harness::StateDir;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// `mqns` with the library under test.
fn mqns(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mqns"));
    command.args(arguments).env("MQNS_LIB", harness::library()).stdin(Stdio::null());
    command
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The man pages, in man1 and man7 of a directory.
struct Pages(StateDir);

impl Pages {
    fn write() -> Pages {
        let dir = StateDir::new();
        assert_eq!(output(mqns(&["generate", "--man"]).arg(dir.path())), "");
        Pages(dir)
    }

    fn files(&self) -> Vec<PathBuf> {
        let dirs = ["man1", "man7"].map(|dir| self.0.path().join(dir));
        let mut files: Vec<_> = dirs
            .iter()
            .flat_map(|dir| fs::read_dir(dir).expect("a directory"))
            .map(|f| f.expect("a file").path())
            .collect();
        files.sort();
        files
    }

    fn page(&self, name: &str) -> String {
        let section = name.rsplit_once('.').expect("a section").1;
        render(&self.0.path().join(format!("man{section}/{name}")))
    }
}

fn name(file: &Path) -> String {
    file.file_name().expect("a name").to_string_lossy().into_owned()
}

/// A page as text, 100 columns wide.
fn render(page: &Path) -> String {
    let text = output(Command::new("mandoc").args(["-Tutf8", "-Owidth=100"]).arg(page));
    // Bold and underlined letters are printed over others.
    let mut plain = String::new();
    for letter in text.chars() {
        if letter == '\x08' {
            plain.pop();
        } else {
            plain.push(letter);
        }
    }
    plain
}

/// The commands that `mqns --help` lists.
fn commands() -> Vec<String> {
    let help = output(&mut mqns(&["--help"]));
    let list = help.split("Commands:\n").nth(1).expect("a list of commands");
    let names = list.lines().take_while(|line| !line.is_empty()).filter(|line| line[2..].starts_with(|c| c != ' '));
    let names = names.filter_map(|line| line.split_whitespace().next()).map(String::from);
    let names: Vec<String> = names.filter(|name| name != "help").collect();
    assert!(names.contains(&"run".into()) && names.contains(&"ls".into()), "{names:?}");
    names
}

#[test]
fn pages_are_without_fault() {
    let pages = Pages::write();
    for file in pages.files() {
        let mut mandoc = Command::new("mandoc");
        let lint = mandoc.args(["-Tlint", "-Wwarning"]).arg(&file).output().expect("run mandoc");
        assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
        let mut man = Command::new("man");
        let man = man.args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"]).arg(&file).env("LC_ALL", "C.UTF-8");
        let man = man.output().expect("run man");
        assert!(man.status.success() && man.stderr.is_empty(), "{}", String::from_utf8_lossy(&man.stderr));
    }
}

#[test]
fn each_command_has_a_page_with_all_that_its_help_says() {
    let pages = Pages::write();
    let mut expected: BTreeSet<String> = ["mqns.1".into(), "libmqns.7".into()].into();
    let all = pages.page("mqns.1");
    for command in commands() {
        expected.insert(format!("mqns-{command}.1"));
        assert!(all.contains(&format!("mqns-{command}(1)")), "{command} is not in mqns(1)");
        let page = pages.page(&format!("mqns-{command}.1"));
        for section in
            ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "EXAMPLES", "SEE ALSO"]
        {
            assert!(page.lines().any(|line| line == section), "no {section} in:\n{page}");
        }
        let help = output(&mut mqns(&[&command, "--help"]));
        let options =
            help.lines().filter_map(|line| line.trim().split_once("--")).filter(|(short, _)| short.len() <= 4);
        let options: Vec<&str> = options.filter_map(|(_, long)| long.split([' ', ',']).next()).collect();
        assert!(options.contains(&"help"), "{help}");
        for option in options {
            assert!(page.contains(&format!("--{option}")), "no --{option} in:\n{page}");
        }
        // Nothing of the texts is lost on the way, but for the words that head lists, and punctuation.
        let words = |text: &str| -> BTreeSet<String> {
            let words = text.split(|c: char| c.is_whitespace() || "`'[](),.:;".contains(c));
            words.map(str::to_lowercase).filter(|word| !word.is_empty()).collect()
        };
        let known = words(&page);
        let mut missing = words(&help);
        missing.retain(|word| {
            !known.contains(word) && !["usage", "arguments", "possible", "values", "-"].contains(&word.as_str())
        });
        assert!(missing.is_empty(), "{missing:?} of the help are not in:\n{page}");
    }
    let names: BTreeSet<String> = pages.files().iter().map(|file| name(file)).collect();
    assert_eq!(names, expected);
}

#[test]
fn the_librarys_page_has_the_variables_of_the_documentation() {
    let variables = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c: char| !c.is_ascii_uppercase() && c != '_');
        words.filter(|word| word.starts_with("MQNS_")).map(String::from).collect()
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documented = variables(&fs::read_to_string(root.join("docs/environment.md")).expect("docs/environment.md"));
    assert!(documented.contains("MQNS_DIR"));
    let page = Pages::write().page("libmqns.7");
    assert_eq!(variables(&page), documented);
    assert!(page.contains(&format!("mqns {}", env!("CARGO_PKG_VERSION"))), "another version:\n{page}");
}

/// docs/man/PAGE.txt; `MQNS_RECORD=1 cargo test --release --test installed` writes them.
#[test]
fn pages_in_the_documentation_are_current() {
    let pages = Pages::write();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/man");
    let texts: Vec<(String, String)> =
        pages.files().iter().map(|file| (format!("{}.txt", name(file)), render(file))).collect();
    if std::env::var_os("MQNS_RECORD").is_some() {
        let old = fs::read_dir(&dir).expect("docs/man").map(|file| file.expect("a file").path());
        old.filter(|file| file.extension().is_some_and(|ext| ext == "txt"))
            .for_each(|file| fs::remove_file(file).expect("remove"));
        for (name, text) in &texts {
            fs::write(dir.join(name), text).expect("write a page");
        }
        return;
    }
    for (name, text) in &texts {
        let shown = fs::read_to_string(dir.join(name)).unwrap_or_default();
        assert_eq!(
            shown, *text,
            "docs/man/{name} is not what mqns generates: MQNS_RECORD=1 cargo test --release --test installed"
        );
    }
    // And none of a command that is no more.
    let shown =
        fs::read_dir(&dir).expect("docs/man").filter(|f| name(&f.as_ref().expect("a file").path()).ends_with(".txt"));
    assert_eq!(shown.count(), texts.len());
}

/// A shell on a terminal of its own, with completions loaded and a few queues made.
struct Shell {
    child: Child,
    printed: Receiver<u8>,
    text: String,
    _dir: StateDir,
}

/// A directory with `mqns`, completions and queues; where they are as variables.
fn with_queues(shell: &str, file: &str) -> StateDir {
    let dir = StateDir::new();
    let script = output(&mut mqns(&["generate", "--completions", shell]));
    fs::write(dir.path().join(file), script).expect("write a script");
    for queue in ["/reports-of-today", "/rest", "/log"] {
        output(mqns(&["mk", queue]).env("MQNS_DIR", dir.path().join("queues")));
    }
    dir
}

fn in_directory(command: &mut Command, dir: &StateDir) {
    let bin = Path::new(env!("CARGO_BIN_EXE_mqns")).parent().expect("a directory");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    command.env("PATH", path).env("MQNS_LIB", harness::library()).env("MQNS_DIR", dir.path().join("queues"));
    // Nothing of whoever runs the tests.
    command
        .env("HOME", dir.path())
        .env("ZDOTDIR", dir.path())
        .env("TERM", "dumb")
        .env("LC_ALL", "C.UTF-8")
        .current_dir(dir.path());
}

impl Shell {
    fn start(shell: &str, file: &str, startup: (&str, &str), arguments: &str) -> Shell {
        let dir = with_queues(shell, file);
        fs::write(dir.path().join(startup.0), startup.1).expect("write a start-up file");
        let mut command = Command::new("script");
        in_directory(command.args(["-qc", &format!("exec {shell} {arguments} -i"), "/dev/null"]), &dir);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("run script");
        let mut out = child.stdout.take().expect("piped");
        let (sender, printed) = channel();
        thread::spawn(move || {
            let mut byte = [0];
            while out.read(&mut byte).is_ok_and(|n| n == 1) && sender.send(byte[0]).is_ok() {}
        });
        let mut shell = Shell { child, printed, text: String::new(), _dir: dir };
        shell.expect(&["ready>"]);
        shell
    }

    fn type_in(&mut self, keys: &str) {
        self.text.clear();
        self.child.stdin.as_mut().expect("piped").write_all(keys.as_bytes()).expect("type");
    }

    /// Waits until all of it has been printed.
    #[track_caller]
    fn expect(&mut self, words: &[&str]) {
        let end = Instant::now() + Duration::from_secs(30);
        while !words.iter().all(|word| self.text.contains(word)) {
            let left = end.saturating_duration_since(Instant::now());
            match self.printed.recv_timeout(left) {
                Ok(byte) => self.text.push(char::from(byte)),
                Err(e) => panic!("{e}: not all of {words:?} in {:?}", self.text),
            }
        }
    }

    fn completes(&mut self) {
        // Twice: the first lists nothing in bash.
        self.type_in("mqns s\t\t");
        self.expect(&["send", "stat"]);
        self.type_in("\x15mqns send --prio\t");
        self.expect(&["--priority", " "]);
        self.type_in("\x15mqns peek rep\t");
        self.expect(&["reports-of-today"]);
        self.type_in("\x15mqns peek /re\t\t");
        self.expect(&["/reports-of-today", "/rest"]);
        self.type_in("\x15mqns run --limits gen\t");
        self.expect(&["generous"]);
        self.type_in("\x15mqns run -- printen\t");
        self.expect(&["printenv"]);
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // The terminal goes, and with it the shell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn bash_completes() {
    // As Debian's bash-completion does it: loaded by the first completion of the command.
    let startup = "PS1='ready> '\n. /usr/share/bash-completion/bash_completion\nBASH_COMPLETION_USER_DIR=$HOME\n";
    let dir = "completions";
    let mut shell = {
        let startup = format!("{startup}mkdir -p $HOME/{dir}; mv $HOME/mqns $HOME/{dir}/mqns\n");
        Shell::start("bash", "mqns", ("bashrc", &startup), "--noprofile --rcfile bashrc")
    };
    shell.completes();
}

#[test]
fn zsh_completes() {
    let startup = "PS1='ready> '\nfpath=($HOME $fpath)\nautoload -U compinit\ncompinit -u -D\n";
    Shell::start("zsh", "_mqns", (".zshrc", startup), "").completes();
}

#[test]
fn fish_completes() {
    let dir = with_queues("fish", "mqns.fish");
    let complete = |line: &str| {
        let mut fish = Command::new("fish");
        in_directory(fish.args(["--no-config", "-c", &format!("source mqns.fish; complete -C '{line}'")]), &dir);
        output(&mut fish)
            .lines()
            .map(|line| line.split('\t').next().expect("a word").to_owned())
            .collect::<BTreeSet<_>>()
    };
    let set = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<BTreeSet<_>>();
    let commands: BTreeSet<String> = commands().into_iter().filter(|command| command.starts_with('s')).collect();
    assert_eq!(complete("mqns s"), commands);
    assert_eq!(complete("mqns send --pri"), set(&["--priority", "--privileges"]));
    assert_eq!(complete("mqns peek /re"), set(&["/reports-of-today", "/rest"]));
    assert_eq!(complete("mqns peek rep"), set(&["reports-of-today"]));
    // Of another directory there are none; of the same one, named on the line, there are.
    assert_eq!(complete("mqns peek --dir /var/empty-or-missing "), complete("mqns peek --dir=/var/empty-or-missing "));
    assert!(!complete("mqns peek --dir /var/empty-or-missing ").contains("/log"));
    assert!(complete("mqns peek --dir queues ").contains("/log"));
    assert_eq!(complete("mqns ls -o NAME,OW"), set(&["NAME,OWNER"]));
    assert_eq!(complete("mqns run --limits "), set(&["exact", "generous"]));
    assert_eq!(complete("mqns run -- printen"), set(&["printenv"]));
    assert!(complete("mqns run -- cat mq").contains("mqns.fish"));
}
