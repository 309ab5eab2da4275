//! Tests of the HTTP/1 codec: the parsers by tables and by random bytes, the
//! connections over a pipe in memory.

mod connections;
mod parsing;
