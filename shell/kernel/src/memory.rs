//! How this process asks the kernel for memory.
#![expect(unsafe_code, reason = "mallopt has no safe wrapper")]

/// Keeps all threads in one heap. glibc gives each thread a heap of its own,
/// and what one thread freed another cannot use: an agent that lists ten
/// thousand Services on one thread and plans on another would hold both peaks.
/// Its threads rarely allocate at the same time, so one heap costs no time.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt changes a number under malloc's own lock; a value that it
    // does not know is refused and changes nothing.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
