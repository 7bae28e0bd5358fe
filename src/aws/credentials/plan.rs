//! How a profile comes by its credentials: where they begin, and the roles that are assumed from there. Pure.
//!
//! AWS SDKs and Tools Reference Guide, "Assume role credential provider settings"; which key of a profile wins is
//! that of the SDKs' own test cases, which it is tested with.

use std::fmt;
use std::path::PathBuf;

use super::sso::Login;
use super::sts::Role;
use crate::aws::config::profile_file::ProfileFiles;
use crate::aws::error::AwsError;
use crate::aws::transport::identity::Credentials;
use crate::text::one_line;

/// Where a profile's credentials begin.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// Keys in the files.
    Keys(Credentials),
    /// Another provider, by `credential_source`.
    Source(Named),
    /// The token of an identity provider.
    WebIdentity {
        /// The role.
        arn: String,
        /// The name of the session.
        session: Option<String>,
        /// The file of the token.
        file: PathBuf,
    },
    /// A login.
    Sso(Login),
    /// A command, and the profile that has it.
    Process(CommandLine, String),
}

/// A command line. It may hold a secret, so `Debug` does not show it.
#[derive(PartialEq, Eq)]
pub(crate) struct CommandLine(pub(crate) String);

impl fmt::Debug for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CommandLine")
    }
}

/// A provider that `credential_source` can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// `Environment`
    Environment,
    /// `Ec2InstanceMetadata`
    Metadata,
    /// `EcsContainer`
    Container,
}

/// The way to a profile's credentials.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Where they begin.
    pub(crate) base: Base,
    /// The roles to assume, in this order.
    pub(crate) roles: Vec<Role>,
}

/// The plan of a profile; `None` if it says nothing of credentials. Errors: what it says cannot be followed.
pub(crate) fn plan(files: &ProfileFiles, name: &str) -> Result<Option<Plan>, AwsError> {
    let mut roles = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    let mut name = name;
    let base = loop {
        let profile = Profile { files, name };
        if seen.contains(&name) {
            return Err(profile.fault(&format!("is its own source_profile, by way of {}", seen.join(", "))));
        }
        if !files.has(name) {
            let user = seen.last().copied().unwrap_or_default();
            return Err(profile.fault(&format!("is not there, though profile {user:?} has it as source_profile")));
        }
        seen.push(name);
        // A source that has keys is used for them, whatever else it says.
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
                    return Err(profile.fault("has no credentials, though another profile has it as source_profile"));
                }
            }
        };
        roles.push(profile.role(arn)?);
        match (profile.get("source_profile"), profile.get("credential_source")) {
            (Some(_), Some(_)) => return Err(profile.fault("has both source_profile and credential_source: leave one")),
            (None, None) => {
                return Err(profile.fault("has role_arn but neither source_profile nor credential_source: add one"));
            }
            (None, Some(source)) => break Base::Source(profile.named(source)?),
            // A profile may be its own source: its keys then assume its role.
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
    Ok(Some(Plan { base, roles }))
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
        AwsError::Setup(format!("profile {:?} in {} {what}", self.name, self.files.places()))
    }

    /// Keys, if there are any. Half a pair is an error.
    fn keys(&self) -> Result<Option<Credentials>, AwsError> {
        // As in the environment: botocore takes the older name first.
        let token = self.get("aws_security_token").or_else(|| self.get("aws_session_token"));
        match (self.get("aws_access_key_id"), self.get("aws_secret_access_key")) {
            (Some(key), Some(secret)) => Credentials::fixed(key, secret, token)
                .map(|keys| Some(keys.with_source(format!("profile {:?}", self.name))))
                .map_err(|text| self.fault(&format!("has an {text} with characters that none has"))),
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
                "has a login_session (aws login), which hsdo cannot use: give it a role, keys, or as its \
                 credential_process what prints the session's, such as aws configure export-credentials",
            )),
            None => Ok(None),
        }
    }

    fn role(&self, arn: &str) -> Result<Role, AwsError> {
        if self.get("mfa_serial").is_some() {
            return Err(self.fault("has mfa_serial: a program that runs alone cannot give a second factor"));
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
        Ok(Role { arn: arn.to_string(), session: text("role_session_name"), external_id: text("external_id"), seconds })
    }

    fn named(&self, source: &str) -> Result<Named, AwsError> {
        [
            ("Environment", Named::Environment),
            ("Ec2InstanceMetadata", Named::Metadata),
            ("EcsContainer", Named::Container),
        ]
        .into_iter()
        .find(|(name, _)| source.eq_ignore_ascii_case(name))
        .map(|(_, named)| named)
        .ok_or_else(|| {
            self.fault(&format!(
                "has credential_source {source:?}, expected Environment, Ec2InstanceMetadata or EcsContainer"
            ))
        })
    }

    /// The login, in the form with a session or in the older one.
    fn login(&self) -> Result<Option<Login>, AwsError> {
        let session = self.get("sso_session");
        if session.is_none() && self.get("sso_start_url").is_none() && self.get("sso_account_id").is_none() {
            return Ok(None);
        }
        let of_session = |key| match session {
            Some(session) => self.files.sso_session(session, key),
            None => self.get(key),
        };
        let lacks = |key: &str| match session {
            Some(session) if !key.starts_with("sso_account") && !key.starts_with("sso_role") => {
                self.fault(&format!("needs {key} in [sso-session {}]", one_line(session, 100)))
            }
            _ => self.fault(&format!("has a login but no {key}")),
        };
        let needed = |key, value: Option<&str>| value.map(str::to_string).ok_or_else(|| lacks(key));
        Ok(Some(Login {
            session: session.map(str::to_string),
            start_url: needed("sso_start_url", of_session("sso_start_url"))?,
            region: needed("sso_region", of_session("sso_region"))?,
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
        /// The steps to the credentials of profile A; without them, there is no way.
        steps: Option<Vec<String>>,
    }

    /// A plan in the words of the cases.
    fn steps(plan: &Plan) -> Vec<String> {
        let session = |session: &Option<String>| session.as_ref().map(|name| format!(" as {name}")).unwrap_or_default();
        let base = match &plan.base {
            Base::Keys(keys) => format!("keys {} {}", keys.access_key_id, keys.secret_access_key),
            Base::Source(named) => format!("source {named:?}"),
            Base::WebIdentity { arn, session: name, file } => {
                format!("token {} for {arn}{}", file.display(), session(name))
            }
            Base::Sso(login) => {
                let session = login.session.as_deref().unwrap_or("none");
                format!("login {} {} {} {} {session}", login.account, login.role, login.region, login.start_url)
            }
            Base::Process(CommandLine(command), _) => format!("process {command}"),
        };
        let roles = plan.roles.iter().map(|role| {
            let id = role.external_id.as_ref().map(|id| format!(" with {id}")).unwrap_or_default();
            format!("role {}{}{id}", role.arn, session(&role.session))
        });
        std::iter::once(base).chain(roles).collect()
    }

    fn read(config: &str) -> Result<Option<Plan>, AwsError> {
        let folder = Folder::new();
        let path = folder.file("config", config);
        let files = ProfileFiles::read(&Environment::from([("AWS_CONFIG_FILE", path.as_str())])).expect("files");
        plan(&files, "A")
    }

    #[test]
    fn profiles_are_followed_as_the_sdks_do() {
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
            let found = read(&config).ok().flatten().map(|plan| steps(&plan));
            assert_eq!(found, case.steps, "{}", case.about);
        }
    }

    #[test]
    fn what_cannot_be_followed_is_said() {
        for (config, expected) in [
            ("[profile A]\nrole_arn = r\nsource_profile = B", "profile \"B\" in"),
            (
                "[profile A]\nrole_arn = r\nsource_profile = B\n[profile B]\nrole_arn = s\nsource_profile = A",
                "its own source",
            ),
            ("[profile A]\nrole_arn = r\ncredential_source = Moon", "Ec2InstanceMetadata"),
            ("[profile A]\nrole_arn = r\nmfa_serial = m\nsource_profile = A", "second factor"),
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
        assert_eq!(read("[profile A]\nregion = eu-west-1").expect("a plan"), None);
        let both = read("[profile A]\nlogin_session = x\ncredential_process = give").expect("a plan").expect("a plan");
        assert_eq!(steps(&both), ["process give"]);
    }

    #[test]
    fn a_token_has_two_names_and_keys_win_over_a_login() {
        for (more, expected) in [
            ("", None),
            ("aws_session_token = n", Some("n")),
            ("aws_security_token = o", Some("o")),
            ("aws_security_token = o\naws_session_token = n", Some("o")),
            ("aws_security_token =\naws_session_token = n\nlogin_session = x", Some("n")),
        ] {
            let keys = format!("[profile A]\naws_access_key_id = AK\naws_secret_access_key = s\n{more}\n");
            let Some(Plan { base: Base::Keys(keys), .. }) = read(&keys).expect(more) else { panic!("{more}") };
            assert_eq!(keys.session_token.as_deref(), expected, "{more}");
        }
    }

    #[test]
    fn debug_shows_no_command_line() {
        let plan = read("[profile A]\ncredential_process = give --password hush").expect("a plan").expect("a plan");
        assert_eq!(steps(&plan), ["process give --password hush"]);
        assert!(!format!("{plan:?}").contains("hush"), "{plan:?}");
    }
}
