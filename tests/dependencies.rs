//! The crates of others that this package is built with: each has a licence of the list in `deny.toml`, comes from
//! crates.io with a checksum, and comes once. What `cargo deny check` says without the network; with it, it also
//! knows of advisories.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

fn file(name: &str) -> String {
    fs::read_to_string(format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))).expect(name)
}

/// The licences of `allow = […]`.
fn allowed() -> BTreeSet<String> {
    let text = file("deny.toml");
    let line = text.lines().find_map(|line| line.strip_prefix("allow = [")).expect("allow in deny.toml");
    let list: BTreeSet<_> =
        line.trim_end_matches(']').split(", ").map(|name| name.trim_matches('"').to_string()).collect();
    assert!(list.contains("MIT"), "{line}");
    list
}

/// Is an expression satisfied: of each part of an AND, one of its alternatives? (Nothing deeper is; it is refused.)
fn is_satisfied(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let expression = expression.replace('/', " OR ");
    let of_part = |part: &str| {
        let part = part.strip_prefix('(').and_then(|part| part.strip_suffix(')')).unwrap_or(part);
        part.split(" OR ").any(|name| allowed.contains(name))
    };
    expression.split(" AND ").all(of_part)
}

#[test]
fn expressions_are_understood() {
    let allowed = allowed();
    for good in ["MIT", "GPL-2.0 OR MIT", "MIT/Apache-2.0", "(MIT OR Apache-2.0) AND Unicode-3.0"] {
        assert!(is_satisfied(good, &allowed), "{good}");
    }
    for bad in ["GPL-2.0", "MIT AND GPL-2.0", "GPL-2.0 OR (MIT AND AGPL-3.0)", ""] {
        assert!(!is_satisfied(bad, &allowed), "{bad}");
    }
}

/// The packages that this one is made and tested with on this machine; not those of the model checker (tests/model) and
/// of the fuzzer (tests/fuzz), which nobody gets.
fn packages() -> Vec<Value> {
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", &host]);
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("run cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let nodes = metadata["resolve"]["nodes"].as_array().expect("nodes");
    let mut ids = vec![metadata["resolve"]["root"].clone()];
    let mut at = 0;
    while at < ids.len() {
        let node = nodes.iter().find(|node| node["id"] == ids[at]).expect("a node");
        for id in node["dependencies"].as_array().expect("dependencies") {
            if !ids.contains(id) {
                ids.push(id.clone());
            }
        }
        at += 1;
    }
    let all = metadata["packages"].as_array().expect("packages");
    let found: Vec<_> = all.iter().filter(|package| ids.contains(&package["id"])).cloned().collect();
    assert!(found.len() > 10);
    found
}

#[test]
fn licences_are_allowed() {
    let allowed = allowed();
    for package in packages() {
        let licence = package["license"].as_str().unwrap_or("none");
        assert!(is_satisfied(licence, &allowed), "{} {}: {licence}", package["name"], package["version"]);
    }
}

/// The text of each licence that this package has comes with it.
#[test]
fn own_licences_are_in_the_package() {
    let manifest = file("Cargo.toml");
    let expression = manifest.lines().find_map(|line| line.strip_prefix("license = ")).expect("a licence");
    assert_eq!(expression, "\"MIT OR Apache-2.0\"");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["package", "--list", "--allow-dirty", "--offline"]);
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("run cargo package");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list = String::from_utf8(output.stdout).expect("UTF-8");
    let ends = [
        ("LICENSE-MIT", "MIT License\n\nCopyright (c) 2026 mqns maintainers\n\nPermission is ", "SOFTWARE.\n"),
        ("LICENSE-APACHE", "Apache License\n", "limitations under the License.\n"),
    ];
    for (name, first, last) in ends {
        assert!(list.lines().any(|line| line == name), "{name} is not in {list}");
        let text = file(name);
        assert!(text.trim_start().starts_with(first) && text.ends_with(last), "{name}: {text}");
    }
}

#[test]
fn each_crate_comes_once() {
    let rules = file("deny.toml");
    // `skip = [{ crate = "NAME@VERSION" }]`
    let skipped = |name: &str, version: &str| {
        let major = version.split('.').next().unwrap_or_default();
        rules.lines().any(|line| line.starts_with("skip = ") && line.contains(&format!("\"{name}@{major}\"")))
    };
    let mut seen = BTreeSet::new();
    for package in packages() {
        let (name, version) = (package["name"].as_str().expect("a name"), package["version"].as_str().expect("one"));
        assert!(skipped(name, version) || seen.insert(name.to_string()), "{name}: twice");
    }
}

/// All of them, whoever uses them: those of the fuzzer (tests/fuzz), too, which has a list of its own.
#[test]
fn crates_come_from_the_registry_with_a_checksum() {
    for list in ["Cargo.lock", "tests/fuzz/Cargo.lock"] {
        let text = file(list);
        let mut others = 0;
        for package in text.split("[[package]]").skip(1) {
            let field = |name: &str| {
                let line = package.lines().find_map(|line| line.strip_prefix(name));
                line.map(|value| value.trim_start_matches(" = ").trim_matches('"'))
            };
            let name = field("name").expect("a name");
            if !["mqns", "mqns-model", "mqns-fuzz"].contains(&name) {
                assert_eq!(field("source"), Some("registry+https://github.com/rust-lang/crates.io-index"), "{name}");
                assert_eq!(field("checksum").map(str::len), Some(64), "{name}");
                others += 1;
            }
        }
        assert!(others > 5, "{list}");
    }
}
