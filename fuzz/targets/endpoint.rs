//! What a user says about where the node is: `--slim`, and the address in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slim_link::Target;
use slim_proto::Name;

/// Modules of the program `slim`.
#[allow(dead_code, reason = "the program uses all of it")]
#[path = "../../crates/slim-cli/src"]
mod cli {
    pub(crate) mod node_option;
}

fuzz_target!(|text: &str| {
    match cli::node_option::parse(text) {
        Ok(option) => {
            if !text.trim().starts_with('{') {
                assert_eq!(option.endpoint, text.trim());
            }
            check_target(&option.endpoint);
        }
        Err(error) => assert!(!error.is_empty()),
    }
    check_target(text);
    check_name(text);
});

fn check_target(text: &str) {
    match text.parse::<Target>() {
        Ok(target) => {
            let shown = target.to_string();
            assert_eq!(shown.parse().as_ref(), Ok(&target), "{shown}");
            // Nothing of what was said is left out.
            if shown.starts_with("unix://") {
                return assert_eq!(shown, text);
            }
            let scheme = if target.is_tls() { "https://" } else { "http://" };
            let (host, port) = shown[scheme.len()..].rsplit_once(':').expect("a port");
            let said = text.strip_prefix(scheme).unwrap_or(text);
            let said = said.strip_prefix(host).and_then(|rest| rest.strip_prefix(':'));
            let said = said.expect("the host that was said").trim_end_matches('/');
            assert_eq!(said.parse::<u16>(), port.parse(), "{shown}");
        }
        Err(error) => assert!(error.to_string().contains(&format!("{text:?}"))),
    }
}

fn check_name(text: &str) {
    match text.parse::<Name>() {
        Ok(name) => {
            let shown = name.to_string();
            assert_eq!(shown.parse().as_ref(), Ok(&name), "{shown}");
        }
        Err(error) => assert!(error.to_string().contains(&format!("{text:?}"))),
    }
}
