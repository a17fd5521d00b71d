//! Nodes in network namespaces of their own, joined by a bridge: partitions as the kernel makes them. Needs root.
//!
//! A direction is cut by naming a hardware address that nobody has for the other's: packets leave and arrive nowhere,
//! without an error, as behind a broken switch. A node is isolated by taking the link under it down.

use std::process::Command;

/// The bridge's and the callers' place in the network; nodes are numbered from 1.
const HOST: usize = 254;

/// An address of the private use range that no interface has.
const NOBODY: &str = "02:00:00:00:de:ad";

/// The bridge and what hangs on it. All of it is taken away when this is dropped.
#[derive(Debug)]
pub(crate) struct Namespaces {
    bridge: String,
    /// Third number of the addresses, so that two tests at once do not meet.
    net: u32,
    nodes: Vec<usize>,
}

impl Namespaces {
    /// Makes the bridge. `None` with a reason where this user or this machine cannot.
    pub(crate) fn new() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("network namespaces need root".to_owned());
        }
        sweep();
        let pid = std::process::id();
        let this = Self {
            bridge: format!("scb{pid}"),
            net: pid % 256,
            nodes: Vec::new(),
        };
        let host = format!("{}/24", this.address(HOST));
        try_ip(&["link", "add", &this.bridge, "type", "bridge"])?;
        try_ip(&["addr", "add", &host, "dev", &this.bridge])?;
        try_ip(&["link", "set", &this.bridge, "up"])?;
        Ok(this)
    }

    /// Makes a node's namespace.
    pub(crate) fn add(&mut self, node: usize) {
        let (space, outside) = (self.name(node), self.outside(node));
        let address = format!("{}/24", self.address(node));
        ip(&["netns", "add", &space]);
        self.nodes.push(node);
        let pair = ["type", "veth", "peer", "name", "eth0", "netns", &space];
        ip(&[&["link", "add", outside.as_str()], &pair[..]].concat());
        ip(&["link", "set", &outside, "master", &self.bridge, "up"]);
        ip(&["-n", &space, "addr", "add", &address, "dev", "eth0"]);
        ip(&["-n", &space, "link", "set", "eth0", "up"]);
        ip(&["-n", &space, "link", "set", "lo", "up"]);
    }

    /// The name of a node's namespace.
    pub(crate) fn name(&self, node: usize) -> String {
        format!("sc{}n{node}", std::process::id())
    }

    /// A node's address, or the callers' for [`HOST`].
    pub(crate) fn address(&self, node: usize) -> String {
        format!("10.231.{}.{node}", self.net)
    }

    /// Packets from one node to another arrive nowhere from now on.
    pub(crate) fn cut(&self, from: usize, to: usize) {
        let (space, address) = (self.name(from), self.address(to));
        let entry = [
            "neigh",
            "replace",
            &address,
            "lladdr",
            NOBODY,
            "dev",
            "eth0",
            "nud",
            "permanent",
        ];
        ip(&[&["-n", space.as_str()], &entry[..]].concat());
    }

    /// A node hears nobody and is heard by nobody from now on.
    pub(crate) fn isolate(&self, node: usize) {
        ip(&["link", "set", &self.outside(node), "down"]);
    }

    /// Everything is as it was.
    pub(crate) fn heal(&self) {
        for node in &self.nodes {
            ip(&["link", "set", &self.outside(*node), "up"]);
            ip(&[
                "-n",
                &self.name(*node),
                "neigh",
                "flush",
                "nud",
                "permanent",
                "dev",
                "eth0",
            ]);
        }
    }

    fn outside(&self, node: usize) -> String {
        format!("scv{}n{node}", std::process::id())
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for node in &self.nodes {
            // With the namespace goes its end of the pair, and with that the other one.
            let _ = try_ip(&["netns", "del", &self.name(*node)]);
        }
        let _ = try_ip(&["link", "del", &self.bridge]);
    }
}

/// Takes away what tests that were killed have left behind.
fn sweep() {
    for entry in std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name
            .strip_prefix("sc")
            .and_then(|rest| rest.split_once('n'));
        let Some(pid) = pid.and_then(|(pid, _)| pid.parse::<u32>().ok()) else {
            continue;
        };
        if !std::path::Path::new(&format!("/proc/{pid}")).exists() {
            let _ = try_ip(&["netns", "del", &name]);
            let _ = try_ip(&["link", "del", &format!("scb{pid}")]);
        }
    }
}

fn ip(arguments: &[&str]) {
    if let Err(error) = try_ip(arguments) {
        panic!("{error}");
    }
}

fn try_ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .map_err(|error| format!("`ip` of iproute2 cannot be started: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    output
        .status
        .success()
        .then_some(())
        .ok_or_else(|| format!("`ip {}`: {}", arguments.join(" "), said.trim()))
}
