//! Embedded migrations are part of the source: build again when they change.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
