//! Answers of connection tracking: no bytes panic, and whatever is understood
//! can be asked to end, in messages that are understood again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan_conntrack::{Entry, delete, messages};

fuzz_target!(|bytes: &[u8]| {
    let Some((limit, rest)) = bytes.split_first() else {
        return;
    };
    let entries: Vec<Entry> = messages(rest)
        .filter_map(|message| Entry::decode(&message))
        .collect();
    let groups = delete(&entries, usize::from(*limit) * 8, 7);
    let mut seqs = 7..;
    for group in groups {
        let framed = messages(&group.bytes).map(|message| message.seq);
        let expected: Vec<u32> = seqs.by_ref().take(group.count as usize).collect();
        assert_eq!(framed.collect::<Vec<_>>(), expected, "whole messages, in order");
    }
    assert_eq!(seqs.start as usize, 7 + entries.len(), "one message for each");
});
