//! The form in which settings are printed: without what an address may hold of secrets.

use toml::Value;

use crate::url;

/// Keys whose values are addresses, also where they are written without a scheme.
const ADDRESSES: [&str; 6] = [
    "url",
    "servers",
    "origins",
    "web_origins",
    "trusted_proxies",
    "otlp_endpoint",
];

/// Hides user, password, query and fragment of every address.
pub(super) fn hide_secrets(settings: &mut Value) {
    hide(settings, false);
}

fn hide(value: &mut Value, is_address: bool) {
    match value {
        Value::String(text) if is_address || url::has_scheme(text) => *text = url::shown(text),
        Value::Array(values) => values.iter_mut().for_each(|value| hide(value, is_address)),
        Value::Table(table) => {
            for (key, value) in table {
                hide(value, ADDRESSES.contains(&key.as_str()));
            }
        }
        _ => {}
    }
}
