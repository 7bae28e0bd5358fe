//! The role of an EC2 instance, which its metadata service hands out.

use super::metadata::Why;
use super::provider::{Context, Found, Provider};
use crate::aws::error::AwsError;

/// The provider of the instance's role.
pub(crate) struct FromMetadata;

impl Provider for FromMetadata {
    fn name(&self) -> &'static str {
        "the instance's metadata service"
    }

    fn fetch(&self, context: &Context) -> Result<Found, AwsError> {
        match context.metadata.credentials() {
            Ok(found) => Ok(Found::Here(found)),
            Err(Why::Nothing(text)) => Ok(Found::Nothing(text)),
            Err(Why::Fault(text)) => Err(AwsError::Unavailable(text)),
        }
    }
}
