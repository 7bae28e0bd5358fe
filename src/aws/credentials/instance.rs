//! Credentials of the EC2 instance's role.

use super::metadata::MetadataError;
use super::provider::{Outcome, Provider, ProviderContext};
use crate::aws::error::AwsError;

pub(crate) struct FromMetadata;

impl Provider for FromMetadata {
    fn name(&self) -> &'static str {
        "the instance's metadata service"
    }

    fn fetch(&self, context: &ProviderContext) -> Result<Outcome, AwsError> {
        match context.metadata.credentials() {
            Ok(found) => Ok(Outcome::Found(found)),
            Err(MetadataError::Absent(text)) => Ok(Outcome::NotConfigured(text)),
            Err(MetadataError::Unavailable(text)) => Err(AwsError::Unavailable(text)),
        }
    }
}
