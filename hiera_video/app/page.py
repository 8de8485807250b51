"""The page itself: what stands where, and what a click does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData

from hiera_video.app import html
from hiera_video.app.analysis import Analyser, Analysis, explanation_strips
from hiera_video.app.uploads import AppLimits, Uploads
from hiera_video.errors import ConfigError, DecodeError, HieraVideoError

FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
MONO_FONTS = ["ui-monospace", "Menlo", "Consolas", "monospace"]
MAX_QUEUE = 8
"""Questions that may wait; later ones are refused."""
CAMERA = {"video": {"width": {"ideal": 640}, "height": {"ideal": 480}}}
"""Size of the webcam's pictures: models see smaller ones, and browsers are slow at larger ones."""
MIN_RECORDED = 0.5
"""Seconds of the shortest recording that is answered."""
NOT_RECORDED = ("empty", "container", "no_video", "no_frames", "truncated")
"""Reasons for which a recording without pictures is unreadable."""


def make_input(uploads: Uploads) -> gr.Video:
    """Return a video input that accepts uploads and examples alone, and hands over their path.

    gradio's own would run FFmpeg on an upload, and fetch a URL that stands in place of its path.
    """
    video = gr.Video(
        sources=["upload", "webcam"],
        include_audio=False,
        webcam_options=gr.WebcamOptions(constraints=CAMERA),
        label="video",
        height=320,
        elem_id="video",
    )

    def check(path: str) -> str:
        try:
            return str(uploads.check(path))
        except HieraVideoError as error:
            raise gr.Error(html.text_of(str(error)), print_exception=False) from error

    async def move(url_or_file_path: Any) -> str | None:
        return None if url_or_file_path is None else check(str(url_or_file_path))

    def preprocess(payload: FileData | None) -> str | None:
        return None if payload is None else check(payload.path)

    def postprocess(value: str | None) -> FileData | None:
        return None if value is None else FileData(path=check(value))

    # of this input alone: gradio writes a stub file beside the module of a subclass
    video.async_move_resource_to_block_cache = move  # type: ignore[method-assign]
    video.preprocess = preprocess
    video.postprocess = postprocess
    return video


class Actions:
    """What events of the page call; each returns new contents of the page's parts, by part.

    Args:
        analyser: Answers questions about videos.
        uploads: Folder of the uploads and examples.
        examples: Videos of that folder to pick from.
    """

    def __init__(self, analyser: Analyser, uploads: Uploads, examples: Sequence[Path]) -> None:
        self._analyser, self._uploads, self._examples = analyser, uploads, list(examples)

    def example(self, place: int, ratio: float) -> list[Any]:
        """Show an example and its answer."""
        path = self._examples[place]
        return [str(path), *self.upload(str(path), ratio)]

    def upload(self, path: str | None, ratio: float, *, is_recording: bool = False) -> list[Any]:
        """Answer for an upload and delete it: contents of the parts that `make_page` lists."""
        if path is None:
            return _parts(None, html.note(INVITATION))
        limits = self._uploads.limits
        try:
            analysis = self._analyser.analyse(Path(path))
            if is_recording and analysis.video.duration_seconds < MIN_RECORDED:
                raise ConfigError(TOO_SHORT)
            return self._answer(analysis, ratio)
        except HieraVideoError as error:
            words = explain_error(error, path, limits, is_recording=is_recording)
            return _parts(None, html.failure(words))
        finally:
            self._uploads.remove(Path(path))
            self._uploads.sweep()

    def record(self, path: str | None, ratio: float) -> list[Any]:
        """Answer for a recording of the webcam and delete it."""
        return self.upload(path, ratio, is_recording=True)

    def _answer(self, analysis: Analysis, ratio: float) -> list[Any]:
        choices = [(analysis.names[index], index) for index in analysis.top]
        return _parts(
            analysis,
            html.answer(analysis),
            timeline=html.timeline(analysis),
            target=gr.Radio(choices, value=analysis.top[0]),
            evidence=self.evidence(analysis, analysis.top[0]),
            reconstruction=self.reconstruct(analysis, ratio),
            near=html.near(analysis),
        )

    def ratios(self) -> tuple[float, float, float, float]:
        """Return lowest, highest, step and usual value of the share that is hidden."""
        mae = self._analyser.autoencoder
        if mae is None:
            return 0.0, 1.0, 0.1, 0.5
        step = 1 / min(mae.config.num_units // mae.mask_group_size, 20)
        steps = round(1 / step)
        usual = min(max(round(mae.mae.mask_ratio * steps), 1), steps - 1)
        return step, 1 - step, step, usual * step

    def evidence(self, analysis: Analysis | None, target: int | None) -> str:
        """Return the evidence for a class, and where the model attends."""
        if analysis is None or target is None:
            return ""
        try:
            found = self._analyser.explain(analysis, target, "evidence")
            rollout = self._analyser.explain(analysis, target, "rollout")
        except HieraVideoError as error:  # a model of another kind
            return html.failure(str(error))
        frames, evidence = explanation_strips(found)
        _, attention = explanation_strips(rollout)
        start, end = found.clip_seconds or (0.0, 0.0)
        grid = "×".join(map(str, found.maps.shape))
        return html.strips(
            [
                (f"{start:.1f}–{end:.1f} s", frames),
                (f"evidence for {found.label}: red above the clip's mean, blue below", evidence),
                ("attention of all classes, an approximation (rollout)", attention),
            ],
            f"The {grid} parts of the evidence and a constant sum to the logit, {found.logit:.2f}.",
        )

    def reconstruct(self, analysis: Analysis | None, ratio: float) -> str:
        """Return the reconstruction of the middle clip; nothing without an autoencoder."""
        if analysis is None or self._analyser.autoencoder is None:
            return ""
        try:
            sheet = self._analyser.reconstruct(analysis, ratio)
        except HieraVideoError as error:
            return html.failure(str(error))
        return html.strips(
            [("original, visible, reconstructed", sheet)],
            "Only the visible parts reach the encoder; the decoder fills in the rest.",
        )


INVITATION = "Upload a video, record one, or pick an example."
TOO_SHORT = "the recording is shorter than half a second; record two seconds or more"


def _parts(
    analysis: Analysis | None,
    answer: str,
    *,
    timeline: str = "",
    target: Any = None,
    evidence: str = "",
    reconstruction: str = "",
    near: str = "",
) -> list[Any]:
    """Return contents in the order of the parts in `make_page`."""
    return [
        analysis,
        answer,
        timeline,
        gr.Column(visible=bool(evidence)),
        target or gr.skip(),
        evidence,
        gr.Column(visible=bool(reconstruction)),
        reconstruction,
        near,
    ]


def explain_error(
    error: HieraVideoError, path: str, limits: AppLimits, *, is_recording: bool = False
) -> str:
    """Return an error in words for the page's user, without the place of the upload."""
    if is_recording and isinstance(error, DecodeError) and error.reason in NOT_RECORDED:
        return TOO_SHORT
    if isinstance(error, DecodeError) and error.reason == "hung":
        return f"the video takes more than {limits.read_seconds:g} s to decode; cut or compress it"
    if isinstance(error, DecodeError) and error.reason == "crashed":
        return "the decoder crashes at this video; convert it to H.264 in MP4"
    return str(error).replace(path, "the video")


def make_page(
    analyser: Analyser, uploads: Uploads, examples: Sequence[Path], title: str
) -> gr.Blocks:
    """Return the page.

    Args:
        analyser: Answers questions about videos.
        uploads: Folder of the uploads and examples.
        examples: Videos of that folder to pick from.
        title: Heading of the page.
    """
    actions = Actions(analyser, uploads, examples)
    limits = uploads.limits
    page = gr.Blocks(title=title, analytics_enabled=False)
    with page:
        gr.HTML(f"<h1>{html.text_of(title)}</h1>")
        state = gr.State(None)
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                video = make_input(uploads)
                picks = gr.Dataset(
                    components=[video],
                    samples=[[str(path)] for path in examples],
                    type="index",
                    label="examples",
                    visible=bool(examples),
                    samples_per_page=len(examples) or 1,
                    elem_id="examples",
                )
                gr.HTML(
                    html.note(
                        f"Up to {limits.max_mb:g} MB and {limits.max_seconds:g} s. Nothing leaves "
                        "this machine, and an upload is deleted once it is answered."
                    )
                )
            with gr.Column(scale=3, min_width=320):
                answer = gr.HTML(html.note(INVITATION), elem_id="answer")
        timeline = gr.HTML(elem_id="timeline")
        with gr.Column(visible=False) as evidence_group:
            gr.HTML(html.heading("Evidence"))
            target = gr.Radio([], label="evidence for", elem_id="target")
            evidence = gr.HTML(elem_id="evidence")
        with gr.Column(visible=False) as mae_group:
            gr.HTML(html.heading("Reconstruction"))
            low, high, step, usual = actions.ratios()
            ratio = gr.Slider(
                low, high, value=usual, step=step, label="hidden share of the clip", elem_id="ratio"
            )
            reconstruction = gr.HTML(elem_id="reconstruction")
        near = gr.HTML(elem_id="near")
        parts = [state, answer, timeline, evidence_group, target, evidence]
        parts += [mae_group, reconstruction, near]
        options: Any = {
            "concurrency_id": "model",
            "concurrency_limit": 1,
            "api_visibility": "private",
        }
        video.upload(actions.upload, [video, ratio], parts, **options)
        video.stop_recording(actions.record, [video, ratio], parts, **options)
        picks.click(actions.example, [picks, ratio], [video, *parts], **options)
        target.input(actions.evidence, [state, target], evidence, **options)
        ratio.release(actions.reconstruct, [state, ratio], reconstruction, **options)
    page.queue(max_size=MAX_QUEUE)
    return page
