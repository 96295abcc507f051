//! What `cargo xtask prove adaptive` measures of a question is what it says, on a few questions of the demo pair.
#![allow(clippy::unwrap_used)] // a test's helpers may panic

use std::path::PathBuf;

use msao_bench::adaptive::lab::{Lab, Side};
use msao_bench::adaptive::measure::only;
use msao_bench::adaptive::questions::{Asked, World};
use msao_bench::vqa;
use msao_core::chat::Modality;
use msao_processor::Processor;

fn models() -> PathBuf {
    msao_golden::root().join("../../models")
}

/// Questions that need their picture, beside the sound of another scene.
fn beside_a_sound(count: usize) -> Vec<Asked> {
    let all = vqa::read(&models().join("heldout")).unwrap();
    let asked = World::new(&all).seen(2_000, 7);
    let wanted = |it: &Asked| {
        it.mix == "image+audio" && it.id.contains('+') && it.question.needs == [Modality::Image]
    };
    let wanted: Vec<Asked> = asked.into_iter().filter(wanted).take(count).collect();
    assert_eq!(wanted.len(), count);
    wanted
}

#[test]
fn dropping_what_is_asked_about_does_harm_and_dropping_what_is_not_does_little() {
    let processor = Processor::load(&models().join("demo-target")).unwrap();
    let mut lab = Lab::load(&models(), &processor).unwrap();
    let (mut picture, mut sound, mut right, mut blind) = (0.0, 0.0, 0, 0);
    for asked in beside_a_sound(12) {
        let prompt = lab.prompt(&asked.question).unwrap();
        let answer = lab.reference(&asked.question.answer).unwrap();
        let mut told = |keep| lab.log_probability(&prompt, keep, &answer).unwrap();
        let whole = told(None);
        assert!(whole <= 0.0 && whole.is_finite());
        picture += whole - told(Some(only(2, 0, Vec::new())));
        sound += (whole - told(Some(only(2, 1, Vec::new())))).abs();
        let text = &asked.question.answer;
        let mut is_right = |keep| lab.is_right(Side::Target, &prompt, keep, text).unwrap();
        right += u32::from(is_right(None));
        blind += u32::from(is_right(Some(only(2, 0, Vec::new()))));
    }
    assert!(picture > 12.0 * 0.3, "{picture} nats a token in all");
    assert!(sound < picture / 4.0, "{sound} against {picture}");
    assert!(right >= blind + 4, "{right} against {blind} of 12");
}

#[test]
fn a_look_tells_of_every_medium_and_the_same_each_time() {
    let processor = Processor::load(&models().join("demo-target")).unwrap();
    let mut lab = Lab::load(&models(), &processor).unwrap();
    let asked = beside_a_sound(1).remove(0);
    let prompt = lab.prompt(&asked.question).unwrap();
    let look = lab.look(&prompt, asked.seed()).unwrap();
    let kinds: Vec<Modality> = look.items.iter().map(|item| item.modality).collect();
    assert_eq!(kinds, [Modality::Image, Modality::Audio]);
    let report = msao_node::request::report(&look);
    assert!(report.items.iter().all(|item| item.relevance > 0.0));
    let again = lab.look(&prompt, asked.seed()).unwrap();
    assert_eq!(msao_node::request::report(&again), report);
}
