//! What was read of a request's media, for the record of its decision.

use msao_core::inputs::Grid;
use msao_core::offload::Route;
use msao_core::offload::kept::{Extent, MediumKept, Reading, TokenSet};

use crate::request::{Medium, Retained, Sight};

/// What either model has read of each medium. `route`: as it ran. `drafted`: whether the draft model of this node took part.
pub fn kept(media: &[Medium], retained: &Retained, route: Route, drafted: bool) -> Vec<MediumKept> {
    let media = media.iter().enumerate();
    let told = media.map(|(number, medium)| {
        let read = |sight: &Sight| match sight.view(number) {
            // At that size it has tokens of its own.
            Some(view) => {
                let all = view.scaled.patches() as u32;
                let whole = view.tokens() == all;
                Reading {
                    extent: (view.scaled != medium.grid).then(|| extent(view.scaled)),
                    kept: (!whole).then(|| TokenSet::new(&view.read, all)),
                }
            }
            None => Reading {
                extent: None,
                kept: (sight.lists().of(number)).map(|kept| TokenSet::new(kept, medium.tokens)),
            },
        };
        MediumKept {
            digest: medium.digest,
            extent: extent(medium.grid),
            sampled: medium.sampled.clone(),
            draft: match route {
                // It reads beside the target, and what the target reads.
                Route::CloudDraft => Some(read(&retained.target)),
                _ => drafted.then(|| read(&retained.draft)),
            },
            target: (route != Route::Edge).then(|| read(&retained.target)),
        }
    });
    told.collect()
}

fn extent(grid: Grid) -> Extent {
    // A grid of a prompt that fits a context is small.
    let small = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    Extent {
        frames: small(grid.t),
        rows: small(grid.h),
        columns: small(grid.w),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use msao_core::chat::Modality;
    use msao_core::digest::Digest;

    use super::*;
    use crate::request::Kept;

    fn medium(modality: Modality, grid: Grid, sampled: Vec<u32>) -> Medium {
        Medium {
            modality,
            bytes: Bytes::from_static(b"medium"),
            digest: Digest::of(b"medium"),
            size_px: (10, 10),
            frames: 1,
            sampled,
            duration_ms: 0.0,
            tokens: grid.patches() as u32,
            grid,
            extent: msao_processor::Extent::Image {
                width: 10,
                height: 10,
            },
        }
    }

    #[test]
    fn each_side_tells_what_it_read_where_it_took_part() {
        let media = [
            medium(Modality::Image, Grid { t: 1, h: 2, w: 4 }, Vec::new()),
            medium(
                Modality::Video,
                Grid { t: 2, h: 1, w: 2 },
                vec![0, 8, 16, 24],
            ),
        ];
        let retained = Retained {
            draft: Sight::of_lists(Kept::new(vec![Some(vec![1, 6]), Some(Vec::new())])),
            target: Sight::of_lists(Kept::new(vec![None, Some(vec![0, 3])])),
        };
        let of = |route, drafted| kept(&media, &retained, route, drafted);
        let set = |kept: &[u32], tokens| Some(TokenSet::new(kept, tokens));
        let both = of(Route::Speculate, true);
        assert_eq!(both[0].digest, Digest::of(b"medium"));
        assert_eq!(
            both[0].extent,
            Extent {
                frames: 1,
                rows: 2,
                columns: 4
            }
        );
        assert_eq!(both[1].sampled, [0, 8, 16, 24]);
        let draft: Vec<_> = both
            .iter()
            .map(|it| it.draft.clone().unwrap().kept)
            .collect();
        assert_eq!(draft, [set(&[1, 6], 8), set(&[], 4)]);
        let target: Vec<_> = both
            .iter()
            .map(|it| it.target.clone().unwrap().kept)
            .collect();
        assert_eq!(target, [None, set(&[0, 3], 4)]);
        // The target alone, the draft model alone, both beside the target.
        let sides = |told: &[MediumKept]| (told[1].draft.is_some(), told[1].target.is_some());
        assert_eq!(sides(&of(Route::Cloud, false)), (false, true));
        assert_eq!(sides(&of(Route::Cloud, true)), (true, true));
        assert_eq!(sides(&of(Route::Edge, true)), (true, false));
        let beside = of(Route::CloudDraft, false);
        assert_eq!(beside[1].draft, beside[1].target);
        assert!(kept(&[], &Retained::default(), Route::Cloud, false).is_empty());
    }
}
