//! Command operators.
