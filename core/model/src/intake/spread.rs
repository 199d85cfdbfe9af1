//! The annotations that say how connections are spread.

use portolan_api::GROUP;
use portolan_api::lean::ObjectMeta;

use super::Problems;
use crate::algorithm::Algorithm;
use crate::fact::Spread;
use crate::text::Text;

/// What a Service's annotations say.
pub(super) fn of_service(metadata: &ObjectMeta, problems: &mut Problems) -> Option<Box<Spread>> {
    let (field, text) = annotation(metadata, "lb-algorithm");
    let algorithm = text.and_then(|text| match Algorithm::parse(text) {
        Ok(algorithm) => Some(algorithm),
        Err(error) => {
            problems.add(&field, format!("{error}; the node's default is used"));
            None
        }
    });
    let (field, text) = annotation(metadata, "weights");
    let mut weights: Vec<(Text, u16)> = Vec::new();
    let entries = text.unwrap_or_default().split(',').map(str::trim);
    for entry in entries.filter(|entry| !entry.is_empty()) {
        match weight_of(entry) {
            Some(weight) => weights.push(weight),
            None => problems.add(
                &field,
                format!(
                    "{entry:?} is not NAME=WEIGHT with the beginning of pods' names and a whole number up to {}, such as web-blue=9; it is left out",
                    u16::MAX
                ),
            ),
        }
    }
    let spread = Spread { algorithm, weights };
    (spread != Spread::default()).then(|| Box::new(spread))
}

fn weight_of(entry: &str) -> Option<(Text, u16)> {
    let (name, weight) = entry.split_once('=')?;
    let name = name.trim().trim_end_matches('-');
    let weight = weight.trim().parse().ok()?;
    (!name.is_empty()).then(|| (name.into(), weight))
}

/// The weight that a slice's annotation gives to each of its endpoints.
pub(super) fn of_slice(metadata: &ObjectMeta, problems: &mut Problems) -> u16 {
    let (field, text) = annotation(metadata, "weight");
    let Some(text) = text else { return 1 };
    text.trim().parse().unwrap_or_else(|_| {
        problems.add(
            &field,
            format!(
                "{text:?} is not a whole number up to {}; 1 is used",
                u16::MAX
            ),
        );
        1
    })
}

/// One of our annotations: its name, and what it says.
fn annotation<'m>(metadata: &'m ObjectMeta, name: &str) -> (String, Option<&'m str>) {
    if metadata.annotations.is_empty() {
        return (String::new(), None);
    }
    let field = format!("{GROUP}/{name}");
    let text = metadata.annotations.get(&field).map(String::as_str);
    (field, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(annotations: &[(&str, &str)]) -> ObjectMeta {
        ObjectMeta {
            name: "web".into(),
            namespace: "shop".into(),
            annotations: annotations
                .iter()
                .map(|(name, text)| (format!("portolan.dev/{name}"), (*text).to_owned()))
                .collect(),
            ..ObjectMeta::default()
        }
    }

    fn service(annotations: &[(&str, &str)]) -> (Option<Box<Spread>>, Vec<String>) {
        let metadata = metadata(annotations);
        let mut problems = Problems::of("Service", &metadata);
        let spread = of_service(&metadata, &mut problems);
        let found = problems.found.iter().map(ToString::to_string);
        (spread, found.collect())
    }

    #[test]
    fn a_service_says_how_and_with_which_weights() {
        assert_eq!(service(&[]), (None, Vec::new()));
        let (spread, problems) = service(&[
            ("lb-algorithm", "wrr"),
            ("weights", "web=2, web-blue-=9,web-green=0"),
        ]);
        assert_eq!(problems, Vec::<String>::new());
        let spread = spread.unwrap();
        assert_eq!(spread.algorithm, Some(Algorithm::RoundRobin));
        let weight = |pod| spread.weight(pod);
        assert_eq!(weight("web-blue-7d9f8c6b5-x2x4q"), Some(9));
        assert_eq!(weight("web-blue-7d9f8c6b5-"), Some(9));
        assert_eq!(weight("web-green-5c-a"), Some(0));
        assert_eq!(weight("web-bluebird-1"), Some(2));
        assert_eq!(weight("website-1"), None);
    }

    #[test]
    fn what_cannot_be_used_is_told_and_the_rest_is_used() {
        let (spread, problems) = service(&[
            ("lb-algorithm", "least-connections"),
            ("weights", "web-blue=many,web-green=2"),
        ]);
        assert_eq!(spread.unwrap().weights, [("web-green".into(), 2)]);
        assert_eq!(
            problems,
            [
                "Service shop/web: portolan.dev/lb-algorithm: \"least-connections\" counts open connections, which nftables cannot and only the eBPF plane will; use random, round-robin or maglev; the node's default is used",
                "Service shop/web: portolan.dev/weights: \"web-blue=many\" is not NAME=WEIGHT with the beginning of pods' names and a whole number up to 65535, such as web-blue=9; it is left out",
            ]
        );
    }

    #[test]
    fn a_slice_says_the_weight_of_its_endpoints() {
        let weight = |text: &str| {
            let metadata = metadata(&[("weight", text)]);
            let mut problems = Problems::of("EndpointSlice", &metadata);
            (of_slice(&metadata, &mut problems), problems.found.len())
        };
        assert_eq!(weight("5"), (5, 0));
        assert_eq!(weight("0"), (0, 0));
        assert_eq!(weight("-1"), (1, 1));
        let metadata = metadata(&[]);
        let mut problems = Problems::of("EndpointSlice", &metadata);
        assert_eq!(of_slice(&metadata, &mut problems), 1);
    }
}
