//! The crash tests: the protocol, unchanged, on a disk that loses power.

mod exploration;
mod faults;
mod script;
mod teeth;
