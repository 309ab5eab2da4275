//! Shared types of the data plane: headers, paths, addresses, buffers, stream info.
