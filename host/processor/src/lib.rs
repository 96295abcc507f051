//! What a model family does to a chat before the model sees it: template, tokens, patches, mel features.
