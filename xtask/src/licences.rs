//! `cargo xtask licences`: what all dependencies are licensed under, against the
//! list in `deny.toml`. The same question as `cargo deny check licenses`, without
//! anything to install.

use std::fs;

use anyhow::{Context, bail};
use serde_json::Value;
use spdx::{Expression, LicenseReq, ParseMode};

use crate::cargo;

pub(crate) fn run() -> anyhow::Result<()> {
    let deny = fs::read_to_string(cargo::root().join("deny.toml")).context("reading deny.toml")?;
    let allowed = allowed(&deny)?;
    let metadata = cargo::output(&mut cargo::command(&[
        "metadata",
        "--locked",
        "--all-features",
        "--format-version=1",
    ]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo's metadata")?;
    let packages = metadata["packages"].as_array().context("no packages")?;

    let complaints: Vec<String> =
        packages.iter().filter_map(|package| complaint(package, &allowed)).collect();
    if !complaints.is_empty() {
        bail!("licences that deny.toml does not allow:\n{}", complaints.join("\n"));
    }
    println!("{} packages, all under licences that deny.toml allows", packages.len());
    Ok(())
}

/// The list `licenses.allow` of `deny.toml`.
fn allowed(deny: &str) -> anyhow::Result<Vec<LicenseReq>> {
    let deny: toml::Table = toml::from_str(deny).context("deny.toml")?;
    let list = deny
        .get("licenses")
        .and_then(|licenses| licenses.get("allow")?.as_array())
        .context("deny.toml has no licenses.allow")?;
    list.iter()
        .map(|entry| {
            let text = entry.as_str().context("deny.toml: licenses.allow has more than texts")?;
            let expression = Expression::parse(text).with_context(|| text.to_owned())?;
            let mut parts = expression.requirements();
            match (parts.next(), parts.next()) {
                (Some(part), None) => Ok(part.req.clone()),
                _ => bail!("deny.toml: {text} is not one licence"),
            }
        })
        .collect()
}

/// What is wrong with the licence of a package, if anything.
fn complaint(package: &Value, allowed: &[LicenseReq]) -> Option<String> {
    let id = format!(
        "  {} {}",
        package["name"].as_str().unwrap_or("?"),
        package["version"].as_str().unwrap_or("?")
    );
    let Some(licence) = package["license"].as_str() else {
        return Some(format!("{id}: none given"));
    };
    // Older packages separate alternatives with a slash.
    match Expression::parse_mode(licence, ParseMode::LAX) {
        Err(error) => Some(format!("{id}: {licence}: {}", error.reason)),
        Ok(expression) if expression.evaluate(|req| allowed.contains(req)) => None,
        Ok(_) => Some(format!("{id}: {licence}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(licence: Option<&str>, is_fine: bool) {
        let allowed = allowed(
            r#"licenses.allow = ["MIT", "Apache-2.0 WITH LLVM-exception", "BSD-3-Clause"]"#,
        )
        .unwrap();
        let package = serde_json::json!({"name": "a", "version": "1.0.0", "license": licence});
        let complaint = complaint(&package, &allowed);
        assert_eq!(complaint.is_none(), is_fine, "{licence:?}: {complaint:?}");
    }

    #[test]
    fn one_alternative_is_enough() {
        check(Some("MIT OR GPL-3.0-only"), true);
        check(Some("GPL-3.0-only/MIT"), true);
        check(Some("GPL-3.0-only OR LGPL-2.1-or-later"), false);
    }

    #[test]
    fn every_part_of_a_conjunction_counts() {
        check(Some("(MIT OR Apache-2.0) AND BSD-3-Clause"), true);
        check(Some("MIT AND OpenSSL"), false);
    }

    #[test]
    fn an_exception_is_part_of_the_licence() {
        check(Some("Apache-2.0 WITH LLVM-exception"), true);
        check(Some("Apache-2.0"), false);
    }

    #[test]
    fn no_licence_or_no_expression_is_refused() {
        check(None, false);
        check(Some("see the file"), false);
    }

    #[test]
    fn the_list_of_the_project_reads() {
        let deny = fs::read_to_string(cargo::root().join("deny.toml")).unwrap();
        assert!(allowed(&deny).unwrap().len() > 5);
    }

    #[test]
    fn a_list_entry_is_one_licence() {
        assert!(allowed(r#"licenses.allow = ["MIT OR ISC"]"#).is_err());
        assert!(allowed("licenses = 1").is_err());
    }
}
