//! `mqns generate`: man pages and completions, for who packages or installs; and what completes a command line.
//!
//! All of it comes from the definitions of the command line in `super`, texts included: a new command or option needs
//! nothing here. What stands behind the options in a help text is told apart by its form, see [`Part`].

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::{env, iter};

use clap::{Arg, Command, CommandFactory, ValueHint};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter};
use clap_complete::env::{Bash, CompleteEnv, EnvCompleter, Fish, Zsh};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::{Cause, Cli, Exit, Failure, Generate, Shell};

/// What `mqns generate` prints; man pages it writes.
pub fn generate(arguments: Generate) -> Result<String, Failure> {
    if let Some(dir) = arguments.man {
        write_pages(&dir)?;
    }
    Ok(arguments.completions.map(registration).unwrap_or_default())
}

/// libmqns(7). Its first line has the date of all pages.
const LIBRARY_PAGE: &str = include_str!("../../docs/man/libmqns.7");

fn write_pages(dir: &Path) -> Result<(), Failure> {
    let write = |name: &str, section: &str, text: &str| {
        let dir = dir.join(format!("man{section}"));
        let path = dir.join(format!("{name}.{section}"));
        let fail = |e| Failure::new(Exit::Failed, path.display(), Cause(&e), "name a directory that can be written to");
        fs::create_dir_all(&dir).and_then(|()| fs::write(&path, text)).map_err(fail)
    };
    let mut root = Cli::command();
    root.build();
    for command in iter::once(&root).chain(commands(&root)) {
        let name = page_name(command);
        write(&name, "1", &page(&root, command))?;
    }
    write("libmqns", "7", LIBRARY_PAGE)
}

/// The commands that have pages; not `help`, which clap adds.
fn commands(root: &Command) -> impl Iterator<Item = &Command> {
    root.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

/// `mqns-run` for `mqns run`.
fn page_name(command: &Command) -> String {
    command.get_bin_name().unwrap_or(command.get_name()).replace(' ', "-")
}

fn page(root: &Command, command: &Command) -> String {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let (mut description, mut sections) = (Vec::new(), Vec::new());
    let long = sentence(&command.get_long_about().map_or(about.clone(), ToString::to_string));
    description.extend(long.split("\n\n").map(|text| Part::Text(text.to_owned())));
    read_help(&help_behind(command), &mut description, &mut sections);
    add_common_sections(root, command, &mut sections);

    let usage = command.clone().render_usage().to_string();
    let mut shown = command.clone().about(lower_case(&about)).mut_args(|arg| brief_values(with_plain_help(arg)));
    shown = shown.override_usage(usage.trim_start_matches("Usage: ").to_owned()).subcommand_help_heading("COMMANDS");
    if shown.find_subcommand("help").is_some() {
        shown = shown.mut_subcommand("help", |help| help.hide(true));
    }
    let man = Man::new(shown)
        .title(page_name(command).to_uppercase())
        .date(LIBRARY_PAGE.split_whitespace().nth(3).unwrap_or_default())
        .source(concat!("mqns ", env!("CARGO_PKG_VERSION")))
        .manual("mqns");

    let mut page = rendered(|out| man.render_title(out));
    page += &rendered(|out| man.render_name_section(out));
    page += &rendered(|out| man.render_synopsis_section(out));
    page += &section("DESCRIPTION", &description);
    if command.has_subcommands() {
        page += &rendered(|out| man.render_subcommands_section(out));
    }
    page += &emphasis(&rendered(|out| man.render_options_section(out)));
    for part in &sections {
        page += &section(&part.name, &part.parts);
    }
    format!("{PREAMBLE}{page}")
}

/// What the `roff` crate puts in front of each piece that it renders, for its apostrophes. Once is enough.
const PREAMBLE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

fn rendered(section: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> String {
    let mut text = Vec::new();
    section(&mut text).expect("a Vec has room");
    // Empty lines and breaks between a help text and its list are one paragraph too many.
    String::from_utf8_lossy(&text).replace(PREAMBLE, "").replace(".br\n\n.br\n", ".IP\n")
}

/// What stands behind the options in `--help`.
fn help_behind(command: &Command) -> String {
    command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string).unwrap_or_default()
}

/// The sections that every page has, in the usual order.
fn add_common_sections(root: &Command, command: &Command, sections: &mut Vec<Section>) {
    let lacks = |sections: &[Section], name: &str| !sections.iter().any(|section| section.name == name);
    if lacks(sections, EXIT_STATUS) {
        // That of the commands which do not end as another program does.
        let mut all = Vec::new();
        read_help(&help_behind(root), &mut Vec::new(), &mut all);
        let status = all.into_iter().filter(|section| section.name == EXIT_STATUS).flat_map(|section| section.parts);
        let others = status.skip_while(|part| !matches!(part, Part::Text(text) if text.starts_with("Of the others")));
        sections.push(Section { name: EXIT_STATUS.into(), parts: others.skip(1).collect() });
    }
    let mut add = |name: &str, text: &str| {
        if lacks(sections, name) {
            sections.push(Section { name: name.into(), parts: vec![Part::Text(text.into())] });
        }
    };
    add(ENVIRONMENT, "`MQNS_LIB` names the libmqns.so to use. The library's own variables: `libmqns`(7).");
    let overview = if command.has_subcommands() { "" } else { "`mqns`(1), " };
    add(SEE_ALSO, &format!("{overview}`libmqns`(7), `mq_overview`(7), `ipc_namespaces`(7)"));
    // Columns and the like come first: they belong to the description.
    let order = [EXIT_STATUS, ENVIRONMENT, EXAMPLES, SEE_ALSO];
    sections.sort_by_key(|section| order.iter().position(|known| *known == section.name).map_or(0, |at| at + 1));
}

const EXIT_STATUS: &str = "EXIT STATUS";
const ENVIRONMENT: &str = "ENVIRONMENT";
const EXAMPLES: &str = "EXAMPLES";
const SEE_ALSO: &str = "SEE ALSO";

/// "run a command" for "Run a command", but "POSIX" as it is: so it is usual after the name of a page.
fn lower_case(text: &str) -> String {
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if second.is_lowercase() || second == ' ' => {
            first.to_lowercase().collect::<String>() + &text[first.len_utf8()..]
        }
        _ => text.to_owned(),
    }
}

/// The help text of `--help` itself is not for a page: it tells of `-h`.
fn with_plain_help(arg: Arg) -> Arg {
    if arg.get_id() == "help" { arg.help("Print help").long_help("Print help; `-h` prints a summary") } else { arg }
}

/// Values that explain themselves in a line, not in a list.
fn brief_values(arg: Arg) -> Arg {
    let values = arg.get_possible_values();
    let takes_values = arg.get_num_args().is_some_and(|number| number.takes_values());
    if !takes_values
        || values.is_empty()
        || arg.is_hide_possible_values_set()
        || values.iter().any(|v| v.get_help().is_some())
    {
        return arg;
    }
    let names: Vec<&str> = values.iter().map(|value| value.get_name()).collect();
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    arg.help(format!("{help} (of {})", names.join(", "))).hide_possible_values(true)
}

/// A help text with its full stop.
fn sentence(text: &str) -> String {
    if text.ends_with(['.', ':']) { text.to_owned() } else { format!("{text}.") }
}

/// A section of a man page.
struct Section {
    name: String,
    parts: Vec<Part>,
}

/// A part of a section, by its form in a help text.
enum Part {
    /// Lines without indentation.
    Text(String),
    /// Lines indented by two, of a term, two blanks or more, and a text, which goes on in lines indented further.
    Entries(Vec<(String, String)>),
    /// Lines below "Examples:", and indented ones without a heading.
    Verbatim(Vec<String>),
}

/// Takes a help text apart: what a line like "Columns:" heads, with indented lines below it, is a section, all else
/// description.
fn read_help(help: &str, description: &mut Vec<Part>, sections: &mut Vec<Section>) {
    let mut current: Option<usize> = None;
    for paragraph in help.split("\n\n") {
        let lines: Vec<&str> = paragraph.lines().collect();
        let Some((&first, rest)) = lines.split_first() else { continue };
        let body = if first.starts_with(' ') {
            // Goes on with the section before.
            &lines[..]
        } else {
            let heads = first.ends_with(':') && rest.first().is_some_and(|line| line.starts_with(' '));
            let heading = heads.then(|| first.trim_end_matches(':'));
            let name = heading.filter(|h| h.starts_with("Exit status") || !h.contains(' '));
            current = name.map(|name| {
                let title = if name.starts_with("Exit status") { EXIT_STATUS.into() } else { name.to_uppercase() };
                let lead = name.contains(' ').then(|| Part::Text(first.to_owned()));
                sections.push(Section { name: title, parts: lead.into_iter().collect() });
                sections.len() - 1
            });
            if name.is_some() { rest } else { &lines[..] }
        };
        match current {
            None => read_lines(body, false, description),
            Some(at) => {
                let section = &mut sections[at];
                read_lines(body, section.name == EXAMPLES, &mut section.parts);
            }
        }
    }
}

fn read_lines(lines: &[&str], verbatim: bool, parts: &mut Vec<Part>) {
    let indent = |line: &str| line.len() - line.trim_start().len();
    for block in lines.chunk_by(|a, b| (indent(a) == 0) == (indent(b) == 0)) {
        if indent(block[0]) == 0 {
            // A line that heads a list stands for itself.
            for text in block.split_inclusive(|line| line.ends_with(':')) {
                parts.push(Part::Text(text.join("\n")));
            }
        } else if verbatim {
            parts.push(Part::Verbatim(block.iter().map(|line| line.get(2..).unwrap_or("").to_owned()).collect()));
        } else {
            let mut entries: Vec<(String, String)> = Vec::new();
            for line in block {
                match (indent(line) > 2, entries.last_mut()) {
                    (true, Some((_, text))) => {
                        text.push('\n');
                        text.push_str(line.trim());
                    }
                    _ => {
                        let (term, text) = line.trim().split_once("  ").unwrap_or((line.trim(), ""));
                        entries.push((term.to_owned(), text.trim().to_owned()));
                    }
                }
            }
            parts.push(Part::Entries(entries));
        }
    }
}

fn section(name: &str, parts: &[Part]) -> String {
    let mut roff = Roff::new();
    roff.control("SH", [name]);
    for (index, part) in parts.iter().enumerate() {
        match part {
            Part::Text(text) => {
                if index > 0 {
                    roff.control("PP", []);
                }
                lines(&mut roff, text);
            }
            Part::Entries(entries) => {
                for (term, text) in entries {
                    roff.control("TP", []);
                    roff.text([bold(term.as_str())]);
                    lines(&mut roff, text.trim());
                }
            }
            Part::Verbatim(text) => {
                roff.control("nf", []);
                lines(&mut roff, &text.join("\n"));
                roff.control("fi", []);
            }
        }
    }
    let text = roff.render().replace(PREAMBLE, "");
    if name == EXAMPLES { text } else { emphasis(&text) }
}

fn lines(roff: &mut Roff, text: &str) {
    for line in text.lines() {
        roff.text([roman(line)]);
    }
}

/// Sets in bold what a help text has between backquotes.
fn emphasis(roff: &str) -> String {
    let mut text = String::with_capacity(roff.len());
    for line in roff.lines() {
        let pieces: Vec<&str> = line.split('`').collect();
        for (index, piece) in pieces.iter().enumerate() {
            match (index % 2, index + 1 == pieces.len()) {
                (1, false) => text.extend(["\\fB", piece, "\\fR"]),
                (1, true) => text.extend(["`", piece]),
                _ => text.push_str(piece),
            }
        }
        text.push('\n');
    }
    text
}

/// Set by what a shell has loaded when it asks for completions.
const COMPLETE: &str = "_MQNS_COMPLETE";

/// What a shell loads to have `mqns` complete its command lines.
fn registration(shell: Shell) -> String {
    let completer: &dyn EnvCompleter = match shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut script = Vec::new();
    completer.write_registration(COMPLETE, "mqns", "mqns", "mqns", &mut script).expect("a Vec has room");
    let mut script = String::from_utf8(script).expect("text").trim_start().to_owned();
    if let Shell::Zsh = shell {
        // As a file in $fpath it is run as the function itself at the first completion.
        script.push_str("\nif [ \"$funcstack[1]\" = _mqns ]; then\n    _clap_dynamic_completer_mqns \"$@\"\nfi\n");
    }
    script
}

/// Answers a shell that asks for completions; `true` if that is what the command was started for.
///
/// # Errors
///
/// Another shell than clap_complete knows; standard output that cannot be written to.
pub fn complete() -> Result<bool, clap::Error> {
    let here = env::current_dir().ok();
    let asked = CompleteEnv::with_factory(command).var(COMPLETE).try_complete(env::args_os(), here.as_deref())?;
    if asked {
        // There is no runtime of Rust's that would do it at the end (main.rs).
        io::stdout().flush()?;
    }
    Ok(asked)
}

/// The definition of the command line, with what completes the values of its arguments, by their names.
fn command() -> Command {
    let with_completer = |arg: Arg| {
        let name = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
        match name.as_deref() {
            Some("QUEUE") => arg.add(ArgValueCompleter::new(queues)),
            Some("CMD") => arg.add(ArgValueCompleter::new(command_line)),
            Some("DIR") => arg.value_hint(ValueHint::DirPath),
            Some("stderr|FILE") => arg.value_hint(ValueHint::FilePath),
            _ => arg,
        }
    };
    Cli::command().mut_subcommands(|command| command.mut_args(with_completer))
}

/// The names of the queues that `mqns ls` lists with the `--ns` and `--dir` of the line that is completed.
fn queues(word: &OsStr) -> Vec<CompletionCandidate> {
    let line: Vec<OsString> = env::args_os().collect();
    let mut list = Process::new("/proc/self/exe");
    list.args(["ls", "-nro", "NAME"]).stdin(Stdio::null()).stderr(Stdio::null());
    for (index, argument) in line.iter().enumerate() {
        for option in ["--ns", "--dir"] {
            match argument.as_bytes().strip_prefix(option.as_bytes()) {
                Some(b"") => list.args(&line[index..(index + 2).min(line.len())]),
                Some([b'=', ..]) => list.arg(argument),
                _ => continue,
            };
        }
    }
    // None, if they cannot be listed: a shell has no place for the reason.
    let names = list.output().map(|output| output.stdout).unwrap_or_default();
    let slash = word.is_empty() || word.as_bytes().starts_with(b"/");
    String::from_utf8_lossy(&names)
        .lines()
        // The name itself, where -r had nothing to escape.
        .filter(|name| !name.contains('\\'))
        .map(|name| if slash { name } else { name.trim_start_matches('/') })
        .filter(|name| name.as_bytes().starts_with(word.as_bytes()))
        .map(CompletionCandidate::new)
        .collect()
}

/// A command, that is programs of `PATH`, or its arguments, that is files.
fn command_line(word: &OsStr) -> Vec<CompletionCandidate> {
    let is_command = word_before().is_some_and(|before| before == "--" || before == "run");
    if !is_command || word.as_bytes().contains(&b'/') {
        return PathCompleter::any().complete(word);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let files = env::split_paths(&path).filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
    let named = files.filter(|file| file.file_name().as_bytes().starts_with(word.as_bytes()));
    let mut programs: Vec<OsString> =
        named.filter(|file| super::run::executable(&file.path())).map(|file| file.file_name()).collect();
    programs.sort();
    programs.dedup();
    programs.into_iter().map(CompletionCandidate::new).collect()
}

/// The word in front of the one that is completed. (The index that clap_complete gives a completer is 0 for the first
/// two of several values.) The line comes behind `--`; bash and zsh say where in it the cursor is, with fish it ends there.
fn word_before() -> Option<OsString> {
    let line: Vec<OsString> = env::args_os().skip_while(|argument| argument != "--").skip(1).collect();
    let at = env::var("_CLAP_COMPLETE_INDEX").ok().and_then(|index| index.parse().ok());
    let at: usize = at.or(line.len().checked_sub(1))?;
    line.get(at.checked_sub(1)?).cloned()
}
