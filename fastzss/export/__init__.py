"""A run for other programs: each form is checked, before it is called done, against the run itself.

export.py              a run and a form -> a folder, and how much its numbers differ
sample.py              three images and three words, and what the run says of them
dense.py               the backbone at any size and a fixed vocabulary, as one module
graphs.py              that module as ONNX and as a program of torch.export
open_clip_folder.py    both towers, for open_clip
transformers_folder.py the text tower and its tokenizer, for transformers
"""
