//! Binary payloads as text: base64, for every interface that takes JSON.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

/// RFC 4648 section 4. Padding is optional: the length implies it, and libraries differ in whether they write
/// it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The error of a text that is not base64.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not base64: {0}")]
pub struct NotBase64(#[from] base64::DecodeError);

/// Decodes base64, padded or not.
///
/// # Errors
/// [`NotBase64`].
pub fn decode(text: &str) -> Result<Bytes, NotBase64> {
    Ok(BASE64.decode(text)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_may_be_there_or_not() {
        for text in ["AAEC/w==", "AAEC/w=", "AAEC/w"] {
            assert_eq!(decode(text).as_deref(), Ok(&[0, 1, 2, 255][..]), "{text}");
        }
        assert_eq!(decode("").as_deref(), Ok(&[][..]));
        for text in ["AAEC_w", "AAEC/", "AA EC", "AAEC/w===", "=", "\u{e9}"] {
            assert!(decode(text).is_err(), "{text}");
        }
    }
}
