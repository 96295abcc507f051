//! MMBench's tables, whole and damaged.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use msao_datasets::{Item, Reference, Source, score};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::{fails, load};

const HEADER: &str =
    "index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\timage\tsource\tl2-category\tsplit";

/// Something that begins like a picture.
fn picture(size: usize) -> Vec<u8> {
    let mut bytes = vec![0xff, 0xd8, 0xff, 0xe0];
    bytes.resize(size, 7);
    bytes
}

fn encoded(size: usize) -> String {
    STANDARD.encode(picture(size))
}

fn table(text: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("MMBench_DEV_EN.tsv"), text).unwrap();
    folder
}

fn row(index: &str, options: &str, answer: &str, image: &str) -> String {
    format!("{index}\tWhich?\t\t{options}\t{answer}\tcolor\t{image}\tweb\tperception\tdev\n")
}

const FOUR: &str = "red\tblue\tgreen\twhite";

fn choice(item: &Item) -> &msao_datasets::mmbench::Choice {
    match &item.reference {
        Reference::Choice(choice) => choice,
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_of_columns_are_read_in_any_case_and_order() {
    let image = encoded(100);
    let text = format!(
        "\u{feff}Split\tINDEX\timage\tAnswer\tb\ta\te\tQuestion\tHint\tL2-Category\tCategory\textra\r\n\
         dev\t7.0\t{image}\tb\tblue\tred\tnan\t\"Which\tone?\"\t\"Look \"\"well\"\"\"\tperception\tcolor\tx\r\n"
    );
    let folder = table(&text);
    let set = load(folder.path(), "mmbench:MMBench_DEV_EN").unwrap();
    assert_eq!(&*set.name, "MMBench_DEV_EN");
    let item = &set.items[0];
    assert_eq!(
        (item.id, &*item.kind, &*item.answer_type),
        (7, "color", "perception")
    );
    assert_eq!(
        item.text,
        "Hint: Look \"well\"\nQuestion: Which\tone?\nOptions:\nA. red\nB. blue\nPlease select the correct answer from the options above."
    );
    assert_eq!(choice(item).letter, 'B');
    assert_eq!(score(item, "The answer is B").value, 1.0);
    assert_eq!(score(item, "A").value, 0.0);
    assert!(!score(item, "E").parsed);
}

#[test]
fn options_can_be_fewer_or_five() {
    let image = encoded(60);
    let five = HEADER.replace("\tD\t", "\tD\tE\t");
    let text = format!(
        "{five}\n{}{}",
        row("1", "red\tblue\t nan \t\tNaN", "A", &image),
        row("2", "1\t2\t3\t4\t5", "E", "1")
    );
    let set = load(table(&text).path(), "mmbench").unwrap();
    let letters = |item: &Item| {
        choice(item)
            .options
            .iter()
            .map(|(letter, _)| *letter)
            .collect::<String>()
    };
    assert_eq!(letters(&set.items[0]), "AB");
    assert_eq!(letters(&set.items[1]), "ABCDE");
    assert!(set.items[1].text.contains("E. 5\n"));
}

#[test]
fn pictures_are_found_over_indices_forwards_and_backwards() {
    let image = encoded(60);
    let text = format!(
        "{HEADER}\n{}{}{}",
        row("1", FOUR, "A", "1000001"),
        row("1000001", FOUR, "B", "2"),
        row("2", FOUR, "C", &image)
    );
    let set = load(table(&text).path(), "mmbench").unwrap();
    assert!(
        set.items
            .iter()
            .all(|item| item.media == set.items[2].media)
    );
    assert_eq!(choice(&set.items[1]).group, 1);
    assert_eq!(choice(&set.items[1]).rotations, 2);
    assert_eq!(choice(&set.items[2]).rotations, 1);
}

#[test]
fn a_field_of_megabytes_is_read() {
    let size = 5 << 20;
    let text = format!(
        "{HEADER}\n{}",
        row("1", FOUR, "A", &format!("\"{}\"", encoded(size)))
    );
    let set = load(table(&text).path(), "mmbench").unwrap();
    let Source::Bytes { bytes, .. } = &set.items[0].media[0].1 else {
        panic!("the picture is in the table")
    };
    assert_eq!(**bytes, *picture(size));
    // With newlines inside, as some encoders write, and without padding.
    let image = encoded(200);
    let broken = format!(
        "\"{}\n{}\"",
        &image[..76],
        image[76..].trim_end_matches('=')
    );
    let text = format!("{HEADER}\n{}", row("1", FOUR, "A", &broken));
    assert!(load(table(&text).path(), "mmbench").is_ok());
}

#[test]
fn packed_tables_are_read() {
    let text = format!("{HEADER}\n{}", row("1", FOUR, "A", &encoded(60)));
    let folder = tempfile::tempdir().unwrap();
    let packed = zstd::encode_all(text.as_bytes(), 1).unwrap();
    fs::write(folder.path().join("some.tsv.zst"), packed).unwrap();
    assert_eq!(&*load(folder.path(), "mmbench").unwrap().name, "some");
}

#[test]
fn damage_is_told_by_line() {
    let image = encoded(60);
    let good = row("1", FOUR, "A", &image);
    let bad = |text: &str, with: &[&str]| {
        let mut with = with.to_vec();
        with.push("MMBench_DEV_EN.tsv");
        fails(table(text).path(), "mmbench", &with);
    };
    let rows = |rows: &str| format!("{HEADER}\n{rows}");
    bad("", &["line 1", "empty"]);
    bad(&format!("{HEADER}\n"), &["no rows"]);
    bad("index,question\n1,2\n", &["line 1", "there is no column"]);
    bad(&good, &["line 1", "there is no column"]);
    bad(
        &HEADER.replace("image", "picture"),
        &["no column \"image\""],
    );
    bad(
        &format!("{HEADER}\tAnswer\n"),
        &["\"answer\" is there twice"],
    );
    bad(
        &rows(&(good.clone() + "2\tWhich?\n")),
        &["line 3", "2 fields under 13 columns"],
    );
    bad(
        &rows(&(good.clone() + "2\t\"Which?\t\n\n")),
        &["line 3", "column 2 opens a quote"],
    );
    bad(
        &rows(&(good.clone() + "2\t\"Which\"?\t\n\n")),
        &["line 3", "column 2 goes on"],
    );
    bad(
        &rows(&(good.clone() + &good)),
        &["line 3", "index 1 is there twice"],
    );
    bad(
        &rows(&row("one", FOUR, "A", &image)),
        &["line 2", "index is \"one\""],
    );
    bad(
        &rows(&row("-1", FOUR, "A", &image)),
        &["line 2", "index is \"-1\""],
    );
    bad(
        &rows(&row("1", FOUR, "", &image)),
        &["line 2", "answer is blank", "dev split"],
    );
    bad(
        &rows(&row("1", FOUR, "E", &image)),
        &["answer is \"E\"", "options ABCD"],
    );
    bad(
        &rows(&row("1", "a\tb\tnan\t", "C", &image)),
        &["answer is \"C\"", "options AB"],
    );
    bad(
        &rows(&good.replace("Which?", " ")),
        &["line 2", "question is blank"],
    );
}

#[test]
fn damaged_pictures_are_told_by_line() {
    let bad = |image: &str, with: &[&str]| {
        let text = format!(
            "{HEADER}\n{}{}",
            row("1", FOUR, "A", &encoded(60)),
            row("2", FOUR, "A", image)
        );
        fails(table(&text).path(), "mmbench", with);
    };
    bad("", &["line 3", "image is blank"]);
    bad("nan", &["line 3", "image is blank"]);
    bad("abc", &["line 3", "too short for base64 and no index"]);
    bad("99", &["line 3", "index 2", "row 99, which is not there"]);
    bad("2", &["line 3", "a cycle"]);
    bad(&"!".repeat(80), &["line 3", "not base64"]);
    bad(&encoded(90)[..81], &["line 3", "not base64"]);
    bad(&"aaaa".repeat(30), &["line 3", "neither JPEG"]);
    let text = format!(
        "{HEADER}\n{}{}",
        row("1", FOUR, "A", "2"),
        row("2", FOUR, "A", "1")
    );
    fails(table(&text).path(), "mmbench", &["line 2", "a cycle"]);
    let chain: String = (1..20)
        .map(|k| row(&k.to_string(), FOUR, "A", &(k + 1).to_string()))
        .collect();
    fails(
        table(&format!("{HEADER}\n{chain}")).path(),
        "mmbench",
        &["more than 8 rows"],
    );
}

#[test]
fn which_table_is_meant_must_be_clear() {
    fails(
        tempfile::tempdir().unwrap().path(),
        "mmbench",
        &["ends in .tsv is missing"],
    );
    fails(Path::new("/nowhere"), "mmbench", &["/nowhere"]);
    let folder = table(&format!("{HEADER}\n{}", row("1", FOUR, "A", &encoded(60))));
    fs::copy(
        folder.path().join("MMBench_DEV_EN.tsv"),
        folder.path().join("b.tsv"),
    )
    .unwrap();
    fails(
        folder.path(),
        "mmbench",
        &["MMBench_DEV_EN.tsv, b.tsv: name one"],
    );
    fails(
        folder.path(),
        "mmbench:c.tsv",
        &["c.tsv is missing (there is"],
    );
    assert!(load(folder.path(), "mmbench:b.tsv").is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_table_cut_off_or_changed_somewhere_gives_a_set_or_an_error(at in 0.0..1.0_f64, byte in any::<u8>(), cut in any::<bool>()) {
        let image = encoded(60);
        let whole = format!("{HEADER}\n{}{}", row("1", FOUR, "A", &format!("\"{image}\"")), row("1000001", FOUR, "B", "1"));
        let mut bytes = whole.into_bytes();
        let at = (at * bytes.len() as f64) as usize;
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] = byte;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("t.tsv"), bytes).unwrap();
        if let Ok(set) = load(folder.path(), "mmbench") {
            for item in &set.items {
                prop_assert!((0.0..=1.0).contains(&score(item, "A").value));
            }
        }
    }
}
