"""Highlights and summaries: what is worth showing of a video."""

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
