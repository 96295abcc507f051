//! What is done to a part on its way to a model, so far as it can be.
//!
//! | where the model is | done | without effect | not done, and said so |
//! |---|---|---|---|
//! | behind a link, and shipments are opened there | everything | | |
//! | behind a link, at a node of before shipments | `keep`, `frames`: by tokens, of media as they came | | `scale`, `quality`, `rest` |
//! | in this process | `keep`, `frames`, `scale` where it saves tokens | `quality`, `rest` | `scale` elsewhere |
//! | in this process, and goes on from the probe, which has read everything | `keep`, `frames` | `quality`, `rest` | `scale` |

use msao_core::offload::{Rest, Treatment, modality};

/// Where a model is, so far as that decides what can be done to its media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// In this process: nothing is sent.
    Here,
    /// Likewise, and a probe has read all of the media already.
    Probed,
    /// Behind a link, and shipments are opened there.
    Ships,
    /// Behind a link, and media go there as they came.
    Lists,
}

/// Where the models of a request are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaches {
    /// The draft model of this node.
    pub draft: Reach,
    /// The target, and a draft model beside it.
    pub target: Reach,
}

/// The JPEG quality of what must be made anew though a plan wants the original bytes: above it files grow by much and pictures
/// gain nothing that is seen.
pub const BEST_QUALITY: u32 = 95;

/// Nothing of a part.
const DROPPED: Treatment = Treatment {
    keep: 0.0,
    ..Treatment::WHOLE
};

/// How a model gets a part, and whether that is another way than planned.
pub fn treatment(planned: &Treatment, modality: u8, reach: Reach) -> (Treatment, bool) {
    let meant = meant(planned, modality);
    let lists = Treatment {
        keep: meant.keep,
        frames: meant.frames,
        ..Treatment::WHOLE
    };
    match reach {
        Reach::Ships => (encoded(meant, modality), false),
        Reach::Lists => (lists, lists != meant),
        // Quality and rest have nothing to have an effect on.
        Reach::Probed => (lists, meant.scale != 1.0),
        Reach::Here => {
            let scale = meant.scale;
            (Treatment { scale, ..lists }, false)
        }
    }
}

/// Whether a part gets to another node otherwise than as it came with a list of its tokens.
pub fn is_made(how: &Treatment) -> bool {
    *how != Treatment {
        keep: how.keep,
        ..Treatment::WHOLE
    } || how.keep <= 0.0
}

/// Whether a shipment of a part is made, to be sent instead of it.
pub fn is_shipped(how: &Treatment) -> bool {
    is_made(how) && how.keep > 0.0
}

/// A treatment without what has no meaning for the part.
fn meant(planned: &Treatment, modality: u8) -> Treatment {
    let mut meant = *planned;
    match modality {
        modality::TEXT => return Treatment::WHOLE,
        modality::IMAGE => meant.frames = 1.0,
        modality::AUDIO => {
            meant.scale = 1.0;
            meant.quality = 0;
        }
        _ => {}
    }
    if meant.keep <= 0.0 {
        return DROPPED;
    }
    if meant.keep >= 1.0 {
        meant.rest = Rest::Send;
    }
    meant
}

/// With the quality of what is made anew for another reason than its quality.
fn encoded(mut meant: Treatment, modality: u8) -> Treatment {
    let pictures = matches!(modality, modality::IMAGE | modality::VIDEO);
    if pictures && meant.quality == 0 && is_shipped(&meant) {
        meant.quality = BEST_QUALITY;
    }
    meant
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Treatment = Treatment {
        keep: 0.5,
        scale: 0.5,
        frames: 0.5,
        quality: 80,
        rest: Rest::Crop,
    };
    const LISTS: Treatment = Treatment {
        keep: 0.5,
        frames: 0.5,
        ..Treatment::WHOLE
    };

    #[test]
    fn what_can_be_done_depends_on_where_the_model_is() {
        let clip = |planned: &Treatment, reach| treatment(planned, modality::VIDEO, reach);
        assert_eq!(clip(&ALL, Reach::Ships), (ALL, false));
        let scaled = Treatment {
            scale: 0.5,
            ..LISTS
        };
        assert_eq!(clip(&ALL, Reach::Here), (scaled, false));
        // Said where it is not done: but for what has no effect where nothing is sent.
        assert_eq!(clip(&ALL, Reach::Probed), (LISTS, true));
        assert_eq!(clip(&ALL, Reach::Lists), (LISTS, true));
        let unscaled = Treatment { scale: 1.0, ..ALL };
        assert_eq!(clip(&unscaled, Reach::Probed), (LISTS, false));
        assert_eq!(clip(&unscaled, Reach::Lists), (LISTS, true));
        for reach in [Reach::Ships, Reach::Here, Reach::Probed, Reach::Lists] {
            let keeping = Treatment {
                keep: 0.5,
                ..Treatment::WHOLE
            };
            assert_eq!(clip(&keeping, reach), (keeping, false));
            let whole = Treatment::WHOLE;
            assert_eq!(clip(&whole, reach), (whole, false));
        }
    }

    #[test]
    fn each_of_the_fields_alone_is_something_else_than_as_it_came() {
        let whole = Treatment::WHOLE;
        for (how, made) in [
            (whole, false),
            (Treatment { keep: 0.5, ..whole }, false),
            (Treatment { keep: 0.0, ..whole }, true),
            (
                Treatment {
                    scale: 0.5,
                    ..whole
                },
                true,
            ),
            (
                Treatment {
                    frames: 0.5,
                    ..whole
                },
                true,
            ),
            (
                Treatment {
                    quality: 60,
                    ..whole
                },
                true,
            ),
            (
                Treatment {
                    rest: Rest::Flatten,
                    ..whole
                },
                true,
            ),
        ] {
            assert_eq!(is_made(&how), made, "{how:?}");
            assert_eq!(is_shipped(&how), made && how.keep > 0.0, "{how:?}");
        }
    }

    #[test]
    fn what_has_no_meaning_is_no_change() {
        let ran = |planned: &Treatment, modality| treatment(planned, modality, Reach::Ships);
        // The rest of what is whole, frames of a picture, sides and quality of a sound.
        let whole = Treatment {
            rest: Rest::Crop,
            frames: 0.5,
            ..Treatment::WHOLE
        };
        assert_eq!(ran(&whole, modality::IMAGE), (Treatment::WHOLE, false));
        let sound = Treatment {
            scale: 1.0,
            quality: 0,
            ..ALL
        };
        assert_eq!(ran(&ALL, modality::AUDIO), (sound, false));
        assert_eq!(ran(&ALL, modality::TEXT), (Treatment::WHOLE, false));
        // Nothing of it is nothing, however it is made.
        let nothing = Treatment { keep: 0.0, ..ALL };
        assert_eq!(ran(&nothing, modality::VIDEO), (DROPPED, false));
    }

    #[test]
    fn what_has_to_be_made_anew_has_a_quality() {
        let ran = |planned: Treatment, modality| treatment(&planned, modality, Reach::Ships).0;
        let original = Treatment { quality: 0, ..ALL };
        let best = Treatment {
            quality: BEST_QUALITY,
            ..ALL
        };
        assert_eq!(ran(original, modality::VIDEO), best);
        assert_eq!(ran(original, modality::AUDIO).quality, 0);
        let keeping = Treatment {
            keep: 0.5,
            ..Treatment::WHOLE
        };
        assert_eq!(ran(keeping, modality::IMAGE), keeping);
    }
}
