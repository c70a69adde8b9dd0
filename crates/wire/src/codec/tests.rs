//! Tests of the encoding: everything comes back as it was, nothing that comes from outside does harm, and the bytes stay as they are.

mod golden;
mod hostile;
mod round_trip;
mod strategies;
