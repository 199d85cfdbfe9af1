//! One question to the real server's code, and its reply as the `domain` crate reads it.

use std::collections::BTreeSet;

use domain::base::{Message, MessageBuilder, Name, Rtype};
use domain::rdata::AllRecordData;
use portolan_dns::{Answer, Transport, Zones};

/// What was said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) answer: Answer,
    pub(crate) code: String,
    pub(crate) truncated: bool,
    pub(crate) length: usize,
    pub(crate) answers: BTreeSet<String>,
    pub(crate) authority: BTreeSet<String>,
    pub(crate) additional: BTreeSet<String>,
}

/// Every second letter upper-case: names are the same in any case (D1).
fn respelled(name: &str) -> String {
    let turn = |(at, letter): (usize, char)| {
        if at % 2 == 0 {
            letter.to_ascii_uppercase()
        } else {
            letter
        }
    };
    name.chars().enumerate().map(turn).collect()
}

/// Asks; none if the server leaves the name to others.
pub(crate) fn ask(zones: &Zones, name: &str, rtype: &str, transport: Transport) -> Option<Said> {
    let spelled = respelled(name);
    let owner: Name<Vec<u8>> = spelled.parse().unwrap();
    let rtype: Rtype = rtype.parse().unwrap();
    let mut question = MessageBuilder::new_vec().question();
    question.header_mut().set_id(0x1234);
    question.push((&owner, rtype)).unwrap();
    let query = question.finish();
    let mut out = Vec::new();
    let answer = zones.answer(&query, transport, 3, &mut out);
    match answer {
        Answer::Forward => return None,
        Answer::Drop => panic!("{name} {rtype} was dropped"),
        Answer::Reply | Answer::Follow(_) => {}
    }
    let length = out.len();
    let message = Message::from_octets(out).unwrap();
    let header = message.header();
    assert!(header.qr() && header.aa() && header.id() == 0x1234);
    let echoed = message.sole_question().unwrap();
    assert_eq!(
        echoed.qname().to_string(),
        spelled,
        "the query's case is kept"
    );
    let (_, answers, authority, additional) = message.sections().unwrap();
    let [answers, authority, additional] = [answers, authority, additional].map(|section| {
        let records = section.limit_to::<AllRecordData<_, _>>();
        let text = |record: domain::base::Record<_, AllRecordData<_, _>>| {
            let ttl = record.ttl().as_secs();
            line(&format!(
                "{} {ttl} {} {}",
                record.owner(),
                record.rtype(),
                record.data()
            ))
        };
        records.map(|record| text(record.unwrap())).collect()
    });
    Some(Said {
        answer,
        code: message.header().rcode().to_string(),
        truncated: message.header().tc(),
        length,
        answers,
        authority,
        additional,
    })
}

/// A record in lower case without final dots and quotes; of SOA without its serial
/// number and times, of HINFO the type alone.
fn line(text: &str) -> String {
    let text = text.to_lowercase();
    let mut words: Vec<String> = text
        .split_whitespace()
        .map(|word| word.trim_matches('"').trim_end_matches('.').to_owned())
        .collect();
    words[2] = words[2].to_uppercase();
    match &*words[2] {
        "SOA" => drop(words.drain(5..words.len() - 1)),
        "HINFO" => words.truncate(3),
        _ => {}
    }
    words.join(" ")
}
