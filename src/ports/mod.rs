//! The traits through which roles reach the outside world, and the types that they exchange. Edges implement them, roles
//! call them, and only `run` knows both.

mod client;
mod error;
mod server;
mod status;

pub use client::*;
pub use error::{Subject, TurnError};
pub use server::{
    BalancerState, BalancerView, Completion, Gauges, Holding, Hooks, Reason, ReportReader, Sighting, SlotStore,
    Snapshot, Source, TableReading,
};
pub use status::{BackendSlot, BackendState, Board, ClientState};
