//! The test bed: real processes (moto, HAProxy, hsdo) and small loopback servers that a test controls.
//!
//! A test makes one [`bed::Bed`], which owns a directory and ports, so tests run side by side. Nothing here decides
//! what is right; that is the test's part. The demo uses the same pieces.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses the part of the bed that it needs")]

pub mod agent;
pub mod aws_fault;
pub mod aws_memory;
pub mod aws_proxy;
pub mod bed;
pub mod consul;
pub mod dns;
pub mod haproxy;
pub mod hsdo;
pub mod http;
pub mod issuer;
pub mod lifecycles;
pub mod moto;
pub mod port;
pub mod process;
pub mod random;
pub mod tap;
pub mod traffic;
pub mod wait;
pub mod web;
