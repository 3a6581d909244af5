//! The scaler: from what is measured of a service's workers to how many there should be, and why.
//!
//! Everything here is a pure function of its arguments: no I/O, no clock, no randomness. Times are given
//! ([`time::Time`]), what must be remembered between two decisions is a value that the caller keeps
//! ([`history::History`]), so each decision can be taken again later from what it was taken from ([`case::Case`]).
//!
//! [`decision::decide`] is the algorithm of Kubernetes' HorizontalPodAutoscaler, `autoscaling/v2`. The rules are in
//! the page "Horizontal Pod Autoscaling" of the Kubernetes documentation and, where that is silent, in the source of
//! its controller (`pkg/controller/podautoscaler`); where a comment here names a Go function, it is from there. Two
//! other policies can be chosen instead of it: [`concurrency`], as Knative's, and [`tracking`], as AWS's.

pub mod backlog;
pub mod case;
pub mod concurrency;
pub mod decision;
pub mod history;
pub mod manifest;
pub mod proposal;
pub mod quantity;
pub mod rate;
pub mod samples;
pub mod simulation;
pub mod spec;
pub mod stabilization;
pub mod time;
pub mod tracking;
pub mod zero;
