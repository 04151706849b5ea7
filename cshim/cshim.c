/* What stable Rust cannot define: see build.rs. Names are cshim_<symbol>, all hidden. */
#include <stdint.h>

/* struct Tls of src/sys/tls.rs: 128 bytes, zero to begin with. */
__thread struct { uint64_t words[16]; } cshim_tls_block
    __attribute__((tls_model("initial-exec"), aligned(64)));

void *cshim_tls(void) { return &cshim_tls_block; }
