//! What an answer takes of nodes and links.

use super::super::analysis::Analysis;
use super::super::doc::{Doc, Line, large, number, or_dash};
use super::super::figures::Figures;
use super::{look, times};

pub(super) fn resources(doc: &mut Doc, analysis: &Analysis) {
    let spec = analysis.spec();
    doc.heading(2, "What an answer takes");
    doc.text(
        "Means for each answered request; what unanswered ones took counts too. Cache: bytes times the seconds that they were held. \
         Energy: of the whole machine, its idling too, from the warm-up's end to the turn's. A dash: not measured.",
    );
    let columns = [
        ("FLOPs edge", "flops_edge"),
        ("FLOPs cloud", "flops_cloud"),
        ("of the edge, wasted drafts", "flops_wasted"),
        ("cache edge, B s", "cache_byte_seconds_edge"),
        ("cache cloud, B s", "cache_byte_seconds_cloud"),
        ("activations edge, B", "activation_bytes_edge"),
        ("activations cloud, B", "activation_bytes_cloud"),
        ("up, B", "bytes_up"),
        ("down, B", "bytes_down"),
        ("probe, ms", "probe_ms"),
        ("plug-ins, ms", "plugin_ms"),
        ("energy of the machine, J", "energy_j"),
    ];
    let cost = spec.prices.as_ref().map_or(String::new(), |it| {
        format!("1,000 requests, {}", it.currency)
    });
    let mut head = vec!["policy"];
    head.extend(columns.map(|it| it.0));
    head.extend([
        "drafts accepted",
        "unverified",
        "FLOPs over the baseline's",
        "of the cloud",
        "cache cloud",
    ]);
    if spec.prices.is_some() {
        head.push(&cost);
    }
    for block in analysis.blocks() {
        let rows = spec.policies.iter().filter_map(|policy| {
            let figures: &Figures = analysis.figures(&block, &policy.name)?;
            let percent =
                |column: &str| or_dash(figures.mean(column), |it| format!("{:.1}%", 100.0 * it));
            let over = |column: &str| {
                let ratio = analysis.ratio(&block, &policy.name, &spec.baseline, column);
                ratio
                    .filter(|_| policy.name != spec.baseline)
                    .map_or("-".to_owned(), |it| times(&it))
            };
            let mut cells = vec![policy.name.clone()];
            cells.extend(columns.map(|(_, column)| or_dash(figures.mean(column), large)));
            cells.extend([percent("acceptance"), percent("unverified_share")]);
            cells.extend(["flops", "flops_cloud", "cache_byte_seconds_cloud"].map(over));
            if spec.prices.is_some() {
                cells.push(figures.cost.map_or("-".to_owned(), |it| {
                    format!(
                        "{} ({} edge, {} cloud, {} egress)",
                        number(it.all()),
                        number(it.edge),
                        number(it.cloud),
                        number(it.egress)
                    )
                }));
            }
            Some(Line {
                cells,
                look: look(
                    analysis,
                    policy,
                    analysis.standing(&block, policy).is_ranked(),
                ),
            })
        });
        let rows = rows.collect();
        doc.table(
            format!("{}, link {}, {}", block.data, block.link, block.arrival),
            &head,
            rows,
        );
    }
}
