//! What the processes of a run are configured to do.

use std::path::PathBuf;
use std::time::Duration;

use hsdo::client::placement::BackendKind;
use hsdo::log::Format;
use hsdo::selection::{GroupSelection, NamePattern};
use hsdo::server::SlotLimits;
use hsdo::settings::{Backend, ClientSettings, Common, HaproxySocket, InstanceReading, WeightBy, Weighting, ZoneNames};
use hsdo::slot::{Occupant, SlotId, Weight};
use hsdo::weight::Factor;

pub(crate) const SLOTS: SlotId = 40;
pub(crate) const SERVERS: usize = 3;
pub(crate) const CLIENTS: usize = 6;
pub(crate) const GROUPS: [&str; 2] = ["web-a", "web-b"];
/// The own zone of those that split by zone.
pub(crate) const ZONE: &str = "z1";
pub(crate) const PORT: u16 = 80;
pub(crate) const BASE: &str = "web";
/// The step of a ramp.
pub(crate) const STEP: Weight = 3;
/// The backends of every HAProxy. The second one is the fallback.
pub(crate) const BACKENDS: [&str; 2] = ["back", "fallback"];
pub(crate) const REMOVAL_GUARD: Duration = Duration::from_secs(30);

pub(crate) struct Settings;

impl Settings {
    pub(crate) fn server() -> SlotLimits {
        SlotLimits {
            size: SLOTS,
            entries: Settings::selection().entries(),
            min: 1,
            max: 10,
            step: STEP,
            interval: Duration::from_secs(10),
            weighting: Weighting {
                unit: Factor::whole(2),
                groups: vec![(NamePattern::new("*-b"), Factor::parse("0.5").expect("a factor"))],
            },
            by_factor: true,
            removal_guard: REMOVAL_GUARD,
        }
    }

    /// Each pattern matches one group: where one matches none, its servers stay.
    pub(crate) fn selection() -> GroupSelection {
        GroupSelection::named(&["*-a", "web-b*"])
    }

    /// Instances count by their capacity, or by their tag.
    pub(crate) fn reading() -> InstanceReading {
        InstanceReading { weight_by: WeightBy::Capacity, tags: true, ..InstanceReading::default() }
    }

    /// Two clients of six split by group.
    pub(crate) fn is_dedicated(site: usize) -> bool {
        site % 3 == 2
    }

    /// Two others split by zone, without a fallback, and take in servers of other zones.
    pub(crate) fn spills(site: usize) -> bool {
        site % 3 == 1
    }

    /// Whether an occupant is one of the site's own.
    pub(crate) fn is_own(site: usize, occupant: &Occupant) -> bool {
        match (Settings::is_dedicated(site), Settings::spills(site)) {
            (true, _) => occupant.group.as_deref() == Some(GROUPS[0]),
            (_, true) => occupant.zone.as_deref().is_none_or(|zone| zone == ZONE),
            (false, false) => true,
        }
    }

    /// Whether an occupant stands in a backend of this kind at this site, whatever spills.
    pub(crate) fn belongs(site: usize, occupant: &Occupant, kind: BackendKind) -> bool {
        let own = Settings::is_own(site, occupant);
        match kind {
            BackendKind::Default => own,
            BackendKind::Fallback => !own && Settings::is_dedicated(site),
        }
    }

    pub(crate) fn client(site: usize) -> ClientSettings {
        let backend = |name: &str| Backend { name: name.to_owned(), base: BASE.to_owned(), port: Some(PORT) };
        ClientSettings {
            common: Common {
                interval: Duration::from_secs(1),
                list_size: SLOTS,
                table: "hsdo".to_owned(),
                table_region: None,
                report_table: None,
                region: None,
                exporter: None,
                log_format: Format::Text,
                debug: false,
                warnings: Vec::new(),
            },
            socket: HaproxySocket::Path(PathBuf::from("/simulated")),
            backends: vec![backend(BACKENDS[0])],
            dedicated: Settings::is_dedicated(site),
            groups: if Settings::is_dedicated(site) { vec![NamePattern::new("web-a*")] } else { Vec::new() },
            zones: Settings::spills(site).then(|| ZoneNames::Named(vec![ZONE.to_owned()])),
            spill_below: if Settings::spills(site) { 70 } else { 0 },
            fallback: Settings::is_dedicated(site).then(|| backend(BACKENDS[1])),
            all_in_fallback: false,
            health_gate: true,
            state_file: None,
        }
    }
}
