//! What each role needs of the world, as traits, with the types that they exchange. Edges implement them, roles call them,
//! and only `run` knows both. Nothing here does anything.

mod client;
mod error;
mod server;

pub use client::*;
pub use error::{Subject, TurnError};
pub use server::{Gauges, Sighting, SlotStore, Snapshot, Source, TableReading};
