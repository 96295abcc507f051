use super::*;
use crate::retention::kept;

fn image(mas: f64, unusual: f64, necessity: f64) -> Part {
    Part {
        modality: modality::IMAGE,
        tokens: 600,
        frames: 1,
        width_px: 640,
        height_px: 480,
        bytes: 4e5,
        necessity,
        mas,
        unusual,
        ..Part::default()
    }
}

fn sound(mas: f64) -> Part {
    Part {
        modality: modality::AUDIO,
        frames: 24,
        width_px: 0,
        height_px: 0,
        ..image(mas, 0.0, 0.9)
    }
}

fn probed(part: Part) -> Scene {
    scene()
        .part(part)
        .request(|request| request.flags |= flag::PROBED)
}

#[test]
fn what_is_kept_is_the_formula() {
    close(kept(&image(0.4, 0.0, 0.9), 0.1, 1.0, 0.05), 0.1 + 0.6 * 0.9);
    close(kept(&image(0.4, 0.5, 0.9), 0.1, 1.0, 0.05), 0.82);
    close(kept(&image(1.0, 0.0, 0.9), 0.1, 1.0, 0.05), 0.1);
    close(kept(&image(1.0, 1.0, 0.9), 0.1, 1.0, 0.05), 1.0);
    // A twentieth is not left out.
    close(kept(&image(0.4, 0.8, 0.9), 0.1, 1.0, 0.05), 0.928);
    close(kept(&image(0.4, 0.9, 0.9), 0.1, 1.0, 0.05), 1.0);
    // No more than the maximum, however dense, but for what is unusual; it outdoes the minimum.
    close(kept(&image(0.4, 0.0, 0.9), 0.1, 0.3, 0.05), 0.3);
    close(kept(&image(0.9, 0.0, 0.9), 0.1, 0.3, 0.05), 0.19);
    close(kept(&image(0.4, 0.5, 0.9), 0.1, 0.3, 0.05), 0.65);
    close(kept(&image(1.0, 0.0, 0.9), 0.5, 0.3, 0.05), 0.3);
    // Dropped by necessity alone, and not where nothing like it was seen.
    close(kept(&image(0.0, 0.0, 0.04), 0.1, 1.0, 0.05), 0.0);
    close(kept(&image(0.0, 0.3, 0.04), 0.1, 1.0, 0.05), 1.0);
    close(kept(&image(0.0, 0.0, 0.0), 0.1, 1.0, 0.0), 1.0);
    // Nobody has looked, or what they say is no score.
    for part in [
        image(-1.0, -1.0, -1.0),
        image(f64::NAN, 0.0, 0.5),
        image(0.5, 1.5, 0.5),
        image(0.5, 0.0, f64::INFINITY),
    ] {
        close(kept(&part, 0.1, 1.0, 0.05), 1.0);
    }
}

#[test]
fn the_draft_is_pruned_hard_and_the_target_only_where_it_pays() {
    let scene = probed(image(0.6, 0.0, 0.9));
    let plan = planned(&scene.clone().peer(verifier));
    assert_eq!(plan.route, Route::Speculate);
    let [media, text] = &plan.parts[..] else {
        panic!("{:?}", plan.parts)
    };
    close(media.draft.keep, 0.46);
    assert_eq!(media.target, Treatment::keeping(media.target.keep));
    close(media.target.keep, 0.7);
    assert_eq!(*text, PartPlan::WHOLE);
    // The cloud reads 9 ms less of some 500. Leaving tokens out is worth that, unless somebody wants more for it.
    let quick = scene.clone().peer(|_| {});
    close(planned(&quick).parts[0].target.keep, 0.7);
    let params = with(&[("prune-worth", 0.05)]);
    assert!(planned(&quick.clone().params(&params)).parts.is_empty());
    let plan = planned(&quick.params(&with(&[("target-keep-max", 0.25)])));
    close(plan.parts[0].target.keep, 0.25);
    let plan = planned(&scene.peer(slow));
    let target = plan.parts[0].target;
    close(target.keep, 0.7);
    let cut = Treatment {
        keep: target.keep,
        quality: 80,
        rest: Rest::Flatten,
        ..Treatment::WHOLE
    };
    assert_eq!(target, cut);
    // Should the peer be lost, the draft model answers from as much.
    assert_eq!(plan.parts[0].draft, Treatment::keeping(target.keep));
    close(term(&plan, "level"), 3.0);
    close(term(&plan, "bytes"), 4e5 * 0.8 * 0.7);
    close(term(&plan, "kept"), 0.7);
}

#[test]
fn the_mildest_means_come_first() {
    // Without scores nothing is pruned.
    let unscored = scene().image(30, 4e5).peer(slow);
    let plan = planned(&unscored);
    let coarse = Treatment {
        quality: 80,
        ..Treatment::WHOLE
    };
    assert_eq!(plan.parts[0].target, coarse);
    // What needs all of its tokens is not pruned either.
    let dense = probed(image(0.0, 0.0, 0.9)).peer(slow);
    assert_eq!(planned(&dense).parts[0].target, coarse);
    // Reading can be worth it where uploading is not.
    let reads = probed(image(0.9, 0.0, 0.9)).peer(|peer| {
        peer.uplink_bps = 1e9;
        peer.uplink_sd_bps = 0.0;
        peer.prefill_tok_per_s = 1000.0;
    });
    let plan = planned(&reads);
    let target = plan.parts[0].target;
    close(target.keep, 0.55);
    assert_eq!(target, Treatment::keeping(target.keep));
    // Scaling is off unless somebody allows it.
    let scaled = probed(image(0.6, 0.0, 0.9))
        .peer(slow)
        .params(&with(&[("target-scale-min", 0.5)]));
    close(planned(&scaled).parts[0].target.scale, 0.5);
}

#[test]
fn what_the_peer_has_is_not_made_anew() {
    let cached = probed(image(0.6, 0.0, 0.9)).peer(|peer| {
        slow(peer);
        peer.cached_bytes = 4e5;
    });
    let plan = planned(&cached);
    let target = plan.parts[0].target;
    assert_eq!(target, Treatment::keeping(target.keep));
    close(term(&plan, "upload"), 0.0);
}

#[test]
fn a_sound_has_no_pixels() {
    let plan = planned(&probed(sound(0.6)).peer(slow));
    let target = plan.parts[0].target;
    close(target.keep, 0.7);
    assert_eq!((target.scale, target.rest), (1.0, Rest::Flatten));
    // Whole, it is sent as it came.
    let plan = planned(&probed(sound(0.0)).peer(slow));
    assert!(plan.parts.is_empty());
}

#[test]
fn what_is_dropped_is_neither_sent_nor_read() {
    let params = with(&[("target-drop", 0.05)]);
    let useless = probed(image(0.6, 0.0, 0.01)).peer(slow).params(&params);
    let plan = planned(&useless);
    close(plan.parts[0].target.keep, 0.0);
    close(term(&plan, "bytes"), 0.0);
    // By default the target gets some of all.
    let plan = planned(&useless.params(&PARAMS));
    close(plan.parts[0].target.keep, 0.7);
}

#[test]
fn an_edge_answer_is_pruned_as_gently_as_the_targets() {
    let plan = planned(&probed(image(0.6, 0.0, 0.9)));
    assert_eq!(plan.route, Route::Edge);
    close(plan.parts[0].draft.keep, 0.7);
}

#[test]
fn bytes_that_were_sent_correct_what_is_thought() {
    let scene = probed(image(0.6, 0.0, 0.9)).peer(slow);
    let shape = shape::Shape::of(&scene.input());
    // What was made anew was twice as large as the formula has it: nothing is gained by that any more. Tokens are left out still.
    let larger = learned(scene, &[(cells::bytes(shape), 2.0, 9.0)]);
    let target = planned(&larger).parts[0].target;
    assert_eq!(target, Treatment::keeping(target.keep));
    // With 1.2 times it is; what is held against what was sent is the formula alone.
    let shape = cells::bytes(shape);
    let plan = planned(&learned(larger, &[(shape, 1.2, 9.0)]));
    close(term(&plan, "bytes"), 1.2 * 4e5 * 0.8 * 0.7);
    close(f64::from(note(&plan).bytes), 4e5 * 0.8 * 0.7);
}
