//! All the zones of one server.

use crate::name::{Name, Spelled};
use crate::parts::Part;
use crate::record::{Record, Rtype};
use crate::zone::{Found, Zone};

/// The zones that one server answers for: the cluster's domain and the reverse
/// zones of its address ranges. A clone is as cheap as that of its zones.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Zones {
    /// The one with the most labels first, so that the first match is the
    /// closest one.
    zones: Vec<Zone>,
}

/// What is known about a name and a type, for those who explain answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The name lies in no zone.
    Outside,
    /// The name does not exist (NXDOMAIN).
    NoName,
    /// The name exists and has no record of the type (NODATA).
    NoData,
    /// The records of that type, or the CNAME in its place.
    Records(Vec<Record>),
}

impl Zones {
    /// The given zones; of two with one origin the later one counts.
    pub fn new(zones: impl IntoIterator<Item = Zone>) -> Self {
        let mut this = Self::default();
        for zone in zones {
            this.insert(zone);
        }
        this
    }

    /// Adds a zone, or replaces the one with the same origin.
    pub fn insert(&mut self, zone: Zone) {
        self.zones.retain(|old| old.origin() != zone.origin());
        let labels = zone.about().labels;
        let at = self
            .zones
            .partition_point(|old| old.about().labels >= labels);
        self.zones.insert(at, zone);
    }

    /// The zone with this origin.
    pub fn zone(&self, origin: &Name) -> Option<&Zone> {
        self.zones.iter().find(|zone| zone.origin() == origin)
    }

    /// The zone with this origin, to change it.
    pub fn zone_mut(&mut self, origin: &Name) -> Option<&mut Zone> {
        self.zones.iter_mut().find(|zone| zone.origin() == origin)
    }

    /// The closest zone that would hold the name.
    pub fn zone_of_mut(&mut self, name: &Name) -> Option<&mut Zone> {
        let spelled = Spelled::of(name);
        self.zones
            .iter_mut()
            .find(|zone| spelled.prefix_above(zone.origin().as_wire()).is_some())
    }

    /// All zones, the ones with more labels first.
    pub fn iter(&self) -> impl Iterator<Item = &Zone> {
        self.zones.iter()
    }

    /// The same, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Zone> {
        self.zones.iter_mut()
    }

    /// Whether a name lies in one of the zones, known there or not, also in one that
    /// leaves what it does not know to others.
    pub fn covers(&self, name: &Name) -> bool {
        let spelled = Spelled::of(name);
        let within = |zone: &Zone| spelled.prefix_above(zone.origin().as_wire()).is_some();
        self.zones.iter().any(within)
    }

    /// What is known about a name and a type, without following a CNAME.
    pub fn lookup(&self, name: &Name, rtype: Rtype) -> Lookup {
        let spelled = Spelled::of(name);
        let Some((_, found)) = self.find(&spelled) else {
            return Lookup::Outside;
        };
        let node = match found {
            Found::Nothing => return Lookup::NoName,
            Found::Node(node) => node,
            Found::Part(part) => {
                let group = part.node.and_then(|node| node.group(rtype));
                return match group.zip(Part::whole(&spelled)) {
                    Some((group, whole)) => Lookup::Records(group.records(&whole)),
                    None => Lookup::NoData,
                };
            }
            Found::Address(address) => {
                let record = Record::from(address);
                return if record.data.rtype() == rtype {
                    Lookup::Records(vec![record])
                } else {
                    Lookup::NoData
                };
            }
        };
        match node.group(rtype).or_else(|| node.group(Rtype::CNAME)) {
            Some(group) => Lookup::Records(group.records(&spelled)),
            None => Lookup::NoData,
        }
    }

    /// The closest zone around a name that does not leave it to others, and what
    /// it has there.
    pub(crate) fn find(&self, name: &Spelled) -> Option<(&Zone, Found<'_>)> {
        self.zones.iter().find_map(|zone| {
            let key = name.prefix_above(zone.origin().as_wire())?;
            let found = zone.find(key);
            let knows = match &found {
                Found::Nothing => false,
                Found::Node(node) => !node.groups().is_empty(),
                Found::Address(_) | Found::Part(_) => true,
            };
            (knows || zone.about().denies(key)).then_some((zone, found))
        })
    }
}
