//! Validated internal configuration (IR) and the conversions from protos.
