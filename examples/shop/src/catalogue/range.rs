//! The range of Marginalia: what a new shop has on its shelves.

use super::Product;
use crate::money::Cents;

/// The products of a new shop, in the order of the catalogue.
pub fn products() -> Vec<Product> {
    RANGE
        .iter()
        .zip(0..)
        .map(|(item, place)| Product {
            slug: item.slug.into(),
            name: item.name.into(),
            kind: item.kind.into(),
            story: item.story.into(),
            facts: item.facts.iter().map(|fact| (*fact).into()).collect(),
            price: Cents(item.cents),
            place,
            photo: None,
        })
        .collect()
}

struct Item {
    slug: &'static str,
    name: &'static str,
    kind: &'static str,
    story: &'static str,
    facts: &'static [&'static str],
    cents: u64,
}

const RANGE: &[Item] = &[
    Item {
        slug: "tidewater-notebook",
        name: "Tidewater notebook",
        kind: "Hardback, A5",
        story: "Sewn so that it lies flat at any page, bound in cloth the colour of the estuary on a still \
                morning. The paper takes a fountain pen without a murmur.",
        facts: &[
            "192 pages, 100 g/m², dotted",
            "148 × 210 mm",
            "Elastic band, one ribbon, a pocket at the back",
        ],
        cents: 1_900,
    },
    Item {
        slug: "heron-fountain-pen",
        name: "Heron fountain pen",
        kind: "Piston filler, fine steel nib",
        story: "Long, grey-blue and patient. A piston filler with an ink window, balanced for an afternoon of \
                letters rather than for a signature.",
        facts: &["Resin and brass, 21 g", "Steel nib, fine", "Holds 1.4 ml of any fountain pen ink"],
        cents: 7_200,
    },
    Item {
        slug: "night-ink",
        name: "Night Swim ink",
        kind: "Bottled ink, 60 ml",
        story: "A blue that is nearly black until it meets good paper, where the edges turn violet. Dries in \
                twelve seconds, and washes out of most things but memory.",
        facts: &["60 ml, glass bottle", "Dye based, pH neutral", "Made in small batches"],
        cents: 1_650,
    },
    Item {
        slug: "creme-letter-paper",
        name: "Crème laid letter paper",
        kind: "30 sheets, 20 envelopes",
        story: "Laid paper with a soft tooth and faint lines to keep you level. There are more sheets than envelopes, \
                for the letters that need a second start.",
        facts: &["A5, 120 g/m² laid cotton", "Envelopes C6, lined in grey", "Boxed with a blotting sheet"],
        cents: 2_400,
    },
    Item {
        slug: "alder-pencils",
        name: "Alder pencils",
        kind: "Six in a paper band",
        story: "Six colours outside, the same soft graphite inside. The wood is river alder, which \
                sharpens to a long clean point.",
        facts: &["Graphite, 2B", "Alder from managed woods", "180 mm, sharpened"],
        cents: 950,
    },
    Item {
        slug: "brass-sharpener",
        name: "Brass sharpener",
        kind: "Solid brass, one blade",
        story: "Heavy enough to stay where you put it. It darkens with the years, and its blade is \
                changed in a minute with the coin in your pocket.",
        facts: &["Milled brass, 24 g", "For pencils of 8 mm", "Two spare blades"],
        cents: 1_100,
    },
    Item {
        slug: "etude-manuscript-book",
        name: "Étude manuscript book",
        kind: "Music paper, 10 staves",
        story: "For tunes that arrive on the train. Ten staves to a page, wide enough for pencil, with a table \
                of contents that forgives you for filling it in later.",
        facts: &["96 pages, 110 g/m²", "170 × 240 mm", "Red cloth spine"],
        cents: 1_550,
    },
    Item {
        slug: "field-trio",
        name: "Field trio",
        kind: "Three pocket notebooks",
        story: "One for lists, one for sketches, one to lose. Round corners, two staples, covers that \
                age well in a back pocket.",
        facts: &["48 pages each: plain, ruled, squared", "90 × 140 mm", "Recycled board covers"],
        cents: 1_200,
    },
    Item {
        slug: "wax-and-seal",
        name: "Wax and seal",
        kind: "A set for letters",
        story: "A turned walnut handle, a brass seal with our M, and a stick of supple red wax that survives \
                the post. Press, count to ten, lift.",
        facts: &["Brass seal, 24 mm", "Two sticks of wax, about 40 seals", "Walnut, oiled"],
        cents: 2_800,
    },
    Item {
        slug: "oak-tray",
        name: "Oak desk tray",
        kind: "Two compartments",
        story: "A place for the pencil you are using and the things you keep meaning to put away. Cut from one board, \
                so that the grain runs through.",
        facts: &["Solid oak, hard wax oil", "320 × 180 × 28 mm", "Cork feet"],
        cents: 3_900,
    },
    Item {
        slug: "perpetual-calendar",
        name: "Perpetual calendar",
        kind: "Walnut, turned by hand",
        story: "Two cards, two bars and one small ceremony each morning. It has no battery and needs no update, \
                and it is right for as long as you are.",
        facts: &["Walnut and brass", "210 × 190 × 60 mm", "Weekdays and months in English"],
        cents: 4_600,
    },
    Item {
        slug: "reading-lamp",
        name: "Lantern reading lamp",
        kind: "Dimmable, warm light",
        story: "A pool of light the size of an open book. The arm stays where it is put, and the switch clicks \
                softly enough for a sleeping house.",
        facts: &["Steel, enamelled", "LED, 2,700 K, 450 lm, replaceable", "Cotton cable, 2 m"],
        cents: 9_800,
    },
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::assets;

    #[test]
    fn every_product_has_its_own_slug_its_drawing_and_a_price() {
        let products = products();
        let slugs: HashSet<&str> = products.iter().map(|product| product.slug.as_str()).collect();
        assert_eq!(slugs.len(), products.len());
        for product in &products {
            assert!(assets::drawing(&product.slug).is_some(), "{} has no drawing", product.slug);
            assert!(product.price > Cents(0) && !product.facts.is_empty());
        }
    }
}
