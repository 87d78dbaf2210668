//! The machine that the load runs on, and the memory of this process.

use std::{fs, thread};

use serde::Serialize;

/// What a reader of the result needs to know of the machine. Without its name.
#[derive(Debug, Serialize)]
pub(super) struct HostMachine {
    pub(super) system: String,
    /// The model of the processor, if the system tells.
    pub(super) processor: Option<String>,
    pub(super) cores: usize,
    pub(super) memory_bytes: Option<u64>,
}

impl HostMachine {
    pub(super) fn this() -> Self {
        Self {
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            processor: field("/proc/cpuinfo", "model name").or_else(|| field("/proc/cpuinfo", "Model")),
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kilobytes("/proc/meminfo", "MemTotal"),
        }
    }

    pub(super) fn in_words(&self) -> String {
        let mut words = vec![self.system.clone(), format!("{} cores", self.cores)];
        words.extend(self.memory_bytes.map(|bytes| format!("{:.0} GB of memory", bytes as f64 / 1e9)));
        words.extend(self.processor.clone());
        words.join(", ")
    }
}

/// Returns the resident memory of this process, where procfs tells it.
pub(super) fn resident_bytes() -> Option<u64> {
    kilobytes("/proc/self/status", "VmRSS")
}

fn kilobytes(file: &str, name: &str) -> Option<u64> {
    let kilobytes: u64 = field(file, name)?.trim_end_matches(" kB").parse().ok()?;
    Some(kilobytes * 1_024)
}

/// Returns the value of the first line `NAME: VALUE`.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let values = text.lines().filter_map(|line| line.split_once(':'));
    values.into_iter().find(|(found, _)| found.trim() == name).map(|(_, value)| value.trim().to_owned())
}
