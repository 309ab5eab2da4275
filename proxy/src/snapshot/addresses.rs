//! Addresses of listeners: each is one listener's alone.

use filter_api::ConfigError;
use outrigger_config::ir::ListenerConfig;
use outrigger_types::Address;

/// Refuses a listener on the address of another, even if the kernel would let them share
/// it: which of them gets a connection would be left to chance. A port that the kernel is
/// to choose is never the same.
///
/// # Errors
/// Which address it is, and whose.
pub fn check_addresses<'a>(
    config: &ListenerConfig,
    others: impl IntoIterator<Item = &'a ListenerConfig>,
) -> Result<(), ConfigError> {
    for other in others.into_iter().filter(|other| other.name != config.name) {
        let is_taken = |address: &&Address| {
            let chosen_later = config.bind_to_port && address.port() == Some(0);
            !chosen_later && other.addresses.contains(address)
        };
        if let Some(address) = config.addresses.iter().find(is_taken) {
            let reason = format!(
                "duplicate address '{address}', as listener '{}'",
                other.name
            );
            let path = format!("listener \"{}\"", config.name);
            return Err(ConfigError::field("address", reason).within(path));
        }
    }
    Ok(())
}
