//! The laws of the ruleset language.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sample;

use portolan_nft::netlink::{Dump, encode, messages};
use portolan_nft::{Batch, Ruleset, diff};
use proptest::prelude::*;

/// What messages tell of the tables that a batch makes.
fn decoded(batch: &Batch, limit: usize) -> Ruleset {
    let mut dump = Dump::new();
    for transaction in encode(batch, limit, 7, None) {
        for message in messages(&transaction.bytes) {
            dump.take(&message);
        }
    }
    dump.finish()
}

fn from_nothing(ruleset: &Ruleset) -> Batch {
    diff(&Ruleset::new(), ruleset)
}

#[test]
fn the_sample_survives_netlink() {
    let sample = sample::ruleset();
    let batch = from_nothing(&sample);
    assert_eq!(decoded(&batch, usize::MAX), sample);
    assert_eq!(decoded(&batch, 100), sample, "cut into many transactions");
}

#[test]
fn the_sample_is_made_of_its_difference_from_nothing() {
    let sample = sample::ruleset();
    let mut made = Ruleset::new();
    made.apply(&from_nothing(&sample)).unwrap();
    assert_eq!(made, sample);
    assert!(diff(&made, &sample).is_empty());
}

#[test]
fn every_step_of_a_batch_is_found_by_its_sequence_number() {
    let batch = from_nothing(&sample::ruleset());
    for limit in [usize::MAX, 100] {
        let mut seq = 7;
        let mut steps = Vec::new();
        for transaction in encode(&batch, limit, seq, None) {
            let all: Vec<_> = messages(&transaction.bytes).collect();
            assert_eq!(all.first().map(|message| message.seq), Some(seq));
            assert_eq!(
                all.last().map(|message| message.seq.wrapping_add(1)),
                Some(transaction.next_seq())
            );
            steps.extend(
                all.iter()
                    .filter_map(|message| transaction.step(message.seq)),
            );
            seq = transaction.next_seq();
        }
        // A long list of elements is several messages.
        steps.dedup();
        let expected: Vec<usize> = (0..batch.steps.len()).collect();
        assert_eq!(steps, expected);
    }
}

proptest! {
    #[test]
    fn applying_the_difference_gives_the_other(a in sample::random::ruleset(), b in sample::random::ruleset()) {
        let batch = diff(&a, &b);
        let mut made = a.clone();
        made.apply(&batch).unwrap();
        prop_assert_eq!(&made, &b);
        prop_assert!(diff(&made, &b).is_empty());
    }

    #[test]
    fn the_parts_of_a_batch_are_the_batch(a in sample::random::ruleset(), b in sample::random::ruleset(), limit in prop_oneof![Just(1_usize), 1_usize..2000]) {
        let batch = diff(&a, &b);
        let mut made = a.clone();
        for transaction in encode(&batch, limit, 1, None) {
            made.apply(&transaction.part(&batch)).unwrap();
        }
        prop_assert_eq!(&made, &b);
    }

    #[test]
    fn decoding_what_was_encoded_gives_it_back(ruleset in sample::random::ruleset(), limit in 1_usize..200_000) {
        prop_assert_eq!(decoded(&from_nothing(&ruleset), limit), ruleset);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0_u16..17) {
        let whole = u32::try_from(bytes.len()).unwrap().to_ne_bytes();
        if let Some(head) = bytes.first_chunk_mut::<6>() {
            head[..4].copy_from_slice(&whole);
            head[4..].copy_from_slice(&(10_u16 << 8 | kind).to_ne_bytes());
        }
        let mut dump = Dump::new();
        for message in messages(&bytes) {
            dump.take(&message);
        }
        drop(dump.finish());
    }

    #[test]
    fn broken_messages_are_read_without_a_panic(place in 0_usize..100_000, byte: u8) {
        let batch = from_nothing(&sample::ruleset());
        let mut transaction = encode(&batch, usize::MAX, 1, None).next().unwrap();
        let bytes = &mut transaction.bytes;
        let place = place % bytes.len();
        bytes[place] = byte;
        let mut dump = Dump::new();
        for message in messages(bytes) {
            dump.take(&message);
        }
        drop(dump.finish().text());
    }
}
