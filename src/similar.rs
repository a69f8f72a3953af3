//! Names that resemble a mistyped one, for "did you mean".

/// The least similarity of two names that are suggested for each other (1 is equal; Jaro-Winkler). Below, most suggestions are
/// names that only begin alike.
const ALIKE_MIN: f64 = 0.8;

/// Returns the known name that was probably meant.
#[must_use]
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), *candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE_MIN)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_is_found_and_a_foreign_one_is_not() {
        let known = ["user", "claims", "room"];
        for (name, meant) in [("usr", Some("user")), ("claim", Some("claims")), ("payload", None)] {
            assert_eq!(nearest(name, &known), meant, "{name}");
        }
        assert_eq!(nearest("user", &[]), None);
    }
}
