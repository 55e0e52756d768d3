//! Errors in words.

use std::error::Error;

/// An error with all that led to it, as far as it does not say that itself.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut behind = error.source();
    while let Some(source) = behind {
        let said = source.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        behind = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Outer(&'static str, #[source] std::fmt::Error);

    #[test]
    fn what_led_to_an_error_is_said_once() {
        let cause = std::fmt::Error.to_string();
        assert_eq!(chain(&Outer("it broke", std::fmt::Error)), format!("it broke: {cause}"));
        let whole: &'static str = Box::leak(format!("it broke, because {cause}").into_boxed_str());
        assert_eq!(chain(&Outer(whole, std::fmt::Error)), whole);
    }
}
