//! Tables: who announces what, and why not.

mod l2;
mod metal;
mod report;
mod routes;
