//! The traits a filter implements, and what a filter may ask of its stream.
