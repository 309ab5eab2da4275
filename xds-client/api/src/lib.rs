//! Envoy v3 messages, the schema table, ProtoJSON, raw scan and validation rules.
