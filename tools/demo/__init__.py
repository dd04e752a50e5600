"""Train the bundled CLIP and head of the demo world; `tools.make_demo` runs both.

CLIP: `frames` renders, `batches` adds sentences, `encoder` trains. Head: `features` (CLIP features), `queries` (hard
negatives), `auxiliary` (targets and loss), `initialization`, and `head` (training). Both use `optimizer`.
"""
