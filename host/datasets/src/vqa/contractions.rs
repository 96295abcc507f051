//! The official table of contractions.

/// Each right form, and the forms that become it. All 120 entries of `vqaEval.py`, those included that never match because words
/// are in lower case by then (`im`), that change nothing (`let's`) or that go the wrong way (`somebody'd`).
#[rustfmt::skip]
const CONTRACTIONS: [(&str, &[&str]); 98] = [
    ("'ow's'at", &["'ow'sat", "'ows'at", "ow's'at"]),
    ("'twas", &["twas"]),
    ("I'd've", &["I'dve", "Id've"]),
    ("I'm", &["Im"]),
    ("I've", &["Ive"]),
    ("ain't", &["aint"]),
    ("aren't", &["arent"]),
    ("can't", &["cant"]),
    ("could've", &["couldve"]),
    ("couldn't", &["couldnt"]),
    ("couldn't've", &["couldn'tve", "couldnt've"]),
    ("didn't", &["didnt"]),
    ("doesn't", &["doesnt"]),
    ("don't", &["dont"]),
    ("hadn't", &["hadnt"]),
    ("hadn't've", &["hadn'tve", "hadnt've"]),
    ("hasn't", &["hasnt"]),
    ("haven't", &["havent"]),
    ("he'd", &["hed"]),
    ("he'd've", &["he'dve", "hed've"]),
    ("he's", &["hes"]),
    ("how'd", &["howd"]),
    ("how'll", &["howll"]),
    ("how's", &["hows"]),
    ("isn't", &["isnt"]),
    ("it'd", &["itd"]),
    ("it'd've", &["it'dve", "itd've"]),
    ("it'll", &["itll"]),
    ("let's", &["let's"]),
    ("ma'am", &["maam"]),
    ("might've", &["mightve"]),
    ("mightn't", &["mightnt"]),
    ("mightn't've", &["mightn'tve", "mightnt've"]),
    ("must've", &["mustve"]),
    ("mustn't", &["mustnt"]),
    ("needn't", &["neednt"]),
    ("not've", &["notve"]),
    ("o'clock", &["oclock"]),
    ("oughtn't", &["oughtnt"]),
    ("shan't", &["shant"]),
    ("she'd've", &["she'dve", "shed've"]),
    ("she's", &["she's"]),
    ("should've", &["shouldve"]),
    ("shouldn't", &["shouldnt"]),
    ("shouldn't've", &["shouldn'tve", "shouldnt've"]),
    ("somebody'd've", &["somebody'dve", "somebodyd've"]),
    ("somebody'll", &["somebodyll"]),
    ("somebody's", &["somebodys"]),
    ("somebodyd", &["somebody'd"]),
    ("someone'd", &["someoned"]),
    ("someone'd've", &["someone'dve", "someoned've"]),
    ("someone'll", &["someonell"]),
    ("someone's", &["someones"]),
    ("something'd", &["somethingd"]),
    ("something'd've", &["something'dve", "somethingd've"]),
    ("something'll", &["somethingll"]),
    ("that's", &["thats"]),
    ("there'd", &["thered"]),
    ("there'd've", &["there'dve", "thered've"]),
    ("there're", &["therere"]),
    ("there's", &["theres"]),
    ("they'd", &["theyd"]),
    ("they'd've", &["they'dve", "theyd've"]),
    ("they'll", &["theyll"]),
    ("they're", &["theyre"]),
    ("they've", &["theyve"]),
    ("wasn't", &["wasnt"]),
    ("we'd've", &["we'dve", "wed've"]),
    ("we've", &["weve"]),
    ("weren't", &["werent"]),
    ("what'll", &["whatll"]),
    ("what're", &["whatre"]),
    ("what's", &["whats"]),
    ("what've", &["whatve"]),
    ("when's", &["whens"]),
    ("where'd", &["whered"]),
    ("where's", &["wheres"]),
    ("where've", &["whereve"]),
    ("who'd", &["whod"]),
    ("who'd've", &["who'dve", "whod've"]),
    ("who'll", &["wholl"]),
    ("who's", &["whos"]),
    ("who've", &["whove"]),
    ("why'll", &["whyll"]),
    ("why're", &["whyre"]),
    ("why's", &["whys"]),
    ("won't", &["wont"]),
    ("would've", &["wouldve"]),
    ("wouldn't", &["wouldnt"]),
    ("wouldn't've", &["wouldn'tve", "wouldnt've"]),
    ("y'all", &["yall"]),
    ("y'all'd've", &["y'all'dve", "y'alld've", "yall'd've"]),
    ("y'all'll", &["y'allll", "yall'll"]),
    ("you'd", &["youd"]),
    ("you'd've", &["you'dve", "youd've"]),
    ("you'll", &["youll"]),
    ("you're", &["youre"]),
    ("you've", &["youve"]),
];

/// What the table makes of a word in lower case.
pub(super) fn expand(word: &str) -> &str {
    let entry = CONTRACTIONS.iter().find(|(_, forms)| forms.contains(&word));
    entry.map_or(word, |(right, _)| right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_each_entry_once_and_differs_by_apostrophes_alone() {
        let bare = |word: &str| word.replace('\'', "");
        let mut all: Vec<&str> = Vec::new();
        for (right, forms) in CONTRACTIONS {
            for form in forms {
                assert_eq!(bare(form), bare(right));
                all.push(form);
            }
        }
        assert_eq!(all.len(), 120);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 120);
    }

    #[test]
    fn its_oddities_are_kept() {
        assert_eq!(expand("somebody'd"), "somebodyd");
        assert_eq!(expand("let's"), "let's");
        assert_eq!(expand("im"), "im");
        assert_eq!(expand("hasnt"), "hasn't");
        assert_eq!(expand("twas"), "'twas");
    }
}
