//! What a plug-in's author does: new, build, check, test, bench, replay, sign.
