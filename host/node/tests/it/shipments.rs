//! Media that are made smaller for a target on another node: what crosses, what the target reads, what is told of it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::BodyExt;
use msao_core::chat::Modality;
use msao_core::digest::Digest;
use msao_hostile::build::{Decision, PartPlan, Scores, Treatment};
use msao_media::Limits;
use msao_media::ship::{ImageWay, Region, Rest, ship_image};
use msao_session::frame::{Frame, Made, Medium, RefusedCode, Window, keep_bits};
use serde_json::{Value, json};

use crate::common::{
    Bench, CUTS, about_picture, edge_of, edge_of_both, events, first_about, models, picture, post,
    record_of, recorded, text, through_cuts, tokens, two,
};

const CLOUD: u8 = 1;
const CLOUD_DRAFT: u8 = 2;
const SPECULATE: u8 = 3;
const EDGE: u8 = 0;

/// Numbers of actions.
const DRAFT: u32 = 0;
const SEND: u32 = 1;
const ESCALATE: u32 = 4;

/// Numbers of what becomes of the rest.
const CROP: u8 = 1;
const FLATTEN: u8 = 2;

/// The bit of another retention than planned.
const RETENTION: u64 = 8;

/// A plan by which the target gets the media so, and the draft model as they came.
fn sending(route: u8, media: &[Treatment]) -> Decision {
    let media = media.iter().map(|&target| PartPlan {
        target,
        ..PartPlan::default()
    });
    Decision {
        route,
        peer: u32::from(route != EDGE),
        in_flight_max: 8,
        parts: media.chain([PartPlan::default()]).collect(),
        ..Decision::default()
    }
}

/// A question about the picture whose answer has so many tokens.
fn describing(max_tokens: u32) -> Value {
    let more = json!({
        "temperature": 0.8, "seed": 11, "max_tokens": max_tokens, "logprobs": true, "logit_bias": { "602": -100 },
    });
    about_picture("Describe the scene.", more)
}

/// A question about a medium that stands in the chat so.
fn asking(medium: Value, question: &str) -> Value {
    json!({
        "model": "msao", "temperature": 0, "max_tokens": 8, "logprobs": true, "logit_bias": { "602": -100 },
        "messages": [{ "role": "user", "content": [medium, { "type": "text", "text": question }] }],
    })
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn demo(name: &str) -> Vec<u8> {
    std::fs::read(models().join("demo-media").join(name)).unwrap()
}

fn about_clip(kind: &str, bytes: &[u8]) -> Value {
    let url = format!("data:{kind};base64,{}", base64(bytes));
    asking(
        json!({ "type": "video_url", "video_url": { "url": url } }),
        "What moves?",
    )
}

fn about_sound() -> Value {
    let data = base64(&demo("beeps.wav"));
    let sound = json!({ "type": "input_audio", "input_audio": { "data": data, "format": "wav" } });
    asking(sound, "How many beeps are there?")
}

/// A GIF of square frames of greys below 128 that nobody has compressed: each pixel takes a byte of its own, and the table of
/// codes is cleared before they would need another bit.
fn gif(side: u16, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut gif = b"GIF89a".to_vec();
    gif.extend(side.to_le_bytes());
    gif.extend(side.to_le_bytes());
    // A table of 128 colours for all frames.
    gif.extend([0b1111_0110, 0, 0]);
    gif.extend((0..128_u8).flat_map(|grey| [2 * grey; 3]));
    for frame in frames {
        // Shown for a quarter of a second.
        gif.extend([0x21, 0xf9, 4, 0, 25, 0, 0, 0]);
        gif.extend([0x2c, 0, 0, 0, 0]);
        gif.extend(side.to_le_bytes());
        gif.extend(side.to_le_bytes());
        gif.extend([0, 7]);
        let (clear, end) = (128, 129);
        let mut codes: Vec<u8> = frame
            .chunks(100)
            .flat_map(|pixels| [&[clear][..], pixels].concat())
            .collect();
        codes.push(end);
        for block in codes.chunks(255) {
            gif.push(block.len() as u8);
            gif.extend(block);
        }
        gif.push(0);
    }
    gif.push(0x3b);
    gif
}

/// Three seconds of a bright square on its way across.
fn moving() -> Vec<u8> {
    let side = 112;
    let frames: Vec<Vec<u8>> = (0..12)
        .map(|at| {
            let left = 8 * at;
            let places = (0..side).flat_map(|y| (0..side).map(move |x| (x, y)));
            let grey = |(x, y): (i32, i32)| {
                if (left..left + 20).contains(&x) && (40..60).contains(&y) {
                    120
                } else {
                    30 + (x / 8) as u8
                }
            };
            places.map(grey).collect()
        })
        .collect();
    gif(side as u16, &frames)
}

fn sent(answer: &Value) -> u64 {
    answer["msao"]["bytes_up"].as_u64().unwrap()
}

fn kept(answer: &Value, item: usize) -> f64 {
    let retention = &answer["msao"]["items"][item]["retention"];
    retention["target"].as_f64().unwrap()
}

fn flops(record: &Value) -> f64 {
    record["outcome"]["cloud-flops"].as_f64().unwrap()
}

fn overrides(record: &Value) -> u64 {
    record["outcome"]["overrides"].as_u64().unwrap()
}

/// How the target got a part, by the outcome: keep, scale, frames, quality, rest.
fn ran(record: &Value, part: usize) -> (f64, f64, f64, u64, String) {
    let how = &record["outcome"]["parts"][part]["target"];
    let number = |field: &str| how[field].as_f64().unwrap_or_else(|| panic!("{record}"));
    (
        number("keep"),
        number("scale"),
        number("frames"),
        how["quality"].as_u64().unwrap(),
        how["rest"].as_str().unwrap().to_owned(),
    )
}

fn told(
    keep: f64,
    scale: f64,
    frames: f64,
    quality: u64,
    rest: &str,
) -> (f64, f64, f64, u64, String) {
    (keep, scale, frames, quality, rest.to_owned())
}

/// A post-processor that wants a block of four by four tokens of the picture most.
fn block() -> Scores {
    let places = (5..9).flat_map(|row| (3..7).map(move |column| 16 * row + column));
    Scores {
        items: vec![(0.75, places.collect())],
        updates: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_crosses_smaller_and_whatever_drafts_its_answer_is_the_same() {
    let body = describing(16);
    let original = picture().len() as u64;
    let (cloud, edge) = two("").await;
    edge.plan(&sending(CLOUD, &[Treatment::default()]), DRAFT);
    let (answer, whole) = recorded(&edge, &body).await;
    assert!(sent(&answer) > original);
    let whole_flops = flops(&whole);
    edge.rest().await;
    cloud.rest().await;
    let default = Treatment::default();
    let sixteenth = Treatment::keeping(16.0 / 256.0);
    for (how, share, expected) in [
        (
            Treatment {
                quality: 60,
                ..default
            },
            1.0,
            told(1.0, 1.0, 1.0, 60, "send"),
        ),
        (
            Treatment {
                scale: 0.5,
                quality: 60,
                ..default
            },
            0.25,
            told(1.0, 0.5, 1.0, 60, "send"),
        ),
        // What is made anew for another reason is of the best quality.
        (
            Treatment {
                rest: CROP,
                ..sixteenth
            },
            1.0 / 16.0,
            told(1.0 / 16.0, 1.0, 1.0, 95, "crop"),
        ),
        (
            Treatment {
                rest: FLATTEN,
                quality: 80,
                ..sixteenth
            },
            1.0 / 16.0,
            told(1.0 / 16.0, 1.0, 1.0, 80, "flatten"),
        ),
    ] {
        // Nobody has anything yet.
        let (cloud, edge) = two("").await;
        edge.plan_probed(&sending(CLOUD, &[how]), DRAFT, &block());
        let (answer, record) = recorded(&edge, &body).await;
        let right = tokens(&answer);
        assert_eq!(overrides(&record), 0, "{record}");
        assert_eq!(ran(&record, 0), expected, "{record}");
        assert_eq!(kept(&answer, 0), share, "{answer}");
        let id = record["id"].as_str().unwrap();
        let words = format!("/v1/decisions/{id}/words");
        let (_, explained) = edge.operate(&words, None).await;
        let quality = format!("JPEG of quality {}", expected.3);
        assert!(explained.to_string().contains(&quality), "{explained}");
        let first = sent(&answer);
        assert!(first < original / 2, "{first} of {original}: {how:?}");
        if share < 1.0 {
            let less = flops(&record);
            assert!(less < 0.6 * whole_flops, "{less} of {whole_flops}: {how:?}");
        }
        // A policy does not change a bill.
        let details = &answer["usage"]["prompt_tokens_details"];
        assert_eq!(details["image_tokens"], 256, "{answer}");
        for (route, step) in [(CLOUD_DRAFT, DRAFT), (SPECULATE, DRAFT), (SPECULATE, SEND)] {
            edge.plan_probed(&sending(route, &[how]), step, &block());
            let (answer, record) = recorded(&edge, &body).await;
            assert_eq!(tokens(&answer), right, "{route}: {how:?}");
            assert_eq!(ran(&record, 0), expected, "{record}");
            assert!(sent(&answer) < original / 2, "{answer}");
        }
        edge.rest().await;
        cloud.rest().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_clip_crosses_where_that_is_less_and_else_the_clip_itself() {
    let half = Treatment {
        frames: 0.5,
        quality: 80,
        ..Treatment::default()
    };
    let big = moving();
    let body = about_clip("image/gif", &big);
    let (cloud, edge) = two("").await;
    edge.plan(&sending(CLOUD, &[Treatment::default()]), DRAFT);
    let (answer, whole) = recorded(&edge, &body).await;
    assert!(sent(&answer) > big.len() as u64);
    let (cloud_of_half, edge_of_half) = two("").await;
    edge_of_half.plan(&sending(CLOUD, &[half]), DRAFT);
    let (answer, record) = recorded(&edge_of_half, &body).await;
    assert_eq!(overrides(&record), 0, "{record}");
    assert_eq!(ran(&record, 0), told(1.0, 1.0, 0.5, 80, "send"));
    // Two of three pairs of frames.
    assert_eq!(kept(&answer, 0), 2.0 / 3.0, "{answer}");
    assert!(sent(&answer) < big.len() as u64 / 2, "{answer}");
    assert!(flops(&record) < flops(&whole), "{record} {whole}");
    // What is well compressed as it came goes as it came, and the frames are left out on arrival.
    let small = demo("clip.mp4");
    let body = about_clip("video/mp4", &small);
    let best = Treatment {
        quality: 100,
        ..half
    };
    edge.plan(&sending(CLOUD, &[best]), DRAFT);
    let (answer, record) = recorded(&edge, &body).await;
    assert_eq!(overrides(&record), RETENTION, "{record}");
    assert_eq!(ran(&record, 0), told(1.0, 1.0, 0.5, 0, "send"));
    assert_eq!(record["ran"]["parts"], record["outcome"]["parts"]);
    assert_eq!(kept(&answer, 0), 2.0 / 3.0, "{answer}");
    assert!(sent(&answer) > small.len() as u64, "{answer}");
    // So the answer is that of a target that need not be sent anything.
    let mut here = sending(CLOUD, &[best]);
    here.peer = 0;
    cloud.plan(&here, DRAFT);
    let (same, record) = recorded(&cloud, &body).await;
    assert_eq!(tokens(&same), tokens(&answer));
    assert_eq!(overrides(&record), 0, "{record}");
    for bench in [&edge, &cloud, &edge_of_half, &cloud_of_half] {
        bench.rest().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_the_segments_of_a_sound_cross() {
    let original = demo("beeps.wav").len() as u64;
    let (cloud, edge) = two("").await;
    let half = Treatment {
        frames: 0.5,
        // Of no meaning for a sound.
        quality: 50,
        scale: 0.5,
        ..Treatment::default()
    };
    edge.plan(&sending(CLOUD, &[half]), DRAFT);
    let body = about_sound();
    let (answer, record) = recorded(&edge, &body).await;
    assert_eq!(overrides(&record), 0, "{record}");
    assert_eq!(ran(&record, 0), told(1.0, 1.0, 0.5, 0, "send"));
    assert_eq!(kept(&answer, 0), 0.5, "{answer}");
    let up = sent(&answer);
    assert!(up < original * 9 / 10, "{up} of {original}");
    let right = tokens(&answer);
    edge.plan(&sending(SPECULATE, &[half]), SEND);
    assert_eq!(tokens(&edge.answer(&body).await), right);
    edge.rest().await;
    cloud.rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_medium_that_is_dropped_does_not_cross() {
    let (cloud, edge) = two("").await;
    let dropped = Treatment::keeping(0.0);
    edge.plan(&sending(CLOUD, &[dropped]), DRAFT);
    let body = describing(8);
    let (answer, record) = recorded(&edge, &body).await;
    assert_eq!(overrides(&record), 0, "{record}");
    assert_eq!(ran(&record, 0), told(0.0, 1.0, 1.0, 0, "send"));
    assert_eq!(kept(&answer, 0), 0.0, "{answer}");
    assert!(sent(&answer) < 4000, "{answer}");
    // As one that is here and not read.
    let mut here = sending(CLOUD, &[dropped]);
    here.peer = 0;
    cloud.plan(&here, DRAFT);
    assert_eq!(tokens(&cloud.answer(&body).await), tokens(&answer));
    // Beside one that is not.
    let url = format!("data:image/png;base64,{}", base64(&picture()));
    let mut both = about_sound();
    let content = both["messages"][0]["content"].as_array_mut().unwrap();
    content.insert(
        0,
        json!({ "type": "image_url", "image_url": { "url": url } }),
    );
    edge.plan(&sending(CLOUD, &[dropped, Treatment::keeping(0.5)]), DRAFT);
    let (answer, record) = recorded(&edge, &both).await;
    assert_eq!(overrides(&record), 0, "{record}");
    assert_eq!((kept(&answer, 0), kept(&answer, 1)), (0.0, 0.5), "{answer}");
    let sound = demo("beeps.wav").len() as u64;
    let up = sent(&answer);
    assert!(up > sound && up < sound + 4000, "{up} of {sound}");
    edge.rest().await;
    cloud.rest().await;
}

/// Nothing is made for an answer that needs no target; where it comes to need one it is made then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_escalated_takes_along_what_was_planned() {
    let (cloud, edge) = two("").await;
    let small = Treatment {
        scale: 0.5,
        quality: 60,
        ..Treatment::default()
    };
    let body = describing(24);
    edge.plan(&sending(EDGE, &[small]), DRAFT);
    let (answer, record) = recorded(&edge, &body).await;
    assert_eq!((sent(&answer), overrides(&record)), (0, 0), "{answer}");
    edge.plan(&sending(EDGE, &[small]), ESCALATE);
    let (answer, record) = recorded(&edge, &body).await;
    assert_eq!(answer["msao"]["route"], "cloud");
    assert_eq!(ran(&record, 0), told(1.0, 0.5, 1.0, 60, "send"));
    assert_eq!(kept(&answer, 0), 0.25, "{answer}");
    let (up, original) = (sent(&answer), picture().len() as u64);
    assert!(up > 0 && up < original / 2, "{up} of {original}");
    edge.rest().await;
    cloud.rest().await;
}

/// Media are where an answer may be left to before it is, if the policy names the row; not where they may not go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_of_an_edge_answer_are_brought_to_the_row_that_the_plan_names() {
    let (cloud, edge) = two("").await;
    let body = describing(24);
    let mut stays = body.clone();
    stays["msao"] = json!({ "media": "edge-only" });
    let original = picture().len() as u64;
    let brought = |row: u32| Decision {
        peer: row,
        ..sending(EDGE, &[Treatment::default()])
    };
    for (body, row, bytes) in [(&body, 0, 0), (&stays, 1, 0), (&body, 1, original)] {
        edge.plan(&brought(row), DRAFT);
        let (answer, record) = recorded(&edge, body).await;
        assert_eq!(answer["msao"]["route"], "edge");
        assert_eq!(overrides(&record), 0);
        let sent = sent(&answer);
        assert!(
            sent >= bytes && (bytes > 0 || sent == 0),
            "{sent} of {bytes}"
        );
        assert_eq!(record["outcome"]["peer"], 0, "{record}");
    }
    // They are there now.
    edge.plan(&brought(1), ESCALATE);
    let (answer, _) = recorded(&edge, &body).await;
    assert_eq!(answer["msao"]["route"], "cloud");
    assert!(sent(&answer) < original / 2, "{answer}");
    edge.rest().await;
    cloud.rest().await;
}

/// A cut in mid-answer: what is taken up again, or begun anew, reads what was read before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_over_a_link_that_is_cut_reads_the_same_shipment() {
    let small = Treatment {
        scale: 0.5,
        quality: 60,
        rest: FLATTEN,
        ..Treatment::keeping(0.5)
    };
    let mut body = describing(150);
    body["msao"] = json!({ "require": "exact" });
    let (cloud, edge) = two("").await;
    edge.plan(&sending(CLOUD, &[small]), DRAFT);
    let right = text(&edge.answer(&body).await).to_owned();
    for (route, step) in [(CLOUD, DRAFT), (SPECULATE, SEND)] {
        let edge = edge_of(&cloud, CUTS).await;
        edge.plan(&sending(route, &[small]), step);
        assert_eq!(text(&through_cuts(&edge, &body).await), right);
        edge.rest().await;
    }
    edge.rest().await;
    cloud.rest().await;
}

/// The cloud goes away while it answers, and another has the same target: it is sent the same, and goes on alike.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cloud_goes_on_with_the_same_shipment() {
    let small = Treatment {
        scale: 0.5,
        quality: 60,
        ..Treatment::default()
    };
    let body = about_picture(
        "Describe the scene.",
        json!({
            "temperature": 1.2, "seed": 1, "max_tokens": 400, "stream": true, "logit_bias": { "602": -100 },
            "msao": { "require": "exact" },
        }),
    );
    let said = |events: &[Value]| {
        let pieces = events
            .iter()
            .filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
        pieces.collect::<String>()
    };
    let right = {
        let (cloud, edge) = two("").await;
        edge.plan(&sending(CLOUD, &[small]), DRAFT);
        let right = said(&events(edge.send(post(&body)).await).await);
        edge.rest().await;
        cloud.rest().await;
        right
    };
    let mut moved = false;
    // An answer may be whole before its cloud goes.
    for _ in 0..5 {
        let clouds = [
            Bench::with("cloud", &["target"], "").await,
            Bench::with("cloud", &["target"], "").await,
        ];
        let edge = edge_of_both(clouds.each_ref()).await;
        let [first, _second] = clouds;
        edge.plan(&sending(CLOUD, &[small]), DRAFT);
        let mut begun = edge.send(post(&body)).await;
        let id = begun.headers()["x-request-id"].to_str().unwrap().to_owned();
        let mut heard = Vec::new();
        while heard.len() < 2 {
            let frame = begun.body_mut().frame().await.unwrap().unwrap();
            heard.extend_from_slice(frame.data_ref().unwrap());
        }
        drop(first);
        let heard = String::from_utf8(heard).unwrap();
        let began = heard.split("\n\n").filter_map(|block| {
            let event: Value = serde_json::from_str(block.strip_prefix("data: ")?).ok()?;
            Some(event)
        });
        let mut all: Vec<Value> = began.collect();
        all.extend(events(begun).await);
        assert_eq!(all.last().unwrap(), "[DONE]", "{all:?}");
        assert_eq!(said(&all), right);
        let record = record_of(&edge, &id).await;
        moved = record["outcome"]["peer"] == 2;
        if moved {
            // It went over twice, and was smaller both times.
            let up = record["outcome"]["sent-bytes"].as_f64().unwrap();
            assert!(up < picture().len() as f64, "{record}");
            break;
        }
    }
    assert!(moved, "the first cloud was always done before it went");
}

/// The picture at half its size, of which rows 2 to 6 and columns 3 to 8 of its tokens were shipped, and what OPEN says of that.
fn shipment() -> (Vec<u8>, Made) {
    let image = msao_media::decode_image(&picture(), &Limits::default()).unwrap();
    // 224 x 224 pixels, 28 a token.
    let kept = [Region {
        x: 3 * 28,
        y: 2 * 28,
        width: 5 * 28,
        height: 4 * 28,
    }];
    let way = ImageWay {
        scale: 0.5,
        quality: 70,
        rest: Rest::Crop { align_px: 1 },
        kept: Some(&kept),
    };
    let made = Made {
        shipped: true,
        size: (448, 448),
        length: 1,
        frames: 0,
        fps: 0.0,
        whole: (1, 16, 16),
        canvas: (224, 224),
        scaled: (8, 8),
        window: Some(Window {
            top: 2,
            left: 3,
            rows: 4,
            columns: 5,
            steps: vec![1],
        }),
    };
    (ship_image(&image, &way).unwrap().bytes, made)
}

/// Opens a session on a medium by hand; gives the first frame that comes.
async fn opened(cloud: &Bench, digest: Digest, made: Made, keep: Option<Vec<u8>>) -> Frame {
    let medium = Medium {
        digest,
        modality: Modality::Image,
        keep,
        made: Some(made),
    };
    first_about(cloud, medium).await
}

/// A peer cannot have more media decoded at once than there is memory for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_waits_for_its_turn_to_have_media_decoded() {
    let (cloud, edge) = two("").await;
    let (bytes, made) = shipment();
    let digest = Digest::of(&bytes);
    let peer = edge.node.peers[0].peer();
    peer.media(digest, Bytes::from(bytes)).await.unwrap();
    let decoders = Arc::clone(&cloud.node.decoders);
    let all = u32::try_from(decoders.available_permits()).unwrap();
    let taken = decoders.acquire_many_owned(all).await.unwrap();
    let mut answered = Box::pin(opened(&cloud, digest, made, None));
    let early = tokio::time::timeout(Duration::from_millis(500), &mut answered).await;
    assert!(early.is_err(), "{early:?}");
    drop(taken);
    let answered = answered.await;
    assert!(matches!(answered, Frame::Verdict(_)), "{answered:?}");
    edge.rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_of_a_shipment_is_refused_by_its_field() {
    let (cloud, edge) = two("").await;
    let (bytes, made) = shipment();
    let digest = Digest::of(&bytes);
    let peer = edge.node.peers[0].peer();
    peer.media(digest, Bytes::from(bytes)).await.unwrap();
    let original = picture();
    let whole = Digest::of(&original);
    peer.media(whole, Bytes::from(original)).await.unwrap();

    let answered = opened(&cloud, digest, made.clone(), None).await;
    assert!(matches!(answered, Frame::Verdict(_)), "{answered:?}");
    let some = Some(keep_bits(&[0, 19], 20));
    let answered = opened(&cloud, digest, made.clone(), some).await;
    assert!(matches!(answered, Frame::Verdict(_)), "{answered:?}");
    let with = |change: fn(&mut Made)| {
        let mut made = made.clone();
        change(&mut made);
        made
    };
    for (digest, made, keep, words) in [
        (
            digest,
            with(|made| made.whole = (1, 16, 15)),
            None,
            "made.whole is 1 x 16 x 15, and the target's processor makes 1 x 16 x 16",
        ),
        (
            digest,
            with(|made| made.size = (449, 300)),
            None,
            "made.whole is 1 x 16 x 16, and",
        ),
        (
            digest,
            with(|made| made.scaled = (8, 9)),
            None,
            "made.scaled is 8 x 9, and the target's processor makes 8 x 8 of 224 x 224 pixels",
        ),
        (
            digest,
            with(|made| made.canvas = (225, 224)),
            None,
            "made.canvas is 225 x 224, and 224 x 224 of the medium itself",
        ),
        (
            digest,
            with(|made| made.length = 2),
            None,
            "made.length is 2, and 1 of an image",
        ),
        (
            digest,
            with(|made| made.frames = 5),
            None,
            "made.frames are told of a medium of the kind image",
        ),
        (
            digest,
            with(|made| made.shipped = false),
            None,
            "is a shipment, which only nodes send",
        ),
        (whole, made.clone(), None, "made.shipped is true: "),
        (
            digest,
            with(|made| made.window.as_mut().unwrap().steps = vec![2]),
            None,
            "made.window.steps has bits behind the last",
        ),
        (
            digest,
            with(|made| made.window.as_mut().unwrap().steps = vec![1, 0]),
            None,
            "made.window.steps has 2 bytes",
        ),
        // A row more than went over.
        (
            digest,
            with(|made| made.window.as_mut().unwrap().rows = 5),
            None,
            "made.window has tokens that are read and whose pixels did not go over",
        ),
        (
            digest,
            made.clone(),
            Some(vec![0xff]),
            "keep has 1 bytes, and its 20 tokens take 3",
        ),
    ] {
        match opened(&cloud, digest, made, keep).await {
            Frame::Refused(refused) => {
                assert_eq!(refused.code, RefusedCode::Request, "{words}");
                assert!(refused.message.contains(words), "{}", refused.message);
            }
            other => panic!("{words}: {other:?}"),
        }
    }
    // A row more of which nothing is read is none that had to go over.
    let longer = with(|made| made.window.as_mut().unwrap().rows = 5);
    let some = Some(keep_bits(&[0, 19], 25));
    let answered = opened(&cloud, digest, longer, some).await;
    assert!(matches!(answered, Frame::Verdict(_)), "{answered:?}");
    edge.rest().await;
}
