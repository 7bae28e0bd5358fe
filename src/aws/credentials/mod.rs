//! The credentials that sign calls, and the order in which they are looked for.
//!
//! A provider says what it found, or what it looked at in vain; the chain takes the first find. How long a find is
//! used is the business of `cache`. This file knows no provider's details.
//!
//! The room may import `reading`, `error`, `transport` and `config`.

pub(crate) mod cache;
mod container;
mod document;
mod environment;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod instance;
pub(crate) mod metadata;
mod plan;
mod process;
mod profile;
mod provider;
#[cfg(test)]
mod replay;
mod sha1;
mod small;
mod sso;
mod sts;
mod web_identity;

use std::sync::atomic::{AtomicUsize, Ordering};

use self::cache::Source;
use self::container::FromContainer;
use self::environment::FromEnvironment;
use self::instance::FromMetadata;
use self::profile::FromProfile;
pub(crate) use self::provider::Context;
use self::provider::{Found, Provider};
use self::web_identity::FromWebIdentity;
use crate::aws::error::AwsError;
use crate::aws::transport::identity::Credentials;

/// The providers in the order of the SDKs.
pub(crate) struct Chain {
    context: Context,
    providers: [Box<dyn Provider>; 5],
    /// Which of them is asked, by its place.
    asked: AtomicUsize,
}

impl Chain {
    /// The chain of this context.
    pub(crate) fn new(context: Context) -> Self {
        let providers: [Box<dyn Provider>; 5] = [
            Box::new(FromEnvironment),
            Box::new(FromProfile),
            Box::new(FromWebIdentity),
            Box::new(FromContainer),
            Box::new(FromMetadata),
        ];
        Chain { context, providers, asked: AtomicUsize::new(0) }
    }
}

impl Source for Chain {
    fn fetch(&self) -> Result<Credentials, AwsError> {
        let mut looked_at = Vec::new();
        for (place, provider) in self.providers.iter().enumerate() {
            self.asked.store(place, Ordering::Relaxed);
            match provider.fetch(&self.context)? {
                Found::Here(credentials) => return Ok(credentials),
                Found::Nothing(text) => looked_at.push(text),
            }
        }
        Err(AwsError::Setup(format!(
            "no AWS credentials: {}; give this machine a role, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            looked_at.join("; ")
        )))
    }

    fn asked(&self) -> &'static str {
        self.providers[self.asked.load(Ordering::Relaxed)].name()
    }
}
