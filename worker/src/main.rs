//! The thin worker binary for GPU hosts: it links neither the cluster nor the SQL engine.

fn main() {}
