//! Which address of which pool a Service gets (L5, L6, L7).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use portolan_model::Family;
use portolan_model::workloads::{BalancedPort, BalancedService, DualStack, ObjectKey, Pool};

use super::gaps::{Gaps, disjoint};
use super::refusal::{NotShared, Refusal};

/// All pools, and who has which of their addresses. An address in two pools is
/// still one address.
#[derive(Clone, Debug, Default)]
pub(super) struct Pools {
    stocks: BTreeMap<ObjectKey, Stock>,
    /// The pools, the one that is used first before the others.
    order: Vec<ObjectKey>,
    /// Who uses an address.
    users: BTreeMap<IpAddr, BTreeMap<ObjectKey, Tenant>>,
    /// The addresses of a Service.
    held: BTreeMap<ObjectKey, Vec<IpAddr>>,
    /// The addresses in use under a sharing key.
    shared: BTreeMap<String, BTreeSet<IpAddr>>,
}

/// A pool, and what is free in it.
#[derive(Clone, Debug)]
pub(super) struct Stock {
    pub(super) pool: Pool,
    free: Gaps,
    /// Addresses that can be given, by family.
    total: [u128; 2],
    /// Those of them in use, by family.
    used: [u128; 2],
}

/// How a Service uses its addresses, as far as others may use them too (L5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tenant {
    ports: BTreeSet<BalancedPort>,
    sharing: Option<String>,
    backends: Backends,
}

/// The pods that an address leads to on each node.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Backends {
    /// Every node leads to all pods.
    Anywhere,
    /// Each node leads to its own pods of this namespace with these labels.
    Local(String, BTreeMap<String, String>),
    /// Each node leads to endpoints that somebody else wrote for this Service.
    Written(ObjectKey),
}

/// What a Service got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Assigned {
    /// Its addresses, in the order of its families.
    pub(super) addresses: Vec<IpAddr>,
    /// Why it has not more.
    pub(super) missing: Vec<Refusal>,
}

impl Tenant {
    fn of(service: &BalancedService) -> Self {
        let key = &service.meta.key;
        Self {
            ports: service.ports.clone(),
            sharing: service.asked.sharing.clone(),
            backends: match (service.local, service.selector.is_empty()) {
                (false, _) => Backends::Anywhere,
                (true, false) => Backends::Local(key.namespace.clone(), service.selector.clone()),
                (true, true) => Backends::Written(key.clone()),
            },
        }
    }

    /// Whether it lets others have its addresses too.
    pub(super) fn may_share(&self) -> bool {
        self.sharing.is_some()
    }

    /// Whether both may have one address.
    fn shares(&self, other: &Self) -> Result<(), NotShared> {
        if self.sharing.is_none() || self.sharing != other.sharing {
            return Err(NotShared::Key);
        }
        if self.backends != other.backends {
            return Err(NotShared::Backends);
        }
        match self.ports.intersection(&other.ports).next() {
            Some(port) => Err(NotShared::Port(*port)),
            None => Ok(()),
        }
    }
}

impl Stock {
    fn total(&self, family: Family) -> u128 {
        self.total[family as usize]
    }

    /// Addresses that can be given.
    pub(super) fn size(&self) -> u128 {
        self.total
            .iter()
            .fold(0, |sum, total| sum.saturating_add(*total))
    }

    /// Addresses in use and free ones, of one family.
    pub(super) fn count(&self, family: Family) -> (u128, u128) {
        let used = self.used[family as usize];
        (used, self.total(family).saturating_sub(used))
    }

    /// Why it has nothing of a family.
    fn refusal(&self, family: Family) -> Refusal {
        let pool = self.pool.name().to_owned();
        let total = self.total(family);
        if total == 0 {
            return Refusal::FamilyOfPool { pool, family };
        }
        let both = self.total.iter().all(|total| *total > 0);
        Refusal::Exhausted {
            pool,
            family: both.then_some(family),
            total,
        }
    }
}

impl Pools {
    pub(super) fn is_empty(&self) -> bool {
        self.stocks.is_empty()
    }

    pub(super) fn stock(&self, key: &ObjectKey) -> Option<&Stock> {
        self.stocks.get(key)
    }

    pub(super) fn stocks(&self) -> impl Iterator<Item = &Stock> {
        self.stocks.values()
    }

    /// The pools that an address is of.
    pub(super) fn pools_of(&self, address: IpAddr) -> impl Iterator<Item = &ObjectKey> {
        let stocks = self.stocks.iter();
        stocks
            .filter(move |(_, stock)| stock.pool.covers(address))
            .map(|(key, _)| key)
    }

    /// The addresses of a Service.
    pub(super) fn held(&self, key: &ObjectKey) -> &[IpAddr] {
        self.held.get(key).map_or(&[], Vec::as_slice)
    }

    /// How a Service uses its addresses; none where it has none.
    pub(super) fn tenant(&self, key: &ObjectKey) -> Option<&Tenant> {
        let address = self.held(key).first()?;
        self.users.get(address)?.get(key)
    }

    /// A pool is as it is now. Answers with the Services that have its addresses, or
    /// had them.
    pub(super) fn set(&mut self, pool: Pool) -> BTreeSet<ObjectKey> {
        let key = pool.meta.key.clone();
        if let Some(stock) = self.stocks.get_mut(&key)
            && stock.pool.gives_as(&pool)
        {
            stock.pool = pool;
            return BTreeSet::new();
        }
        let mut touched = self.remove(&key);
        let mut stock = Stock {
            free: Gaps::of(&pool),
            total: [0, 0],
            used: [0, 0],
            pool,
        };
        for span in disjoint(&stock.pool.spans) {
            let size = match stock.pool.avoid_buggy {
                true => span.size_without_buggy(),
                false => span.size(),
            };
            let total = &mut stock.total[span.family() as usize];
            *total = total.saturating_add(size);
            for (address, users) in self.users.range(span.first()..=span.last()) {
                touched.extend(users.keys().cloned());
                if stock.pool.covers(*address) {
                    stock.free.take(*address);
                    stock.used[span.family() as usize] += 1;
                }
            }
        }
        self.stocks.insert(key, stock);
        self.sort();
        touched
    }

    /// A pool is gone. Answers with the Services that have its addresses.
    pub(super) fn remove(&mut self, key: &ObjectKey) -> BTreeSet<ObjectKey> {
        let Some(stock) = self.stocks.remove(key) else {
            return BTreeSet::new();
        };
        self.sort();
        let mut touched = BTreeSet::new();
        for span in &stock.pool.spans {
            let users = self.users.range(span.first()..=span.last());
            touched.extend(users.flat_map(|(_, users)| users.keys().cloned()));
        }
        touched
    }

    fn sort(&mut self) {
        let mut order: Vec<_> = self.stocks.iter().collect();
        order.sort_by_key(|(key, stock)| {
            let priority = stock.pool.priority.unwrap_or(u32::MAX);
            (priority, !stock.pool.is_pinned(), *key)
        });
        self.order = order.into_iter().map(|(key, _)| key.clone()).collect();
    }

    /// A Service gives its addresses back. Answers with them.
    pub(super) fn release(&mut self, key: &ObjectKey) -> Vec<IpAddr> {
        let addresses = self.held.remove(key).unwrap_or_default();
        for address in &addresses {
            let Some(users) = self.users.get_mut(address) else {
                continue;
            };
            let tenant = users.remove(key);
            if !users.is_empty() {
                continue;
            }
            self.users.remove(address);
            if let Some(sharing) = tenant.and_then(|tenant| tenant.sharing)
                && let Some(known) = self.shared.get_mut(&sharing)
            {
                known.remove(address);
                if known.is_empty() {
                    self.shared.remove(&sharing);
                }
            }
            for stock in self.stocks.values_mut() {
                if stock.pool.covers(*address) {
                    stock.free.give(*address);
                    stock.used[Family::of(*address) as usize] -= 1;
                }
            }
        }
        addresses
    }

    fn hold(&mut self, service: &BalancedService, addresses: &[IpAddr]) {
        if addresses.is_empty() {
            return;
        }
        let key = &service.meta.key;
        for address in addresses {
            let users = self.users.entry(*address).or_default();
            let tenant = Tenant::of(service);
            if let Some(sharing) = &tenant.sharing {
                let known = self.shared.entry(sharing.clone()).or_default();
                known.insert(*address);
            }
            let first = users.is_empty();
            users.insert(key.clone(), tenant);
            if !first {
                continue;
            }
            for stock in self.stocks.values_mut() {
                if stock.pool.covers(*address) {
                    stock.free.take(*address);
                    stock.used[Family::of(*address) as usize] += 1;
                }
            }
        }
        self.held.insert(key.clone(), addresses.to_vec());
    }
}

/// One Service's search. Nothing of it is in use while it searches.
struct Search<'a> {
    pools: &'a Pools,
    service: &'a BalancedService,
    namespace: &'a BTreeMap<String, String>,
    tenant: Tenant,
}

impl Pools {
    /// Gives a Service its addresses: those that it has, as far as it may have them
    /// (L7), and others for what is missing. With nothing to give, it has none.
    pub(super) fn assign(
        &mut self,
        service: &BalancedService,
        namespace: &BTreeMap<String, String>,
    ) -> Assigned {
        let kept = self.keep(service, namespace);
        let search = self.search(service, namespace);
        let assigned = match search.all(&kept) {
            Ok(assigned) => assigned,
            Err(missing) => Assigned {
                addresses: Vec::new(),
                missing,
            },
        };
        self.hold(service, &assigned.addresses);
        assigned
    }

    /// Lets a Service have the addresses of its status, as far as it may, and no
    /// others: before anybody is given some, all must have what they had.
    pub(super) fn adopt(
        &mut self,
        service: &BalancedService,
        namespace: &BTreeMap<String, String>,
    ) {
        let kept = self.keep(service, namespace);
        self.hold(service, &kept);
    }

    /// The addresses that a Service has, or had, and may go on with. None is held
    /// any longer.
    fn keep(
        &mut self,
        service: &BalancedService,
        namespace: &BTreeMap<String, String>,
    ) -> Vec<IpAddr> {
        let mut had = self.release(&service.meta.key);
        had.extend(&service.ingress);
        let search = self.search(service, namespace);
        let mut kept: Vec<IpAddr> = Vec::new();
        for address in had {
            let family = Family::of(address);
            let wanted = service.wanted_families().contains(&family);
            let other = service
                .asked
                .addresses
                .iter()
                .any(|asked| Family::of(*asked) == family && *asked != address);
            let has = kept.iter().any(|kept| Family::of(*kept) == family);
            if wanted && !other && !has && search.may_have(address).is_ok() {
                kept.push(address);
            }
        }
        kept
    }

    fn search<'a>(
        &'a self,
        service: &'a BalancedService,
        namespace: &'a BTreeMap<String, String>,
    ) -> Search<'a> {
        Search {
            pools: self,
            service,
            namespace,
            tenant: Tenant::of(service),
        }
    }
}

impl Search<'_> {
    /// All addresses of the Service, of which it has some.
    fn all(&self, kept: &[IpAddr]) -> Result<Assigned, Vec<Refusal>> {
        let families = self.service.wanted_families();
        if self.service.dual == DualStack::Required && families.len() < 2 {
            return Err(vec![Refusal::OneFamily]);
        }
        let mut found: BTreeMap<Family, IpAddr> = BTreeMap::new();
        for address in kept.iter().copied().map(Ok).chain(self.asked()) {
            let address = address.map_err(|refusal| vec![refusal])?;
            found.entry(Family::of(address)).or_insert(address);
        }
        let missing = self.fill(families, &mut found);
        let addresses: Vec<IpAddr> = families
            .iter()
            .filter_map(|family| found.get(family).copied())
            .collect();
        let enough = missing.is_empty() || self.service.dual == DualStack::Preferred;
        if addresses.is_empty() || !enough {
            return Err(missing);
        }
        Ok(Assigned { addresses, missing })
    }

    /// The addresses that it asks for, or why it may not have them (L6).
    fn asked(&self) -> impl Iterator<Item = Result<IpAddr, Refusal>> {
        let asked = &self.service.asked;
        let fault = asked
            .fault
            .iter()
            .cloned()
            .map(|fault| Err(Refusal::Request(fault)));
        let addresses = asked.addresses.iter().map(|address| {
            let family = Family::of(*address);
            if !self.service.wanted_families().contains(&family) {
                return Err(Refusal::Family(*address));
            }
            self.may_have(*address).map(|()| *address)
        });
        fault.chain(addresses)
    }

    /// Looks for what is missing: all of one pool if that can be, of that which it
    /// has addresses of before others. Answers with why not.
    fn fill(&self, families: &[Family], found: &mut BTreeMap<Family, IpAddr>) -> Vec<Refusal> {
        let lacking = |found: &BTreeMap<Family, IpAddr>| -> Vec<Family> {
            let lacks = families.iter().filter(|family| !found.contains_key(family));
            lacks.copied().collect()
        };
        let wanted = lacking(found);
        if wanted.is_empty() {
            return Vec::new();
        }
        let mut stocks = match self.stocks() {
            Ok(stocks) => stocks,
            Err(refusals) => return refusals,
        };
        let has = |stock: &Stock| found.values().any(|address| stock.pool.covers(*address));
        stocks.sort_by_key(|stock| !has(stock));
        for stock in &stocks {
            let of_one: Option<Vec<IpAddr>> = wanted
                .iter()
                .map(|family| self.free(stock, *family))
                .collect();
            if let Some(addresses) = of_one {
                found.extend(addresses.into_iter().map(|one| (Family::of(one), one)));
                return Vec::new();
            }
        }
        for family in wanted {
            let any = stocks.iter().find_map(|stock| self.free(stock, family));
            found.extend(any.map(|address| (family, address)));
        }
        let lacking = lacking(found);
        let refusals = lacking
            .iter()
            .flat_map(|family| stocks.iter().map(|stock| stock.refusal(*family)));
        refusals.collect()
    }

    /// The pools that may give it an address that it did not ask for.
    fn stocks(&self) -> Result<Vec<&Stock>, Vec<Refusal>> {
        let ordered = self.pools.order.iter();
        let all = ordered.filter_map(|key| self.pools.stocks.get(key));
        let offered: Vec<&Stock> = match &self.service.asked.pool {
            Some(name) => {
                let named: Vec<&Stock> = all.filter(|one| one.pool.name() == name).collect();
                if named.is_empty() {
                    return Err(vec![Refusal::UnknownPool(name.clone())]);
                }
                named
            }
            None => all.filter(|stock| stock.pool.auto_assign).collect(),
        };
        if offered.is_empty() {
            return Err(vec![Refusal::NoAutoAssign]);
        }
        let (mut open, mut closed) = (Vec::new(), Vec::new());
        for stock in offered {
            match self.is_for(&stock.pool) {
                Ok(()) => open.push(stock),
                Err(refusal) => closed.push(refusal),
            }
        }
        if open.is_empty() {
            Err(closed)
        } else {
            Ok(open)
        }
    }

    /// Whether a pool is for this Service (L7).
    fn is_for(&self, pool: &Pool) -> Result<(), Refusal> {
        let meta = &self.service.meta;
        if !pool.takes_namespace(&meta.key.namespace, self.namespace) {
            return Err(Refusal::Namespace {
                pool: pool.name().to_owned(),
                namespace: meta.key.namespace.clone(),
            });
        }
        if !pool.takes_service(&meta.labels) {
            return Err(Refusal::Labels {
                pool: pool.name().to_owned(),
            });
        }
        Ok(())
    }

    /// Whether it may have this address.
    fn may_have(&self, address: IpAddr) -> Result<(), Refusal> {
        let mut refused = Refusal::NotInPool(address);
        let stocks = self.pools.stocks.values();
        let mut fits = stocks
            .filter(|stock| stock.pool.covers(address))
            .any(|stock| {
                let asked = self.service.asked.pool.as_ref();
                let checked = match asked.filter(|asked| *asked != stock.pool.name()) {
                    Some(asked) => Err(Refusal::OtherPool {
                        address,
                        asked: asked.clone(),
                    }),
                    None => self.is_for(&stock.pool),
                };
                checked.map_err(|refusal| refused = refusal).is_ok()
            });
        if fits {
            fits = match self.may_share(address) {
                Ok(()) => true,
                Err(refusal) => {
                    refused = refusal;
                    false
                }
            };
        }
        if fits { Ok(()) } else { Err(refused) }
    }

    /// Whether those that have an address share it (L5).
    fn may_share(&self, address: IpAddr) -> Result<(), Refusal> {
        for (by, tenant) in self.pools.users.get(&address).into_iter().flatten() {
            self.tenant.shares(tenant).map_err(|why| Refusal::Taken {
                address,
                by: by.clone(),
                why,
            })?;
        }
        Ok(())
    }

    /// An address of a pool that it can have: one that others share with it, or a
    /// free one.
    fn free(&self, stock: &Stock, family: Family) -> Option<IpAddr> {
        let sharing = self.tenant.sharing.as_ref();
        let known = sharing.and_then(|key| self.pools.shared.get(key));
        let shared = known.into_iter().flatten().copied().find(|address| {
            Family::of(*address) == family
                && stock.pool.covers(*address)
                && self.may_share(*address).is_ok()
        });
        shared.or_else(|| stock.free.first(family))
    }
}
