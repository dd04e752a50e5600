"""Choose the highlights of a video or a summary within a budget, and export them.

In: a `Grounder` and a video (or its features), with or without a query. Out: a `Plan` of clips, as JSON, subtitles, the
spans of a reel, or a storyboard. Read `shots` (shot boundaries), `choosing` (saliency curve to clips, with `knapsack`),
`planning` (both for a video), then `exports` and `storyboard`. What is listed in `__all__` is public.
"""

from vtg.summary.choosing import Clip, choose_highlights, choose_summary
from vtg.summary.exports import plan_document, reel_spans, subtitles
from vtg.summary.planning import NEUTRAL_PROMPTS, Plan, best_labels, find_highlights, sharpen, summarize
from vtg.summary.shots import frame_embedding, shot_edges, video_shots
from vtg.summary.storyboard import write_storyboard

__all__ = [
    "NEUTRAL_PROMPTS",
    "Clip",
    "Plan",
    "best_labels",
    "choose_highlights",
    "choose_summary",
    "find_highlights",
    "frame_embedding",
    "plan_document",
    "reel_spans",
    "sharpen",
    "shot_edges",
    "subtitles",
    "summarize",
    "video_shots",
    "write_storyboard",
]
