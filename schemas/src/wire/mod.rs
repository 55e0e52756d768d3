//! The JSON forms that leave or outlive a process. Each version is a module of its own and stays readable for ever.

pub mod v1;
