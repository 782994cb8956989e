//! Configuration: file < environment (`HEARTH_…`) < flags, as the twelve-factor app has it.

use std::{env, path::PathBuf};

use config::{Config, Environment, File, FileFormat};
use serde::{Serialize, de::DeserializeOwned};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the configuration is not usable ({looked_at})")]
pub struct ConfigurationError {
    looked_at: String,
    source: Box<config::ConfigError>,
}

/// Reads the configuration `T`, for which every field must have a default.
///
/// `file`: the file that was named; without one, `$XDG_CONFIG_HOME/hearth/{name}.toml` if it exists.
/// `flags`: set flags only; what is absent leaves the layers below in force.
pub fn configure<T: DeserializeOwned, F: Serialize>(
    name: &str,
    file: Option<PathBuf>,
    flags: &F,
) -> Result<T, ConfigurationError> {
    let named = file.is_some();
    let file = file.unwrap_or_else(|| config_home().join("hearth").join(format!("{name}.toml")));
    let looked_at = format!("{}, HEARTH_* and flags", file.display());
    let failed = |source| ConfigurationError { looked_at: looked_at.clone(), source: Box::new(source) };
    let flags = Config::try_from(flags).map_err(failed)?;
    Config::builder()
        .add_source(File::from(file.as_path()).format(FileFormat::Toml).required(named))
        .add_source(Environment::with_prefix("HEARTH").prefix_separator("_").try_parsing(true))
        .add_source(flags)
        .build()
        .and_then(Config::try_deserialize)
        .map_err(failed)
}

fn config_home() -> PathBuf {
    let set = env::var_os("XDG_CONFIG_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    set.or_else(|| env::home_dir().map(|home| home.join(".config"))).unwrap_or_default()
}
