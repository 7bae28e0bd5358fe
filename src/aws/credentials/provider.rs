//! What a provider of credentials is, what it gets, and what it gives.

use std::sync::Arc;

use super::metadata::Metadata;
use crate::aws::error::AwsError;
use crate::aws::transport::http::Caller;
use crate::aws::transport::identity::Credentials;
use crate::environment::Environment;

/// What a provider found.
pub(crate) enum Found {
    /// Credentials.
    Here(Credentials),
    /// None, and what was looked at, for the message: `AWS_ACCESS_KEY_ID is not set`.
    Nothing(String),
}

/// One place where credentials may come from.
pub(crate) trait Provider: Send + Sync {
    /// Its name, for people.
    fn name(&self) -> &'static str;

    /// Looks there. A place that is set up but broken is an error, which ends the search.
    fn fetch(&self, context: &Context) -> Result<Found, AwsError>;
}

/// What providers share.
pub(crate) struct Context {
    /// The variables.
    pub(crate) environment: Environment,
    /// Makes their calls.
    pub(crate) caller: Arc<Caller>,
    /// The metadata service of the instance.
    pub(crate) metadata: Metadata,
}
