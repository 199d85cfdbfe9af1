//! A few records more or fewer at a name that has many: its other records are copied as
//! they are, not made anew.

use crate::name::Spelled;
use crate::packed::{Node, pack, pack_entry, pack_raw, raw_entries};
use crate::record::{Record, Rtype};

/// The groups of `old` without the records of `taken` and with those of `given`. None
/// where a TTL is other than the zone's: that is of a whole group.
pub(crate) fn amended(
    owner: &Spelled,
    old: &Node,
    taken: &[Record],
    given: &[Record],
) -> Option<Vec<u8>> {
    let records = || taken.iter().chain(given);
    if records().any(|record| record.ttl.is_some())
        || old.all_groups().any(|group| group.ttl.is_some())
    {
        return None;
    }
    let mut rtypes: Vec<Rtype> = old.all_groups().map(|group| group.rtype).collect();
    rtypes.extend(records().map(|record| record.data.rtype()));
    rtypes.sort_unstable();
    rtypes.dedup();
    let mut out = Vec::with_capacity(old.groups().len() + pack(owner, given).len());
    for rtype in rtypes {
        let packed = |records: &[Record]| {
            let of_type = records
                .iter()
                .filter(|record| record.data.rtype() == rtype)
                .map(|record| pack_entry(owner, &record.data));
            let mut entries: Vec<Vec<u8>> = of_type.collect();
            entries.sort_unstable();
            entries.dedup();
            entries
        };
        let before = old.group(rtype);
        let before = before.as_ref().map_or(&[][..], |group| group.entries);
        let (count, entries) = merged(rtype, before, &packed(taken), &packed(given));
        if count > 0 {
            pack_raw(&mut out, rtype, None, (count, &entries));
        }
    }
    Some(out)
}

/// Sorted entries without some and with others, all of them sorted, and their count.
fn merged(rtype: Rtype, before: &[u8], taken: &[Vec<u8>], given: &[Vec<u8>]) -> (usize, Vec<u8>) {
    let room: usize = given.iter().map(Vec::len).sum();
    let mut out = Vec::with_capacity(before.len() + room);
    let mut count = 0;
    let mut put = |entry: &[u8]| {
        out.extend_from_slice(entry);
        count += 1;
    };
    let mut given = given.iter().peekable();
    for entry in raw_entries(rtype, before) {
        while let Some(new) = given.next_if(|new| new.as_slice() < entry) {
            put(new);
        }
        let stays = given.next_if(|new| new.as_slice() == entry).is_some();
        let goes = || {
            taken
                .binary_search_by(|old| old.as_slice().cmp(entry))
                .is_ok()
        };
        if stays || !goes() {
            put(entry);
        }
    }
    given.for_each(|new| put(new));
    (count, out)
}
