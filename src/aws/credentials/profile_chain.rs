//! How a profile gets its credentials: where they start, and the roles to assume from there. Pure.
//!
//! AWS SDKs and Tools Reference Guide, "Assume role credential provider settings"; precedence as in the SDKs' test cases,
//! which this is tested with.

use std::fmt;
use std::path::PathBuf;

use super::sso::Login;
use super::sts::AssumedRole;
use crate::aws::config::profile_file::ProfileFiles;
use crate::aws::error::AwsError;
use crate::aws::transport::identity::Credentials;
use crate::text::one_line;

/// Where a profile's credentials start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// Static keys.
    Keys(Credentials),
    /// Another provider, by `credential_source`.
    Source(CredentialSource),
    /// A web identity token.
    WebIdentity {
        /// The role's ARN.
        arn: String,
        /// The session name.
        session: Option<String>,
        /// The token file.
        file: PathBuf,
    },
    /// An SSO login.
    Sso(Login),
    /// A command, and the profile that names it.
    Process(CommandLine, String),
}

/// A command line. `Debug` hides it, since it may hold a secret.
#[derive(PartialEq, Eq)]
pub(crate) struct CommandLine(pub(crate) String);

impl fmt::Debug for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CommandLine")
    }
}

/// A provider that `credential_source` can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CredentialSource {
    /// `Environment`
    Environment,
    /// `Ec2InstanceMetadata`
    Metadata,
    /// `EcsContainer`
    Container,
}

/// The steps to a profile's credentials.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ProfileChain {
    pub(crate) base: Base,
    /// The roles to assume, in order.
    pub(crate) roles: Vec<AssumedRole>,
}

/// The chain of a profile; `None` if it has no credential settings. Errors: contradictory or incomplete settings.
pub(crate) fn resolve(files: &ProfileFiles, name: &str) -> Result<Option<ProfileChain>, AwsError> {
    let mut roles = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    let mut name = name;
    let base = loop {
        let profile = Profile { files, name };
        if seen.contains(&name) {
            return Err(profile.fault(&format!("is its own source_profile, through {}", seen.join(", "))));
        }
        if !files.has(name) {
            let user = seen.last().copied().unwrap_or_default();
            return Err(profile.fault(&format!("does not exist, though profile {user:?} names it as source_profile")));
        }
        seen.push(name);
        // The keys of a source_profile win over its other settings.
        if seen.len() > 1
            && let Some(keys) = profile.keys()?
        {
            break Base::Keys(keys);
        }
        let (Some(arn), None) = (profile.get("role_arn"), profile.get("web_identity_token_file")) else {
            match profile.base()? {
                Some(base) => break base,
                None if seen.len() == 1 => return Ok(None),
                None => {
                    return Err(profile.fault("has no credentials, though another profile names it as source_profile"));
                }
            }
        };
        roles.push(profile.role(arn)?);
        match (profile.get("source_profile"), profile.get("credential_source")) {
            (Some(_), Some(_)) => {
                return Err(profile.fault("has both source_profile and credential_source: remove one"));
            }
            (None, None) => {
                return Err(profile.fault("has role_arn but neither source_profile nor credential_source: add one"));
            }
            (None, Some(source)) => break Base::Source(profile.credential_source(source)?),
            // A profile may be its own source: its keys assume its role.
            (Some(source), None) if source == name => {
                let keys = profile.keys()?;
                break Base::Keys(
                    keys.ok_or_else(|| profile.fault("is its own source_profile but has no aws_access_key_id"))?,
                );
            }
            (Some(source), None) => name = source,
        }
    };
    roles.reverse();
    Ok(Some(ProfileChain { base, roles }))
}

struct Profile<'a> {
    files: &'a ProfileFiles,
    name: &'a str,
}

impl<'a> Profile<'a> {
    fn get(&self, key: &str) -> Option<&'a str> {
        self.files.get(self.name, key)
    }

    fn fault(&self, what: &str) -> AwsError {
        AwsError::Setup(format!("profile {:?} in {} {what}", self.name, self.files.searched_paths()))
    }

    fn keys(&self) -> Result<Option<Credentials>, AwsError> {
        // botocore prefers the older name.
        let token = self.get("aws_security_token").or_else(|| self.get("aws_session_token"));
        match (self.get("aws_access_key_id"), self.get("aws_secret_access_key")) {
            (Some(key), Some(secret)) => Credentials::fixed(key, secret, token)
                .map(|keys| Some(keys.with_source(format!("profile {:?}", self.name))))
                .map_err(|text| self.fault(&format!("has an {text} with invalid characters"))),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(self.fault("lacks aws_access_key_id")),
            (Some(_), None) => Err(self.fault("lacks aws_secret_access_key")),
        }
    }

    fn base(&self) -> Result<Option<Base>, AwsError> {
        if let Some(file) = self.get("web_identity_token_file") {
            let arn = self.get("role_arn").ok_or_else(|| self.fault("has web_identity_token_file but no role_arn"))?;
            let session = self.get("role_session_name").map(str::to_string);
            return Ok(Some(Base::WebIdentity { arn: arn.to_string(), session, file: PathBuf::from(file) }));
        }
        if let Some(login) = self.login()? {
            return Ok(Some(Base::Sso(login)));
        }
        if let Some(keys) = self.keys()? {
            return Ok(Some(Base::Keys(keys)));
        }
        if let Some(command) = self.get("credential_process") {
            return Ok(Some(Base::Process(CommandLine(command.to_string()), self.name.to_string())));
        }
        match self.get("login_session") {
            Some(_) => Err(self.fault(
                "has a login_session (aws login), which hsdo cannot use: give it a role, keys, or a credential_process \
                 such as aws configure export-credentials",
            )),
            None => Ok(None),
        }
    }

    fn role(&self, arn: &str) -> Result<AssumedRole, AwsError> {
        if self.get("mfa_serial").is_some() {
            return Err(self.fault("has mfa_serial, but hsdo cannot prompt for an MFA code"));
        }
        let seconds = match self.get("duration_seconds") {
            None => None,
            Some(text) => match text.parse() {
                // STS API Reference, AssumeRole, DurationSeconds.
                Ok(seconds) if (900..=43_200).contains(&seconds) => Some(seconds),
                _ => return Err(self.fault(&format!("has duration_seconds {text:?}, expected 900 to 43200"))),
            },
        };
        let text = |key| self.get(key).map(str::to_string);
        Ok(AssumedRole {
            arn: arn.to_string(),
            session: text("role_session_name"),
            external_id: text("external_id"),
            seconds,
        })
    }

    fn credential_source(&self, source: &str) -> Result<CredentialSource, AwsError> {
        [
            ("Environment", CredentialSource::Environment),
            ("Ec2InstanceMetadata", CredentialSource::Metadata),
            ("EcsContainer", CredentialSource::Container),
        ]
        .into_iter()
        .find(|(name, _)| source.eq_ignore_ascii_case(name))
        .map(|(_, provider)| provider)
        .ok_or_else(|| {
            self.fault(&format!(
                "has credential_source {source:?}, expected Environment, Ec2InstanceMetadata or EcsContainer"
            ))
        })
    }

    /// The SSO login, with an `sso_session` or in the legacy form.
    fn login(&self) -> Result<Option<Login>, AwsError> {
        let session = self.get("sso_session");
        if session.is_none() && self.get("sso_start_url").is_none() && self.get("sso_account_id").is_none() {
            return Ok(None);
        }
        let session_key = |key| match session {
            Some(session) => self.files.sso_session(session, key),
            None => self.get(key),
        };
        let lacks = |key: &str| match session {
            Some(session) if !key.starts_with("sso_account") && !key.starts_with("sso_role") => {
                self.fault(&format!("needs {key} in [sso-session {}]", one_line(session, 100)))
            }
            _ => self.fault(&format!("has an SSO login but no {key}")),
        };
        let needed = |key, value: Option<&str>| value.map(str::to_string).ok_or_else(|| lacks(key));
        Ok(Some(Login {
            session: session.map(str::to_string),
            start_url: needed("sso_start_url", session_key("sso_start_url"))?,
            region: needed("sso_region", session_key("sso_region"))?,
            account: needed("sso_account_id", self.get("sso_account_id"))?,
            role: needed("sso_role_name", self.get("sso_role_name"))?,
            profile: self.name.to_string(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::aws::testing::Folder;
    use crate::environment::Environment;

    #[derive(Deserialize)]
    struct Case {
        about: String,
        profiles: BTreeMap<String, BTreeMap<String, String>>,
        #[serde(default)]
        sso_sessions: BTreeMap<String, BTreeMap<String, String>>,
        /// The steps to the credentials of profile A; none if they are unusable.
        steps: Option<Vec<String>>,
    }

    /// A chain in the cases' notation.
    fn steps(chain: &ProfileChain) -> Vec<String> {
        let session = |session: &Option<String>| session.as_ref().map(|name| format!(" as {name}")).unwrap_or_default();
        let base = match &chain.base {
            Base::Keys(keys) => format!("keys {} {}", keys.access_key_id, keys.secret_access_key),
            Base::Source(provider) => format!("source {provider:?}"),
            Base::WebIdentity { arn, session: name, file } => {
                format!("token {} for {arn}{}", file.display(), session(name))
            }
            Base::Sso(login) => {
                let session = login.session.as_deref().unwrap_or("none");
                format!("login {} {} {} {} {session}", login.account, login.role, login.region, login.start_url)
            }
            Base::Process(CommandLine(command), _) => format!("process {command}"),
        };
        let roles = chain.roles.iter().map(|role| {
            let id = role.external_id.as_ref().map(|id| format!(" with {id}")).unwrap_or_default();
            format!("role {}{}{id}", role.arn, session(&role.session))
        });
        std::iter::once(base).chain(roles).collect()
    }

    fn read(config: &str) -> Result<Option<ProfileChain>, AwsError> {
        let folder = Folder::new();
        let path = folder.file("config", config);
        let files = ProfileFiles::read(&Environment::from([("AWS_CONFIG_FILE", path.as_str())])).expect("files");
        resolve(&files, "A")
    }

    #[test]
    fn profiles_are_resolved_as_in_the_sdks() {
        let text = include_str!("../../../tests/data/aws-config/profile-chains.json");
        let cases: Vec<Case> = serde_json::from_str(text).expect("cases");
        assert_eq!(cases.len(), 23);
        for case in cases {
            let mut config = String::new();
            for (kind, sections) in [("profile", &case.profiles), ("sso-session", &case.sso_sessions)] {
                for (name, keys) in sections {
                    config.push_str(&format!("[{kind} {name}]\n"));
                    keys.iter().for_each(|(key, value)| config.push_str(&format!("{key} = {value}\n")));
                }
            }
            let found = read(&config).ok().flatten().map(|chain| steps(&chain));
            assert_eq!(found, case.steps, "{}", case.about);
        }
    }

    #[test]
    fn unusable_profiles_are_errors() {
        for (config, expected) in [
            ("[profile A]\nrole_arn = r\nsource_profile = B", "profile \"B\" in"),
            (
                "[profile A]\nrole_arn = r\nsource_profile = B\n[profile B]\nrole_arn = s\nsource_profile = A",
                "its own source",
            ),
            ("[profile A]\nrole_arn = r\ncredential_source = Moon", "Ec2InstanceMetadata"),
            ("[profile A]\nrole_arn = r\nmfa_serial = m\nsource_profile = A", "MFA code"),
            ("[profile A]\nrole_arn = r\nduration_seconds = 5\nsource_profile = A", "900 to 43200"),
            ("[profile A]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r", "sso_start_url in [sso-session s]"),
            ("[profile A]\naws_access_key_id = AK", "lacks aws_secret_access_key"),
            (
                "[profile A]\nlogin_session = arn:aws:iam::1:user/a\nregion = eu-west-1",
                "has a login_session (aws login)",
            ),
            ("[profile A]\nrole_arn = r\nsource_profile = B\n[profile B]\nlogin_session = x", "profile \"B\" in"),
            ("[profile A]\naws_access_key_id = AK\naws_secret_access_key = a b", "characters"),
        ] {
            let error = read(config).expect_err(expected);
            assert!(error.to_string().contains(expected) && error.needs_operator(), "{error}");
        }
        assert_eq!(read("[profile A]\nregion = eu-west-1").expect("a chain"), None);
        let both =
            read("[profile A]\nlogin_session = x\ncredential_process = give").expect("a chain").expect("a chain");
        assert_eq!(steps(&both), ["process give"]);
    }

    #[test]
    fn a_token_has_two_names_and_keys_win_over_a_login_session() {
        for (more, expected) in [
            ("", None),
            ("aws_session_token = n", Some("n")),
            ("aws_security_token = o", Some("o")),
            ("aws_security_token = o\naws_session_token = n", Some("o")),
            ("aws_security_token =\naws_session_token = n\nlogin_session = x", Some("n")),
        ] {
            let keys = format!("[profile A]\naws_access_key_id = AK\naws_secret_access_key = s\n{more}\n");
            let Some(ProfileChain { base: Base::Keys(keys), .. }) = read(&keys).expect(more) else { panic!("{more}") };
            assert_eq!(keys.session_token.as_deref(), expected, "{more}");
        }
    }

    #[test]
    fn debug_shows_no_command_line() {
        let chain = read("[profile A]\ncredential_process = give --password hush").expect("a chain").expect("a chain");
        assert_eq!(steps(&chain), ["process give --password hush"]);
        assert!(!format!("{chain:?}").contains("hush"), "{chain:?}");
    }
}
