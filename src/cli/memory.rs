//! Keeps secrets in this process's memory: out of core dumps, of other processes of the user, and of the swap.

/// Turns core dumps off, and keeps other processes of the same user from reading this one's memory. If the operating
/// system refuses a step, the program continues without it.
pub(crate) fn seal_off() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
        set_dumpable_behavior(DumpableBehavior::NotDumpable).ok();
        setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).ok();
    }
}

/// Keeps all memory out of the swap, if the limit of locked memory allows any amount: with a smaller one, allocations
/// would fail later.
pub(crate) fn lock() {
    #[cfg(target_os = "linux")]
    {
        use rustix::{
            mm::{MlockAllFlags, mlockall},
            process::{Resource, getrlimit},
        };
        if getrlimit(Resource::Memlock).current.is_none() {
            let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
            if let Err(error) = mlockall(flags) {
                tracing::debug!(%error, "memory is not locked: it may be swapped");
            }
        }
    }
}
