//! What is wrong with files or requests is said, by file, key and limit; nothing panics.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test, its helpers included"
)]

use std::path::Path;

use msao_core::chat::{Content, Message, Part};
use msao_golden::{picture, root};
use msao_media::{AudioClip, RgbImage, VideoClip, VideoInfo};
use msao_processor::{Media, Options, Processor};
use proptest::prelude::*;
use tempfile::TempDir;

/// Every file of a golden model directory but its weights.
fn copy(model: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(root().join("models").join(model)).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_string_lossy().contains("safetensors") {
            std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    dir
}

fn load_error(dir: &Path) -> String {
    Processor::load(dir).unwrap_err().to_string()
}

/// Loads the model with one file replaced.
fn with_file(model: &str, name: &str, content: &str) -> Result<Processor, String> {
    let dir = copy(model);
    std::fs::write(dir.path().join(name), content).unwrap();
    Processor::load(dir.path()).map_err(|error| error.to_string())
}

fn user(parts: Vec<Part>) -> Vec<Message> {
    vec![Message {
        role: "user".to_owned(),
        content: Content::Parts(parts),
    }]
}

fn image_part() -> Part {
    Part::Image {
        image: "a.png".to_owned(),
    }
}

fn text_part(text: &str) -> Part {
    Part::Text {
        text: text.to_owned(),
    }
}

fn image() -> Media {
    Media::Image(picture("media/a.png"))
}

fn vl() -> Processor {
    Processor::load(&root().join("models/qwen25-vl-windows")).unwrap()
}

fn omni() -> Processor {
    Processor::load(&root().join("models/omni-thinker")).unwrap()
}

fn refuses(processor: &Processor, parts: Vec<Part>, media: &[Media], wanted: &str) {
    let error = processor
        .prepare(&user(parts), media)
        .unwrap_err()
        .to_string();
    assert!(error.contains(wanted), "wanted `{wanted}`, got `{error}`");
}

#[test]
fn a_directory_that_lacks_a_file_names_it() {
    let error = load_error(Path::new("/nowhere"));
    assert!(error.contains("/nowhere/config.json: not found"), "{error}");
    for name in ["config.json", "tokenizer.json", "processor_config.json"] {
        let dir = copy("qwen25-vl-windows");
        std::fs::remove_file(dir.path().join(name)).unwrap();
        let error = load_error(dir.path());
        assert!(
            error.contains(name) && error.contains("not found"),
            "{error}"
        );
    }
    let dir = copy("qwen25-vl-windows");
    std::fs::remove_file(dir.path().join("chat_template.jinja")).unwrap();
    let processor = Processor::load(dir.path()).unwrap();
    let error = processor.render(&[], true).unwrap_err().to_string();
    assert!(error.contains("chat_template.jinja: not found"), "{error}");
}

#[test]
fn bad_settings_name_the_file_and_the_key() {
    let cases = [
        (
            "config.json",
            r#"{"model_type": "llama"}"#,
            "config.json: model_type: `llama` is not a known family; known are qwen2_vl, qwen2_5_vl, qwen2_5_omni, qwen2_5_omni_thinker",
        ),
        (
            "config.json",
            r#"{"model_type": 3}"#,
            "config.json: model_type: must be a string",
        ),
        ("config.json", "{}", "config.json: model_type: is missing"),
        (
            "config.json",
            "[1]",
            "config.json: .: must be a JSON object",
        ),
        (
            "config.json",
            r#"{"model_type": "qwen2_5_vl", "image_token_id": 5}"#,
            "config.json: image_token_id: is 5, and the tokenizer gives `<|image_pad|>` the id 308",
        ),
        ("tokenizer.json", "{}", "tokenizer.json: "),
        (
            "tokenizer_config.json",
            r#"{"eos_token": 5}"#,
            "tokenizer_config.json: eos_token: must be a token",
        ),
        (
            "generation_config.json",
            r#"{"top_p": "all"}"#,
            "generation_config.json: top_p: invalid type",
        ),
        (
            "generation_config.json",
            r#"{"eos_token_id": -1}"#,
            "generation_config.json: eos_token_id: ",
        ),
        (
            "processor_config.json",
            r#"{"image_processor": {"patch_size": -1}}"#,
            "processor_config.json: image_processor.patch_size: invalid value",
        ),
        (
            "processor_config.json",
            r#"{"image_processor": {}, "video_processor": {"size": {"shortest_edge": []}}}"#,
            "processor_config.json: video_processor.size.shortest_edge: invalid type",
        ),
        (
            "chat_template.jinja",
            "{% for %}",
            "chat_template.jinja: chat template: syntax error",
        ),
    ];
    for (name, content, wanted) in cases {
        let error = with_file("qwen25-vl-windows", name, content).unwrap_err();
        assert!(error.contains(wanted), "wanted `{wanted}`, got `{error}`");
    }
}

#[test]
fn media_must_be_those_of_the_messages() {
    refuses(
        &vl(),
        vec![image_part()],
        &[],
        "name 1 media parts and 0 media were given",
    );
    refuses(
        &vl(),
        vec![text_part("a")],
        &[image()],
        "name 0 media parts and 1 media were given",
    );
    let sound = Media::Audio(AudioClip {
        samples: vec![0.0; 1600],
    });
    refuses(
        &vl(),
        vec![image_part()],
        std::slice::from_ref(&sound),
        "media item 0 is Audio and the messages have Image",
    );
    let part = Part::Audio {
        audio: "a.wav".to_owned(),
    };
    refuses(
        &vl(),
        vec![part],
        &[sound],
        "the family Qwen2.5-VL does not take Audio input",
    );
}

#[test]
fn placeholders_cannot_be_smuggled() {
    refuses(
        &vl(),
        vec![text_part("<|image_pad|>")],
        &[],
        "has 1 times `<|image_pad|>` and 0 Image media",
    );
    refuses(
        &vl(),
        vec![image_part(), text_part("<|image_pad|>")],
        &[image()],
        "has 2 times `<|image_pad|>` and 1 Image",
    );
    refuses(
        &omni(),
        vec![text_part("<|AUDIO|>")],
        &[],
        "has 1 times `<|AUDIO|>`",
    );
}

#[test]
fn limits_are_named() {
    let limited = |options| vl().with_options(options);
    let few = limited(Options {
        max_tokens: Some(30),
        ..Options::default()
    });
    refuses(
        &few,
        vec![image_part()],
        &[image()],
        "and the model's context holds 30 (the option max_tokens)",
    );
    let little = limited(Options {
        max_media_bytes: 1000,
        ..Options::default()
    });
    refuses(
        &little,
        vec![image_part()],
        &[image()],
        "and 1000 are allowed",
    );
    refuses(
        &vl(),
        vec![text_part(&"word ".repeat(100_000))],
        &[],
        "max_position_embeddings in ",
    );
}

#[test]
fn broken_media_are_refused_one_by_one() {
    let of = |width: u32, height: u32, bytes: usize| RgbImage {
        width,
        height,
        data: vec![0; bytes],
    };
    let pictures = [
        (
            of(2010, 10, 2010 * 30),
            "one side is 201.0 times the other and at most 200",
        ),
        (of(4, 4, 47), "4x4 pixels need 48 bytes and it has 47"),
        (of(0, 4, 0), "0x4 pixels: each side must be from 1"),
        (of(u32::MAX, u32::MAX, 3), "each side must be from 1 to"),
    ];
    for (picture, wanted) in pictures {
        refuses(&vl(), vec![image_part()], &[Media::Image(picture)], wanted);
    }
    let clip = |frames: Vec<RgbImage>| {
        let info = VideoInfo {
            width: 4,
            height: 4,
            frames: frames.len(),
            fps: 1.0,
        };
        Media::Video(VideoClip {
            info,
            indices: (0..frames.len()).collect(),
            frames,
        })
    };
    let part = || Part::Video {
        video: "a.mp4".to_owned(),
    };
    refuses(
        &vl(),
        vec![part()],
        &[clip(vec![])],
        "media item 0 (Video): the clip has no frames",
    );
    let frames = vec![of(4, 4, 48), of(8, 4, 96)];
    refuses(
        &vl(),
        vec![part()],
        &[clip(frames)],
        "several sizes, 4x4 and 8x4",
    );
    let part = || Part::Audio {
        audio: "a.wav".to_owned(),
    };
    let sound = |samples| {
        Media::Audio(AudioClip {
            samples: vec![0.0; samples],
        })
    };
    refuses(
        &omni(),
        vec![part()],
        &[sound(320)],
        "320 samples at 16 kHz are too few for one token; it takes 321",
    );
    assert!(omni().prepare(&user(vec![part()]), &[sound(321)]).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    /// Damage to any file is an error or harmless.
    #[test]
    fn damaged_files_do_not_panic(file in 0usize..6, at in any::<prop::sample::Index>(), with in "[\\PC]{0,3}", cut: bool) {
        let names = ["config.json", "tokenizer.json", "tokenizer_config.json", "processor_config.json", "generation_config.json", "chat_template.jinja"];
        let dir = copy("omni-thinker");
        let path = dir.path().join(names[file]);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes.splice(at..at + 1, with.bytes()); }
        std::fs::write(&path, bytes).unwrap();
        if let Ok(processor) = Processor::load(dir.path()) {
            let media = [image(), Media::Audio(AudioClip { samples: vec![0.1; 2000] })];
            let parts = vec![image_part(), text_part("hé 你"), Part::Audio { audio: "a".to_owned() }];
            if let Ok(prepared) = processor.prepare(&user(parts), &media) {
                processor.tokenizer().decode(&prepared.inputs.input_ids, false);
            }
        }
    }
}
