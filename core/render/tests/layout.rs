//! A layout has a number, which is raised with each release that changes what the
//! tables are made of; so what a number stands for is on record.

use std::fs;
use std::path::Path;

use portolan_model::{Family, Protocol};
use portolan_plan::{Draw, Frontend, Lane, Masquerade, NodePlan, NodeView, Place, Shape};
use portolan_render::nft::{LAYOUT, image};

/// A plan without Services in which every kind of chain is in use.
fn plan() -> NodePlan {
    let mut plan = NodePlan::empty(NodeView::default());
    let masquerades = [
        Masquerade::Never,
        Masquerade::Always,
        Masquerade::IfNode,
        Masquerade::UnlessPod,
    ];
    for family in Family::BOTH {
        let counter = Draw::Counter(Frontend {
            place: Place::NodePort(family),
            protocol: Protocol::Tcp,
            port: 30_080,
        });
        let shape = Shape {
            family,
            lane: Lane::Address,
            masquerade: Masquerade::Never,
            width: 2,
            draw: Draw::Random,
            sticky: false,
        };
        let masqueraded = masquerades.map(|masquerade| Shape {
            masquerade,
            ..shape
        });
        let drawn = [counter, Draw::Client].map(|draw| Shape { draw, ..shape });
        let others = [
            Shape { width: 1, ..shape },
            Shape {
                lane: Lane::NodePortOutside,
                ..shape
            },
            Shape {
                sticky: true,
                ..shape
            },
        ];
        let all = masqueraded.into_iter().chain(drawn).chain(others);
        plan.shapes.extend(all.map(|shape| (shape, 1_u32)));
        plan.timeouts.insert((family, 10_800), 1);
    }
    plan
}

#[test]
fn p21_what_a_layouts_number_stands_for_is_on_record() {
    let text = image(&plan()).text();
    let name = format!("layout-{LAYOUT}.nft");
    let record = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(&name);
    let recorded = fs::read_to_string(&record).unwrap_or_default();
    if text != recorded {
        let new = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
        fs::write(&new, text).unwrap();
        panic!(
            "the tables are not those of layout {LAYOUT}: if a release has that layout, \\
             raise LAYOUT; then put {} in the place of {}",
            new.display(),
            record.display()
        );
    }
}
