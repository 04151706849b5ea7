//! Compiles `cshim/`: what stable Rust cannot define (variadic entry points, initial-exec
//! thread-local storage, frames that pthread_cancel may unwind).

fn main() {
    println!("cargo:rerun-if-changed=cshim");
    println!("cargo:rerun-if-changed=build.rs");
    cc::Build::new()
        .file("cshim/cshim.c")
        .flag("-fvisibility=hidden")
        .flag("-fexceptions")
        .flag("-std=gnu11")
        .warnings(true)
        .extra_warnings(true)
        .opt_level(2)
        .compile("cshim");
}
