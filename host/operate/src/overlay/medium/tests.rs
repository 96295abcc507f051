use std::path::PathBuf;

use msao_core::offload::kept::TokenSet;
use serde_json::json;

use super::*;

const PICTURE: &[u8] = include_bytes!("../../../tests/data/overlay.png");

fn reading(kept: &[u32], tokens: u32) -> Reading {
    Reading {
        extent: None,
        kept: Some(TokenSet::new(kept, tokens)),
    }
}

/// A picture of 2 x 3 tokens, and a sound of four.
fn record() -> Value {
    let kept = |digest, (frames, rows, columns), target| MediumKept {
        digest,
        extent: Extent {
            frames,
            rows,
            columns,
        },
        sampled: Vec::new(),
        draft: None,
        target: Some(target),
    };
    json!({
        "id": "req_1",
        "parts": [{ "modality": 1 }, { "modality": 3 }, { "modality": 0 }],
        "media": [
            kept(Digest::of(PICTURE), (1, 2, 3), reading(&[0, 4], 6)),
            kept(Digest::of(b"sound"), (4, 1, 1), reading(&[3], 4)),
        ],
    })
}

#[test]
fn a_file_is_the_medium_to_the_byte_or_is_told_what_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let right = file("right.png", PICTURE);
    let mut media = media_of(&record()).unwrap();
    look(&mut media, &[&right]).unwrap();
    assert!(matches!(&media[0].seen, Seen::Image(image) if image.width > 100));
    assert!(matches!(&media[1].seen, Seen::Nothing));

    let mut other = PICTURE.to_vec();
    *other.last_mut().unwrap() ^= 1;
    let other = file("other.png", &other);
    let told = |files: &[&PathBuf]| {
        let mut media = media_of(&record()).unwrap();
        let error = look(&mut media, files).unwrap_err();
        assert!(matches!(media[0].seen, Seen::Nothing) || files[0] == &right);
        format!("{error:#}")
    };
    let error = told(&[&other]);
    assert!(error.contains("other.png is not medium 1"), "{error}");
    let wanted = format!("and {} is wanted", Digest::of(PICTURE));
    assert!(error.contains(&wanted), "{error}");
    // In the wrong order.
    let error = told(&[&right, &right]);
    assert!(
        error.contains("is not medium 2") && error.contains("It is medium 1"),
        "{error}"
    );
    let error = told(&[&right, &right, &right]);
    assert!(
        error.contains("3 files") && error.contains("2 media"),
        "{error}"
    );
    let error = told(&[&folder.path().join("nowhere.png")]);
    assert!(error.contains("nowhere.png"), "{error}");
    // The right bytes, which are no sound.
    let sound = file("sound.wav", b"sound");
    let error = told(&[&right, &sound]);
    assert!(
        error.contains("cannot show") && error.contains("sound.wav"),
        "{error}"
    );
}

#[test]
fn a_record_that_does_not_say_enough_is_told() {
    let told = |change: fn(&mut Value)| {
        let mut record = record();
        change(&mut record);
        match media_of(&record) {
            Ok(_) => panic!("{record}"),
            Err(error) => format!("{error:#}"),
        }
    };
    type Spoil = fn(&mut Value);
    let cases: [(Spoil, &str); 8] = [
        (
            |it| drop(it.as_object_mut().unwrap().remove("media")),
            "older than this program",
        ),
        (|it| it["parts"] = json!([{ "modality": 0 }]), "no media"),
        (|it| *it = json!(null), "no media"),
        (
            |it| it["parts"] = json!([{ "modality": 1 }]),
            "tells of 2 media, and the request had 1",
        ),
        (
            |it| it["media"][0]["extent"]["rows"] = json!(0),
            "medium 1 of the record: has 0 tokens",
        ),
        (
            |it| it["media"][1]["extent"]["frames"] = json!(u32::MAX),
            "medium 2 of the record: has 4294967295",
        ),
        (
            |it| it["media"][0]["extent"]["rows"] = json!(3),
            "has 9 tokens, and those read are told of 6",
        ),
        (|it| it["media"][0]["later"] = json!(1), "not understood"),
    ];
    for (change, part) in cases {
        let error = told(change);
        assert!(error.contains(part), "{error}\nshould have {part}");
    }
    assert!(media_of(&record()).is_ok());
}

#[test]
fn frames_of_a_clip_are_those_that_the_model_saw() {
    let clip = include_bytes!("../../../../../models/demo-media/clip.mp4");
    let limits = Limits::default();
    let info = msao_media::probe_video(clip, &limits).unwrap();
    let last = info.frames as u32 - 1;
    // Four frames of the clip are two of the model's.
    let kept = MediumKept {
        digest: Digest::of(clip),
        extent: Extent {
            frames: 2,
            rows: 1,
            columns: 2,
        },
        sampled: vec![0, 1, last - 1, last],
        draft: Some(reading(&[2], 4)),
        target: None,
    };
    let seen = frames(&kept, clip, &limits).unwrap();
    let choice = msao_media::decode_video(clip, &limits, &mut |_| vec![last as usize - 1]).unwrap();
    assert_eq!(seen.keys().copied().collect::<Vec<u32>>(), [1]);
    assert_eq!(seen[&1], choice.frames[0]);
    // Those that either side kept.
    let both = MediumKept {
        target: Some(Reading::default()),
        ..kept.clone()
    };
    assert_eq!(frames(&both, clip, &limits).unwrap().len(), 2);
    let none = MediumKept {
        draft: Some(reading(&[], 4)),
        ..kept.clone()
    };
    assert!(frames(&none, clip, &limits).unwrap().is_empty());
    let unknown = MediumKept {
        sampled: Vec::new(),
        ..kept
    };
    let error = frames(&unknown, clip, &limits).unwrap_err().to_string();
    assert!(error.contains("which of its frames"), "{error}");
}
