//! The credentials that sign calls, from the first provider of the SDKs' chain that has any. `cache` refreshes them.
//!
//! May import `reading`, `error`, `transport` and `config`.

pub(crate) mod cache;
mod container;
mod document;
mod environment;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod instance;
pub(crate) mod metadata;
mod process;
mod profile;
mod profile_chain;
mod provider;
#[cfg(test)]
mod replay;
pub(crate) mod request;
mod sso;
mod sts;
mod web_identity;

use std::sync::atomic::{AtomicUsize, Ordering};

use self::cache::CredentialFetcher;
use self::container::FromContainer;
use self::environment::FromEnvironment;
use self::instance::FromMetadata;
use self::profile::FromProfile;
pub(crate) use self::provider::ProviderContext;
use self::provider::{Outcome, Provider};
use self::web_identity::FromWebIdentity;
use crate::aws::error::AwsError;
use crate::aws::transport::identity::Credentials;

/// The providers in the order of the SDKs.
pub(crate) struct ProviderChain {
    context: ProviderContext,
    providers: [Box<dyn Provider>; 5],
    /// The index of the provider being queried.
    current: AtomicUsize,
}

impl ProviderChain {
    pub(crate) fn new(context: ProviderContext) -> Self {
        let providers: [Box<dyn Provider>; 5] = [
            Box::new(FromEnvironment),
            Box::new(FromProfile),
            Box::new(FromWebIdentity),
            Box::new(FromContainer),
            Box::new(FromMetadata),
        ];
        ProviderChain { context, providers, current: AtomicUsize::new(0) }
    }
}

impl CredentialFetcher for ProviderChain {
    fn fetch(&self) -> Result<Credentials, AwsError> {
        let mut reasons = Vec::new();
        for (index, provider) in self.providers.iter().enumerate() {
            self.current.store(index, Ordering::Relaxed);
            match provider.fetch(&self.context)? {
                Outcome::Found(credentials) => return Ok(credentials),
                Outcome::NotConfigured(reason) => reasons.push(reason),
            }
        }
        Err(AwsError::Setup(format!(
            "no AWS credentials: {}; give this machine a role, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            reasons.join("; ")
        )))
    }

    fn current(&self) -> &'static str {
        self.providers[self.current.load(Ordering::Relaxed)].name()
    }
}
