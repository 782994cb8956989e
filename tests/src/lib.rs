//! What the end-to-end tests and benchmarks share: clips, references, and farms, in this process or as real
//! processes that can be killed.

pub mod clips;
pub mod disk;
pub mod facility;
pub mod farm;
pub mod faults;
pub mod processes;
pub mod proxy;
pub mod redis_server;
pub mod reference;
