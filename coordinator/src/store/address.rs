//! Where a farm is kept: a file, or a Redis.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{AddressError, RedisAddress};

/// The path of a local file, or the URL of a Redis.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum StoreAddress {
    File(PathBuf),
    Redis(Box<RedisAddress>),
}

impl From<PathBuf> for StoreAddress {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl FromStr for StoreAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if RedisAddress::is_meant(text) {
            text.parse().map(|address| Self::Redis(Box::new(address)))
        } else {
            Ok(Self::File(text.into()))
        }
    }
}

impl TryFrom<String> for StoreAddress {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<StoreAddress> for String {
    fn from(address: StoreAddress) -> Self {
        match address {
            StoreAddress::File(path) => path.to_string_lossy().into_owned(),
            StoreAddress::Redis(address) => address.secret().to_owned(),
        }
    }
}

/// Without the password.
impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Redis(address) => address.fmt(f),
        }
    }
}
