//! Every developer command of Shoal.
fn main() {}
