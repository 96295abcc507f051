"""Parity oracle: makes tiny checkpoints, inputs and the outputs Hugging Face transformers gives for them.

`paths` says where everything goes; `media` makes the inputs; `tokenizer` and `templates` the text side;
`checkpoints` the weights; `cases` runs the real processors and models; `preprocess` and `decoders` make the
vectors that need no model. `../make_golden.py` runs them in order.
"""
