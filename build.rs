//! Compiles `cshim/`: what stable Rust cannot define (variadic entry points, initial-exec
//! thread-local storage, frames that pthread_cancel may unwind); and the client of `mqns bench`. Tells the command
//! where the library will be.

fn main() {
    println!("cargo:rerun-if-changed=cshim");
    println!("cargo:rerun-if-changed=build.rs");
    // What every program that preloads the library pays for at its start: looking up symbols that the
    // library has itself, and C's start files, which serve constructors that it doesn't have.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-Bsymbolic");
    println!("cargo:rustc-cdylib-link-arg=-nostartfiles");
    built_library();
    cc::Build::new()
        .file("cshim/cshim.c")
        .file("cshim/directory.c")
        .file("cshim/process.c")
        .file("cshim/stream.c")
        .file("cshim/task.c")
        .flag("-fvisibility=hidden")
        // pthread_cancel unwinds from inside the sleep: tables for every instruction, and the
        // setjmp form of pthread_cleanup_push, which needs no call-site table (no -fexceptions).
        .flag("-fasynchronous-unwind-tables")
        .flag("-std=gnu11")
        .warnings(true)
        .extra_warnings(true)
        .opt_level(2)
        .compile("cshim");
    // The client of `mqns bench`, linked to the command only.
    println!("cargo:rerun-if-changed=benches");
    cc::Build::new()
        .file("benches/client.c")
        .define("main", "mqns_bench_client")
        .cargo_metadata(false)
        .flag("-std=gnu11")
        .warnings(true)
        .extra_warnings(true)
        .opt_level(2)
        .compile("bench_client");
    let built = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    println!("cargo:rustc-link-arg-bin=mqns={built}/libbench_client.a");
}

/// `cargo install` installs the command alone: it finds the library where this build leaves it, as long as it is there
/// (src/cli/run.rs). A package has no use for paths of the machine that it was built on: MQNS_PACKAGED=1.
fn built_library() {
    println!("cargo:rerun-if-env-changed=MQNS_PACKAGED");
    // OUT_DIR is <target>/<profile>/build/mqns-HASH/out.
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    if let (None, Some(profile)) = (std::env::var_os("MQNS_PACKAGED"), out.ancestors().nth(3)) {
        println!("cargo:rustc-env=MQNS_BUILT_LIBRARY={}", profile.join("libmqns.so").display());
    }
}
