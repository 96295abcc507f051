//! What is asked: questions of the demo world with the media that they are about, and with media that they are not about.
//!
//! A scene's own media are mostly needed. So that there is something that is not, questions get media of other scenes
//! beside theirs, or questions that are about no medium get one. That is done here alone: no model was trained on such
//! pairs, and no plug-in knows of them. Which mixes of modalities the models were trained on, the recipe says
//! (`models/recipe`); the others are *unseen*, to the models and to whatever was calibrated.

use std::collections::BTreeSet;
use std::path::PathBuf;

use msao_core::chat::Modality;

use crate::vqa::Question;

/// A question as it is asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Names it, with what stands beside it.
    pub id: String,
    /// The question, with all its media in the prompt's order.
    pub question: Question,
    /// The modalities of its media, in order: `image+image+video`.
    pub mix: String,
}

/// Numbers that are always the same for a seed (SplitMix64; Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Draw(pub u64);

impl Draw {
    /// The next one, of all 64 bits.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// One of the whole numbers below `count`, which is at least 1.
    pub fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.number()) * count as u128) >> 64) as usize
    }

    /// Puts a list in another order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for end in (1..list.len()).rev() {
            list.swap(end, self.below(end + 1));
        }
    }
}

/// The modalities of media, in order.
fn mix(media: &[(Modality, PathBuf)]) -> String {
    let names: Vec<&str> = media.iter().map(|(modality, _)| modality.name()).collect();
    names.join("+")
}

impl Asked {
    /// With its own media alone.
    pub fn own(question: &Question) -> Asked {
        Asked {
            id: question.id.to_string(),
            mix: mix(&question.media),
            question: question.clone(),
        }
    }

    /// With other media beside its own: images before clips before sounds, and of two images either first.
    fn beside(question: &Question, others: &[(Modality, PathBuf)], draw: &mut Draw) -> Asked {
        let mut asked = Asked::own(question);
        for (modality, file) in others {
            let stem = file.file_stem().unwrap_or_default().to_string_lossy();
            asked.id += &format!("+{stem}");
            let first = draw.below(2) == 0;
            let place = if first { 0 } else { asked.question.media.len() };
            asked
                .question
                .media
                .insert(place, (*modality, file.clone()));
        }
        // Stable: what was put first stays first of its kind.
        asked.question.media.sort_by_key(|(modality, _)| *modality);
        asked.mix = mix(&asked.question.media);
        asked
    }

    /// A seed of its own, the same in every run.
    pub fn seed(&self) -> u64 {
        let bytes = self.id.bytes();
        // FNV-1a (G. Fowler, L. C. Noll, K.-P. Vo).
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }
}

/// A folder's questions, and the media that there are to stand beside them.
#[derive(Debug)]
pub struct World<'a> {
    questions: Vec<&'a Question>,
    media: Vec<(Modality, PathBuf)>,
    seen: BTreeSet<String>,
}

/// What a question stands beside: modalities of its own media, of what is put there.
type Pairing = (&'static [Modality], &'static [Modality]);

const IMAGE: Modality = Modality::Image;
const VIDEO: Modality = Modality::Video;
const AUDIO: Modality = Modality::Audio;

/// Pairs whose mix the models were trained on.
const SEEN: [Pairing; 6] = [
    (&[IMAGE], &[AUDIO]),
    (&[AUDIO], &[IMAGE]),
    (&[], &[IMAGE]),
    (&[], &[VIDEO]),
    (&[], &[AUDIO]),
    (&[], &[IMAGE, AUDIO]),
];

/// Pairs whose mix they were not trained on.
const UNSEEN: [Pairing; 7] = [
    (&[IMAGE], &[IMAGE]),
    (&[IMAGE], &[VIDEO]),
    (&[VIDEO], &[IMAGE]),
    (&[VIDEO], &[AUDIO]),
    (&[AUDIO], &[VIDEO]),
    (&[IMAGE], &[IMAGE, VIDEO]),
    (&[IMAGE, AUDIO], &[VIDEO]),
];

impl<'a> World<'a> {
    /// Of the short questions of a folder: what a description loses says little of one medium.
    pub fn new(all: &'a [Question]) -> World<'a> {
        let questions: Vec<&Question> = all.iter().filter(|question| !question.long).collect();
        let media: BTreeSet<(Modality, PathBuf)> = (questions.iter())
            .flat_map(|question| question.media.iter().cloned())
            .collect();
        let seen = questions.iter().filter(|question| question.seen_mix);
        World {
            seen: seen.map(|question| mix(&question.media)).collect(),
            media: media.into_iter().collect(),
            questions,
        }
    }

    /// `count` questions over mixes that the models were trained on, fewer where there are no more: the folder's own
    /// by mix, and pairs, of each as many.
    pub fn seen(&self, count: usize, seed: u64) -> Vec<Asked> {
        self.choose(true, &SEEN, count, seed)
    }

    /// The same over mixes that they were not trained on.
    pub fn unseen(&self, count: usize, seed: u64) -> Vec<Asked> {
        self.choose(false, &UNSEEN, count, seed)
    }

    fn choose(&self, seen: bool, pairings: &[Pairing], count: usize, seed: u64) -> Vec<Asked> {
        let mut draw = Draw(seed);
        let mut kinds: Vec<Vec<Asked>> = Vec::new();
        let own = (self.questions.iter())
            .filter(|question| question.seen_mix == seen && !question.media.is_empty());
        for question in own {
            let asked = Asked::own(question);
            let same = |kind: &&mut Vec<Asked>| kind.iter().any(|it| it.mix == asked.mix);
            match kinds.iter_mut().find(same) {
                Some(kind) => kind.push(asked),
                None => kinds.push(vec![asked]),
            }
        }
        for pairing in pairings {
            let pairs = self.pairs(*pairing, &mut draw);
            kinds.push(
                pairs
                    .into_iter()
                    .filter(|pair| self.seen.contains(&pair.mix) == seen)
                    .collect(),
            );
        }
        for kind in &mut kinds {
            draw.shuffle(kind);
        }
        // One of each kind in turn, so that few questions are of all kinds too.
        let mut chosen = Vec::new();
        while chosen.len() < count && kinds.iter().any(|kind| !kind.is_empty()) {
            chosen.extend(kinds.iter_mut().filter_map(Vec::pop));
        }
        chosen.truncate(count);
        chosen
    }

    /// Every question whose own media are of these kinds, and which needs nothing else, with media of other scenes.
    fn pairs(&self, (own, others): Pairing, draw: &mut Draw) -> Vec<Asked> {
        let is_of = |question: &&&Question| {
            let media = question.media.iter().map(|(modality, _)| modality);
            media.eq(own.iter()) && question.seen_mix
        };
        let of = self.questions.iter().filter(is_of);
        let pairs = of.filter_map(|question| {
            let mut beside: Vec<(Modality, PathBuf)> = Vec::new();
            for modality in others {
                let free: Vec<&(Modality, PathBuf)> = (self.media.iter())
                    .filter(|medium| {
                        medium.0 == *modality
                            && !question.media.contains(medium)
                            && !beside.contains(medium)
                    })
                    .collect();
                let at = draw.below(free.len().max(1));
                beside.push((*free.get(at)?).clone());
            }
            Some(Asked::beside(question, &beside, draw))
        });
        pairs.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(id: u64, media: &[(Modality, &str)], seen_mix: bool) -> Question {
        Question {
            id,
            text: "What?".into(),
            media: media
                .iter()
                .map(|(modality, file)| (*modality, PathBuf::from(file)))
                .collect(),
            needs: Vec::new(),
            kind: String::new(),
            long: false,
            seen_mix,
            answer: "this".into(),
        }
    }

    fn all() -> Vec<Question> {
        let mut all = Vec::new();
        for number in 0..20 {
            let file = |kind: &str| format!("{kind}{number}");
            let (picture, clip, sound) = (file("p"), file("c"), file("s"));
            let id = number * 10;
            all.push(question(id, &[(IMAGE, &picture)], true));
            all.push(question(
                id + 1,
                &[(IMAGE, &picture), (AUDIO, &sound)],
                true,
            ));
            all.push(question(id + 2, &[(AUDIO, &sound)], true));
            all.push(question(id + 3, &[(VIDEO, &clip)], true));
            all.push(question(id + 4, &[], true));
            all.push(question(
                id + 5,
                &[(IMAGE, &picture), (VIDEO, &clip)],
                false,
            ));
        }
        all
    }

    #[test]
    fn what_is_asked_is_of_every_kind_and_the_same_for_a_seed() {
        let all = all();
        let world = World::new(&all);
        let ids = |asked: &[Asked]| asked.iter().map(|it| it.id.clone()).collect::<Vec<_>>();
        let seen = world.seen(50, 1);
        assert_eq!(seen.len(), 50);
        assert_eq!(ids(&seen), ids(&world.seen(50, 1)));
        assert_ne!(ids(&seen), ids(&world.seen(50, 2)));
        let mixes: BTreeSet<&str> = seen.iter().map(|it| it.mix.as_str()).collect();
        assert_eq!(
            mixes.into_iter().collect::<Vec<_>>(),
            ["audio", "image", "image+audio", "video"]
        );
        let unseen = world.unseen(1000, 1);
        let mixes: BTreeSet<&str> = unseen.iter().map(|it| it.mix.as_str()).collect();
        assert_eq!(
            mixes.into_iter().collect::<Vec<_>>(),
            [
                "image+image",
                "image+image+video",
                "image+video",
                "image+video+audio",
                "video+audio"
            ]
        );
        // 20 of the folder's own, and 20 of each of seven pairings.
        assert_eq!(unseen.len(), 160);
        let all: BTreeSet<String> = ids(&unseen).into_iter().collect();
        assert_eq!(all.len(), unseen.len(), "none is there twice");
    }

    #[test]
    fn what_stands_beside_a_question_is_of_another_scene_and_either_may_be_first() {
        let all = all();
        let unseen = World::new(&all).unseen(1000, 3);
        let two: Vec<&Asked> = unseen.iter().filter(|it| it.mix == "image+image").collect();
        let own_first = two.iter().filter(|it| {
            let scene = it.question.id / 10;
            let files: Vec<&PathBuf> = it.question.media.iter().map(|(_, file)| file).collect();
            assert_ne!(files[0], files[1]);
            let own = PathBuf::from(format!("p{scene}"));
            assert!(files.contains(&&own));
            *files[0] == own
        });
        let own_first = own_first.count();
        assert!((3..=17).contains(&own_first), "{own_first} of 20");
        assert!(unseen.iter().all(|it| {
            let media = &it.question.media;
            media.is_sorted_by_key(|(modality, _)| *modality)
        }));
    }

    #[test]
    fn seeds_follow_the_name() {
        let all = all();
        assert_eq!(Asked::own(&all[0]).seed(), Asked::own(&all[0]).seed());
        assert_ne!(Asked::own(&all[0]).seed(), Asked::own(&all[1]).seed());
    }

    #[test]
    fn draws_are_even() {
        let mut draw = Draw(5);
        let mut counts = [0; 3];
        (0..3000).for_each(|_| counts[draw.below(3)] += 1);
        // Six standard deviations of a binomial of 3,000 draws at 1/3 are 155.
        assert!(
            counts.iter().all(|count: &i32| count.abs_diff(1000) < 155),
            "{counts:?}"
        );
        let mut list: Vec<u32> = (0..50).collect();
        draw.shuffle(&mut list);
        assert!(!list.is_sorted());
        list.sort_unstable();
        assert_eq!(list, (0..50).collect::<Vec<_>>());
    }
}
