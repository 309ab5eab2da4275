//! What the harness reads from `/proc`, and how it pins processes to cores.
//!
//! Everything here is Linux. A process is measured together with its descendants, because nginx and
//! HAProxy work in children of the process that was started.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::process::Command;
use std::time::Duration;

/// The core on which the proxy runs.
pub const SUBJECT_CORE: usize = 0;
/// The core on which load and backend run.
pub const LOAD_CORE: usize = 1;
/// No tree of processes that is measured here has more members than this.
const TREE_LIMIT: usize = 256;

/// How many cores the machine has (not how many this process, once pinned, may use).
pub fn cores() -> usize {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpuinfo
        .lines()
        .filter(|l| l.starts_with("processor"))
        .count()
        .max(1)
}

/// Pins every thread of this process to [`LOAD_CORE`]. Call it before threads are started.
///
/// Uses `taskset` of util-linux. On a machine with one core it does nothing.
pub fn pin_self() -> io::Result<()> {
    if cores() < 2 {
        return Ok(());
    }
    let status = Command::new("taskset")
        .args([
            "-a",
            "-c",
            "-p",
            &LOAD_CORE.to_string(),
            &std::process::id().to_string(),
        ])
        .stdout(std::process::Stdio::null())
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other("taskset could not pin the load"))
    }
}

/// The process and its descendants.
pub fn tree(pid: u32) -> Vec<u32> {
    let mut seen = HashSet::from([pid]);
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() && found.len() < TREE_LIMIT {
        for child in children(found[next]) {
            if seen.insert(child) {
                found.push(child);
            }
        }
        next += 1;
    }
    found
}

fn children(pid: u32) -> Vec<u32> {
    tasks(pid)
        .iter()
        .filter_map(|task| fs::read_to_string(format!("{task}/children")).ok())
        .flat_map(|line| {
            line.split_whitespace()
                .filter_map(|p| p.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

fn tasks(pid: u32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|e| e.path().display().to_string())
        .collect()
}

/// CPU time used so far by all threads of the process and its descendants, user and system.
pub fn cpu_time(pid: u32) -> Duration {
    let nanos = tree(pid)
        .into_iter()
        .flat_map(tasks)
        .map(|task| run_nanos(&task))
        .sum();
    Duration::from_nanos(nanos)
}

/// CPU time used so far by this process.
pub fn own_cpu_time() -> Duration {
    let nanos = tasks(std::process::id())
        .iter()
        .map(|task| run_nanos(task))
        .sum();
    Duration::from_nanos(nanos)
}

/// The first field of `schedstat`: nanoseconds on a core.
fn run_nanos(task: &str) -> u64 {
    fs::read_to_string(format!("{task}/schedstat"))
        .ok()
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Resident memory in bytes of the process and its descendants (pages they share are counted in each).
pub fn rss(pid: u32) -> u64 {
    tree(pid)
        .into_iter()
        .filter_map(|p| fs::read_to_string(format!("/proc/{p}/status")).ok())
        .filter_map(|status| status_kib(&status, "VmRSS:"))
        .sum::<u64>()
        * 1024
}

fn status_kib(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find(|l| l.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// One line that says what this machine is: processor, cores, kernel.
pub fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|l| {
            l.strip_prefix("model name")?
                .split_once(':')
                .map(|(_, v)| v.trim().to_owned())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {} cores, Linux {}", cores(), kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_resident_size_of_a_status_file() {
        assert_eq!(
            status_kib("Name:\tx\nVmRSS:\t    1234 kB\n", "VmRSS:"),
            Some(1234)
        );
        assert_eq!(status_kib("Name:\tx\n", "VmRSS:"), None);
    }

    #[test]
    fn own_cpu_time_grows_with_work() {
        let before = own_cpu_time();
        let mut sum = 0u64;
        for i in 0..20_000_000u64 {
            sum = std::hint::black_box(sum.wrapping_add(i));
        }
        std::hint::black_box(sum);
        std::thread::yield_now();
        assert!(own_cpu_time() > before);
    }

    #[test]
    fn a_tree_begins_with_its_root() {
        assert_eq!(tree(std::process::id()).first(), Some(&std::process::id()));
    }
}
