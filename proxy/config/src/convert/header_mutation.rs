//! Fields to add and to remove.

use filter_api::ConfigError;
use outrigger_types::HeaderKey;

use super::Result;
use super::path::{Within, each, refuse, required, unknown_enum};
use crate::format::{Format, FormatOptions};
use crate::ir::{AppendAction, HeaderAdd, HeaderMutations};
use crate::pb::envoy::config::core::v3 as core;

/// The two lists of a route, a virtual host and so on, as `{side}_headers_to_add`
/// and `{side}_headers_to_remove`.
pub(super) fn mutations(
    side: &str,
    add: Vec<core::HeaderValueOption>,
    remove: Vec<String>,
) -> Result<HeaderMutations> {
    Ok(HeaderMutations {
        remove: each(&format!("{side}_headers_to_remove"), remove, removal)?,
        add: additions(&format!("{side}_headers_to_add"), add)?,
    })
}

/// A list of fields to add.
pub(super) fn additions(name: &str, list: Vec<core::HeaderValueOption>) -> Result<Vec<HeaderAdd>> {
    each(name, list, addition)
}

/// Neither pseudo-headers nor the host can be removed.
fn removal(name: String) -> Result<HeaderKey> {
    match HeaderKey::parse(&name) {
        Some(key @ HeaderKey::Field(_)) => Ok(key),
        Some(_) => Err(ConfigError::new(
            ":-prefixed or host headers may not be removed",
        )),
        None => Err(ConfigError::new(format!("\"{name}\" is no header name"))),
    }
}

fn addition(message: core::HeaderValueOption) -> Result<HeaderAdd> {
    let core::HeaderValueOption {
        header,
        append,
        append_action,
        keep_empty_value,
    } = message;
    let core::HeaderValue {
        key,
        value,
        raw_value,
    } = required("header", header)?;
    Ok(HeaderAdd {
        key: settable(&key).within("header")?,
        value: value_format(value, raw_value).within("header")?,
        action: action(append.map(|wrapped| wrapped.value), append_action)?,
        keep_empty_value,
    })
}

/// Only pseudo-headers and the host have rules of their own: they are set by
/// rewrites, not by mutations.
fn settable(name: &str) -> Result<HeaderKey> {
    match HeaderKey::parse(name) {
        Some(key @ HeaderKey::Field(_)) => Ok(key),
        Some(_) => refuse("key", ":-prefixed or host headers may not be modified"),
        None => refuse("key", format!("\"{name}\" is no header name")),
    }
}

fn value_format(value: String, raw_value: Vec<u8>) -> Result<Format> {
    let text = match (value.is_empty(), raw_value.is_empty()) {
        (_, true) => value,
        (true, false) => match String::from_utf8(raw_value) {
            Ok(text) => text,
            Err(_) => return refuse("raw_value", "only UTF-8 is supported"),
        },
        (false, false) => return refuse("raw_value", "only one of value and raw_value may be set"),
    };
    let options = FormatOptions {
        omit_empty_values: true,
        ..FormatOptions::default()
    };
    Format::parse(&text, &options).map_err(|reason| ConfigError::field("value", reason))
}

/// The deprecated `append` and `append_action` cannot both be set.
fn action(append: Option<bool>, action: i32) -> Result<AppendAction> {
    use core::header_value_option::HeaderAppendAction as Action;
    let action = match Action::try_from(action) {
        Ok(action) => action,
        Err(_) => return unknown_enum("append_action", action),
    };
    match (append, action) {
        (Some(true) | None, Action::AppendIfExistsOrAdd) => Ok(AppendAction::AppendIfExistsOrAdd),
        (Some(false), Action::AppendIfExistsOrAdd) => Ok(AppendAction::OverwriteIfExistsOrAdd),
        (Some(_), _) => refuse("append", "both append and append_action are set"),
        (None, Action::AddIfAbsent) => Ok(AppendAction::AddIfAbsent),
        (None, Action::OverwriteIfExistsOrAdd) => Ok(AppendAction::OverwriteIfExistsOrAdd),
        (None, Action::OverwriteIfExists) => Ok(AppendAction::OverwriteIfExists),
    }
}
