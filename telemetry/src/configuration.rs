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
/// The environment is shared: `HEARTH_COORDINATOR` is for the command line and the agent. What is no field of
/// `T` there is somebody else's, and left alone; in the file it is a mistake.
///
/// `file`: the file that was named; without one, `$XDG_CONFIG_HOME/hearth/{name}.toml` if it exists.
/// `flags`: set flags only; what is absent leaves the layers below in force.
pub fn configure<T: Default + Serialize + DeserializeOwned, F: Serialize>(
    name: &str,
    file: Option<PathBuf>,
    flags: &F,
) -> Result<T, ConfigurationError> {
    let named = file.is_some();
    let file = file.unwrap_or_else(|| config_home().join("hearth").join(format!("{name}.toml")));
    let looked_at = format!("{}, HEARTH_* and flags", file.display());
    let failed = |source| ConfigurationError { looked_at: looked_at.clone(), source: Box::new(source) };
    let flags = Config::try_from(flags).map_err(failed)?;
    let fields = serde_json::to_value(T::default()).unwrap_or_default();
    let ours = env::vars().filter(|(name, _)| {
        let field = name.strip_prefix("HEARTH_").map(str::to_lowercase);
        // Empty tables and absent values are fields as well.
        field.is_some_and(|field| fields.get(&field).is_some())
    });
    let environment = Environment::with_prefix("HEARTH").prefix_separator("_").try_parsing(true);
    Config::builder()
        .add_source(File::from(file.as_path()).format(FileFormat::Toml).required(named))
        .add_source(environment.source(Some(ours.collect())))
        .add_source(flags)
        .build()
        .and_then(Config::try_deserialize)
        .map_err(failed)
}

/// What the system calls this host; the default of every setting that needs its name.
pub fn host_name() -> String {
    let told = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let told = told.trim();
    if told.is_empty() { "localhost".to_owned() } else { told.to_owned() }
}

fn config_home() -> PathBuf {
    let set = env::var_os("XDG_CONFIG_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    set.or_else(|| env::home_dir().map(|home| home.join(".config"))).unwrap_or_default()
}
