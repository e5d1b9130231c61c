//! What `drivers.toml` says: the drivers, the validation layer's settings, and what is known to fail.

use crate::process::{Result, root};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The layer's name for Vulkan's loader.
pub(super) const LAYER: &str = "VK_LAYER_KHRONOS_validation";

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Known {
    #[serde(rename = "driver")]
    pub(super) drivers: Vec<Driver>,
    #[serde(rename = "validation")]
    pub(super) validations: Vec<Validation>,
}

/// A driver to run on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Driver {
    pub(super) name: String,
    pub(super) device: String,
    pub(super) backend: String,
    pub(super) manifests: Vec<PathBuf>,
    pub(super) package: String,
    pub(super) tests: Vec<String>,
    pub(super) failures: Vec<Failure>,
}

/// A test that is known to fail.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Failure {
    pub(super) test: String,
    #[expect(dead_code, reason = "for people; that there is one is checked as the file is read")]
    pub(super) reason: String,
}

/// One way to run the validation layer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Validation {
    pub(super) name: String,
    pub(super) layers: Vec<PathBuf>,
    pub(super) package: String,
    pub(super) settings: Vec<String>,
    pub(super) active: Vec<String>,
    pub(super) tests: Vec<String>,
    pub(super) messages: Vec<Message>,
    pub(super) aborts: String,
}

/// A message of the layer that is known.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Message {
    pub(super) id: String,
    /// Whether it is about our calls, and not about the layer's own settings: it must be there then.
    pub(super) counts: bool,
    #[expect(dead_code, reason = "for people; that there is one is checked as the file is read")]
    pub(super) reason: String,
}

/// Reads the file.
pub(super) fn read() -> Result<Known> {
    let path = root().join("crates/tvb-kernels/tests/drivers.toml");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// A manifest for the layer's library, which some packages bring without one.
pub(super) fn layer_manifest(library: &Path) -> String {
    let manifest = serde_json::json!({
        "file_format_version": "1.2.0",
        "layer": {
            "name": LAYER,
            "type": "GLOBAL",
            "library_path": library,
            "api_version": "1.4.300",
            "implementation_version": "1",
            "description": "Khronos validation layer",
        },
    });
    manifest.to_string()
}

impl Validation {
    /// The layer's settings file: what it finds goes to the error stream, where no test's line can be cut by it.
    pub(super) fn settings_text(&self) -> String {
        let common = [
            "debug_action = VK_DBG_LAYER_ACTION_LOG_MSG",
            "report_flags = error,warn,info",
            "log_filename = /dev/stderr",
        ];
        let lines = common.into_iter().chain(self.settings.iter().map(String::as_str));
        lines.map(|line| format!("khronos_validation.{line}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_file_is_readable_and_gives_reasons() {
        let known = super::read().expect("drivers.toml");
        assert!(known.drivers.len() >= 2 && known.validations.len() >= 2);
        assert!(known.drivers.iter().flat_map(|driver| &driver.failures).all(|failure| !failure.reason.is_empty()));
        let messages = known.validations.iter().flat_map(|validation| &validation.messages);
        assert!(messages.clone().count() > 0 && messages.clone().all(|message| !message.reason.is_empty()));
    }
}
