//! What credential providers implement, receive and return.

use std::sync::Arc;

use super::metadata::MetadataService;
use crate::aws::error::AwsError;
use crate::aws::transport::http::Caller;
use crate::aws::transport::identity::Credentials;
use crate::environment::Environment;

pub(crate) enum Outcome {
    Found(Credentials),
    /// Why not, for the error message: `AWS_ACCESS_KEY_ID is not set`.
    NotConfigured(String),
}

pub(crate) trait Provider: Send + Sync {
    /// The name in messages.
    fn name(&self) -> &'static str;

    /// Errors: the provider is configured but fails, which ends the search.
    fn fetch(&self, context: &ProviderContext) -> Result<Outcome, AwsError>;
}

pub(crate) struct ProviderContext {
    pub(crate) environment: Environment,
    pub(crate) caller: Arc<Caller>,
    pub(crate) metadata: MetadataService,
}
