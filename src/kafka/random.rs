//! Random numbers of the operating system.

use super::error::EngineError;

/// Returns a random number.
pub(super) fn random() -> Result<u64, EngineError> {
    let mut bytes = [0u8; 8];
    getrandom::fill(&mut bytes).map_err(|error| EngineError::System(std::io::Error::other(error.to_string())))?;
    Ok(u64::from_be_bytes(bytes))
}
