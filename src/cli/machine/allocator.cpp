// How jemalloc, which replaces malloc in the programs that link it, hands out memory.

// A sweep allocates and frees blocks of some megabytes, each time of other sizes, between small ones that stay. With
// glibc the gaps that these leave cost GPT-2 XL 0.8 GB. Freed pages are kept, as taking them anew from the kernel costs
// time, and large blocks share the arenas of all others.
extern "C" {
extern const char* malloc_conf;
const char* malloc_conf = "dirty_decay_ms:-1,oversize_threshold:0";
}
