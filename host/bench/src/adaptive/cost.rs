//! What the probe costs: with a twin of a 0.5B model, where the edge's prefill goes on from it, and where it is thrown away.
//!
//! Each picture is asked about by every way, so that differences are within pictures: what one picture's answer takes more
//! than another's is no error of them. Nodes keep what they have been sent, encoded and read, and so a corner of the picture is
//! painted in a shade of each way's own: another file, other pixels, the same work.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use msao_media::ship::encode_jpeg;
use msao_media::{Limits, decode_image};
use serde_json::{Value, json};

use super::phases::mean;
use super::progress::Progress;
use super::questions::Draw;
use super::setting::Setting;
use super::stats::{Paired, paired};
use super::turns::{Way, answered, is_probed, run, shape};
use crate::nodes::client::{bring, push, question};
use crate::nodes::link::TWINS;
use crate::nodes::pair::{Pair, Wanted};
use crate::report::Row;

/// The part's name.
pub const PART: &str = "cost";
/// Pictures that all ways are asked about, of which the first counts for nothing.
const PICTURES: usize = 19;
/// Tokens of an answer about one.
const TOKENS: u64 = 32;
/// Of the cloud's time, what probe and plug-ins may add, in per cent.
const ADDED: f64 = 2.0;
/// Pictures that a policy is asked about which may ask for the probe, and of these the first, from which it learns.
const ASKED: usize = 8;
const LEARNING: usize = 2;
const SEED: u64 = 0xc057;
/// Pixels of the side of the corner that is painted: all that a block of a JPEG's colours covers.
const CORNER: usize = 16;
/// Grey levels between two ways' corners.
const SHADE: u8 = 48;
const QUALITY: u8 = 90;

/// The ways: without the probe and with it, where it goes on and where it is thrown away.
const WAYS: [(&str, &str, Option<&str>); 4] = [
    ("speculate", "fixed-speculate", None),
    ("speculate, probed", "fixed-speculate", Some(PROBED_AHEAD)),
    ("cloud", "cloud-only", None),
    ("cloud, probed", "cloud-only", Some(PROBED)),
];
/// What the manifest says of a policy that has everything probed.
const PROBED: &str = "probe = \"full\"";
/// The same of one that goes on at the target meanwhile.
const PROBED_AHEAD: &str = "probe = \"full\"\nahead = \"session\"";
/// Which of [`WAYS`] that is.
const GOES_ON: usize = 1;

/// What the edge's operator pins of `msao`: no target verifies anything and the target gets all of every medium, so that the
/// route is `cloud` and what the probe says changes no plan.
const PINS: &str = "[policy.pins.msao]\nspeculation = false\ntarget-keep-min = 1.0\n";

/// What was measured.
#[derive(Debug, Default)]
struct Measured {
    /// Ms of an answer by each way, by picture.
    times: Vec<[f64; 4]>,
    /// Answers that went on with a session that was opened while the probe ran, and ms of the probe.
    ahead: usize,
    probe_ms: Vec<f64>,
}

/// The part's rows.
///
/// # Errors
/// A node does not come up, or a request fails.
pub fn rows(setting: &Setting) -> Result<Vec<Row>> {
    setting.interrupt.check("this part had not begun")?;
    let places = setting.places()?;
    let [twin, _] = &TWINS;
    let made = twin.made(&places, &setting.scratch)?;
    let mut pictures = large_pictures(&setting.heldout)?;
    ensure!(
        pictures.len() >= PICTURES + ASKED,
        "{} has {} large pictures, and {} are needed",
        setting.heldout.display(),
        pictures.len(),
        PICTURES + ASKED
    );
    Draw(SEED).shuffle(&mut pictures);
    run(async {
        let wanted = Wanted {
            draft: Some(made.join("draft")),
            target: Some(made.join("target")),
            held: twin.held.into(),
            shape: shape("200 Mbit/s"),
            sections: PINS.into(),
            ..Wanted::default()
        };
        let pair = Pair::start(&places, &wanted).await?;
        let mas = push(pair.operator, &places.plugins, "mas-joint").await?;
        let answers = WAYS.len() * PICTURES + ASKED;
        let mut progress = Progress::new("answers about pictures", answers, 0);
        let (all, others) = pictures.split_at(PICTURES);
        let mut ways = Vec::new();
        for (name, policy, keys) in WAYS {
            let (component, manifest) = setting.shelf.files(policy)?;
            let (manifest, postprocessor) = match keys {
                Some(keys) => (probing(&manifest, keys)?, mas.clone()),
                None => (manifest, json!("nothing")),
            };
            ways.push(Way {
                name,
                policy: bring(pair.operator, &component, &manifest).await?,
                postprocessor,
            });
        }
        let mut rows = told(&measure(setting, &pair, &ways, all, &mut progress).await?);
        let asking = Way {
            name: "msao",
            policy: push(pair.operator, &places.plugins, "msao").await?,
            postprocessor: mas,
        };
        let others = others.get(..ASKED).unwrap_or(others);
        rows.push(asked_for(setting, &pair, &asking, others, &mut progress).await?);
        progress.end();
        Ok(rows)
    })
}

/// Has each picture described by every way, another one first each time.
async fn measure(
    setting: &Setting,
    pair: &Pair,
    ways: &[Way],
    pictures: &[PathBuf],
    progress: &mut Progress,
) -> Result<Measured> {
    let work = tempfile::tempdir()?;
    let mut measured = Measured::default();
    for (number, picture) in pictures.iter().enumerate() {
        let marked = marked(picture)?;
        let mut times = [0.0; WAYS.len()];
        for turn in 0..ways.len() {
            setting.interrupt.check("this part is shown as a whole")?;
            let chosen = (number + turn) % ways.len();
            let (Some(way), Some(took_ms), Some(bytes)) =
                (ways.get(chosen), times.get_mut(chosen), marked.get(chosen))
            else {
                continue;
            };
            let file = work.path().join("picture.jpg");
            std::fs::write(&file, bytes).with_context(|| file.display().to_string())?;
            way.choose(pair).await?;
            let answer = answered(pair, &describing(&file)?).await;
            let answer = answer.context(way.name)?;
            *took_ms = answer.total.as_secs_f64() * 1000.0;
            if number > 0 && chosen == GOES_ON {
                let report = &answer.report;
                measured.ahead += usize::from(report.get("ahead") == Some(&json!("used")));
                let probe_ms = report.pointer("/cost/probe_ms").and_then(Value::as_f64);
                measured.probe_ms.extend(probe_ms);
            }
            progress.step();
        }
        if number > 0 {
            measured.times.push(times);
        }
    }
    Ok(measured)
}

fn describing(picture: &Path) -> Result<Value> {
    let mut body = question("demo", &[("image", picture)], "Describe the scene.")?;
    if let Value::Object(fields) = &mut body {
        fields.insert("temperature".into(), json!(0));
        fields.insert("max_completion_tokens".into(), json!(TOKENS));
    }
    Ok(body)
}

/// What a difference within pictures is on average, in per cent of `of_ms`, and its standard error.
fn share(
    times: &[[f64; 4]],
    difference_ms: impl Fn(&[f64; 4]) -> f64,
    of_ms: f64,
) -> Option<Paired> {
    let names: Vec<String> = (0..times.len()).map(|number| number.to_string()).collect();
    let each = names.iter().zip(times);
    let each = each.map(|(name, times)| (name.as_str(), 100.0 * difference_ms(times) / of_ms));
    paired(&each.collect::<Vec<_>>())
}

/// The rows of what was measured.
fn told(measured: &Measured) -> Vec<Row> {
    let times = &measured.times;
    let cloud_ms = mean(times.iter().map(|[_, _, cloud, _]| *cloud));
    let on = share(times, |[plain, probed, ..]| probed - plain, cloud_ms);
    let away = share(times, |[.., cloud, probed]| probed - cloud, cloud_ms);
    let goes_on = "where the edge's prefill goes on from it: probe and plug-ins, of cloud-only's time (0.5B twin, 20 ms, 200 Mbit/s)";
    let thrown = "where it is thrown away (route cloud): the same";
    let (Some(on), Some(away)) = (on, away) else {
        return vec![Row::failed(goes_on, "<= 2%", "fewer than two pictures")];
    };
    let error = |of: Paired| {
        format!(
            "standard error {:.2} points, within {} pictures",
            of.error, of.count
        )
    };
    let by_way = WAYS.iter().enumerate().map(|(way, (name, ..))| {
        let own = times.iter().filter_map(|times| times.get(way).copied());
        format!("{name}: {:.0} ms", mean(own))
    });
    vec![
        Row::at_most(goes_on, on.mean, ADDED, "%").with_details(vec![
            by_way.collect::<Vec<_>>().join(", "),
            error(on),
            format!(
                "{} of {} answers went on with a session that was opened while the probe ran, for {:.0} ms on average",
                measured.ahead,
                times.len(),
                mean(measured.probe_ms.iter().copied())
            ),
        ]),
        Row::told(thrown, away.mean, "%").with_more(Some(error(away))),
    ]
}

/// How often a policy asks for the probe that may (`probe = "ask"`), where it would be thrown away and changes nothing.
async fn asked_for(
    setting: &Setting,
    pair: &Pair,
    way: &Way,
    pictures: &[PathBuf],
    progress: &mut Progress,
) -> Result<Row> {
    way.choose(pair).await?;
    let mut probed = Vec::new();
    for picture in pictures {
        setting.interrupt.check("this part is shown as a whole")?;
        let mut body = describing(picture)?;
        if let Value::Object(fields) = &mut body {
            fields.insert("msao".into(), json!({ "require": "exact" }));
        }
        let answer = answered(pair, &body).await.context(way.name)?;
        let route = answer.report.get("route").and_then(Value::as_str);
        ensure!(
            route == Some("cloud"),
            "{} took route {route:?} where it has no other than cloud",
            way.name
        );
        probed.push(is_probed(&answer.report));
        progress.step();
    }
    Ok(of_asked(&probed))
}

/// The row about which answers a policy asked for the probe.
fn of_asked(probed: &[bool]) -> Row {
    let name = "the same, by a policy that may ask (msao, all kept for the target): probes asked for, once it knows";
    let (first, rest) = probed.split_at(LEARNING.min(probed.len()));
    if rest.is_empty() {
        return Row::failed(name, "<= 0", "too few pictures were asked about");
    }
    let count = |probed: &[bool]| probed.iter().filter(|probed| **probed).count();
    Row::at_most(name, count(rest) as f64, 0.0, "").with_more(Some(format!(
        "of {} answers; of the {} before them it asked for {}",
        rest.len(),
        first.len(),
        count(first)
    )))
}

/// A picture's file for each way, told apart by a corner.
fn marked(picture: &Path) -> Result<Vec<Vec<u8>>> {
    let shown = || picture.display().to_string();
    let limits = Limits::default();
    let bytes = std::fs::read(picture).with_context(shown)?;
    let image = decode_image(&bytes, &limits).with_context(shown)?;
    let across = 3 * image.width as usize;
    let (mut files, mut seen) = (Vec::new(), Vec::new());
    for way in 0..WAYS.len() {
        let mut own = image.clone();
        let grey = SHADE.saturating_mul(way as u8 + 1);
        for row in own.data.chunks_mut(across.max(1)).take(CORNER) {
            row.iter_mut().take(3 * CORNER).for_each(|it| *it = grey);
        }
        let file = encode_jpeg(&own, QUALITY).with_context(shown)?;
        let pixels = decode_image(&file, &limits).with_context(shown)?;
        ensure!(
            !seen.contains(&pixels),
            "{}: two ways' files have the same pixels",
            picture.display()
        );
        seen.push(pixels);
        files.push(file);
    }
    Ok(files)
}

/// A manifest of a policy that has everything probed, under a name of its own. `keys`: what it says of that.
fn probing(manifest: &str, keys: &str) -> Result<String> {
    let mut lines: Vec<String> = manifest.lines().map(str::to_owned).collect();
    let name = lines.iter_mut().find(|line| line.starts_with("name = \""));
    let name = name.context("the manifest has no name")?;
    name.insert_str(name.len() - 1, "-probed");
    let place = lines
        .iter()
        .position(|line| line.starts_with("state-schema"));
    lines.insert(
        place.context("the manifest has no state-schema")?,
        keys.into(),
    );
    Ok(lines.join("\n") + "\n")
}

/// Pictures of 256 tokens: those of the largest files' size in pixels.
fn large_pictures(heldout: &Path) -> Result<Vec<PathBuf>> {
    let mut sized = Vec::new();
    let folder = heldout.join("images");
    let limits = Limits::default();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let bytes = std::fs::read(&path)?;
        let image = decode_image(&bytes, &limits).with_context(|| path.display().to_string())?;
        sized.push((image.width * image.height, path));
    }
    let most = sized.iter().map(|(pixels, _)| *pixels).max().unwrap_or(0);
    sized.retain(|(pixels, _)| *pixels == most);
    sized.sort();
    Ok(sized.into_iter().map(|(_, path)| path).collect())
}

#[cfg(test)]
mod tests {
    use msao_core::offload::manifest::{Ahead, Manifest, Probe};

    use super::*;

    #[test]
    fn differences_are_within_pictures() {
        // One picture takes twice as long as the other by every way, and the probe 50 ms.
        let measured = Measured {
            times: vec![
                [900.0, 950.0, 1000.0, 1100.0],
                [1900.0, 1950.0, 2000.0, 2100.0],
            ],
            ahead: 2,
            probe_ms: vec![40.0, 60.0],
        };
        let rows = told(&measured);
        assert_eq!(rows.len(), 2);
        assert!((rows[0].value.unwrap() - 100.0 * 50.0 / 1500.0).abs() < 1e-9);
        assert!(!rows[0].met, "3.3% is more than 2");
        assert!(
            rows[0].details[1].starts_with("standard error 0.00 points"),
            "{rows:?}"
        );
        assert!((rows[1].value.unwrap() - 100.0 * 100.0 / 1500.0).abs() < 1e-9);
        assert!(rows[1].aim.is_empty());
        // One picture has no error, and shows nothing.
        let one = Measured {
            times: vec![[900.0, 900.0, 1000.0, 1000.0]],
            ..Measured::default()
        };
        assert!(told(&one).iter().all(|row| !row.met));
    }

    #[test]
    fn a_policy_that_knows_may_not_ask() {
        assert!(of_asked(&[true, true, false, false]).met);
        assert!(!of_asked(&[false, false, false, true]).met);
        assert!(!of_asked(&[true, false]).met, "nothing is shown");
    }

    #[test]
    fn a_picture_is_another_to_each_way() {
        let folder = msao_golden::root().join("../../models/heldout");
        let picture = large_pictures(&folder).unwrap().remove(0);
        let files = marked(&picture).unwrap();
        assert_eq!(files.len(), WAYS.len());
        // None of them is so large that nodes would first ask each other whether they have it.
        assert!(files.iter().all(|file| file.len() < 65_536));
    }

    #[test]
    fn a_policy_that_has_everything_probed_is_another() {
        let manifest = "name = \"cloud-only\"\nversion = \"0.1.0\"\nstate-schema = 0\n";
        let expected = "name = \"cloud-only-probed\"\nversion = \"0.1.0\"\nprobe = \"full\"\nstate-schema = 0\n";
        assert_eq!(probing(manifest, PROBED).unwrap(), expected);
        assert!(probing("version = \"1\"\n", PROBED).is_err());
        let manifest = format!("{manifest}world = \"offload-policy\"\ndescription = \"\"\n");
        let ahead = Manifest::parse(&probing(&manifest, PROBED_AHEAD).unwrap()).unwrap();
        assert_eq!((ahead.probe, ahead.ahead), (Probe::Full, Ahead::Session));
    }
}
