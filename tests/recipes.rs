//! What docs/recipes.md tells, run: two tests that give their queue the same name fail when they run at the same time, and
//! pass with the recipe. They meet while each has its queue, so that neither depends on time.

mod harness;

use harness::StateDir;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// The block of code that stands in docs/recipes.md below the name of a file.
fn recipe(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/recipes.md");
    let text = fs::read_to_string(path).expect("docs/recipes.md");
    let (_, below) = text.split_once(&format!("\n`{file}`:\n\n```")).unwrap_or_else(|| panic!("no {file}"));
    let (_, code) = below.split_once('\n').expect("a language");
    code.split_once("\n```").expect("an end").0.to_string() + "\n"
}

/// A directory with the two tests' meeting points: opening a FIFO waits for the other side.
struct Project {
    dir: StateDir,
    state: StateDir,
}

impl Project {
    fn new(files: &[(&str, &str)]) -> Project {
        let project = Project { dir: StateDir::new(), state: StateDir::new() };
        for fifo in ["there", "back"] {
            let made = Command::new("mkfifo").arg(project.dir.path().join(fifo)).status();
            assert!(made.expect("run mkfifo").success());
        }
        for (name, text) in files {
            let path = project.dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("mkdir");
            fs::write(path, text).expect("write");
        }
        project
    }

    /// A shell there, in which `mqns` is the one under test and nothing of this run of cargo's is known. What takes longer
    /// than a minute has not met.
    fn shell(&self, script: &str) -> Output {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "60", "sh", "-c", script]).current_dir(self.dir.path());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            let of_cargo = name.starts_with("CARGO") && name != "CARGO_HOME" || name.starts_with("NEXTEST");
            if name.starts_with("MQNS_") || of_cargo || name.starts_with("RUST") && name != "RUSTUP_HOME" {
                command.env_remove(&*name);
            }
        }
        let bin = Path::new(env!("CARGO_BIN_EXE_mqns")).parent().expect("a directory");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([bin.to_path_buf()].into_iter().chain(std::env::split_paths(&path)));
        command.env("PATH", path.expect("no colons")).env("MQNS_LIB", harness::library()).env_remove("LD_PRELOAD");
        command.env("MQNS_DIR", self.state.path()).env("MEET", self.dir.path());
        command.stdin(std::process::Stdio::null()).output().expect("run sh")
    }

    /// One of the two tests fails, for that reason.
    #[track_caller]
    fn fails(&self, script: &str) {
        let output = self.shell(script);
        let said = [&output.stdout[..], &output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(!output.status.success() && output.status.code() != Some(124), "{}: {said}", output.status);
        assert!(said.contains("File exists"), "{said}");
    }

    #[track_caller]
    fn passes(&self, script: &str) {
        let output = self.shell(script);
        let said = [&output.stdout[..], &output.stderr].concat();
        assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&said));
        // Nothing is left of the namespaces.
        let left = self.state.files().into_iter().filter(|(path, ..)| path.starts_with("u0"));
        assert_eq!(left.count(), 0);
    }
}

const PYTHON: &str = r#"
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def use_a_queue(first, second):
    queue = libc.mq_open(b"/jobs", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, None)
    error = ctypes.get_errno()
    for name, mode in (first, second):
        open(os.path.join(os.environ["MEET"], name), mode).close()
    if queue != -1:
        libc.mq_unlink(b"/jobs")
    assert queue != -1, os.strerror(error)


def test_first():
    use_a_queue(("there", "w"), ("back", "r"))


def test_second():
    use_a_queue(("there", "r"), ("back", "w"))
"#;

/// The environment that scripts/setup makes.
fn pytest() -> Option<String> {
    let pytest = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/pytest");
    let can = Command::new(&pytest).args(["-n", "1", "--version"]).output().is_ok_and(|o| o.status.success());
    if !can {
        eprintln!("skipped: needs pytest and pytest-xdist in target/venv (scripts/setup test)");
    }
    can.then(|| format!("'{}' -q -p no:cacheprovider", pytest.display()))
}

#[test]
fn pytest_side_by_side() {
    let Some(pytest) = pytest() else { return };
    let project = Project::new(&[("test_two.py", PYTHON)]);
    let both = |how: &str| {
        let one = |test: &str| format!("mqns run {how} -- {pytest} test_two.py::{test}");
        format!("{} & {}; a=$?; wait $! && exit $a", one("test_first"), one("test_second"))
    };
    project.fails(&both(""));
    project.passes(&both("--fresh"));
}

#[test]
fn pytest_with_a_namespace_for_each_test() {
    let Some(pytest) = pytest() else { return };
    let project = Project::new(&[("test_two.py", PYTHON)]);
    project.fails(&format!("mqns run -- {pytest} -n 2"));
    let conftest = recipe("conftest.py");
    let project = Project::new(&[("test_two.py", PYTHON), ("conftest.py", &conftest)]);
    project.passes(&format!("mqns run --privileges generous -- {pytest} -n 2"));
    // One for each worker.
    let conftest = conftest.replace("(autouse=True)", "(autouse=True, scope=\"session\")");
    assert!(conftest.contains("session"));
    fs::write(project.dir.path().join("conftest.py"), conftest).expect("write");
    project.passes(&format!("mqns run --privileges generous -- {pytest} -n 2"));
    // Who forgets it is told. (Root may do it on the kernel.)
    let forgetful = format!("setpriv --bounding-set -all --inh-caps -all mqns run -- {pytest} test_two.py::test_first");
    let output = project.shell(&forgetful);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("run this by `mqns run --privileges generous -- pytest`"), "{output:?}");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

const RUST: &str = r#"
use std::ffi::{c_char, c_int};
use std::fs::File;
use std::io;

unsafe extern "C" {
    fn mq_open(name: *const c_char, flags: c_int, mode: c_int, attr: *const u8) -> c_int;
    fn mq_unlink(name: *const c_char) -> c_int;
}

fn use_a_queue(write_first: bool) {
    let queue = unsafe { mq_open(c"/jobs".as_ptr(), 0o302, 0o600, std::ptr::null()) };
    let error = io::Error::last_os_error();
    let meet = |name: &str, write: bool| {
        let path = format!("{}/{name}", std::env::var("MEET").unwrap());
        File::options().read(!write).write(write).open(path).unwrap();
    };
    meet("there", write_first);
    meet("back", !write_first);
    if queue != -1 {
        unsafe { mq_unlink(c"/jobs".as_ptr()) };
    }
    assert!(queue != -1, "{error}");
}

#[test]
fn first() {
    use_a_queue(true);
}

#[test]
fn second() {
    use_a_queue(false);
}
"#;

const CARGO: &str = "[package]\nname = \"two\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";

#[test]
fn cargo_nextest_with_a_runner() {
    let has = Command::new("cargo").args(["nextest", "--version"]).output().is_ok_and(|o| o.status.success());
    if !has {
        eprintln!("skipped: needs cargo-nextest");
        return;
    }
    let nextest = "cargo nextest run --offline --no-fail-fast --test-threads 2";
    let files = [("Cargo.toml", CARGO), ("src/lib.rs", ""), ("tests/two.rs", RUST)];
    let project = Project::new(&files);
    project.fails(&format!("mqns run -- {nextest}"));
    let config = recipe(".cargo/config.toml");
    let path = project.dir.path().join(".cargo/config.toml");
    fs::create_dir(path.parent().expect("a directory")).expect("mkdir");
    fs::write(path, config).expect("write");
    project.passes(nextest);
    fs::remove_dir_all(project.dir.path().join(".cargo")).expect("rm");
    let variable = format!("CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_RUNNER", std::env::consts::ARCH.to_uppercase());
    project.passes(&format!("{variable}='mqns run --fresh --' {nextest}"));
}

const C: &str = r#"
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void meet(const char *name, int flags)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", getenv("MEET"), name);
	if (open(path, flags) < 0)
		perror(path);
}

int main(void)
{
	mqd_t queue = mq_open("/jobs", O_RDWR | O_CREAT | O_EXCL, 0600, NULL);

	if (queue == (mqd_t)-1)
		perror("mq_open");
	meet("there", FIRST ? O_WRONLY : O_RDONLY);
	meet("back", FIRST ? O_RDONLY : O_WRONLY);
	if (queue != (mqd_t)-1)
		mq_unlink("/jobs");
	return queue == (mqd_t)-1;
}
"#;

const CMAKE: &str = r#"
cmake_minimum_required(VERSION 3.13)
project(two C)
enable_testing()
foreach(name IN ITEMS first second)
  add_executable(${name} two.c)
  add_test(NAME ${name} COMMAND ${name})
endforeach()
target_compile_definitions(first PRIVATE FIRST=1)
target_compile_definitions(second PRIVATE FIRST=0)
"#;

#[test]
fn ctest_with_a_launcher() {
    let version = Command::new("cmake").arg("--version").output();
    let Some(version) = version.ok().filter(|o| o.status.success()) else {
        eprintln!("skipped: needs cmake (scripts/setup test)");
        return;
    };
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let number = version.split_whitespace().nth(2).expect("a version");
    let parts: Vec<u32> = number.split(['.', '-']).map_while(|part| part.parse().ok()).collect();
    let variable = if parts[..] >= [3, 29][..] { "CMAKE_TEST_LAUNCHER" } else { "CMAKE_CROSSCOMPILING_EMULATOR" };
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/recipes.md")).expect("the page");
    let configure = format!("cmake -B build -D{variable}=\"mqns;run;--fresh;--\"");
    assert!(text.contains(&format!("\n    {configure}\n")), "{configure}");
    let project = Project::new(&[("CMakeLists.txt", CMAKE), ("two.c", C)]);
    let ctest = "cmake --build build && ctest --test-dir build --parallel 2 --output-on-failure";
    project.fails(&format!(
        "cmake -B build && cmake --build build && mqns run -- {}",
        ctest.split_once("&& ").expect("two").1
    ));
    project.passes(&format!("{configure} && {ctest}"));
}

/// The programs that the page names for the rest.
#[test]
fn anything_that_takes_a_command() {
    let project = Project::new(&[("one.t", "print \"1..1\\nok 1\\n\"; exit(-e $ENV{MEET} ? 0 : 1);\n")]);
    let prove = Command::new("prove").arg("--version").output().is_ok_and(|o| o.status.success());
    if prove {
        project.passes("prove -j 4 -e 'mqns run --fresh -- perl' .");
    }
    project.passes("printf '%s\\n' /bin/true /bin/true | xargs -P 4 -n 1 mqns run --fresh --");
}

#[test]
fn recipes_are_where_they_are_looked_for() {
    assert!(recipe("conftest.py").contains("CLONE_NEWIPC = 0x08000000\n"));
    assert!(recipe(".cargo/config.toml").starts_with("[target."));
}
